//! The server as a process of its own, so that its memory and its time are its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use clap::Args;
use synchrotron_server::api::nats::NatsApiSettings;
use synchrotron_server::settings::Settings;
use synchrotron_server::{Server, ServerSettings};
use tokio::runtime::Runtime;

use super::app;
use super::stage::{NATS_SECRET, SECRET};
use crate::error::BenchError;

/// Serves until its input ends.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where Postgres is.
    database_url: String,
    /// Where NATS is.
    nats_url: String,
}

impl Serve {
    /// Says where HTTP listens, and serves.
    pub(crate) fn run(self) -> Result<(), BenchError> {
        Runtime::new()?.block_on(async {
            let nats = NatsApiSettings::new(&self.nats_url, NATS_SECRET).map_err(BenchError::nats)?;
            let core = Settings::new(self.database_url, vec![app::table()], SECRET);
            let settings = ServerSettings { core, http_listen: ([127, 0, 0, 1], 0).into(), nats: Some(nats) };
            let server = Server::start(settings).await?;
            writeln!(std::io::stdout(), "{}", server.http_addr())?;
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
            server.shutdown().await;
            Ok(())
        })
    }
}

/// A server that runs, until this is dropped.
#[derive(Debug)]
pub(super) struct ServerProcess {
    child: Child,
    pub(super) http: SocketAddr,
}

impl ServerProcess {
    pub(super) fn start(database_url: &str, nats_url: &str) -> Result<Self, BenchError> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", database_url, nats_url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().expect("BUG: it is piped");
        BufReader::new(output).read_line(&mut line)?;
        match line.trim().parse() {
            Ok(http) => Ok(Self { child, http }),
            Err(_) => Err(BenchError::Said { process: "the server", answer: line }),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ended = self.child.wait();
    }
}
