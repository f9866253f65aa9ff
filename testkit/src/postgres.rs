//! PostgreSQL.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgConnection;
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use crate::account::Account;
use crate::docker::{self, Container};
use crate::error::{Service, ServiceError};
use crate::find::{self, Source};
use crate::port::free_port;
use crate::process::Process;
use crate::wait::wait_for;

const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often another port is tried when a server ends instead of listening.
const STARTS_MAX: u32 = 4;

/// What a commit must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A kill: tests need no durability across a power cut, only speed.
    Kill,
    /// A power cut, as in production: for measuring.
    PowerCut,
}

impl Durability {
    const fn settings(self) -> [&'static str; 4] {
        match self {
            Self::Kill => ["fsync=off", "full_page_writes=off", "max_connections=200", "shared_buffers=64MB"],
            Self::PowerCut => ["fsync=on", "max_wal_size=4GB", "max_connections=200", "shared_buffers=512MB"],
        }
    }
}

/// What a process of ours needs, and a container does not; the folder is relative to the data folder.
const OWN_SETTINGS: [&str; 2] = ["listen_addresses=127.0.0.1", "unix_socket_directories=."];

/// A Postgres of this program; the role of its URL is a superuser.
#[derive(Debug)]
pub struct Postgres {
    url: Url,
    server: Server,
}

#[derive(Debug)]
enum Server {
    /// Given by URL.
    Given,
    /// A process of ours.
    Process { process: Process, programs: PathBuf, port: u16, durability: Durability },
    /// A container of ours.
    Container(Box<Container>),
}

/// The server that all tests of this program share; started when first asked for.
///
/// # Errors
/// As [`Postgres::start`].
pub async fn postgres() -> Result<&'static Postgres, ServiceError> {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_try_init(Postgres::start).await
}

impl Postgres {
    /// Starts a server of its own; with `DATABASE_URL` set, takes that one.
    ///
    /// # Errors
    /// [`ServiceError`] if no server can be had or it does not start.
    pub async fn start() -> Result<Self, ServiceError> {
        Self::start_with(Durability::Kill).await
    }

