//! All effects of one upload as a script, made before its records have numbers.
//!
//! Place in the journey: for an upload on the fast path of [`ingest`](crate::ingest), whose statement runs it as the last
//! thing that it does.
//!
//! # Invariants
//! - It stands for nothing that [`apply`](super::apply) would do otherwise: every effect is the newest of its row, matches a
//!   row of its audience, and waits for no constraint. Of an upload of which that may not be so there is none; whatever shows
//!   only in Postgres fails there, and is done again at a slower pace.

use std::collections::BTreeSet;

use sqlx_core::query::Query;
use sqlx_postgres::{PgArguments, Postgres};
use synchrotron_core::model::{Effect, Patch, RowKey, UserId};
use synchrotron_core::wire::UploadRecord;

use super::catalogue::Catalogue;
use super::runs::Run;
use super::script::{Parameters, SCRIPT_MAX};
use super::statements::Taken;
use super::{RUN_MAX, images};

/// An upload's effects.
#[derive(Debug)]
pub(crate) struct WholeScript<'b> {
    parameters: Parameters<'b>,
    /// By effect, its run, and the row that it is to match.
    matched: Vec<(i32, &'b Patch)>,
    /// The rows whose first effects here are no INSERT: the log must know them.
    pub(crate) begun: BTreeSet<RowKey>,
    /// Whether several of its effects are of one row.
    repeats: bool,
}

impl<'b> WholeScript<'b> {
    /// Of records in their order.
    pub(crate) fn of(catalogue: &Catalogue, user_id: &'b UserId, records: &[&'b UploadRecord]) -> Option<Self> {
        let effects = || records.iter().flat_map(|record| &record.rows);
        let several = records.len() > 1;
        // An action's constraints hold when it ends; here, they would be asked when the last one does.
        let waits = |patch: &Patch| catalogue.table(&patch.table).is_none_or(|table| table.deferrable);
        if effects().count() > SCRIPT_MAX || several && effects().any(waits) {
            return None;
        }
        let mut script =
            Self { parameters: Parameters::default(), matched: Vec::new(), begun: BTreeSet::new(), repeats: false };
        let mut rows = BTreeSet::new();
        for patch in effects() {
            if !rows.insert(patch.row_key()) {
                script.repeats = true;
            } else if !matches!(patch.effect, Effect::Insert(_)) {
                script.begun.insert(patch.row_key());
            }
        }
        // Of several, one is due to leave images sooner or later: then all are done again, and all leave some.
        if several && (script.repeats || !script.begun.is_empty()) {
            return None;
        }
        for (number, run) in (1..).zip(runs_of(effects())) {
            let statement = run.statement(catalogue.table(&run.first().table)?, Taken::Fails)?;
            script.parameters.add(user_id, statement);
            script.matched.extend(run.steps.iter().map(|patch| (number, *patch)));
        }
        Some(script)
    }

    /// Binds whether it may leave images, and how often that is; then the script, and what it is to match.
    pub(crate) fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        let parameters = &self.parameters;
        query
            .bind(self.repeats)
            .bind(images::EVERY)
            .bind(&parameters.statements)
            .bind(&parameters.chosen)
            .bind(&parameters.widths)
            .bind(&parameters.arguments)
            .bind(self.matched.iter().map(|(run, _)| *run).collect::<Vec<_>>())
            .bind(self.matched.iter().map(|(_, patch)| patch.row_id.as_str()).collect::<Vec<_>>())
            .bind(self.matched.iter().map(|(_, patch)| patch.audience_key.as_str()).collect::<Vec<_>>())
    }
}

/// As few as the order of effects allows.
fn runs_of<'b>(effects: impl Iterator<Item = &'b Patch>) -> Vec<Run<'b, &'b Patch>> {
    let mut runs: Vec<Run<'b, &'b Patch>> = Vec::new();
    for patch in effects {
        let rest = runs.last_mut().map_or(Err(patch), |run| run.extend(patch, RUN_MAX));
        runs.extend(rest.err().map(Run::of));
    }
    runs
}
