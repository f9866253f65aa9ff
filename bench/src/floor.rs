//! The floor: plain rusqlite that leaves the same rows as the engine does, by SQL written for this one app.
//!
//! It works on a copy of the same database: same tables, same indices, same history, same pragmas, cached statements. Per
//! action it leaves one record, one patch row, one undo row (by a trigger), the app's row and the moved clock, in one
//! transaction. It encodes the arguments and the patch's columns, as somebody must; the trigger builds the images as JSON,
//! which is what SQL can do by itself. It knows beforehand which columns change, and it checks nothing: not the audience,
//! not the size, not whether the action may be run, not whether a record is here already.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use synchrotron_core::model::{ActionRecord, Columns, Effect, Patch, RecordBody, Value};
use synchrotron_core::store::Durability;
use synchrotron_core::wire::{FetchPage, LogRecord};

use crate::app::{self, AUDIENCE, BODY, Kind, Step};
use crate::error::BenchError;

const STATEMENT_CACHE: usize = 256;
const TRIGGERS: &str = "
    CREATE TRIGGER floor_insert AFTER INSERT ON notes WHEN floor_action() IS NOT NULL BEGIN
        INSERT INTO local_undo (action_id, table_name, row_id, audience_key, operation, image) VALUES
        (floor_action(), 'notes', NEW.id, NEW.audience_key, 'INSERT', CAST(json_array(json_object(), json_object(
            'title', NEW.title, 'body', NEW.body, 'stars', NEW.stars)) AS BLOB));
    END;
    CREATE TRIGGER floor_update AFTER UPDATE OF title ON notes WHEN floor_action() IS NOT NULL BEGIN
        INSERT INTO local_undo (action_id, table_name, row_id, audience_key, operation, image) VALUES
        (floor_action(), 'notes', NEW.id, NEW.audience_key, 'UPDATE', CAST(json_array(
            json_object('title', OLD.title), json_object('title', NEW.title)) AS BLOB));
    END;";

type Running = Arc<Mutex<Option<[u8; 16]>>>;

/// Plain rusqlite on a copy of a device's database.
#[derive(Debug)]
pub(crate) struct Floor {
    connection: Connection,
    /// The action that triggers write undo for; `None` while history is taken back.
    running: Running,
}

impl Floor {
    /// Opens the copy and puts own triggers in the place of the store's.
    pub(crate) fn open(path: &Path, durability: Durability) -> Result<Self, BenchError> {
        let connection = Connection::open(path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let synchronous = match durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON; \
             PRAGMA recursive_triggers = ON; PRAGMA cache_size = -8192;"
        ))?;
        let theirs: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for trigger in theirs {
            connection.execute_batch(&format!("DROP TRIGGER \"{trigger}\""))?;
        }
        let running = Running::default();
        let asked = Arc::clone(&running);
        connection.create_scalar_function("floor_action", 0, FunctionFlags::SQLITE_UTF8, move |_| {
            Ok(*asked.lock().unwrap_or_else(PoisonError::into_inner))
        })?;
        connection.execute_batch(TRIGGERS)?;
        Ok(Self { connection, running })
    }

    /// What `execute` leaves of one action.
    pub(crate) fn execute(&mut self, step: &Step) -> Result<(), BenchError> {
        let txn = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let action_id = *step.action_id.as_uuid().as_bytes();
        let (clock, client_id, user_id): (i64, [u8; 16], String) = txn
            .prepare_cached(
                "UPDATE client_sync_status SET clock = max(clock + 1, ?) RETURNING clock, client_id, user_id",
            )?
            .query_row([step.now_ms << 16], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        txn.prepare_cached(
            "INSERT INTO action_records (id, position_clock, position_client_id, position_action_id, clock, client_id, \
             user_id, tag, args, row_count, executed, newest_through) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
        )?
        .execute(params![
            action_id,
            clock,
            client_id,
            action_id,
            clock,
            client_id,
            user_id,
            step.tag(),
            step.args(),
            // As many bytes as the digest that the engine keeps here.
            action_id,
            i64::MAX,
        ])?;
        write_patch(&txn, action_id, step.note.as_str(), &step.effect())?;
        run(&txn, &self.running, action_id, step)?;
        Ok(txn.commit()?)
    }

    /// What integrating these pages leaves, in one transaction.
    pub(crate) fn integrate(&mut self, pages: &[FetchPage]) -> Result<(), BenchError> {
        let txn = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for record in pages.iter().flat_map(|page| &page.records) {
            accept(&txn, &self.running, record)?;
        }
        advance(&txn, pages)?;
        Ok(txn.commit()?)
    }

    /// What integrating these pages leaves where these own renames are pending: takes them back once, and merges them
    /// with the pages in the one order. In one transaction.
    pub(crate) fn reconcile(&mut self, pending: &[Step], pages: &[FetchPage]) -> Result<(), BenchError> {
        let txn = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(first) = pending.first() {
            rewind(&txn, first)?;
        }
        let mut again = pending.iter().peekable();
        for record in pages.iter().flat_map(|page| &page.records) {
            while let Some(step) = again.next_if(|step| step.now_ms <= record.record.clock.millis()) {
                run_again(&txn, &self.running, step)?;
            }
            accept(&txn, &self.running, record)?;
        }
        again.try_for_each(|step| run_again(&txn, &self.running, step))?;
        advance(&txn, pages)?;
        Ok(txn.commit()?)
    }
}

