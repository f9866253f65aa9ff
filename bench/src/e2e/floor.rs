//! The floor of a way through NATS and Postgres: a plain message there and back, or to all who listen, and one plain
//! commit of the same rows.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join_all;
use sqlx_postgres::PgPool;
use synchrotron_testkit::{NatsOptions, NatsServer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::stage::{Stage, in_time};
use crate::error::BenchError;
use crate::server::floor;

const ECHO: &str = "floor.echo";
const FAN: &str = "floor.fan";
/// About as many bytes as a slice of one action.
const PAYLOAD_BYTES: usize = 500;

/// Plain connections to a NATS without accounts.
#[derive(Debug)]
pub(super) struct Plain {
    asker: async_nats::Client,
    pool: PgPool,
    heard: mpsc::UnboundedReceiver<()>,
    listeners: usize,
    _tasks: JoinSet<()>,
    _nats: NatsServer,
}

impl Plain {
    /// With one that echoes, and so many who listen.
    pub(super) async fn open(stage: &Stage, listeners: usize) -> Result<Self, BenchError> {
        let nats = NatsServer::start(NatsOptions::default()).await?;
        let connect = || async { async_nats::connect(nats.url()).await.map_err(BenchError::nats) };
        let mut tasks = JoinSet::new();
        let (asker, echo) = (connect().await?, connect().await?);
        let mut questions = echo.subscribe(ECHO).await.map_err(BenchError::nats)?;
        subscribed(&echo).await?;
        tasks.spawn(async move {
            while let Some(question) = questions.next().await {
                if let Some(reply) = question.reply {
                    let _sent = echo.publish(reply, question.payload).await;
                }
            }
        });
        let (tell, heard) = mpsc::unbounded_channel();
        for client in try_join_all((0..listeners).map(|_| connect())).await? {
            let mut messages = client.subscribe(FAN).await.map_err(BenchError::nats)?;
            subscribed(&client).await?;
            let tell = tell.clone();
            tasks.spawn(async move {
                let _connection = client;
                while messages.next().await.is_some() {
                    let _told = tell.send(());
                }
            });
        }
        Ok(Self { asker, pool: stage.pool.clone(), heard, listeners, _tasks: tasks, _nats: nats })
    }

    async fn there_and_back(&self) -> Result<(), BenchError> {
        let payload = Bytes::from_static(&[7; PAYLOAD_BYTES]);
        in_time("an echo", self.asker.request(ECHO, payload)).await?.map(drop).map_err(BenchError::nats)
    }

    /// A message there and back, then a commit of one action's rows.
    pub(super) async fn round_trip_and_commit(&self) -> Result<Duration, BenchError> {
        let begin = Instant::now();
        self.there_and_back().await?;
        floor::insert(&self.pool, 1, 1, 1).await?;
        Ok(begin.elapsed())
    }

    /// A commit of one action's rows, then a message to all who listen.
    pub(super) async fn commit_and_fan_out(&mut self) -> Result<Duration, BenchError> {
        let begin = Instant::now();
        floor::insert(&self.pool, 1, 1, 1).await?;
        self.asker.publish(FAN, Bytes::from_static(&[7; PAYLOAD_BYTES])).await.map_err(BenchError::nats)?;
        for _listener in 0..self.listeners {
            in_time("a message", self.heard.recv()).await?;
        }
        Ok(begin.elapsed())
    }
}

/// Waits until the server knows of all that this connection subscribed to. A flush does not wait for the server; a message of
/// the connection to itself comes after them.
async fn subscribed(client: &async_nats::Client) -> Result<(), BenchError> {
    let inbox = client.new_inbox();
    let mut own = client.subscribe(inbox.clone()).await.map_err(BenchError::nats)?;
    client.publish(inbox, Bytes::new()).await.map_err(BenchError::nats)?;
    in_time("its own message", own.next()).await.map(drop)
}
