//! Starts Postgres and nats-server, prints their URLs, and ends them on Ctrl-C: for trying things by hand.

use std::io::Write;

use synchrotron_testkit::{NatsOptions, NatsServer, Postgres, ServiceError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (postgres, nats): (Result<Postgres, ServiceError>, Result<NatsServer, ServiceError>) =
        tokio::join!(Postgres::start(), NatsServer::start(NatsOptions::default()));
    let (postgres, nats) = (postgres?, nats?);
    let mut out = std::io::stdout();
    writeln!(out, "DATABASE_URL={}\nNATS_URL={}", postgres.url(), nats.url())?;
    out.flush()?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
