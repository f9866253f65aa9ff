//! Cost follows the change: no statement on a request's path reads the log from end to end, as the server or as a user.

use std::sync::{Arc, Mutex};

use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::types::Oid;
use sqlx_postgres::{PgConnection, Postgres};
use tracing::instrument::WithSubscriber;

use crate::{capture, compaction, fetch, fixture, ingest, materialize, observe, pg, slices, snapshot, status, wakeups};

/// 20,000 records in 50 audiences, each row with ten effects.
const FILL: &str = "
    INSERT INTO project_members SELECT 'p' || n, 'u' || n % 10 FROM generate_series(1, 50) n;
    INSERT INTO synchrotron.audience_heads SELECT 'project:p' || n, 20000 FROM generate_series(1, 50) n;
    INSERT INTO synchrotron.action_records (id, server_ingest_id, tag, args, client_id, user_id, clock, row_count,
        position_clock, position_client_id, position_action_id, slices, content_hash, byte_count)
    SELECT lpad(to_hex(n), 32, '0')::uuid, n, 'x', '\\x80', lpad(to_hex(n % 40), 32, '0')::uuid, 'u', n, 1, n,
        lpad(to_hex(n % 40), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid, '\\x90', '\\x00', 100
    FROM generate_series(1, 20000) n;
    INSERT INTO synchrotron.action_modified_rows SELECT r.id, 0, 'seats', 'r' || r.clock % 2000,
        'project:p' || 1 + r.clock % 50, CASE WHEN r.clock < 2000 THEN 'INSERT' ELSE 'UPDATE' END, '\\x80',
        r.server_ingest_id, r.position_clock, r.position_client_id, r.position_action_id
    FROM synchrotron.action_records r;
    INSERT INTO synchrotron.row_images SELECT m.table_name, m.row_id, m.position_clock, m.position_client_id,
        m.position_action_id, m.audience_key, '\\x80' FROM synchrotron.action_modified_rows m;
    INSERT INTO synchrotron.staged_writes (table_name, row_id, audience_key, operation, echo)
    SELECT 'seats', 'r' || n, 'project:p1', 'INSERT', false FROM generate_series(1, 20000) n;
    INSERT INTO synchrotron.action_audiences SELECT 'project:p' || 1 + clock % 50, server_ingest_id, id, client_id
    FROM synchrotron.action_records;
    INSERT INTO synchrotron.compacted_records SELECT gen_random_uuid(), -n, 'u', '\\x00', n FROM generate_series(1, 20000) n;
    INSERT INTO synchrotron.row_images SELECT 'seats', 'gone' || n, n, gen_random_uuid(), gen_random_uuid(),
        NULL, NULL, true
    FROM generate_series(1, 20000) n;
    INSERT INTO synchrotron.outbox (audience_key, prev, through) SELECT 'a', n, n FROM generate_series(1, 20000) n;
    INSERT INTO synchrotron.clients SELECT gen_random_uuid(), 'u' FROM generate_series(1, 20000) n;
    INSERT INTO synchrotron.upload_outcomes SELECT gen_random_uuid(), gen_random_uuid(), 'u', '', ''
    FROM generate_series(1, 20000) n;
    ANALYZE";

const LOG: [&str; 9] = [
    "action_records",
    "action_modified_rows",
    "action_audiences",
    "upload_outcomes",
    "compacted_records",
    "row_images",
    "staged_writes",
    "outbox",
    "clients",
];
const AUDIENCES: &str = "ARRAY['project:p1', 'project:p2', 'project:p3', 'project:p4', 'project:p5']";
const CURSORS: &str = "ARRAY[19000, 19500, 0, 0, 19999]::bigint[]";
const IDS: &str = "ARRAY['00000000-0000-0000-0000-000000000007', '00000000-0000-0000-0000-000000000008']::uuid[]";
const SEATS: &str = "ARRAY['seats', 'seats', 'seats', 'seats', 'seats'], ARRAY['r1', 'r2', 'r3', 'r4', 'r5']";
/// Five positions, and their devices alone.
const FIVE: &str = "ARRAY[1, 2, 3, 4, 5], array_fill('00000000-0000-0000-0000-000000000007'::uuid, ARRAY[5]), \
    array_fill('00000000-0000-0000-0000-000000000007'::uuid, ARRAY[5])";
const CLIENTS: &str = "array_fill('00000000-0000-0000-0000-000000000007'::uuid, ARRAY[5])";
const ZERO: &str = "'00000000-0000-0000-0000-000000000000'";

/// Each statement with arguments, and whether it runs as the user too.
fn statements() -> Vec<(&'static str, String, bool)> {
    vec![
        (fetch::PAGE, format!("{AUDIENCES}, {CURSORS}, 1001"), true),
        (pg::RECORDS, "ARRAY[7, 8, 19000]".to_owned(), true),
        (pg::ROWS, format!("{IDS}, {AUDIENCES}"), true),
        (materialize::NEWEST, "ARRAY['seats', 'seats'], ARRAY['r1', 'r2']".to_owned(), false),
        (materialize::START, format!("'seats', 'r1', 15000, {ZERO}, {ZERO}, 0, {ZERO}, {ZERO}, 30000, 30000"), false),
        (materialize::EFFECTS, format!("'seats', 'r1', 100, {ZERO}, {ZERO}, true, 30000, 30000"), false),
        (materialize::BENEATH, format!("'seats', 'r1', 15000, {ZERO}, {ZERO}"), false),
        (materialize::FORGET, format!("'seats', 'r1', 15000, {ZERO}, {ZERO}"), false),
        (materialize::LAST_AUDIENCE, "'seats', 'r1', 30000".to_owned(), false),
        (slices::SLICES, format!("{AUDIENCES}, {CURSORS}, {CURSORS}"), false),
        (slices::HEAD, String::new(), false),
        (slices::BEFORE, "19000, '2 minutes'".to_owned(), false),
        (slices::OF_THE_PAST, "18944, 19456".to_owned(), false),
        (observe::OUTBOX, "10000".to_owned(), false),
        (capture::TAKE, "ARRAY['seats'], 500".to_owned(), false),
        (capture::NEWEST_EFFECTS, "ARRAY['seats', 'seats'], ARRAY['r1', 'r2']".to_owned(), false),
        (snapshot::OWN, format!("{IDS}, 'u1'"), false),
        (wakeups::PROBE, String::new(), false),
        (wakeups::MOVED, format!("{AUDIENCES}, {CURSORS}"), false),
        (wakeups::HEADS, "ARRAY['u1', 'u2']".to_owned(), false),
        (status::OLDEST, String::new(), false),
        (status::OUTBOX, String::new(), false),
        (status::LAG, String::new(), false),
        (compaction::OLDEST, "5000, 100, 1000".to_owned(), false),
        (compaction::UNITS, IDS.to_owned(), false),
        (compaction::PLACES, "ARRAY[7, 8, 19000]".to_owned(), false),
        (compaction::AMENDED, format!("{IDS}, ARRAY[7, 8]"), false),
        (compaction::FLOORS, AUDIENCES.to_owned(), false),
        (compaction::RAISE, format!("{AUDIENCES}, {CURSORS}, {CLIENTS}, {CURSORS}, {FIVE}"), false),
        (compaction::CUTS, IDS.to_owned(), false),
        (compaction::IMAGES, format!("{SEATS}, {FIVE}"), false),
        (compaction::EFFECTS, format!("{SEATS}, {FIVE}, {FIVE}"), false),
        (compaction::FORGET, format!("{SEATS}, {FIVE}"), false),
        (compaction::REMEMBER, IDS.to_owned(), false),
        (compaction::DELETE_ROWS, IDS.to_owned(), false),
        (compaction::DELETE_AUDIENCES, IDS.to_owned(), false),
        (compaction::DELETE, IDS.to_owned(), false),
        (compaction::OUTCOMES, "100, 5000".to_owned(), false),
        (compaction::SLICES, "100, 5000".to_owned(), false),
        (compaction::CLIENTS, "100, 5000".to_owned(), false),
        (compaction::IDS, "100, 5000".to_owned(), false),
        (compaction::ABSENT, String::new(), false),
    ]
}

async fn explain(conn: &mut PgConnection, sql: &str, arguments: &str) -> String {
    conn.execute(AssertSqlSafe(format!("PREPARE explained AS {sql}"))).await.expect("prepares");
    let arguments = if arguments.is_empty() { String::new() } else { format!("({arguments})") };
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE explained {arguments}"));
    let lines = sqlx_core::query_scalar::query_scalar::<Postgres, String>(explain).fetch_all(&mut *conn).await;
    conn.execute("DEALLOCATE explained").await.expect("forgets");
    lines.expect("explains").join("\n")
}

#[tokio::test]
async fn no_request_scans_the_log() {
    let (pool, _) = fixture::database("plans").await;
    pool.execute(FILL).await.expect("fills");

    let mut conn = pool.acquire().await.expect("connects");
    for mode in ["force_generic_plan", "force_custom_plan"] {
        for role in ["none", "synchrotron_user"] {
            let settings = format!("SET plan_cache_mode = {mode}; SET role {role}; SET synchrotron.user_id = 'u1'");
            conn.execute(AssertSqlSafe(settings)).await.expect("sets");
            for (sql, arguments, as_user) in statements() {
                if role != "none" && !as_user {
                    continue;
                }
                let plan = explain(&mut conn, sql, &arguments).await;
                for table in LOG {
                    assert!(!plan.contains(&format!("Seq Scan on {table}")), "as {role}, {mode}: {sql}\n{plan}");
                }
            }
        }
    }
}

/// Arguments of [`ingest::OPEN`].
fn opening_arguments() -> String {
    let bases = "ARRAY['{}', '{\"project:p1\": 19000}']";
    let at = format!("{ZERO}, {ZERO}");
    let in_audiences =
        format!("ARRAY[(0, 'project:p1', 1, {at}), (1, 'project:p2', 2, {at})]::synchrotron.place_in_audience[]");
    let on_rows =
        format!("ARRAY[(0, 'seats', 'r1', 1, {at}), (1, 'seats', 'r2', 2, {at})]::synchrotron.place_on_row[]");
    format!(
        "'1s', {IDS}, ARRAY['u1', 'u2'], {IDS}, {bases}, true, {IDS}, {AUDIENCES}, 5, {in_audiences}, {on_rows}, \
         ARRAY[1], ARRAY[5], ARRAY[1, 2], {IDS}"
    )
}

/// Arguments of [`ingest::TAKE`], for an upload that is taken.
fn taking_arguments() -> String {
    let basis = "{\"project:p1\": 20000, \"project:p11\": 19999, \"project:p21\": 20000, \"project:p31\": 20000, \
        \"project:p41\": 20000}";
    let at = format!("30000, {ZERO}, {ZERO}");
    format!(
        "'1s', 'u1', {ZERO}, {ZERO}, {ZERO}, true, '{basis}', ARRAY[{ZERO}]::uuid[], 30000, ARRAY['project:p1'], \
         ARRAY[(0, 'project:p1', {at})]::synchrotron.place_in_audience[], \
         ARRAY[(0, 'seats', 'r1', {at})]::synchrotron.place_on_row[], ARRAY[1], '{{}}', '{{}}', '{{}}', \
         ARRAY[(1, 'project:p1', {at})]::synchrotron.reached_head[], 'synchrotron_user', false, 1000000007, \
         '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}'"
    )
}

/// What a function of ours runs is not in the plan of who calls it: Postgres tells it where it is asked to.
#[tokio::test]
async fn no_upload_scans_the_log() {
    let (pool, _) = fixture::database("plans").await;
    pool.execute(FILL).await.expect("fills");
    let device = format!(
        "INSERT INTO synchrotron.clients (client_id, user_id) VALUES ({ZERO}, 'u1')
            ON CONFLICT (client_id) DO UPDATE SET user_id = 'u1', used_at = now();
         UPDATE synchrotron.server_meta SET epoch = {ZERO}"
    );
    pool.execute(AssertSqlSafe(device)).await.expect("makes a device known");
    let telling = "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_level = notice; \
        SET auto_explain.log_nested_statements = on; SET client_min_messages = notice";
    let mut conn = pool.acquire().await.expect("connects");
    conn.execute(telling).await.expect("sets");
    let asked = ["upload_outcomes", "compacted_records", "action_modified_rows", "action_audiences", "clients"];
    for (sql, arguments, last) in
        [(ingest::OPEN, opening_arguments(), "row_images"), (ingest::TAKE, taking_arguments(), "outbox")]
    {
        for mode in ["force_generic_plan", "force_custom_plan"] {
            let told = told_of(&mut conn, sql, &arguments, mode).await;
            for part in asked.iter().chain([&last]) {
                assert!(told.contains(&format!("on {part}")), "nothing is told of {part}: {told}");
            }
            for table in LOG {
                assert!(!told.contains(&format!("Seq Scan on {table}")), "{mode}: {told}");
            }
        }
    }
}

/// What Postgres tells of the plans of a statement, and of those within it. It leaves nothing.
async fn told_of(conn: &mut PgConnection, sql: &str, arguments: &str, mode: &str) -> String {
    let told = Told::default();
    let teller = told.clone();
    let listening = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let running = async {
        for sql in [
            format!("SET plan_cache_mode = {mode}"),
            format!("PREPARE told AS {sql}"),
            format!("BEGIN; EXECUTE told ({arguments}); ROLLBACK; DEALLOCATE told"),
        ] {
            conn.execute(AssertSqlSafe(sql)).await.expect("runs");
        }
    };
    running.with_subscriber(listening.with_writer(move || teller.clone()).finish()).await;
    String::from_utf8(told.0.lock().expect("whole").clone()).expect("text")
}

/// What was logged.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// With the index that every tracked table should have, a snapshot reads its audiences and nothing else.
#[tokio::test]
async fn no_snapshot_scans_an_indexed_table() {
    let (pool, settings) = fixture::database("plans").await;
    let seats = &settings.tables[0];
    let mut conn = pool.acquire().await.expect("connects");
    let index = "SELECT 'seats'::regclass::oid";
    let oid =
        sqlx_core::query_scalar::query_scalar::<Postgres, Oid>(index).fetch_one(&mut *conn).await.expect("an oid");
    let wrong = "CREATE INDEX ON seats (label, audience_key); CREATE INDEX ON seats (audience_key) WHERE label IS NULL";
    conn.execute(wrong).await.expect("indexes");
    assert!(!materialize::is_audience_indexed(&mut conn, oid).await.expect("reads"));
    conn.execute("CREATE INDEX ON seats (audience_key)").await.expect("indexes");
    assert!(materialize::is_audience_indexed(&mut conn, oid).await.expect("reads"));

    let fill = "INSERT INTO project_members SELECT 'p' || n, 'u' || n % 10 FROM generate_series(1, 50) n;
        INSERT INTO seats SELECT 'r' || n, 'l', 'h', 'project:p' || 1 + n % 50 FROM generate_series(1, 20000) n; ANALYZE";
    conn.execute(fill).await.expect("fills");
    drop(conn);
    let catalogue = materialize::Catalogue::load(&pool, &settings).await.expect("loads");
    let rows = snapshot::rows_of(catalogue.table(seats).expect("tracked"));
    let count = snapshot::count_of(catalogue.table(seats).expect("tracked"));
    let mut conn = pool.acquire().await.expect("connects");
    let some = capture::rows_with_ids(catalogue.table(seats).expect("tracked"));
    let plan = explain(&mut conn, &some, "ARRAY['project:p1'], ARRAY['r1', 'r2']").await;
    assert!(plan.contains("seats_pkey"), "{some}\n{plan}");
    conn.execute("SET role synchrotron_user; SET synchrotron.user_id = 'u1'").await.expect("sets");
    for sql in [rows, count] {
        let plan = explain(&mut conn, &sql, "ARRAY['project:p1', 'project:p11']").await;
        assert!(!plan.contains("Seq Scan on seats"), "{sql}\n{plan}");
    }
}
