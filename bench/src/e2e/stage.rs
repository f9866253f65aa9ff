//! A database of a durable Postgres, a nats-server and a Synchrotron server, and devices on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgPool, PgPoolOptions};
use synchrotron_core::client::Client;
use synchrotron_core::model::{ClientId, UserId};
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_http::HttpNetwork;
use synchrotron_nats::{NatsNetwork, NatsSettings};
use synchrotron_server::api::nats::{NatsConf, NatsKeys};
use synchrotron_server::settings::Secret;
use synchrotron_testkit::{Durability, NatsOptions, NatsServer, Postgres, wait_for};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::app;
use super::serve::ServerProcess;
use crate::error::BenchError;
use crate::server::floor;

pub(super) const SECRET: &[u8] = b"a secret of the benchmarks";
pub(super) const NATS_SECRET: &[u8] = b"a secret of the benchmarks' servers";
/// How long anything may take before a benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// A place to measure in.
#[derive(Debug)]
pub(super) struct Stage {
    /// As the superuser, for floors and memberships.
    pub(super) pool: PgPool,
    pub(super) server: ServerProcess,
    pub(super) nats: NatsServer,
    pub(super) folder: TempDir,
    devices: AtomicU32,
}

/// The Postgres of this run. It ends with the program.
static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();

/// Where a device, also one of another process, finds the server.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) nats: String,
    pub(super) http: String,
    pub(super) token: String,
}

impl Stage {
    pub(super) async fn open() -> Result<Self, BenchError> {
        let postgres = POSTGRES.get_or_try_init(|| Postgres::start_with(Durability::PowerCut)).await?;
        let database = postgres.create_database("bench").await?;
        let pool = PgPoolOptions::new().max_connections(16).connect(&database).await?;
        pool.execute(include_str!("../server/schema.sql")).await?;
        pool.execute("GRANT SELECT ON members TO synchrotron_user").await?;
        let keys = NatsKeys::derive(&Secret::new(NATS_SECRET)).map_err(BenchError::nats)?;
        let conf = NatsConf::new(keys).to_string();
        let nats = NatsServer::start(NatsOptions::default().with_config(conf)).await?;
        let server = ServerProcess::start(&database, nats.url())?;
        pool.execute(floor::TABLES).await?;
        let folder = tempfile::tempdir()?;
        Ok(Self { pool, server, nats, folder, devices: AtomicU32::new(0) })
    }

    /// Puts so many users, `u0`, `u1` and so on, into this audience, and each into one of its own.
    pub(super) async fn admit(&self, users: u32, audience: &str) -> Result<(), BenchError> {
        let sql = format!(
            "INSERT INTO members SELECT 'u' || n, key FROM generate_series(0, {users}) AS n, \
             unnest(ARRAY['{audience}', 'user:u' || n]) AS key ON CONFLICT DO NOTHING"
        );
        // Safe: written in this program.
        self.pool.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }

    /// Where this user's devices find the server.
    pub(super) fn places(&self, user: &str) -> Result<Places, BenchError> {
        let http = format!("http://{}", self.server.http);
        Ok(Places { nats: self.nats.url().to_owned(), http, token: token(user)? })
    }

    /// A new device of this user. It starts offline.
    pub(super) async fn device(&self, user: &str) -> Result<Client, BenchError> {
        Ok(app::app(&self.database(), user).open().await?)
    }

    /// A file for another device.
    pub(super) fn database(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.devices.fetch_add(1, Ordering::Relaxed)))
    }

    pub(super) async fn over_nats(&self, user: &str, client_id: ClientId) -> Result<NatsNetwork, BenchError> {
        self.places(user)?.over_nats(user, client_id).await
    }

    pub(super) fn over_http(&self, user: &str) -> Result<HttpNetwork, BenchError> {
        self.places(user)?.over_http()
    }
}

impl Places {
    pub(super) async fn over_nats(&self, user: &str, client_id: ClientId) -> Result<NatsNetwork, BenchError> {
        let settings = NatsSettings::new(&self.nats).map_err(BenchError::nats)?;
        let user = UserId::new(user).expect("BUG: a name");
        let network = NatsNetwork::connect(settings, user, client_id, Arc::new(StaticToken::new(&*self.token))).await;
        let mut connected = network.connected();
        in_time("NATS", connected.wait_for(|connected| *connected)).await?.map_err(BenchError::nats)?;
        Ok(network)
    }

    pub(super) fn over_http(&self) -> Result<HttpNetwork, BenchError> {
        Ok(HttpNetwork::new(&self.http, Arc::new(StaticToken::new(&*self.token)))?)
    }
}

/// Connects a device, and waits until it has everything.
pub(super) async fn go_online(client: &Client, network: Arc<dyn Network>) -> Result<(), BenchError> {
    client.go_online(network);
    pass(client).await
}

/// Waits until a device has sent and fetched everything.
pub(super) async fn pass(client: &Client) -> Result<(), BenchError> {
    until_done("a pass", async || client.sync_now().await).await
}

/// Asks until there is an answer: on a busy machine, a connection ends meanwhile or an answer is late, and a device asks again.
pub(super) async fn until_done<T, E>(
    what: &'static str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, BenchError> {
    wait_for(what, PATIENCE, async || ask().await.ok()).await.map_err(|_| BenchError::Late { what })
}

/// Gives up on what takes far too long.
pub(super) async fn in_time<T>(what: &'static str, work: impl Future<Output = T>) -> Result<T, BenchError> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| BenchError::Late { what })
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
}

/// A token as an app's login service would issue it.
fn token(user: &str) -> Result<String, BenchError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = Claims { sub: user, exp: since.as_secs() + 24 * 3600 };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).map_err(BenchError::token)
}
