//! `execute`: runs a local action and records it, in one transaction.
//!
//! Place in the journey: first hop. Takes an action, leaves its record, its patch and its undo.

use super::{Committed, Engine, ExecuteError, Limits, fate, purity};
use crate::action::{Action, ActionError, Context, Executing, run_caught};
use crate::model::{ActionArgs, ActionId, ActionRecord, ActionTag, Patch, RecordBody, TraceParent};
use crate::store::{Store, StoreError, StoreTxn, StoredRecord};

/// What an execution takes from the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecuteInput {
    /// A new UUIDv7.
    pub action_id: ActionId,
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: i64,
    /// The trace that the action belongs to.
    pub trace_parent: Option<TraceParent>,
}

impl ExecuteInput {
    /// For an action of no trace.
    #[must_use]
    pub const fn new(action_id: ActionId, now_ms: i64) -> Self {
        Self { action_id, now_ms, trace_parent: None }
    }
}

/// An action was executed: its output, and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed<T> {
    /// What the action returned.
    pub output: T,
    /// What it changed.
    pub committed: Committed,
}

impl<S: Store> Engine<S> {
    /// Runs an action on the local rows and keeps it as pending.
    ///
    /// # Errors
    /// [`ExecuteError`]; nothing of the action stays.
    pub fn execute<A: Action>(&mut self, action: &A, input: ExecuteInput) -> Result<Executed<A::Output>, ExecuteError> {
        let body = self.body(action)?;
        self.perform(body, input, |ctx| run_caught(action, ctx), |_| Ok(()))
    }

    /// Runs and records what `body` says, and does something more in the same transaction.
    pub(super) fn perform<T>(
        &mut self,
        body: RecordBody,
        input: ExecuteInput,
        run: impl Fn(&mut Context<'_>) -> Result<T, ActionError>,
        also: impl FnOnce(&dyn StoreTxn) -> Result<(), StoreError>,
    ) -> Result<Executed<T>, ExecuteError> {
        let txn = self.store.begin()?;
        let user_id = txn.user_id()?.ok_or(ExecuteError::SignedOut)?;
        let record = ActionRecord {
            id: input.action_id,
            clock: txn.clock()?.tick(input.now_ms.saturating_add(txn.clock_offset_ms()?)),
            client_id: txn.client_id()?,
            user_id,
            server_ingest_id: None,
            body,
            trace_parent: input.trace_parent,
        };
        let executing = Executing {
            action_id: record.id,
            client_id: record.client_id,
            user_id: record.user_id.clone(),
            clock: record.clock,
        };
        let run = || -> Result<purity::Tried<T>, StoreError> {
            txn.begin_action(record.id)?;
            let mut context = Context::new(txn.as_sql(), &self.tables, executing.clone());
            let output = run(&mut context);
            txn.end_action();
            context.finish()?;
            Ok(match output {
                Ok(output) => Ok((output, txn.captured(record.id)?)),
                Err(error) => Err(error),
            })
        };
        let ran = if self.check_purity { purity::run_twice(&*txn, &record, run)? } else { run()? };
        let (output, rows) = ran?;
        check(&*txn, &self.limits, &record, &rows)?;
        let committed = Committed { rows: rows.iter().map(Patch::row_key).collect(), ..Committed::default() };
        txn.put_clock(record.clock)?;
        txn.put_record(&StoredRecord {
            executed: Some(fate::digest(&rows)),
            row_count: u32::try_from(rows.len()).expect("BUG: the size check bounds the rows"),
            faithful: None,
            record,
            rows,
        })?;
        also(&*txn)?;
        txn.commit()?;
        Ok(Executed { output, committed })
    }

    fn body<A: Action>(&self, action: &A) -> Result<RecordBody, ExecuteError> {
        let tag = ActionTag::new(A::TAG)?;
        if !self.registry.is_action(&tag) {
            return Err(ExecuteError::Unregistered { tag });
        }
        match rmp_serde::to_vec_named(action).ok().and_then(ActionArgs::from_encoded) {
            Some(args) => Ok(RecordBody::Action { tag, args }),
            None => Err(ExecuteError::ArgumentsNoMap { tag }),
        }
    }
}

/// Refuses here what the server would refuse later: too large, or not the user's to write.
fn check(txn: &dyn StoreTxn, limits: &Limits, record: &ActionRecord, rows: &[Patch]) -> Result<(), ExecuteError> {
    let actual = super::upload::encoded_size(record, rows);
    if actual > limits.action_bytes_max {
        return Err(ExecuteError::TooLarge { max: limits.action_bytes_max, actual });
    }
    // Before the first session the audiences are unknown, and the server decides.
    if txn.epoch()?.is_some() {
        let mine = txn.cursors()?;
        if let Some(foreign) = rows.iter().find(|row| !mine.contains_key(&row.audience_key)) {
            return Err(ExecuteError::ForeignAudience { audience: foreign.audience_key.clone() });
        }
    }
    Ok(())
}