/// The app's own statement; the trigger writes its undo.
fn run(txn: &Transaction<'_>, running: &Running, action_id: [u8; 16], step: &Step) -> Result<(), BenchError> {
    *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(action_id);
    match step.kind {
        Kind::Add => txn
            .prepare_cached("INSERT INTO notes (id, title, body, stars, audience_key) VALUES (?, ?, ?, 0, ?)")?
            .execute((step.note.as_str(), &step.title, BODY, AUDIENCE))?,
        Kind::Rename => {
            txn.prepare_cached("UPDATE notes SET title = ? WHERE id = ?")?.execute((&step.title, step.note.as_str()))?
        }
    };
    Ok(())
}

/// One patch row.
fn write_patch(txn: &Transaction<'_>, action_id: [u8; 16], row_id: &str, effect: &Effect) -> Result<(), BenchError> {
    txn.prepare_cached(
        "INSERT INTO action_modified_rows (action_id, sequence, table_name, row_id, audience_key, operation, columns) \
         VALUES (?, 0, 'notes', ?, ?, ?, ?)",
    )?
    .execute((action_id, row_id, AUDIENCE, effect.operation().as_str(), effect.columns().map(encoded)))?;
    Ok(())
}

fn encoded(columns: &Columns) -> Vec<u8> {
    rmp_serde::to_vec_named(columns).expect("BUG: values have a MessagePack form")
}

/// One accepted action: its record, its patch, its row.
fn accept(txn: &Transaction<'_>, running: &Running, accepted: &LogRecord) -> Result<(), BenchError> {
    let ActionRecord { id, clock, client_id, user_id, server_ingest_id, body, trace_parent: _ } = &accepted.record;
    let RecordBody::Action { tag, args } = body else { unreachable!("the app's pages hold actions only") };
    let (id, client_id) = (*id.as_uuid().as_bytes(), *client_id.as_uuid().as_bytes());
    let number = server_ingest_id.map(synchrotron_core::model::ServerIngestId::get);
    txn.prepare_cached(
        "INSERT INTO action_records (id, position_clock, position_client_id, position_action_id, clock, client_id, \
         user_id, tag, args, server_ingest_id, row_count, faithful, newest_through) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 1, ?)",
    )?
    .execute(params![
        id,
        clock.packed(),
        client_id,
        id,
        clock.packed(),
        client_id,
        user_id.as_str(),
        tag.as_str(),
        args.as_bytes(),
        number,
        number,
    ])?;
    for row in &accepted.rows {
        write_patch(txn, id, row.row_id.as_str(), &row.effect)?;
        *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        apply(txn, row)?;
    }
    Ok(())
}

/// The app's own statement, with the patch's values.
fn apply(txn: &Transaction<'_>, row: &Patch) -> Result<(), BenchError> {
    let text = |columns: &Columns, name: &str| match columns.get(name) {
        Some(Value::Text(text)) => text.clone(),
        _ => unreachable!("the app's notes have a text {name}"),
    };
    match &row.effect {
        Effect::Insert(columns) => txn
            .prepare_cached("INSERT INTO notes (id, title, body, stars, audience_key) VALUES (?, ?, ?, 0, ?)")?
            .execute((row.row_id.as_str(), text(columns, "title"), text(columns, "body"), AUDIENCE))?,
        Effect::Update(columns) => txn
            .prepare_cached("UPDATE notes SET title = ? WHERE id = ?")?
            .execute((text(columns, "title"), row.row_id.as_str()))?,
        Effect::Delete | Effect::Nothing => unreachable!("the app removes nothing"),
    };
    Ok(())
}

/// Moves the cursor and the clock to the end of the pages.
fn advance(txn: &Transaction<'_>, pages: &[FetchPage]) -> Result<(), BenchError> {
    let Some(last) = pages.last() else { return Ok(()) };
    let clock = last.records.last().map_or(0, |record| record.record.clock.packed());
    txn.prepare_cached("UPDATE client_sync_status SET clock = max(clock, ?)")?.execute([clock])?;
    let cursor = last.cursors.get(&app::audience()).map_or(0, |cursor| cursor.get());
    txn.prepare_cached("UPDATE client_audiences SET cursor = ? WHERE audience_key = ?")?.execute((cursor, AUDIENCE))?;
    Ok(())
}

/// Takes back everything from the first effect of this step on, newest first.
fn rewind(txn: &Transaction<'_>, first: &Step) -> Result<(), BenchError> {
    let first: i64 = txn
        .prepare_cached("SELECT min(seq) FROM local_undo WHERE action_id = ?")?
        .query_row([first.action_id.as_uuid().as_bytes()], |row| row.get(0))?;
    let mut undo = txn.prepare_cached(
        "SELECT row_id, json_extract(CAST(image AS TEXT), '$[0].title') FROM local_undo WHERE seq >= ? \
         ORDER BY seq DESC",
    )?;
    let mut rows = undo.query([first])?;
    let mut update = txn.prepare_cached("UPDATE notes SET title = ? WHERE id = ?")?;
    while let Some(row) = rows.next()? {
        update.execute((row.get::<_, String>(1)?, row.get::<_, String>(0)?))?;
    }
    txn.prepare_cached("DELETE FROM local_undo WHERE seq >= ?")?.execute([first])?;
    Ok(())
}

/// Runs a pending rename again, and keeps what it does now as its patch.
fn run_again(txn: &Transaction<'_>, running: &Running, step: &Step) -> Result<(), BenchError> {
    let action_id = *step.action_id.as_uuid().as_bytes();
    run(txn, running, action_id, step)?;
    let columns = step.effect().columns().map(encoded);
    txn.prepare_cached("UPDATE action_modified_rows SET columns = ? WHERE action_id = ? AND sequence = 0")?
        .execute((columns, action_id))?;
    Ok(())
}
