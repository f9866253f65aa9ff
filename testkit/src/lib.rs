//! Real Postgres and real nats-server, for tests and for the demo.
//!
//! Place in the journey: beside it. Nothing here knows what Synchrotron is; it gives a test a server to talk to, and
//! takes the server away when the program ends.
//!
//! # Where a server comes from
//! The first that works:
//! 1. `DATABASE_URL` and `NATS_URL`, if set: fresh databases are created in that Postgres; that NATS is used as it is, where
//!    a test needs no configuration of its own.
//! 2. A program on `PATH`, or where distributions and Homebrew put it.
//! 3. A program that an earlier run left in the cache folder (`$XDG_CACHE_HOME/synchrotron` or `~/.cache/synchrotron`).
//! 4. Docker, where a daemon answers.
//! 5. Installing it with the machine's own package manager: `apt-get` or `brew`. Distributions lag behind with
//!    nats-server, so its package is taken from the distribution's newest suite and unpacked in the cache folder; the
//!    system is not touched.
//!
//! If none does, [`ServiceError::Absent`] says what was tried, what to install and which variable to set.
//!
//! # Invariants
//! - Whatever is started here is gone, with its folder, when the program ends, also after a panic, Ctrl-C or SIGKILL:
//!   each service has a watchdog process that holds a pipe from this one and cleans up when it closes.
//! - Servers listen on a port of their own, of loopback only; Docker's listen where its daemon publishes ports.
//! - Several programs may start at once; installing is done by one while the others wait.
//!
//! # Example
//! ```no_run
//! use std::time::Duration;
//! use synchrotron_testkit::{NatsOptions, NatsServer, postgres, wait_for};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // One server for the whole test program, a database for this test alone.
//! let database_url = postgres().await?.create_database("booking").await?;
//!
//! // A server of this test's own, to be killed and started again.
//! let nats = NatsServer::start(NatsOptions::default()).await?;
//! nats.kill().await?;
//! nats.restart().await?;
//!
//! let port = nats.port()?;
//! wait_for("its port", Duration::from_secs(5), async || {
//!     tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
//! })
//! .await?;
//! # let _ = database_url; Ok(())
//! # }
//! ```

mod account;
mod cache;
mod cluster;
mod docker;
mod error;
mod find;
mod install;
mod nats;
mod port;
mod postgres;
mod process;
mod proxy;
mod wait;
mod watchdog;

pub use cluster::NatsCluster;
pub use error::{Attempt, Service, ServiceError};
pub use nats::{NatsOptions, NatsServer, nats};
pub use port::free_port;
pub use postgres::{Durability, Postgres, postgres};
pub use proxy::{LineState, Proxy};
pub use wait::{TimedOut, wait_for};
