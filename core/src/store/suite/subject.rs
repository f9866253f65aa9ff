//! What the rules do to a store: actions on rows, records for the log, and a look at everything.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{client, user};
use crate::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, Columns, Effect, FromValue, Hlc, Patch, RecordBody,
    ReplayKey, RowId, RowKey, ServerIngestId, TableName, Value,
};
use crate::store::{SqlError, Store, StoreTxn, StoredRecord};

/// A row with its audience.
pub(super) type Rows = BTreeMap<RowKey, (AudienceKey, Columns)>;

/// One committed transaction.
pub(super) fn step<T>(store: &mut impl Store, work: impl FnOnce(&dyn StoreTxn) -> T) -> T {
    let txn = store.begin().expect("begins");
    let done = work(&*txn);
    txn.commit().expect("commits");
    done
}

pub(super) fn action(n: u128) -> ActionId {
    ActionId::from_uuid(Uuid::from_u128(n))
}

/// One statement with its parameters.
pub(super) type Statement<'a> = (&'a str, &'a [Value]);

/// Runs statements as an action, up to the first that fails.
pub(super) fn try_act(txn: &dyn StoreTxn, id: ActionId, statements: &[Statement<'_>]) -> Result<(), SqlError> {
    txn.begin_action(id).expect("an action begins");
    let ran = statements.iter().try_for_each(|(sql, values)| txn.as_sql().execute(sql, values).map(drop));
    txn.end_action();
    ran
}

/// Runs statements as an action; returns all that the action did so far.
pub(super) fn act(txn: &dyn StoreTxn, id: ActionId, statements: &[&str]) -> Vec<Patch> {
    let statements: Vec<Statement<'_>> = statements.iter().map(|sql| (*sql, &[][..])).collect();
    try_act(txn, id, &statements).expect("every statement runs");
    txn.captured(id).expect("captured")
}

/// Every row of every tracked table, bit by bit.
pub(super) fn rows(txn: &dyn StoreTxn) -> Rows {
    let mut all = Rows::new();
    for (table, columns) in [
        ("things", "id, audience_key, number, ratio, label, flag, document, data"),
        ("parts", "id, audience_key, thing, name"),
        ("notes", "id, audience_key, owner, body"),
    ] {
        for row in txn.as_sql().query(&format!("SELECT {columns} FROM {table}"), &[]).expect("reads") {
            let mut columns = row.columns();
            let mut take = |name: &str| String::from_value(columns.remove(name).expect("selected")).expect("text");
            let (id, key) = (take("id"), take("audience_key"));
            all.insert(self::row(table, &id), (audience(&key), columns));
        }
    }
    all
}

pub(super) fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("BUG: rules use good keys")
}

pub(super) fn row(table: &str, id: &str) -> RowKey {
    RowKey {
        table: TableName::new(table).expect("BUG: rules use good names"),
        row_id: RowId::new(id).expect("BUG: rules use good ids"),
    }
}

/// An effect on a row of audience `p`.
pub(super) fn patch(sequence: u32, table: &str, id: &str, effect: Effect) -> Patch {
    let RowKey { table, row_id } = row(table, id);
    Patch { sequence, table, row_id, audience_key: audience("p"), effect }
}

pub(super) fn columns<const N: usize>(pairs: [(&str, Value); N]) -> Columns {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// A row of `things` that has nothing but a label.
pub(super) fn thing(label: &str) -> Columns {
    columns([
        ("data", Value::Null),
        ("document", Value::Null),
        ("flag", Value::Null),
        ("label", label.into()),
        ("number", Value::Null),
        ("ratio", Value::Null),
    ])
}

/// A pending action of this device.
pub(super) fn pending(n: u128, at_ms: i64, rows: Vec<Patch>) -> StoredRecord {
    let args = ActionArgs::from_encoded(vec![0x80]).expect("BUG: an empty map");
    let tag = ActionTag::new("suite_v1").expect("BUG: a good tag");
    stored(n, at_ms, RecordBody::Action { tag, args }, rows)
}

/// A correction of this device that is not sent yet.
pub(super) fn correction(n: u128, at_ms: i64, amends: ReplayKey) -> StoredRecord {
    stored(n, at_ms, RecordBody::Correction { amends, reason: None }, Vec::new())
}

/// The record as the server has accepted it.
pub(super) fn accepted(mut record: StoredRecord, number: i64) -> StoredRecord {
    record.record.server_ingest_id = Some(ServerIngestId::new(number));
    record
}

fn stored(n: u128, at_ms: i64, body: RecordBody, rows: Vec<Patch>) -> StoredRecord {
    let record = ActionRecord {
        id: action(n),
        clock: Hlc::at_millis(at_ms),
        client_id: client(),
        user_id: user(),
        server_ingest_id: None,
        trace_parent: None,
        body,
    };
    let row_count = u32::try_from(rows.len()).expect("BUG: few rows");
    StoredRecord { record, rows, row_count, executed: None, faithful: None }
}

pub(super) fn put(txn: &dyn StoreTxn, records: &[StoredRecord]) {
    for record in records {
        txn.put_record(record).expect("is put");
    }
}

/// The ids of the log in its own order, actions and corrections of one position together.
pub(super) fn walk(txn: &dyn StoreTxn) -> Vec<ActionId> {
    let start =
        ReplayKey { clock: Hlc::ZERO, client_id: crate::model::ClientId::from_uuid(Uuid::nil()), action_id: action(0) };
    let mut ids = Vec::new();
    let mut next = txn.at_or_after(start).expect("reads");
    while let Some(logged) = next {
        ids.extend(logged.action.iter().chain(&logged.corrections).map(|stored| stored.record.id));
        next = txn.after(logged.position).expect("reads");
    }
    ids
}

pub(super) fn ids(records: &[StoredRecord]) -> Vec<ActionId> {
    records.iter().map(|stored| stored.record.id).collect()
}
