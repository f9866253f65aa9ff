//! A database, servers and devices whose app counts what it did: one write that is lost or done twice shows.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jsonwebtoken::{EncodingKey, Header};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sqlx_core::executor::Executor;
use sqlx_core::query_as::query_as;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgPool, Postgres};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Client, Timing};
use synchrotron_core::model::{TableName, UserId};
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_core::params;
use synchrotron_nats::link::Login;
use synchrotron_nats::subjects::Subjects;
use synchrotron_nats::{NatsNetwork, NatsSettings};
use synchrotron_server::api::nats::{NatsApiSettings, NatsConf, NatsKeys};
use synchrotron_server::settings::{Secret, Settings};
use synchrotron_server::{RunningServer, Server, ServerSettings};
use synchrotron_testkit::{NatsOptions, NatsServer, wait_for};
use tempfile::TempDir;

/// How long anything may take on a busy machine. What it took is printed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// How many audiences everybody is in.
pub(crate) const AUDIENCES: usize = 4;

const SECRET: &[u8] = b"the secret of these tests";
const SCHEMA: &str = "
    DO $$ BEGIN CREATE ROLE synchrotron_user; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE entries (id text PRIMARY KEY, writer text NOT NULL, n bigint NOT NULL, audience_key text NOT NULL);
    CREATE TABLE tallies (id text PRIMARY KEY, writer text NOT NULL, count bigint NOT NULL, audience_key text NOT NULL);
    CREATE SCHEMA IF NOT EXISTS synchrotron;
    CREATE VIEW synchrotron.user_audiences AS SELECT u AS user_id, 'project:' || n AS audience_key
        FROM unnest(ARRAY['alice', 'bob', 'carol']) u, generate_series(0, 3) n;
    ALTER TABLE entries ENABLE ROW LEVEL SECURITY;
    ALTER TABLE tallies ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everybody ON entries USING (true);
    CREATE POLICY everybody ON tallies USING (true);
    GRANT SELECT, INSERT, UPDATE, DELETE ON entries, tallies TO synchrotron_user;";
const DEVICE_SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS entries (id TEXT PRIMARY KEY, writer TEXT NOT NULL, n INTEGER NOT NULL, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS tallies (id TEXT PRIMARY KEY, writer TEXT NOT NULL, count INTEGER NOT NULL, audience_key TEXT NOT NULL);";

/// Writes an entry, and counts it.
#[derive(Debug, Serialize, Deserialize)]
struct Write {
    n: i64,
    audience: String,
}

impl Action for Write {
    const TAG: &'static str = "write_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let (writer, audience) = (ctx.user_id().to_string(), self.audience.as_str());
        let entry = [("writer", writer.clone().into()), ("n", self.n.into()), ("audience_key", audience.into())];
        ctx.insert("entries", &entry)?;
        let count = "UPDATE tallies SET count = count + 1 WHERE writer = ? AND audience_key = ?";
        if ctx.execute(count, params![writer.clone(), audience])? == 0 {
            let first = [("writer", writer.into()), ("count", 1_i64.into()), ("audience_key", audience.into())];
            ctx.insert("tallies", &first)?;
        }
        Ok(())
    }
}

/// Servers on one database and one NATS.
pub(crate) struct World {
    pub(crate) settings: ServerSettings,
    pub(crate) postgres: PgPool,
    pub(crate) servers: Vec<RunningServer>,
    nats_url: String,
}

impl World {
    /// A database and one server on this NATS.
    pub(crate) async fn start(nats_url: &str, change: impl FnOnce(&mut NatsApiSettings)) -> Self {
        let mut world = Self::without_server(nats_url, change).await;
        world.add_server().await;
        world
    }

    /// A database for servers on this NATS.
    pub(crate) async fn without_server(nats_url: &str, change: impl FnOnce(&mut NatsApiSettings)) -> Self {
        let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("faults").await;
        let database = database.expect("a database");
        let postgres = PgPool::connect(&database).await.expect("connects");
        postgres.execute(SCHEMA).await.expect("the app's schema");
        let tables = ["entries", "tallies"].map(|name| TableName::new(name).expect("ok")).to_vec();
        let mut api = NatsApiSettings::new(nats_url, nats_secret()).expect("a URL");
        api.stream_bytes_max = 64 << 20;
        api.sweep_every = Duration::from_millis(500);
        api.lease = Duration::from_secs(2);
        change(&mut api);
        let core = Settings::new(database.as_str(), tables, SECRET);
        let settings = ServerSettings { core, http_listen: ([127, 0, 0, 1], 0).into(), nats: Some(api) };
        Self { settings, postgres, servers: Vec::new(), nats_url: nats_url.to_owned() }
    }

