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

use synchrotron_core::model::{Operation, Patch, RowId};

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

/// Effects that one statement applies; never empty.
#[derive(Debug)]
pub(super) struct Run<'b> {
    pub(super) steps: Vec<Step<'b>>,
    rows: HashSet<&'b RowId>,
}

impl<'b> Run<'b> {
    /// A run of one effect.
    pub(super) fn of(step: Step<'b>) -> Self {
        Self { steps: vec![step], rows: HashSet::from([&step.patch.row_id]) }
    }

    pub(super) fn operation(&self) -> Operation {
        self.steps[0].patch.effect.operation()
    }

    /// Takes one more effect, or gives it back if the run ends before it.
    pub(super) fn extend(&mut self, step: Step<'b>, max: usize) -> Result<(), Step<'b>> {
        let fits = self.steps.len() < max && alike(self.steps[0].patch, step.patch);
        if fits && self.rows.insert(&step.patch.row_id) {
            self.steps.push(step);
            Ok(())
        } else {
            Err(step)
        }
    }
}

fn alike(a: &Patch, b: &Patch) -> bool {
    fn names(patch: &Patch) -> impl Iterator<Item = &String> {
        patch.effect.columns().into_iter().flat_map(|columns| columns.keys())
    }
    a.table == b.table && a.effect.operation() == b.effect.operation() && names(a).eq(names(b))
}
