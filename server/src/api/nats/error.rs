//! Why a loop over NATS ended. It begins anew in every case; this tells the operator why.

use async_nats::SubscribeError;
use async_nats::jetstream::consumer::pull::BatchError;
use async_nats::jetstream::context::{CreateStreamError, GetStreamError, PublishError};
use async_nats::jetstream::stream::ConsumerError;
use synchrotron_core::wire::Fault;
use synchrotron_nats::Servers;

use super::StreamFault;
use crate::settings::SettingsError;

/// Why a loop over NATS ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsApiError {
    /// The connection is gone.
    #[error("the connection to NATS is lost")]
    Lost,
    /// NATS is not there, or refuses.
    #[error("NATS at {servers} cannot be reached, or refuses")]
    Away {
        /// Where it should be.
        servers: Servers,
    },
    /// There is nothing to log in with.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The NATS server is too old: it would ignore what is asked of streams.
    #[error("nats-server {actual} is too old, at least {min} is needed")]
    ServerTooOld {
        /// Its version.
        actual: String,
        /// The oldest that works.
        min: &'static str,
    },
    /// A stream cannot be had as it must be.
    #[error("stream {stream}: {source}")]
    Stream {
        /// Which.
        stream: String,
        /// Why.
        source: CreateStreamError,
    },
    /// A stream is not the one that is needed.
    #[error("{0}; to mend it: {remedy}", remedy = .0.remedy())]
    Unfit(#[from] StreamFault),
    /// A stream cannot be looked at.
    #[error("stream {stream}: {source}")]
    Look {
        /// Which.
        stream: String,
        /// Why.
        source: GetStreamError,
    },
    /// The consumer of uploads cannot be had.
    #[error("consumer {consumer} of stream {stream}: {source}")]
    Consumer {
        /// Of which stream.
        stream: String,
        /// Which.
        consumer: String,
        /// Why.
        source: ConsumerError,
    },
    /// Uploads cannot be asked for.
    #[error("asking for uploads: {0}")]
    Pull(#[from] BatchError),
    /// The stream stopped giving uploads.
    #[error("reading uploads: {0}")]
    Read(#[source] async_nats::Error),
    /// Requests cannot be listened to.
    #[error("listening to requests: {0}")]
    Subscribe(#[from] SubscribeError),
    /// The client of NATS has ended.
    #[error("the client of NATS has ended")]
    Ended,
    /// NATS knows no accounts, or not those that it should: anyone might publish in anyone's name.
    #[error(
        "NATS has put the server into account {account}: its configuration must be what the command nats-config writes, \
         with the same secret"
    )]
    Account {
        /// Which.
        account: String,
    },
    /// Something could not be sent.
    #[error("publishing: {0}")]
    Send(#[from] async_nats::PublishError),
    /// The stream did not take a slice.
    #[error("publishing a slice: {0}")]
    Publish(#[from] PublishError),
    /// Postgres does not serve.
    #[error(transparent)]
    Service(#[from] Fault),
}
