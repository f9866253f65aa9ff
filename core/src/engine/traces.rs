//! Which traced actions a step has integrated.
//!
//! Place in the journey: its last hop, where an operator sees the trace end that began with another device's `execute`.
//! Told when the step is committed: before, nothing has happened.

use crate::model::{ActionId, TraceParent};
use crate::store::StoredRecord;

/// The traced actions of a step; none if nobody listens.
pub(super) struct Traces(Vec<(ActionId, TraceParent)>);

impl Traces {
    pub(super) fn of(records: &[StoredRecord]) -> Self {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return Self(Vec::new());
        }
        let traced = |stored: &StoredRecord| Some((stored.record.id, stored.record.trace_parent?));
        Self(records.iter().filter_map(traced).collect())
    }

    /// Tells whoever listens.
    pub(super) fn tell(&self) {
        for (action_id, trace_parent) in &self.0 {
            tracing::debug!(%action_id, %trace_parent, "integrated");
        }
    }
}
