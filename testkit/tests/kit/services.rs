//! Servers answer, keep what they had over a restart, and say no clearly.

use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::{PgConnection, Postgres as Sql};
use synchrotron_testkit::{NatsOptions, NatsServer, Postgres, ServiceError, nats, postgres, wait_for};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::test]
async fn every_test_gets_a_database_of_its_own() -> Result {
    let postgres = postgres().await?;
    let (one, two) = (postgres.create_database("one").await?, postgres.create_database("odd; \"name\"").await?);
    let mut first = PgConnection::connect(&one).await?;
    first.execute("CREATE TABLE seats (id text)").await?;
    let mut second = PgConnection::connect(&two).await?;
    let seats: bool = query_scalar::<Sql, _>("SELECT to_regclass('seats') IS NOT NULL").fetch_one(&mut second).await?;
    assert!(!seats);
    let superuser: bool = query_scalar::<Sql, _>("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        .fetch_one(&mut second)
        .await?;
    assert!(superuser);
    Ok(())
}

#[tokio::test]
async fn postgres_keeps_its_data_over_a_kill() -> Result {
    if std::env::var_os("DATABASE_URL").is_some() {
        return Ok(());
    }
    let postgres = Postgres::start().await?;
    let url = postgres.create_database("kept").await?;
    let mut before = PgConnection::connect(&url).await?;
    before.execute("CREATE TABLE seats (id text); INSERT INTO seats VALUES ('A1')").await?;
    postgres.kill().await?;
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.restart().await?;
    let mut after = PgConnection::connect(&url).await?;
    let seat: String = query_scalar::<Sql, _>("SELECT id FROM seats").fetch_one(&mut after).await?;
    assert_eq!(seat, "A1");
    Ok(())
}

#[tokio::test]
async fn nats_keeps_its_streams_over_a_kill() -> Result {
    if std::env::var_os("NATS_URL").is_some() {
        let refused = nats().await?.kill().await.expect_err("not ours");
        assert!(matches!(refused, ServiceError::NotOurs { .. }) && refused.to_string().contains("NATS_URL"));
        return Ok(());
    }
    let nats = NatsServer::start(NatsOptions::default()).await?;
    let port = nats.port()?;
    let created = request(port, "$JS.API.STREAM.CREATE.KEPT", r#"{"name":"KEPT","subjects":["kept"]}"#).await?;
    assert!(!created.contains("error"), "{created}");
    nats.kill().await?;
    nats.kill().await?;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    nats.restart().await?;
    assert_eq!(nats.port()?, port);
    let kept = wait_for("the stream to be recovered", Duration::from_secs(10), async || {
        let info = request(port, "$JS.API.STREAM.INFO.KEPT", "").await.ok()?;
        info.contains(r#""subjects":["kept"]"#).then_some(())
    });
    kept.await?;
    Ok(())
}

#[tokio::test]
async fn nats_takes_large_messages_and_extra_configuration() -> Result {
    let nats = NatsServer::start(NatsOptions::default().with_config("authorization { token: secret }")).await?;
    let mut lines = BufReader::new(TcpStream::connect(("127.0.0.1", nats.port()?)).await?).lines();
    let greeting = lines.next_line().await?.unwrap_or_default();
    assert!(
        greeting.contains(r#""max_payload":8388608"#) && greeting.contains(r#""auth_required":true"#),
        "{greeting}"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() -> Result {
    let refused = NatsServer::start(NatsOptions::default().with_config("no_such_setting: {")).await;
    let message = refused.expect_err("not a configuration").to_string();
    assert!(message.contains("nats-server did not start") && message.contains("Parse error"), "{message}");
    Ok(())
}

/// One request in the protocol of NATS; the answer's payload.
async fn request(port: u16, subject: &str, payload: &str) -> Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?);
    let ask = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{payload}\r\n",
        payload.len()
    );
    stream.write_all(ask.as_bytes()).await?;
    let mut line = String::new();
    while !line.starts_with("MSG answer") {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err("closed before the answer".into());
        }
    }
    line.clear();
    stream.read_line(&mut line).await?;
    Ok(line)
}
