//! nats-server with JetStream.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::docker::{self, Container};
use crate::error::{Service, ServiceError};
use crate::find::{self, Source};
use crate::port::free_port;
use crate::process::Process;
use crate::wait::wait_for;

const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often another port is tried when a server ends instead of listening.
const STARTS_MAX: u32 = 4;

/// How to configure a [`NatsServer`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The largest message, in bytes.
    pub max_payload_bytes: u32,
    /// The rest of the configuration: accounts, users, an auth callout. Where it listens and what it keeps is not heard.
    pub config: String,
}

impl Default for NatsOptions {
    /// Messages of up to 8 MiB, no users.
    fn default() -> Self {
        Self { max_payload_bytes: 8 << 20, config: String::new() }
    }
}

impl NatsOptions {
    /// The same with this configuration.
    #[must_use]
    pub fn with_config(mut self, lines: impl Into<String>) -> Self {
        self.config = lines.into();
        self
    }
}

impl NatsOptions {
    /// The configuration file. Of two lines that set the same, nats-server takes the later: a whole configuration may be
    /// given, and this server is still our own.
    fn file(&self, port: u16, listen: &str, store: &str) -> String {
        let Self { max_payload_bytes, config } = self;
        let name = name_of(port);
        format!(
            "{config}\nserver_name: {name:?}\nlisten: {listen:?}\nmax_payload: {max_payload_bytes}\n\
             jetstream {{ store_dir: {store:?} }}\n"
        )
    }
}

/// A nats-server of this program: JetStream on, its store in a folder that goes when it goes.
#[derive(Debug)]
pub struct NatsServer {
    url: String,
    server: Server,
}

#[derive(Debug)]
enum Server {
    /// Given by URL.
    Given,
    /// A process of ours.
    Process { process: Process, program: PathBuf, port: u16 },
    /// A container of ours.
    Container(Box<Container>),
}

/// The server that all tests of this program share; started when first asked for.
///
/// # Errors
/// As [`NatsServer::start`].
pub async fn nats() -> Result<&'static NatsServer, ServiceError> {
    static SHARED: OnceCell<NatsServer> = OnceCell::const_new();
    SHARED.get_or_try_init(|| NatsServer::start(NatsOptions::default())).await
}

impl NatsServer {
    /// Starts a server of its own. With `NATS_URL` set, takes that one, unless the options add lines to the configuration:
    /// a server that is given has its own.
    ///
    /// # Errors
    /// [`ServiceError`] if no server can be had or it does not start.
    pub async fn start(options: NatsOptions) -> Result<Self, ServiceError> {
        if let Some(url) = find::url_from_environment(Service::Nats).filter(|_| options.config.is_empty()) {
            return Ok(Self { url, server: Server::Given });
        }
        let program = match find::find(Service::Nats).await? {
            Source::Program(program) => program,
            Source::Docker => return Self::start_container(&options).await,
        };
        let mut starts = 1;
        loop {
            match Self::start_process(&program, &options).await {
                // Most likely the port was taken between choosing it and listening on it.
                Err(ServiceError::Start { detail, .. }) if starts < STARTS_MAX => {
                    tracing::debug!(detail, "nats-server did not start, trying another port");
                    starts += 1;
                }
                started => return started,
            }
        }
    }

    async fn start_process(program: &std::path::Path, options: &NatsOptions) -> Result<Self, ServiceError> {
        let port = free_port();
        let process = Process::prepare(Service::Nats, None)?;
        let config = process.folder().join("nats-server.conf");
        let store = process.folder().join("store");
        let text = options.file(port, &format!("{}:{port}", Ipv4Addr::LOCALHOST), &store.display().to_string());
        std::fs::write(&config, text).map_err(ServiceError::io("write", config))?;
        let url = format!("nats://{}:{port}", Ipv4Addr::LOCALHOST);
        let server = Self { url, server: Server::Process { process, program: program.to_owned(), port } };
        server.restart().await?;
        Ok(server)
    }

    async fn start_container(options: &NatsOptions) -> Result<Self, ServiceError> {
        let port = free_port();
        let config = options.file(port, &format!("0.0.0.0:{}", docker::NATS_PORT), "/data");
        let container = docker::start_nats(port, config).await?;
        let url = format!("nats://{}:{port}", container.host());
        let server = Self { url, server: Server::Container(Box::new(container)) };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Waits for a container: a process is watched while it starts.
    async fn wait_until_ready(&self) -> Result<(), ServiceError> {
        if let Server::Container(container) = &self.server {
            let ready = wait_for("nats-server to answer with JetStream", READY_WITHIN, async || {
                is_ready(container.host(), container.port()).await.then_some(())
            });
            ready.await?;
        }
        Ok(())
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port of loopback that it listens on, also while it is down.
    ///
    /// # Errors
    /// [`ServiceError::NotOurs`] with `NATS_URL`.
    pub fn port(&self) -> Result<u16, ServiceError> {
        match &self.server {
            Server::Given => Err(ServiceError::NotOurs { service: Service::Nats, call: "tell the port of" }),
            Server::Process { port, .. } => Ok(*port),
            Server::Container(container) => Ok(container.port()),
        }
    }

    /// Where its streams are, if it is a process of this machine's.
    #[must_use]
    pub fn store_dir(&self) -> Option<PathBuf> {
        match &self.server {
            Server::Process { process, .. } => Some(process.folder().join("store")),
            Server::Given | Server::Container(_) => None,
        }
    }

    /// Its process, if it is one of this machine's that runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.server {
            Server::Process { process, .. } => process.pid(),
            Server::Given | Server::Container(_) => None,
        }
    }

    /// Ends the server with SIGKILL; its store stays. Does nothing if it is down.
    ///
    /// # Errors
    /// [`ServiceError::NotOurs`] with `NATS_URL`.
    pub async fn kill(&self) -> Result<(), ServiceError> {
        match &self.server {
            Server::Given => Err(ServiceError::NotOurs { service: Service::Nats, call: "kill" }),
            Server::Process { process, .. } => process.kill(),
            Server::Container(container) => container.kill().await,
        }
    }

    /// Starts the server again with the same port and store, after killing it if it runs; returns when it is ready.
    ///
    /// # Errors
    /// [`ServiceError::NotOurs`] with `NATS_URL`; others if it does not start.
    pub async fn restart(&self) -> Result<(), ServiceError> {
        match &self.server {
            Server::Given => Err(ServiceError::NotOurs { service: Service::Nats, call: "restart" }),
            Server::Process { process, program, port } => {
                process.kill()?;
                process.spawn(process.command(program).args(["--config", "nats-server.conf"]))?;
                let ready = wait_for("nats-server to answer with JetStream", READY_WITHIN, async || {
                    match process.check_alive() {
                        Err(ended) => Some(Err(ended)),
                        Ok(()) => is_ready("127.0.0.1", *port).await.then_some(Ok(())),
                    }
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

/// Whether *our* server is there: it greets with its name, and listens only once JetStream is up.
async fn is_ready(host: &str, port: u16) -> bool {
    let Ok(stream) = TcpStream::connect((host, port)).await else { return false };
    let mut greeting = String::new();
    let read = BufReader::new(stream).read_line(&mut greeting).await;
    read.is_ok() && greeting.contains(&name_of(port)) && greeting.contains("\"jetstream\":true")
}

/// The server's name, told in its greeting.
fn name_of(port: u16) -> String {
    format!("synchrotron-testkit-{}-{port}", std::process::id())
}