    /// Another server like the others.
    pub(crate) async fn add_server(&mut self) {
        self.servers.push(Server::start(self.settings.clone()).await.expect("the server starts"));
    }

    /// What the server is told about NATS.
    pub(crate) fn api(&self) -> &NatsApiSettings {
        self.settings.nats.as_ref().expect("given")
    }

    pub(crate) fn subjects(&self) -> Subjects {
        Subjects::new(self.api().prefix.clone())
    }

    /// The name of the stream of uploads or slices.
    pub(crate) fn stream(&self, kind: &str) -> String {
        format!("{}_{kind}", self.api().prefix).to_ascii_uppercase()
    }

    /// A device of this user, online.
    pub(crate) async fn device(&self, user: &'static str) -> Device {
        self.device_at(user, &self.nats_url).await
    }

    /// The same, with another way to NATS.
    pub(crate) async fn device_at(&self, user: &'static str, nats_url: &str) -> Device {
        let folder = tempfile::tempdir().expect("a folder");
        let client = Client::builder()
            .database(folder.path().join("app.db"))
            .user(user)
            .schema(DEVICE_SCHEMA)
            .table(Table::new("entries").identity(["writer", "n"]))
            .table(Table::new("tallies").identity(["writer", "audience_key"]))
            .action::<Write>()
            .timing(Timing { poll: Duration::from_millis(200), ..Timing::default() })
            .open();
        let client = client.await.expect("opens");
        let mut settings = NatsSettings::new(nats_url).expect("a URL");
        settings.ping_every = Duration::from_secs(1);
        settings.upload_within = Duration::from_secs(4);
        let user_id = UserId::new(user).expect("ok");
        let token = Arc::new(StaticToken::new(token(user)));
        let network: Arc<dyn Network> =
            Arc::new(NatsNetwork::connect(settings, user_id, client.client_id(), token).await);
        client.go_online(network);
        Device { client, user, written: std::sync::atomic::AtomicI64::new(0), _folder: folder }
    }

    /// Waits until every device has sent all it wrote and shows all that Postgres has; then each write is there once.
    pub(crate) async fn nothing_lost_nothing_doubled(&self, devices: &[&Device]) {
        let began = Instant::now();
        let written: i64 = devices.iter().map(|device| device.written()).sum();
        let settled = wait_for("all devices to equal Postgres", PATIENCE, async || {
            for device in devices {
                let status = device.client.status().borrow().clone();
                if status.pending > 0 || device.rows().await != self.rows().await {
                    return None;
                }
            }
            Some(())
        });
        if settled.await.is_err() {
            let status: Vec<_> = devices.iter().map(|device| device.client.status().borrow().clone()).collect();
            panic!("not settled: {status:#?}, {} unpublished", self.count("outbox", "true").await);
        }
        eprintln!("settled after {:?}", began.elapsed());
        assert_eq!(self.count("action_records", "tag IS NOT NULL").await, written, "each once in the log");
        let rows = self.rows().await;
        assert_eq!(rows.entries, written, "each has its row");
        assert_eq!(rows.counted, written, "each was done once");
        for device in devices {
            assert!(device.client.quarantined().await.expect("reads").is_empty());
        }
        let emptied =
            wait_for("an empty outbox", PATIENCE, async || (self.count("outbox", "true").await == 0).then_some(()));
        emptied.await.expect("all is published");
    }

    /// Writes on one device until the other shows it; how long that took.
    pub(crate) async fn live_again(&self, from: &Device, to: &Device) -> Duration {
        let began = Instant::now();
        let n = from.write(0).await;
        to.sees(from, n).await;
        eprintln!("live again after {:?}", began.elapsed());
        began.elapsed()
    }

    pub(crate) async fn count(&self, table: &str, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM synchrotron.{table} WHERE {condition}");
        query_scalar::<Postgres, _>(AssertSqlSafe(sql)).fetch_one(&self.postgres).await.expect("counts")
    }

