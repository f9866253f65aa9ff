//! Runs: consecutive effects that one statement can apply.
//!
//! Place in the journey: between a record and [`super::statements`]. A statement for each effect would spend its time on
//! the way to Postgres and back.
//!
//! # Invariants
//! - Effects of a run come one after the other, are of one user, table and operation, and set the same columns: so the
//!   order of statements is the order of effects, and constraints, triggers and cascades see the same rows as if each had
//!   come alone, up to the rows of the run itself.
//! - No row comes twice in a run.

use std::collections::HashSet;

use synchrotron_core::model::{Patch, RowId};

use super::catalogue::Table;
use super::statements::{Statement, Taken, Targets, statement_of};
use super::{MaterializeError, Numbered, Refused};

/// One effect and the record that it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'b> {
    pub(super) record: Numbered<'b>,
    pub(super) patch: &'b Patch,
}

impl Step<'_> {
    /// Says which record, and which row of it, is complained about.
    pub(super) fn blame(self, error: MaterializeError) -> Refused {
        error.at(self.patch).of(self.record.upload.id)
    }
}

/// What a run is made of.
pub(super) trait HasPatch<'b>: Copy {
    /// The effect.
    fn patch(self) -> &'b Patch;
}

impl<'b> HasPatch<'b> for Step<'b> {
    fn patch(self) -> &'b Patch {
        self.patch
    }
}

impl<'b> HasPatch<'b> for &'b Patch {
    fn patch(self) -> &'b Patch {
        self
    }
}

/// Effects that one statement applies; never empty.
#[derive(Debug)]
pub(super) struct Run<'b, S = Step<'b>> {
    pub(super) steps: Vec<S>,
    rows: HashSet<&'b RowId>,
}

impl<'b, S: HasPatch<'b>> Run<'b, S> {
    /// A run of one effect.
    pub(super) fn of(step: S) -> Self {
        Self { steps: vec![step], rows: HashSet::from([&step.patch().row_id]) }
    }

    /// The first of its effects.
    pub(super) fn first(&self) -> &'b Patch {
        self.steps[0].patch()
    }

    /// Takes one more effect, or gives it back if the run ends before it.
    pub(super) fn extend(&mut self, step: S, max: usize) -> Result<(), S> {
        let fits = self.steps.len() < max && alike(self.first(), step.patch());
        if fits && self.rows.insert(&step.patch().row_id) {
            self.steps.push(step);
            Ok(())
        } else {
            Err(step)
        }
    }

    /// The statement that applies it; nothing of a correction that does nothing.
    pub(super) fn statement(&self, table: &Table, taken: Taken) -> Option<Statement> {
        let effects =
            self.steps.iter().map(|step| step.patch()).map(|patch| (&patch.row_id, &patch.audience_key, &patch.effect));
        statement_of(table, self.first().effect.operation(), Targets::alike(table, effects), taken)
    }
}

fn alike(a: &Patch, b: &Patch) -> bool {
    fn names(patch: &Patch) -> impl Iterator<Item = &String> {
        patch.effect.columns().into_iter().flat_map(|columns| columns.keys())
    }
    a.table == b.table && a.effect.operation() == b.effect.operation() && names(a).eq(names(b))
}
