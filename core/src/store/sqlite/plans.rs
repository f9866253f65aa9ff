//! Promise 5: no statement on the way of an action scans the log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use uuid::Uuid;

use super::{Durability, SqliteSettings, SqliteStore};
use crate::action::Table;
use crate::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, ClientId, Columns, Cursor, Effect, Hlc, Patch,
    RecordBody, RowId, ServerIngestId, TableName, UserId,
};
use crate::store::{Fate, QuarantineKind, Store, StoreTxn, StoredRecord};

fn stored() -> StoredRecord {
    let row = Patch {
        sequence: 0,
        table: TableName::new("t").expect("ok"),
        row_id: RowId::new("r").expect("ok"),
        audience_key: AudienceKey::new("a").expect("ok"),
        effect: Effect::Insert(Columns::new()),
    };
    let record = ActionRecord {
        id: ActionId::from_uuid(Uuid::from_u128(7)),
        clock: Hlc::at_millis(1),
        client_id: ClientId::from_uuid(Uuid::from_u128(1)),
        user_id: UserId::new("alice").expect("ok"),
        server_ingest_id: None,
        trace_parent: None,
        body: RecordBody::Action {
            tag: ActionTag::new("tag").expect("ok"),
            args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
        },
    };
    StoredRecord { record, rows: vec![row], row_count: 1, executed: None, faithful: None }
}

/// Everything that the engine asks of a transaction.
fn walk(txn: &dyn StoreTxn) -> Result<(), crate::store::StoreError> {
    let stored = stored();
    let (id, position) = (stored.record.id, stored.record.position());
    txn.put_clock(txn.clock()?)?;
    txn.put_record(&stored)?;
    txn.apply_patch(id, &stored.rows)?;
    txn.note_unfit(position)?;
    txn.refit_from()?;
    txn.begin_refit()?;
    txn.has_displaced()?;
    txn.put_back(id)?;
    txn.captured(id)?;
    txn.has_effects(id)?;
    txn.remember_newest(position, 1)?;
    txn.newest_before(position)?;
    txn.at_or_after(position)?;
    txn.after(position)?;
    txn.first_later_than(ServerIngestId::new(1), position)?;
    txn.unsent(None, 10)?;
    txn.unsent(Some((position, id)), 10)?;
    txn.first_unsent()?;
    txn.first_position()?;
    txn.last_position()?;
    txn.position_before(position)?;
    txn.last_accepted()?;
    txn.newest_undone()?;
    txn.oldest_undone()?;
    txn.audiences()?;
    txn.generation()?;
    txn.next_generation()?;
    txn.staged()?;
    txn.pending_count()?;
    txn.remember_faithful(id, Some(true))?;
    txn.remove_unsent_corrections(position)?;
    txn.quarantine(id, QuarantineKind::RejectedByServer, "reason")?;
    txn.put_fate(id, position.clock, &Fate::Confirmed)?;
    txn.fates(Some((position.clock, id)), 10)?;
    txn.prune_fates(position.clock)?;
    txn.inspect_quarantined(id)?;
    txn.discard_quarantined(id)?;
    txn.fate(id)?;
    txn.is_refused(id)?;
    txn.refuse_correction(id)?;
    txn.put_cursor(&stored.rows[0].audience_key, Cursor::new(1))?;
    txn.rewind(id)?;
    txn.accept(id, ServerIngestId::new(1))?;
    txn.known(&[id])?;
    txn.record(id)?;
    txn.remove_record(id)
}

#[test]
fn no_statement_scans_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = SqliteStore::open(&SqliteSettings {
        path: folder.path().join("app.db"),
        schema: "CREATE TABLE t (id TEXT PRIMARY KEY, audience_key TEXT NOT NULL)".to_owned(),
        tables: vec![Table::new("t").given_ids()],
        user_id: UserId::new("alice").expect("ok"),
        new_client_id: ClientId::from_uuid(Uuid::from_u128(1)),
        durability: Durability::Normal,
        busy_timeout: Duration::from_secs(1),
    })
    .expect("opens");
    let statements = Arc::new(Mutex::new(BTreeSet::new()));
    let traced = Arc::clone(&statements);
    let note = move |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(statement, _) = event {
            traced.lock().expect("nothing panics with it").insert(statement.sql().to_string());
        }
    };
    store.connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note)).expect("traces");
    walk(&*store.begin().expect("begins")).expect("every statement runs");
    let seen = std::mem::take(&mut *statements.lock().expect("nothing panics with it"));
    assert!(seen.len() > 25, "the walk meets the statements: {}", seen.len());
    for sql in seen.iter().filter(|sql| ["SELECT", "UPDATE", "DELETE"].iter().any(|verb| sql.starts_with(verb))) {
        let mut explain = store.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("explains");
        let parameters = explain.parameter_count();
        let plan: Vec<String> = explain
            .query_map(rusqlite::params_from_iter(std::iter::repeat_n(0, parameters)), |row| row.get("detail"))
            .expect("explains")
            .collect::<Result<_, _>>()
            .expect("explains");
        for step in &plan {
            let scans = step.starts_with("SCAN") && !step.starts_with("SCAN CONSTANT");
            let counts_pending = step.contains("action_records_unsent");
            // In the order of an index, the first row ends it; only what is pending may come before.
            let first_only = sql.ends_with("LIMIT 1") && step.contains(" INDEX action_records_by_position");
            let small = first_only
                || step.contains("local_snapshot")
                || step.contains("local_displaced_rows")
                || step.contains("local_unfit_again")
                || step.contains("client_")
                || step.contains("local_quarantined")
                || counts_pending;
            assert!(!scans || small, "{step} in: {sql}");
        }
    }
}
