//! The bytes of a request: read up to their bound, and inflated up to the same.

use std::io::Read;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use synchrotron_core::wire::{self, Fault, FaultCode, InflateError};

use super::answer::Refusal;
use super::negotiation;
use crate::api::fault::unreadable;

/// How much of a refused body is thrown away before the connection is given up instead, in bodies that would be taken.
const DRAINED_BODIES_MAX: usize = 8;

/// How much of a body is read, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyBounds {
    pub(super) bytes_max: usize,
    pub(super) within: Duration,
}

/// The message that a body is, by what its `Content-Type` and `Content-Encoding` say of it.
///
/// # Errors
/// The fault that the sender is told. No more than `max` is allocated for what is compressed, a window of zstd aside.
pub fn read_request<T: DeserializeOwned>(
    content_type: Option<&[u8]>,
    content_encoding: Option<&[u8]>,
    body: &[u8],
    max: usize,
) -> Result<T, Fault> {
    decode(content_type, content_encoding, body, max).map_err(|refusal| refusal.fault)
}

/// Reads and decodes a whole request.
pub(super) async fn receive<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    bounds: BodyBounds,
) -> Result<T, Refusal> {
    let header = |name| headers.get(name).map(axum::http::HeaderValue::as_bytes);
    let (content_type, content_encoding) = (header(CONTENT_TYPE), header(CONTENT_ENCODING));
    // What could not be read anyway is not waited for.
    let refused = negotiation::body_form(content_type).map(drop).and_then(|()| Coding::of(content_encoding).map(drop));
    if let Err(refusal) = refused.and_then(|()| check_length(headers, bounds.bytes_max).map_err(Refusal::from)) {
        drain(body.into_data_stream(), bounds).await;
        return Err(refusal);
    }
    let bytes = read(body, bounds).await?;
    decode(content_type, content_encoding, &bytes, bounds.bytes_max)
}

fn decode<T: DeserializeOwned>(
    content_type: Option<&[u8]>,
    content_encoding: Option<&[u8]>,
    body: &[u8],
    max: usize,
) -> Result<T, Refusal> {
    let form = negotiation::body_form(content_type)?;
    let decoded = match Coding::of(content_encoding)? {
        Coding::Identity => form.decode(body, max),
        Coding::Zstd => form.decode(&wire::inflate(body, max).map_err(|error| uncompressed(&error))?, max),
        Coding::Gzip => form.decode(&gunzip(body, max).map_err(|error| uncompressed(&error))?, max),
    };
    decoded.map_err(|error| unreadable(&error).into())
}

/// How a body is compressed.
enum Coding {
    Identity,
    Zstd,
    Gzip,
}

impl Coding {
    fn of(content_encoding: Option<&[u8]>) -> Result<Self, Refusal> {
        match content_encoding.map(<[u8]>::trim_ascii) {
            None => Ok(Self::Identity),
            Some(name) if name.eq_ignore_ascii_case(b"identity") => Ok(Self::Identity),
            Some(name) if name.eq_ignore_ascii_case(b"zstd") => Ok(Self::Zstd),
            Some(name) if name.eq_ignore_ascii_case(b"gzip") => Ok(Self::Gzip),
            Some(_) => {
                let fault = Fault::new(FaultCode::Malformed, "a body is compressed by zstd or gzip, or not at all");
                Err(Refusal::from(fault).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
            }
        }
    }
}

/// What gzip holds, of at most `max` bytes.
fn gunzip(body: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
    let mut bytes = Vec::new();
    // One byte beyond the bound tells a message that ends there from one that goes on.
    MultiGzDecoder::new(body).take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max { Err(InflateError::TooLarge { max }) } else { Ok(bytes) }
}

fn uncompressed(error: &InflateError) -> Fault {
    let code = match error {
        InflateError::TooLarge { .. } => FaultCode::TooLarge,
        InflateError::Damaged(_) | InflateError::Trailing { .. } => FaultCode::Malformed,
    };
    Fault::new(code, format!("the compressed body: {error}"))
}

/// Refuses a body by the length that it declares, before any of it is kept.
fn check_length(headers: &HeaderMap, max: usize) -> Result<(), Fault> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > max as u64 => Err(too_large(max)),
        Some(_) | None => Ok(()),
    }
}

/// The body, if it ends within its bounds.
async fn read(body: Body, bounds: BodyBounds) -> Result<Vec<u8>, Fault> {
    let mut chunks = body.into_data_stream();
    let reading = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk: Bytes = chunk.map_err(|_| Fault::new(FaultCode::Malformed, "the body stopped half way"))?;
            if bytes.len() + chunk.len() > bounds.bytes_max {
                return Err(too_large(bounds.bytes_max));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    let read = tokio::time::timeout(bounds.within, reading).await.unwrap_or_else(|_| {
        Err(Fault::new(FaultCode::Malformed, format!("the body did not arrive within {:?}", bounds.within)))
    });
    if matches!(&read, Err(fault) if fault.code == FaultCode::TooLarge) {
        drain(chunks, bounds).await;
    }
    read
}

/// Throws a body away: a sender that is still sending would not hear the answer. Gives up on an endless one.
pub(super) async fn drain(mut chunks: BodyDataStream, bounds: BodyBounds) {
    let mut left = bounds.bytes_max.saturating_mul(DRAINED_BODIES_MAX);
    let draining = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    if tokio::time::timeout(bounds.within, draining).await.is_err() {
        tracing::debug!("a refused body went on for too long");
    }
}

fn too_large(max: usize) -> Fault {
    Fault::new(FaultCode::TooLarge, format!("body of more than {max} bytes"))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::read::GzEncoder;

    use super::*;

    /// A small body may hold a large one. That this one is damaged at its end is only found by whoever inflates all of it.
    #[test]
    fn gzip_is_inflated_up_to_the_bound_and_no_further() {
        let mut body = Vec::new();
        GzEncoder::new([7_u8; 1_000].as_slice(), Compression::best()).read_to_end(&mut body).expect("compresses");
        assert_eq!(gunzip(&body, 1_000).expect("as large as it may be").len(), 1_000);
        *body.last_mut().expect("it has a trailer") ^= 1;
        for max in [0, 500, 999] {
            assert!(matches!(gunzip(&body, max), Err(InflateError::TooLarge { max: said }) if said == max));
        }
        assert!(matches!(gunzip(&body, 1_000), Err(InflateError::Damaged(_))));
    }
}