    /// Starts a server of its own whose commits outlive this much; with `DATABASE_URL` set, takes that one as it is.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_with(durability: Durability) -> Result<Self, ServiceError> {
        if let Some(url) = find::url_from_environment(Service::Postgres) {
            return Self::at(&url, Server::Given);
        }
        let programs = match find::find(Service::Postgres).await? {
            Source::Program(programs) => programs,
            Source::Docker => return Self::start_container(durability).await,
        };
        let mut starts = 1;
        loop {
            match Self::start_process(&programs, durability).await {
                // Most likely the port was taken between choosing it and listening on it.
                Err(ServiceError::Start { detail, .. }) if starts < STARTS_MAX => {
                    tracing::debug!(detail, "postgres did not start, trying another port");
                    starts += 1;
                }
                started => return started,
            }
        }
    }

    async fn start_process(programs: &Path, durability: Durability) -> Result<Self, ServiceError> {
        let programs = programs.to_owned();
        let (process, programs) = blocking(move || {
            let process = Process::prepare(Service::Postgres, Account::if_root())?;
            initialise(&process, &programs)?;
            Ok((process, programs))
        })
        .await?;
        let port = free_port();
        let url = format!("postgres://postgres@{}:{port}/postgres", Ipv4Addr::LOCALHOST);
        let server = Self::at(&url, Server::Process { process, programs, port, durability })?;
        server.restart().await?;
        Ok(server)
    }

    async fn start_container(durability: Durability) -> Result<Self, ServiceError> {
        let container = docker::start_postgres(free_port(), &durability.settings()).await?;
        let url = format!("postgres://postgres@{}:{}/postgres", container.host(), container.port());
        let server = Self::at(&url, Server::Container(Box::new(container)))?;
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Waits for a container. While it initialises, its server does not listen on TCP.
    async fn wait_until_ready(&self) -> Result<(), ServiceError> {
        let ready = wait_for("postgres to take connections", READY_WITHIN, async || {
            PgConnection::connect(self.url()).await.ok()
        });
        let connection = ready.await?;
        connection.close().await.map_err(|source| ServiceError::Database { call: "close a connection", source })
    }

    fn at(url: &str, server: Server) -> Result<Self, ServiceError> {
        let parsed = Url::parse(url);
        let url = parsed.map_err(|source| ServiceError::Url { service: Service::Postgres, source })?;
        Ok(Self { url, server })
    }

    /// The URL of a superuser, of the database that is there from the start.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Makes an empty database and returns its URL; its name begins with `prefix`.
    ///
    /// # Errors
    /// [`ServiceError::Database`] if Postgres refuses, such as to a role of `DATABASE_URL` that may not.
    pub async fn create_database(&self, prefix: &str) -> Result<String, ServiceError> {
        self.create_database_with(prefix, "").await
    }

    /// The same, sorting texts as people do by the rules of ICU, not by their bytes.
    ///
    /// # Errors
    /// As [`Self::create_database`]; also from a Postgres before 15, and from one that was built without ICU.
    pub async fn create_icu_database(&self, prefix: &str) -> Result<String, ServiceError> {
        self.create_database_with(prefix, " LOCALE_PROVIDER icu ICU_LOCALE 'en-US'").await
    }

    async fn create_database_with(&self, prefix: &str, locale: &str) -> Result<String, ServiceError> {
        let mut name: String = prefix.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(24).collect();
        name.push('_');
        name.push_str(&Uuid::new_v4().simple().to_string());
        let refused = |source| ServiceError::Database { call: "create a database", source };
        let mut connection = PgConnection::connect(self.url()).await.map_err(refused)?;
        // The name is letters, digits and underscores: nothing in it needs quoting.
        let statement = format!("CREATE DATABASE \"{name}\" TEMPLATE template0{locale}");
        connection.execute(AssertSqlSafe(statement)).await.map_err(refused)?;
        connection.close().await.map_err(refused)?;
        let mut url = self.url.clone();
        url.set_path(&name);
        Ok(url.into())
    }

    /// Ends the server without warning, as a crash would; its data stays. Does nothing if it is down.
    ///
    /// # Errors
    /// [`ServiceError::NotOurs`] with `DATABASE_URL`.
    pub async fn kill(&self) -> Result<(), ServiceError> {
        match &self.server {
            Server::Given => Err(ServiceError::NotOurs { service: Service::Postgres, call: "kill" }),
            Server::Process { process, .. } => process.kill(),
            Server::Container(container) => container.kill().await,
        }
    }

    /// Starts the server again with the same port and data, after killing it if it runs; returns when it is ready.
    ///
    /// # Errors
    /// [`ServiceError::NotOurs`] with `DATABASE_URL`; others if it does not start.
    pub async fn restart(&self) -> Result<(), ServiceError> {
        match &self.server {
            Server::Given => Err(ServiceError::NotOurs { service: Service::Postgres, call: "restart" }),
            Server::Process { process, programs, port, durability } => {
                process.kill()?;
                let mut command = process.command(&programs.join("postgres"));
                command.args(["-D", "data", "-p", &port.to_string()]);
                for setting in durability.settings().into_iter().chain(OWN_SETTINGS) {
                    command.args(["-c", setting]);
                }
                process.spawn(&mut command)?;
                let ready =
                    wait_for("postgres to take connections", READY_WITHIN, async || match process.check_alive() {
                        Err(ended) => Some(Err(ended)),
                        Ok(()) => is_ready(process).then_some(Ok(())),
                    });
                ready.await.map_err(|late| process.start_error(late.to_string()))?
            }
            Server::Container(container) => {
                container.restart().await?;
                self.wait_until_ready().await
            }
        }
    }
}

/// Makes the data folder.
fn initialise(process: &Process, programs: &Path) -> Result<(), ServiceError> {
    // macOS has no C.UTF-8; there, C with UTF-8 encoding sorts the same.
    let locale = if cfg!(target_os = "macos") { "C" } else { "C.UTF-8" };
    let mut initdb = process.command(&programs.join("initdb"));
    initdb.args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale", locale]);
    let output = initdb.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(ServiceError::io("run initdb in", programs))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr_tail = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ServiceError::Command { command: "initdb".to_owned(), status: output.status, stderr_tail })
}

/// Postgres itself writes down when it takes connections: in its pid file, the last line, for the process of the first.
fn is_ready(process: &Process) -> bool {
    let Ok(text) = std::fs::read_to_string(process.folder().join("data/postmaster.pid")) else { return false };
    let line = |number| text.lines().nth(number).map(str::trim);
    line(0) == process.pid().map(|pid| pid.to_string()).as_deref() && line(7) == Some("ready")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
