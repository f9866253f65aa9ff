//! The stage: a private Postgres and nats-server, the Synchrotron server, and devices on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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
use synchrotron_server::api::nats::{NatsApiSettings, NatsConf};
use synchrotron_server::settings::Settings;
use synchrotron_server::{RunningServer, Server, ServerSettings};
use synchrotron_testkit::{NatsOptions, NatsServer};
use tempfile::TempDir;

use crate::theatre;

/// Anything that stops the demo.
pub type StageError = Box<dyn std::error::Error + Send + Sync>;

const SECRET: &[u8] = b"a secret that only the demo's issuer and server share";
const NATS_SECRET: &[u8] = b"a secret that only the demo's servers know";

/// The services and the server, all private to this run.
#[derive(Debug)]
pub struct Stage {
    /// Sees past Row Level Security; for the audit.
    pub postgres: PgPool,
    /// The carrier that the story kills.
    pub nats: NatsServer,
    server: RunningServer,
    folder: TempDir,
    devices: AtomicU32,
}

/// One person's device.
#[derive(Debug)]
pub struct Device {
    /// The app's client.
    pub client: Client,
    /// Its database file.
    pub database: PathBuf,
    network: Arc<dyn Network>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    /// If a service cannot be had, or the server does not start on it.
    pub async fn build() -> Result<Self, StageError> {
        let database_url = synchrotron_testkit::postgres().await?.create_database("theatre").await?;
        // The URL is not known yet; what NATS is configured with follows from the secret alone.
        let nats_settings = |url: &str| NatsApiSettings::new(url, NATS_SECRET);
        let conf = NatsConf::new(nats_settings("127.0.0.1")?.keys()?);
        let nats = NatsServer::start(NatsOptions::default().with_config(conf.to_string())).await?;
        let postgres = PgPool::connect(&database_url).await?;
        postgres.execute(theatre::POSTGRES_SCHEMA).await?;
        let tables = vec![TableName::new("seats")?, TableName::new("notes")?];
        let settings = ServerSettings {
            core: Settings::new(database_url, tables, SECRET),
            http_listen: ([127, 0, 0, 1], 0).into(),
            nats: Some(nats_settings(nats.url())?),
        };
        let server = Server::start(settings).await?;
        Ok(Self { postgres, nats, server, folder: tempfile::tempdir()?, devices: AtomicU32::new(0) })
    }

    /// Gives a user a new device, with NATS first and HTTP behind it. It starts offline.
    ///
    /// # Errors
    /// If the database or the network cannot be set up.
    pub async fn device(&self, user: &str) -> Result<Device, StageError> {
        self.device_over(user, &[Carrier::Nats, Carrier::Http]).await
    }

    /// Gives a user a new device with these carriers, preferred first. It starts offline.
    ///
    /// # Errors
    /// If the database or the network cannot be set up.
    pub async fn device_over(&self, user: &str, carriers: &[Carrier]) -> Result<Device, StageError> {
        self.device_through(user, carriers, self.nats.url(), &self.http_url()).await
    }

    /// The same, with NATS and HTTP at these addresses.
    ///
    /// # Errors
    /// If the database or the network cannot be set up.
    pub async fn device_through(
        &self,
        user: &str,
        carriers: &[Carrier],
        nats_url: &str,
        http_url: &str,
    ) -> Result<Device, StageError> {
        let number = self.devices.fetch_add(1, Ordering::Relaxed);
        let database = self.folder.path().join(format!("{user}-{number}.db"));
        let client = theatre::app(&database, user).open().await?;
        let token = Arc::new(StaticToken::new(token(user)?));
        let mut networks: Vec<Arc<dyn Network>> = Vec::new();
        for carrier in carriers {
            let token = Arc::clone(&token);
            networks.push(match carrier {
                Carrier::Nats => {
                    let nats = NatsSettings::new(nats_url)?;
                    Arc::new(NatsNetwork::connect(nats, UserId::new(user)?, client.client_id(), token).await)
                }
                _ => Arc::new(HttpNetwork::new(http_url, token)?),
            });
        }
        Ok(Device { client, database, network: Arc::new(Failover::new(networks)) })
    }

    /// Where HTTP is.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.server.http_addr())
    }

    /// The address of HTTP, for a proxy.
    #[must_use]
    pub const fn http_addr(&self) -> SocketAddr {
        self.server.http_addr()
    }

    /// Stops the server; the services end with the program.
    pub async fn strike(self) {
        self.server.shutdown().await;
    }
}

impl Device {
    /// Connects the device, and waits until it has everything.
    ///
    /// # Errors
    /// If the first pass fails.
    pub async fn go_online(&self) -> Result<(), StageError> {
        self.connect();
        Ok(self.client.sync_now().await?)
    }

    /// Connects the device, whatever that comes to.
    pub fn connect(&self) {
        self.client.go_online(Arc::clone(&self.network));
    }

    /// Waits until this carrier is in use.
    ///
    /// # Errors
    /// If that takes half a minute.
    pub async fn wait_for_carrier(&self, carrier: Carrier) -> Result<(), StageError> {
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
