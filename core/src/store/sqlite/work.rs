//! Promise 5: what a step costs does not grow with the history beneath it. SQLite counts its own work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::trace::{TraceEvent, TraceEventCodes};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Durability, SqliteSettings, SqliteStore};
use crate::action::{Action, ActionError, Context, Registry, Table};
use crate::engine::{Engine, ExecuteInput, Limits};
use crate::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursor, Cursors, Effect,
    Epoch, Hlc, Patch, RecordBody, RowId, ServerIngestId, SliceTag, TableName, UserId,
};
use crate::params;
use crate::wire::{AudienceHead, FetchPage, LogRecord, Outcome, Session};

#[derive(Serialize, Deserialize)]
struct Put {
    row: String,
    value: i64,
}

impl Action for Put {
    const TAG: &'static str = "put_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let sql = "INSERT INTO t (id, v, audience_key) VALUES (?1, ?2, 'a') ON CONFLICT (id) DO UPDATE SET v = ?2";
        ctx.execute(sql, params![&self.row, self.value]).map(drop)
    }
}

/// How many statements have run, and how often SQLite's machine came round: once a statement, and once a row it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Work {
    statements: u64,
    rounds: u64,
}

/// Counts the work of one connection.
#[derive(Debug, Default)]
struct Meter {
    statements: AtomicU64,
    rounds: AtomicU64,
}

impl Meter {
    fn read(&self) -> Work {
        Work { statements: self.statements.load(Ordering::SeqCst), rounds: self.rounds.load(Ordering::SeqCst) }
    }
}

fn audience() -> AudienceKey {
    AudienceKey::new("a").expect("ok")
}

/// An action of another device, `number`th to arrive, executed at `at_ms`.
fn remote(number: i64, at_ms: i64) -> LogRecord {
    let id = ActionId::from_uuid(Uuid::from_u128(u128::from(number.cast_unsigned())));
    let row = format!("r{}", number % 50);
    let args = rmp_serde::to_vec_named(&Put { row: row.clone(), value: number }).expect("encodes");
    let value = Columns::from([("v".to_owned(), number.into())]);
    LogRecord {
        record: ActionRecord {
            id,
            clock: Hlc::at_millis(at_ms),
            client_id: ClientId::from_uuid(Uuid::from_u128(2)),
            user_id: UserId::new("bob").expect("ok"),
            server_ingest_id: Some(ServerIngestId::new(number)),
            trace_parent: None,
            body: RecordBody::Action {
                tag: ActionTag::new(Put::TAG).expect("ok"),
                args: ActionArgs::from_encoded(args).expect("a map"),
            },
        },
        row_count: 1,
        slices: vec![SliceTag::of(id, &audience())],
        rows: vec![Patch {
            sequence: 0,
            table: TableName::new("t").expect("ok"),
            row_id: RowId::new(row).expect("ok"),
            audience_key: audience(),
            effect: if number <= 50 { Effect::Insert(value) } else { Effect::Update(value) },
        }],
    }
}

fn page(records: Vec<LogRecord>) -> FetchPage {
    let through = records.last().and_then(|logged| logged.record.server_ingest_id).expect("not empty");
    let cursors = Cursors::from([(audience(), Cursor::through(through))]);
    FetchPage { epoch: Epoch::from_uuid(Uuid::from_u128(1)), records, cursors, more: false }
}

/// A device with this much history behind it, and what counts its work.
fn device(folder: &std::path::Path, history: i64) -> (Engine<SqliteStore>, Arc<Meter>) {
    let tables = vec![Table::new("t").given_ids()];
    let mut store = SqliteStore::open(&SqliteSettings {
        path: folder.join(format!("{history}.db")),
        schema: "CREATE TABLE t (id TEXT PRIMARY KEY, v INTEGER, audience_key TEXT NOT NULL)".to_owned(),
        tables: tables.clone(),
        user_id: UserId::new("alice").expect("ok"),
        new_client_id: ClientId::from_uuid(Uuid::from_u128(1)),
        durability: Durability::Normal,
        busy_timeout: Duration::from_secs(1),
    })
    .expect("opens");
    let meter = Arc::new(Meter::default());
    let noting = Arc::clone(&meter);
    let note = move |_: TraceEvent<'_>| {
        noting.statements.fetch_add(1, Ordering::SeqCst);
    };
    store.connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note)).expect("traces");
    let noting = Arc::clone(&meter);
    let go_on = move || {
        noting.rounds.fetch_add(1, Ordering::SeqCst);
        false
    };
    store.connection.progress_handler(1, Some(go_on)).expect("counts");
    let mut registry = Registry::default();
    registry.register::<Put>().expect("new");
    let mut engine = Engine::new(store, registry, &tables, Limits::default());
    engine.begin_session(&session(), 0).expect("begins");
    engine.integrate_page(page((1..=history).map(|number| remote(number, number)).collect())).expect("integrates");
    (engine, meter)
}

fn session() -> Session {
    let at_start = AudienceHead { audience_key: audience(), head: Cursor::START, retained: Cursor::START };
    Session {
        user_id: UserId::new("alice").expect("ok"),
        epoch: Epoch::from_uuid(Uuid::from_u128(1)),
        server_time_ms: 0,
        audiences: vec![at_start],
    }
}

/// One new action arrives; then one that is late beneath three; then one is executed, uploaded and confirmed.
fn a_days_work(engine: &mut Engine<SqliteStore>, history: i64) {
    engine.fetch_request().expect("looks");
    engine.integrate_page(page(vec![remote(history + 1, history + 1)])).expect("integrates");
    engine.integrate_page(page(vec![remote(history + 2, history - 2)])).expect("integrates what is late");
    let action_id = ActionId::from_uuid(Uuid::from_u128(0xe));
    let input = ExecuteInput::new(action_id, history + 10);
    engine.execute(&Put { row: "r7".into(), value: 0 }, input).expect("executes");
    let sent = engine.next_batch(BatchId::from_uuid(Uuid::from_u128(1))).expect("reads").expect("pending");
    let ids = BTreeMap::from([(action_id, ServerIngestId::new(history + 3))]);
    engine.conclude(&sent, &Outcome::Accepted { ids }, history + 10).expect("concludes");
}

#[test]
fn u21_a_days_work_costs_the_same_after_any_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let [short, long] = [150, 1_500].map(|history| {
        let (mut engine, meter) = device(folder.path(), history);
        let before = meter.read();
        a_days_work(&mut engine, history);
        let after = meter.read();
        Work { statements: after.statements - before.statements, rounds: after.rounds - before.rounds }
    });
    assert!(short.statements > 20, "the meter counts: {short:?}");
    assert_eq!(short.statements, long.statements, "{short:?} {long:?}");
    assert!(long.rounds <= short.rounds + short.rounds / 20, "ten times the history: {short:?} {long:?}");
}
