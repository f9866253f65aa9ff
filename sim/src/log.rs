//! The event log of a run: text, and the same bytes for the same plan.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::rows::Rows;

/// What happened, line by line.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    text: String,
}

impl EventLog {
    pub(crate) fn line(&mut self, time_ms: i64, what: &str) {
        writeln!(self.text, "{time_ms:>9} {what}").expect("BUG: a string takes all");
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// A few characters that tell whether rows are the same.
pub(crate) fn fingerprint(rows: &Rows) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{rows:?}").hash(&mut hasher);
    format!("{}#{:08x}", rows.len(), hasher.finish() & 0xffff_ffff)
}