    async fn rows(&self) -> Shown {
        let sql = "SELECT (SELECT count(*) FROM entries), (SELECT coalesce(sum(count), 0)::bigint FROM tallies)";
        let read = query_as::<Postgres, (i64, i64)>(sql).fetch_one(&self.postgres).await;
        let (entries, counted) = read.expect("reads");
        Shown { entries, counted }
    }

    /// All of these write, a little at a time, until `until` ends.
    pub(crate) async fn under_load<T>(devices: &[&Device], until: impl Future<Output = T>) -> T {
        let writing = join_all(devices.iter().map(async |device| {
            for turn in 0_usize.. {
                device.write(turn % AUDIENCES).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
        tokio::select! {
            biased;
            ended = until => ended,
            _ = writing => unreachable!("they go on"),
        }
    }

    /// Waits until so many more records are in the log.
    pub(crate) async fn accepts(&self, more: i64) {
        let before = self.count("action_records", "true").await;
        let reached = async || (self.count("action_records", "true").await >= before + more).then_some(());
        wait_for("uploads to go on", PATIENCE, reached).await.expect("they do");
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("servers", &self.servers.len()).finish_non_exhaustive()
    }
}

/// What a replica shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    entries: i64,
    counted: i64,
}

/// One person's device.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) client: Client,
    user: &'static str,
    written: std::sync::atomic::AtomicI64,
    _folder: TempDir,
}

impl Device {
    /// Writes an entry; its number.
    pub(crate) async fn write(&self, audience: usize) -> i64 {
        let n = self.written.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let audience = format!("project:{audience}");
        self.client.execute(Write { n, audience }).await.expect("executes, whatever NATS does");
        n
    }

    fn written(&self) -> i64 {
        self.written.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Waits until it shows this entry of another's.
    pub(crate) async fn sees(&self, writer: &Self, n: i64) {
        let sql = "SELECT 1 FROM entries WHERE writer = ? AND n = ?";
        let seen = async || {
            let rows = self.client.query(sql, params![writer.user, n]).await.expect("reads");
            (!rows.is_empty()).then_some(())
        };
        if wait_for("another's entry", PATIENCE, seen).await.is_err() {
            panic!("{} never sees it: {:#?}", self.user, self.client.status().borrow().clone());
        }
    }

    async fn rows(&self) -> Shown {
        let sql = "SELECT (SELECT count(*) FROM entries) AS entries, (SELECT coalesce(sum(count), 0) FROM tallies) AS counted";
        let rows = self.client.query(sql, params![]).await.expect("reads");
        Shown { entries: rows[0].get("entries").expect("a number"), counted: rows[0].get("counted").expect("a number") }
    }
}

/// Each test's own. A port changes hands when a nats-server of some test is killed, and a server of that test must not be let in
/// by another's. The test's thread has its name.
fn nats_secret() -> String {
    format!("the secret of NATS in {}", std::thread::current().name().expect("a test's thread has a name"))
}

fn keys() -> NatsKeys {
    NatsKeys::derive(&Secret::new(nats_secret())).expect("long enough")
}

/// The configuration of a NATS that knows these servers.
pub(crate) fn conf() -> String {
    NatsConf::new(keys()).to_string()
}

/// A NATS server of this test's own.
pub(crate) async fn nats() -> NatsServer {
    nats_with("").await
}

/// The same with more lines of configuration.
pub(crate) async fn nats_with(lines: &str) -> NatsServer {
    let options = NatsOptions::default().with_config(format!("{}\n{lines}", conf()));
    NatsServer::start(options).await.expect("nats-server")
}

/// A connection as the server has it.
pub(crate) async fn connect(nats_url: &str) -> async_nats::Client {
    let Login::Nkey(seed) = keys().server_login() else { panic!("a key pair") };
    async_nats::ConnectOptions::with_nkey(seed.to_string()).connect(nats_url).await.expect("connects")
}

/// Random numbers from `FAULT_SEED`, or of a new seed, which is printed.
pub(crate) fn random(test: &str) -> ChaCha8Rng {
    let seed = match std::env::var("FAULT_SEED") {
        Ok(seed) => seed.parse().expect("FAULT_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    eprintln!("run it again with: FAULT_SEED={seed} cargo test -p synchrotron-server --test faults {test}");
    ChaCha8Rng::seed_from_u64(seed)
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
}

fn token(user: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let claims = Claims { sub: user, exp: now.as_secs() + 3_600 };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).expect("signs")
}
