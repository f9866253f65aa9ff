//! The promises. After every step: nothing lost, rows right, no leak. At rest: equal to the server, rules, fates, undo.
//!
//! The truth is [`oracle`]: the plainest fold of the server's log. It shares no code with the engine or the server.

mod oracle;
mod promises;
mod rest;
mod undo;

use std::collections::BTreeMap;

use synchrotron_core::model::{ActionId, ActionRecord, RecordBody};
use synchrotron_core::store::Fate;
use synchrotron_core::wire::LogRecord;

pub(crate) use self::promises::device;
pub(crate) use self::rest::{at_rest, rest_rules, rules, server};
pub(crate) use self::undo::undo;
use crate::rows::Rows;

/// What became of each executed action of a device, as its engine says.
pub(crate) type Fates = BTreeMap<ActionId, Option<Fate>>;

/// The server when nothing moves any more.
#[derive(Debug, Clone, Copy)]
pub struct AtRest<'a> {
    pub(crate) rows: &'a Rows,
    pub(crate) log: &'a [LogRecord],
}

impl<'a> AtRest<'a> {
    /// The server's rows.
    #[must_use]
    pub fn rows(&self) -> &'a Rows {
        self.rows
    }

    /// All accepted records, in order of arrival, corrections included.
    #[must_use]
    pub fn log(&self) -> &'a [LogRecord] {
        self.log
    }

    /// All accepted actions in the one order of replay.
    #[must_use]
    pub fn actions(&self) -> Vec<&'a ActionRecord> {
        let mut actions: Vec<_> = self.log.iter().map(|logged| &logged.record).collect();
        actions.retain(|record| matches!(record.body, RecordBody::Action { .. }));
        actions.sort_by_key(|record| record.position());
        actions
    }
}
