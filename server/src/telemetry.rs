//! Where what the server tells about itself goes: events to the log, spans to a collector.
//!
//! Place in the journey: around it, once per process. The hops open the spans; here they leave the process as OTLP, if
//! somebody asked for that. An upload's span continues the trace that the device's action came with.
//!
//! Tests: `tests/telemetry.rs`, against a collector of its own.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::IsTerminal;

#[cfg(feature = "otlp")]
pub use otlp::Otlp;
use synchrotron_core::wire::UploadBatch;
use tracing::Span;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

/// What is told unless `RUST_LOG` says otherwise.
const FILTER: &str = "info,async_nats=warn";

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The process has a subscriber of its own.
    #[error("events of this process go elsewhere already: {0}")]
    Taken(#[from] TryInitError),
    /// The collector's address is not an `http://` or `https://` URL.
    #[error("the OTLP endpoint is not an http:// or https:// URL")]
    Endpoint,
    /// The exporter cannot be made.
    #[cfg(feature = "otlp")]
    #[error("OTLP: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The HTTP client cannot be made.
    #[cfg(feature = "otlp")]
    #[error("OTLP: {0}")]
    Client(#[from] reqwest::Error),
    /// This build cannot export.
    #[cfg(not(feature = "otlp"))]
    #[error("an OTLP endpoint needs a build with the feature `otlp`")]
    NotBuilt,
}

/// Keeps telling until it is dropped; then what is still here is sent, within a few seconds.
#[derive(Debug)]
#[must_use = "spans that were not sent are lost when it is dropped too early"]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    _otlp: Option<Otlp>,
}

/// Writes events to stderr, as `RUST_LOG` asks; and sends spans to the OTLP collector whose base URL this is, if any
/// (`http://localhost:4318`; `/v1/traces` is added). To be called once per process, within a tokio runtime of several
/// threads.
///
/// # Errors
/// [`TelemetryError`] if the endpoint cannot be used, or the process has a subscriber already.
pub fn init(otlp_endpoint: Option<&str>) -> Result<Telemetry, TelemetryError> {
    // An empty variable of the environment is none.
    let otlp_endpoint = otlp_endpoint.filter(|endpoint| !endpoint.is_empty());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let log = tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()));
    #[cfg(feature = "otlp")]
    {
        let otlp = otlp_endpoint.map(Otlp::to).transpose()?;
        log.with(otlp.as_ref().map(Otlp::layer)).try_init()?;
        Ok(Telemetry { _otlp: otlp })
    }
    #[cfg(not(feature = "otlp"))]
    {
        if otlp_endpoint.is_some() {
            return Err(TelemetryError::NotBuilt);
        }
        log.try_init()?;
        Ok(Telemetry {})
    }
}

/// Makes an upload's span continue the trace of its first traced record, and links it to the traces of the others. Must be
/// called before the span is entered.
pub(crate) fn follow(span: &Span, batch: &UploadBatch) {
    #[cfg(feature = "otlp")]
    if !span.is_disabled() {
        otlp::follow(span, batch);
    }
    #[cfg(not(feature = "otlp"))]
    let _ = (span, batch);
}
