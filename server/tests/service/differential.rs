//! Random histories from many devices at once, against an independent fold of what was accepted.
//!
//! Each history has users, projects and rows of its own, so that many run beside each other in one database, through one
//! service: what shares a transaction is up to chance. Uploads are in order and late, actions and corrections, possible
//! and not; devices fetch meanwhile. At rest:
//! - base tables equal the fold of what was accepted, by replay key;
//! - each device has fetched every accepted record that its user may see, with the rows that it may see, and no other;
//! - the fold of what it fetched is what Row Level Security shows its user;
//! - every slice that was announced is the one in the outbox.
//!
//! `HISTORIES=3000 SEED=7 cargo test -p synchrotron-server --test service differential` runs as many as one likes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sqlx_core::executor::Executor;
use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use synchrotron_core::model::{ActionId, Columns, Effect, Patch, RecordBody, ReplayKey, RowKey, ServerIngestId, Value};
use synchrotron_core::wire::{Outcome, Slice, UploadBatch, UploadRecord};
use synchrotron_server::service::{Fresh, OutboxId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::fixture::{Device, Theatre, columns, patch};
use crate::oracle::{Seen, rows_of};

const HISTORIES: u64 = 60;
const AT_ONCE: usize = 6;
const UPLOADS: usize = 6;
/// What the database forbids by itself.
const SCHEMA: &str = "ALTER TABLE seats ADD CHECK (label <> 'forbidden');
    CREATE UNIQUE INDEX ON seats (audience_key, holder) WHERE holder = 'only one'";

type Log = BTreeMap<ActionId, Seen>;

/// One history's users, with the projects that they are in.
struct History {
    name: String,
    users: Vec<(String, Vec<String>)>,
}

impl History {
    fn new(number: u64) -> Self {
        let project = |letter: &str| format!("project:{letter}{number}");
        let users = [("alice", vec!["p", "a"]), ("bob", vec!["p", "q"]), ("carol", vec!["q"])];
        let users = users
            .map(|(user, projects)| (format!("{user}{number}"), projects.into_iter().map(project).collect::<Vec<_>>()));
        Self { name: number.to_string(), users: users.into() }
    }

    async fn enroll(&self, theatre: &Theatre) {
        for (user, projects) in &self.users {
            for project in projects {
                let project = project.strip_prefix("project:").expect("named so");
                theatre.execute(&format!("INSERT INTO project_members VALUES ('{project}', '{user}')")).await;
            }
        }
    }

    fn audiences(&self) -> Vec<&String> {
        self.users.iter().flat_map(|(_, projects)| projects).collect()
    }
}

/// A device with what it has fetched.
struct Reader {
    device: Device,
    projects: Vec<String>,
    log: Log,
    rng: ChaCha8Rng,
}

impl Reader {
    async fn catch_up(&mut self) {
        for record in self.device.catch_up().await {
            let seen = Seen::from(&record);
            if let Some(earlier) = self.log.insert(record.record.id, seen.clone()) {
                assert_eq!(earlier, seen, "what comes again is the same");
            }
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn record(&mut self, history: &History) -> UploadRecord {
        let actions: Vec<ReplayKey> = self.log.values().filter(|s| !s.correction).map(|s| s.position).collect();
        let amends = actions.choose(&mut self.rng).copied().filter(|_| self.rng.random_ratio(25, 100));
        let count = self.rng.random_range(1..=3);
        let mut rows: Vec<Patch> = Vec::new();
        for _row in 0..count {
            let row = self.row(history, amends.is_some());
            if amends.is_none() || rows.iter().all(|known| known.row_id != row.row_id) {
                rows.push(row);
            }
        }
        match amends {
            Some(position) => self.device.correction(position, rows),
            None => self.device.action(self.rng.random_range(1..60), rows),
        }
    }

    fn row(&mut self, history: &History, correction: bool) -> Patch {
        let home = self.projects.choose(&mut self.rng).expect("has some").clone();
        // A row's project is in its name; a patch may lie about it.
        let id = format!("{home}-{}", self.rng.random_range(0..3));
        let label =
            if self.chance(6) { (*history.audiences().choose(&mut self.rng).expect("has some")).clone() } else { home };
        let value = |rng: &mut ChaCha8Rng| match rng.random_range(0..12) {
            0 => Value::Null,
            1 => "only one".into(),
            n => n.to_string().into(),
        };
        let mut values = columns([("label", value(&mut self.rng))]);
        if self.chance(50) {
            values.insert("holder".to_owned(), value(&mut self.rng));
        }
        if self.chance(4) {
            values.insert("label".to_owned(), "forbidden".into());
        }
        if self.chance(3) {
            values.insert("no_such_column".to_owned(), Value::Null);
        }
        let effect = match self.rng.random_range(0..10) {
            0..3 => Effect::Insert(values),
            3 => Effect::Delete,
            4 if correction => Effect::Nothing,
            _ => Effect::Update(values),
        };
        patch("seats", &id, &label, effect)
    }

    /// Uploads until all is taken that can be.
    async fn upload(&mut self, mut records: Vec<UploadRecord>, accepted: &Mutex<Log>) {
        while !records.is_empty() {
            let batch = self.device.batch(records.clone()).await;
            match self.device.send(&batch).await {
                Outcome::Accepted { ids } => {
                    if self.chance(20) {
                        assert_eq!(self.device.send(&batch).await, Outcome::Accepted { ids: ids.clone() });
                    }
                    return self.note(&batch, &ids, &mut accepted.lock().expect("nobody panics with it"));
                }
                Outcome::BehindHead { .. } => self.catch_up().await,
                Outcome::Rejected { action, .. } => {
                    let before = records.len();
                    records.retain(|record| record.id != action);
                    assert!(records.len() < before, "one of its own is named");
                }
                Outcome::Retry { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn note(&self, batch: &UploadBatch, ids: &BTreeMap<ActionId, ServerIngestId>, accepted: &mut Log) {
        assert_eq!(ids.len(), batch.records.len());
        for record in &batch.records {
            let (correction, position) = match &record.body {
                RecordBody::Action { .. } => (false, self.device.position(record)),
                RecordBody::Correction { amends, .. } => (true, *amends),
            };
            let seen = Seen { position, number: ids[&record.id], correction, rows: record.rows.clone() };
            accepted.insert(record.id, seen);
        }
    }
}

type Shown = BTreeMap<String, (Option<String>, Option<String>)>;

fn shown(rows: &BTreeMap<RowKey, Columns>) -> Shown {
    let text = |columns: &Columns, name: &str| match columns.get(name) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    rows.iter()
        .map(|(key, columns)| (key.row_id.to_string(), (text(columns, "label"), text(columns, "holder"))))
        .collect()
}

/// What the table shows to a user; to nobody in particular, everything of these audiences.
async fn in_table(theatre: &Theatre, user: Option<&str>, audiences: &[&String]) -> Shown {
    let mut conn = theatre.pool.acquire().await.expect("connects");
    conn.execute("BEGIN").await.expect("begins");
    if let Some(user) = user {
        let become_user = format!("SET LOCAL synchrotron.user_id = '{user}'; SET LOCAL role = 'synchrotron_user'");
        conn.execute(AssertSqlSafe(become_user)).await.expect("becomes the user");
    }
    let keys = audiences.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
    let of_history = if user.is_some() { "true".to_owned() } else { format!("audience_key IN ({keys})") };
    let sql = format!("SELECT id, label, holder FROM seats WHERE {of_history}");
    let rows = sqlx_core::query::query::<sqlx_postgres::Postgres>(AssertSqlSafe(sql)).fetch_all(&mut *conn).await;
    conn.execute("ROLLBACK").await.expect("ends");
    rows.expect("reads").iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

async fn play(theatre: &Theatre, number: u64, seed: u64) {
    let history = History::new(number);
    history.enroll(theatre).await;
    let accepted = Mutex::new(Log::new());
    let mut readers: Vec<Reader> = Vec::new();
    for (place, (user, projects)) in history.users.iter().flat_map(|user| [user, user]).enumerate() {
        let rng = ChaCha8Rng::seed_from_u64(seed ^ (number << 8) ^ place as u64);
        readers.push(Reader { device: theatre.device(user), projects: projects.clone(), log: Log::new(), rng });
    }
    let playing = readers.iter_mut().map(|reader| async {
        for _upload in 0..UPLOADS {
            let count = reader.rng.random_range(1..=3);
            let records = (0..count).map(|_| reader.record(&history)).collect();
            reader.upload(records, &accepted).await;
            if reader.chance(40) {
                reader.catch_up().await;
            }
        }
    });
    join_all(playing).await;

    let accepted = accepted.into_inner().expect("nobody panicked with it");
    let name = &history.name;
    let expected = shown(&rows_of(accepted.values()));
    assert_eq!(in_table(theatre, None, &history.audiences()).await, expected, "history {name}: rows");
    for reader in &mut readers {
        reader.catch_up().await;
        let visible = |patch: &&Patch| reader.projects.iter().any(|key| *key == patch.audience_key.as_str());
        let mut wanted = accepted.clone();
        wanted.values_mut().for_each(|seen| seen.rows = seen.rows.iter().filter(visible).cloned().collect());
        wanted.retain(|_, seen| !seen.rows.is_empty());
        let user = reader.device.principal.user_id.as_str();
        assert_eq!(reader.log, wanted, "history {name}: what {user} fetched");
        let rows = in_table(theatre, Some(user), &[]).await;
        assert_eq!(rows, shown(&rows_of(reader.log.values())), "history {name}: what {user} sees");
    }
}

/// Slices by their names.
type Slices = BTreeMap<OutboxId, Slice>;

async fn listen(mut fresh: broadcast::Receiver<Arc<Fresh>>, heard: Arc<Mutex<Slices>>) {
    loop {
        match fresh.recv().await {
            Ok(slices) => heard.lock().expect("whole").extend(Arc::unwrap_or_clone(slices)),
            // Read from the outbox by whoever publishes.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// What was announced is what the log says, all of it.
async fn assert_in_outbox(theatre: &Theatre, fresh: &Mutex<Slices>) {
    let (mut slices, mut announced) = (0, 0);
    loop {
        let page = theatre.service.unpublished_slices(500).await.expect("slices");
        if page.is_empty() {
            break;
        }
        for (id, slice) in &page {
            slices += 1;
            if let Some(fresh) = fresh.lock().expect("whole").remove(id) {
                announced += 1;
                assert_eq!(fresh, *slice);
            }
        }
        let ids: Vec<OutboxId> = page.iter().map(|(id, _)| *id).collect();
        theatre.service.mark_published(&ids).await.expect("marked");
    }
    let left = fresh.lock().expect("whole").len();
    assert!(announced * 2 > slices && left == 0, "{announced} of {slices} slices were announced, and {left} others");
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|value| value.parse().ok())
}

#[test]
fn differential_u22_many_devices_at_once_end_as_the_fold_of_what_was_accepted() {
    let seed = number_from("SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 16);
    let histories = number_from("HISTORIES").unwrap_or(HISTORIES);
    eprintln!("SEED={seed} HISTORIES={histories} cargo test -p synchrotron-server --test service differential");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let theatre = Arc::new(Theatre::open_with(SCHEMA, &[], |_| {}).await);
        let fresh = Arc::new(Mutex::new(BTreeMap::new()));
        let listening = tokio::spawn(listen(theatre.service.fresh_slices(), Arc::clone(&fresh)));
        let played = stream::iter(0..histories).map(|number| {
            let theatre = Arc::clone(&theatre);
            tokio::spawn(async move { play(&theatre, number, seed).await })
        });
        played.buffer_unordered(AT_ONCE).for_each(|ended| async { ended.expect("holds") }).await;
        assert_in_outbox(&theatre, &fresh).await;
        listening.abort();
        let records = theatre.count("synchrotron.action_records").await;
        let commits = theatre.count("(SELECT DISTINCT xmin::text FROM synchrotron.action_records) AS x").await;
        assert!(records > i64::try_from(histories).expect("fits") * 20, "only {records} records were accepted");
        assert!(histories < 20 || commits < records, "{commits} commits of {records} records");
    });
}
