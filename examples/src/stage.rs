//! The stage: a private Postgres and nats-server, the Synchrotron server, and devices on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgPool;
use synchrotron_core::client::Client;
use synchrotron_core::model::{TableName, UserId};
use synchrotron_core::network::{Carrier, Failover, Network, StaticToken};
use synchrotron_http::HttpNetwork;
use synchrotron_nats::{NatsNetwork, NatsSettings};
use synchrotron_server::api::nats::NatsApiSettings;
use synchrotron_server::settings::Settings;
use synchrotron_server::{RunningServer, Server, ServerSettings};
use synchrotron_testkit::NatsServer;
use tempfile::TempDir;

use crate::theatre;

/// Anything that stops the demo.
pub(crate) type StageError = Box<dyn std::error::Error + Send + Sync>;

const SECRET: &[u8] = b"a secret that only the demo's issuer and server share";

/// The services and the server, all private to this run.
pub(crate) struct Stage {
    /// Sees past Row Level Security; for the audit.
    pub(crate) postgres: PgPool,
    /// The carrier that the story kills.
    pub(crate) nats: NatsServer,
    server: RunningServer,
    folder: TempDir,
}

/// One person's device.
pub(crate) struct Device {
    /// The app's client.
    pub(crate) client: Client,
    /// Its database file.
    pub(crate) database: PathBuf,
    network: Arc<dyn Network>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn build() -> Result<Self, StageError> {
        let database_url = synchrotron_testkit::postgres().await?.create_database("theatre").await?;
        let nats = NatsServer::start(synchrotron_testkit::NatsOptions::default()).await?;
        let postgres = PgPool::connect(&database_url).await?;
        postgres.execute(theatre::POSTGRES_SCHEMA).await?;
        let tables = vec![TableName::new("seats")?, TableName::new("notes")?];
        let settings = ServerSettings {
            core: Settings::new(database_url, tables, SECRET),
            http_listen: ([127, 0, 0, 1], 0).into(),
            nats: Some(NatsApiSettings::new(nats.url())?),
        };
        let server = Server::start(settings).await?;
        Ok(Self { postgres, nats, server, folder: tempfile::tempdir()? })
    }

    /// Gives a user a new device, with NATS first and HTTP behind it. It starts offline.
    pub(crate) async fn device(&self, user: &str) -> Result<Device, StageError> {
        let database = self.folder.path().join(format!("{user}.db"));
        let client = theatre::app(&database, user).open().await?;
        let token = Arc::new(StaticToken::new(token(user)?));
        let nats = NatsSettings::new(self.nats.url())?;
        let nats = NatsNetwork::connect(nats, UserId::new(user)?, client.client_id(), token.clone()).await;
        let http = HttpNetwork::new(&format!("http://{}", self.server.http_addr()), token)?;
        let network = Arc::new(Failover::new(vec![Arc::new(nats), Arc::new(http)]));
        Ok(Device { client, database, network })
    }

    /// Stops the server; the services end with the program.
    pub(crate) async fn strike(self) {
        self.server.shutdown().await;
    }
}

impl Device {
    /// Connects the device, and waits until it has everything.
    pub(crate) async fn go_online(&self) -> Result<(), StageError> {
        self.client.go_online(Arc::clone(&self.network));
        Ok(self.client.sync_now().await?)
    }

    /// Waits until this carrier is in use.
    pub(crate) async fn wait_for_carrier(&self, carrier: Carrier) -> Result<(), StageError> {
        let mut status = self.client.status();
        let arrived = status.wait_for(|status| status.connection.carrier() == Some(carrier));
        tokio::time::timeout(Duration::from_secs(30), arrived).await??;
        Ok(())
    }
}

/// A token as an app's login service would issue it.
fn token(user: &str) -> Result<String, StageError> {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(3600);
    let claims = Claims { sub: user, exp: expires.as_secs() };
    Ok(encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET))?)
}
