//! One fetch of a key set over HTTP.

use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode, redirect};
use url::Url;

use super::{JwksLimits, KeySet};

/// Why tokens cannot be verified in this process at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// There is no way to fetch a key set: most often, the machine has no root certificates.
    #[error("key sets cannot be fetched here: {}", story(.0))]
    Client(#[source] reqwest::Error),
}

/// Why a key set was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{}", story(.0))]
    Http(reqwest::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("took longer than {within:?}")]
    Slow { within: Duration },
    #[error("larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("is no key set, at line {line}, column {column}")]
    NoKeySet { line: usize, column: usize },
    #[error("holds {actual} keys, at most {max} are kept")]
    TooManyKeys { actual: usize, max: usize },
}

/// Asks one address for keys.
pub(super) struct Fetcher {
    client: Client,
    url: Url,
    limits: JwksLimits,
}

impl Fetcher {
    /// A redirect is not followed: the address is the operator's to say, and an answer from elsewhere is no key set.
    pub(super) fn new(url: Url, limits: JwksLimits) -> Result<Self, VerifierError> {
        crate::crypto::install();
        let client = Client::builder()
            .connect_timeout(limits.connect_within)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("synchrotron-server/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { client: client.map_err(VerifierError::Client)?, url, limits })
    }

    /// The key set as it is published now.
    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let within = self.limits.fetch_within;
        let read = tokio::time::timeout(within, self.read()).await;
        KeySet::parse(&read.map_err(|_elapsed| FetchError::Slow { within })??, self.limits.keys_max)
    }

    /// The body, whatever length is declared, up to its bound.
    async fn read(&self) -> Result<Vec<u8>, FetchError> {
        let request = self.client.get(self.url.clone()).header(ACCEPT, "application/json");
        let mut response = request.send().await.map_err(FetchError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let max = self.limits.bytes_max;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(FetchError::Http)? {
            if bytes.len() + chunk.len() > max {
                return Err(FetchError::TooLarge { max });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// The error with what is behind it, which is where reqwest keeps the cause.
fn story(error: &reqwest::Error) -> String {
    let mut told = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source {
        told.push_str(": ");
        told.push_str(&deeper.to_string());
        source = deeper.source();
    }
    told
}
