//! The versioned envelope around every message.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use super::bounds::{self, BoundsError};
use super::compressed::{self, InflateError};

/// The version that this build writes, and the only one it reads.
pub const WIRE_VERSION: u16 = 1;

/// What every uncompressed envelope of this version begins with: a map of two, `v`, 1, `body`.
const PLAIN: &[u8] = b"\x82\xa1v\x01\xa4body";
/// Bodies smaller than this travel as they are: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: usize = 4 << 10;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Longer than the receiver takes.
    #[error("message of {actual} bytes, at most {max} are taken")]
    TooLarge {
        /// The receiver's bound.
        max: usize,
        /// The message's size.
        actual: usize,
    },
    /// Not one well-formed MessagePack value of bounded depth.
    #[error("malformed: {0}")]
    Malformed(#[from] BoundsError),
    /// A compressed body that is none, or is too large.
    #[error("compressed body: {0}")]
    Compressed(#[from] InflateError),
    /// An envelope of another version.
    #[error("envelope version {actual}, this side speaks {expected}")]
    Version {
        /// What this side speaks.
        expected: u16,
        /// What came.
        actual: u16,
    },
    /// Not JSON, or JSON that is not the message that belongs here.
    #[error("not the expected JSON: {words}")]
    Json {
        /// The parser's words, with the place; the first of them.
        words: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// Well-formed, but not the message that belongs here.
    #[error("not the expected message: {0}")]
    Shape(#[source] rmp_serde::decode::Error),
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    v: u16,
    body: &'a T,
}

#[derive(Serialize)]
struct OutgoingCompressed<'a> {
    v: u16,
    zstd: &'a Bytes,
}

#[derive(Deserialize)]
struct Incoming<T> {
    body: T,
}

/// An envelope without its body, unless that is compressed.
#[derive(Deserialize)]
struct Outside<'a> {
    v: u16,
    #[serde(default, rename = "body")]
    _body: IgnoredAny,
    #[serde(default, borrow)]
    zstd: Option<&'a Bytes>,
}

/// Encodes a message in its envelope.
///
/// ```
/// use synchrotron_core::wire;
/// let bytes = wire::encode(&"hello");
/// assert_eq!(wire::decode::<String>(&bytes, 64).expect("just encoded"), "hello");
/// ```
#[must_use]
pub fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(&Outgoing { v: WIRE_VERSION, body })
        .expect("BUG: wire types hold nothing that MessagePack cannot say, and a Vec takes every write")
}

/// Encodes a message, compressed if it is of more than a few KiB and that saves bytes.
///
/// For what is large and read once: pages of records, chunks of rows.
///
/// ```
/// use synchrotron_core::wire;
/// let rows = "row ".repeat(4_000);
/// let bytes = wire::encode_compressed(&rows);
/// assert!(bytes.len() < 100);
/// assert_eq!(wire::decode::<String>(&bytes, 20_000).expect("just encoded"), rows);
/// ```
#[must_use]
pub fn encode_compressed<T: Serialize>(body: &T) -> Vec<u8> {
    let plain = encode(body);
    let body = plain.strip_prefix(PLAIN).expect("BUG: every plain envelope begins the same");
    if body.len() < COMPRESSED_BYTES_MIN {
        return plain;
    }
    let frame = compressed::deflate(body);
    let outgoing = OutgoingCompressed { v: WIRE_VERSION, zstd: Bytes::new(&frame) };
    let compressed = rmp_serde::to_vec_named(&outgoing).expect("BUG: bytes have a MessagePack form");
    if compressed.len() < plain.len() { compressed } else { plain }
}

/// Decodes a message of at most `max` bytes, as it came and, where its body is compressed, as it is.
///
/// # Errors
/// [`WireError`]; nothing is allocated for bytes that are too long, too deep or shorter than they claim, and no more
/// than `max` for what is compressed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, WireError> {
    if bytes.len() > max {
        return Err(WireError::TooLarge { max, actual: bytes.len() });
    }
    bounds::check(bytes)?;
    let outside: Outside<'_> = rmp_serde::from_slice(bytes).map_err(WireError::Shape)?;
    if outside.v != WIRE_VERSION {
        return Err(WireError::Version { expected: WIRE_VERSION, actual: outside.v });
    }
    if let Some(frame) = outside.zstd {
        let body = compressed::inflate(frame, max)?;
        bounds::check(&body)?;
        return rmp_serde::from_slice(&body).map_err(WireError::Shape);
    }
    rmp_serde::from_slice::<Incoming<T>>(bytes).map(|message| message.body).map_err(WireError::Shape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::super::{FetchPage, Outcome, UploadBatch};
    use super::*;

    #[test]
    fn another_version_is_named_before_its_body_is_read() {
        #[derive(Serialize)]
        struct Future {
            v: u16,
            body: Vec<String>,
        }
        let bytes = rmp_serde::to_vec_named(&Future { v: 9, body: vec![] }).expect("encodes");
        assert!(matches!(
            decode::<UploadBatch>(&bytes, 1024),
            Err(WireError::Version { expected: WIRE_VERSION, actual: 9 })
        ));
    }

    #[test]
    fn oversize_is_refused_unread() {
        assert!(matches!(decode::<String>(&[0; 11], 10), Err(WireError::TooLarge { max: 10, actual: 11 })));
    }

    #[test]
    fn small_and_incompressible_bodies_travel_as_they_are() {
        let small = "x".repeat(COMPRESSED_BYTES_MIN - 16);
        assert_eq!(encode_compressed(&small), encode(&small));
        // Chained SHA-256: nothing in it repeats.
        let mut noise = vec![0; 32];
        while noise.len() < 2 * COMPRESSED_BYTES_MIN {
            let next = Sha256::digest(&noise);
            noise.extend_from_slice(&next);
        }
        let noise = Bytes::new(&noise);
        assert_eq!(encode_compressed(&noise), encode(&noise));
    }

    #[test]
    fn a_compressed_body_is_bounded_as_a_plain_one_is() {
        let bytes = encode_compressed(&"x".repeat(1 << 20));
        assert!(bytes.len() < 1_000, "{}", bytes.len());
        assert!(matches!(
            decode::<String>(&bytes, 1 << 20),
            Err(WireError::Compressed(InflateError::TooLarge { max: 1_048_576 }))
        ));
        assert_eq!(decode::<String>(&bytes, (1 << 20) + 5).expect("fits").len(), 1 << 20);
        let body = |inside: &[u8]| {
            let frame = compressed::deflate(inside);
            rmp_serde::to_vec_named(&OutgoingCompressed { v: WIRE_VERSION, zstd: Bytes::new(&frame) }).expect("encodes")
        };
        let deep = vec![0x91; 10_000];
        assert!(matches!(
            decode::<String>(&body(&deep), 1 << 20),
            Err(WireError::Malformed(BoundsError::TooDeep { .. }))
        ));
        let nested = encode_compressed(&"x".repeat(1 << 13));
        assert!(matches!(decode::<String>(&body(&nested), 1 << 20), Err(WireError::Shape(_))));
        assert!(matches!(decode::<String>(&body(&[0xc0, 0xc0]), 64), Err(WireError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn compressed_or_not_it_is_the_same_message(texts in prop::collection::vec("[a-z ]{0,40}", 0..400)) {
            let bytes = encode_compressed(&texts);
            prop_assert!(bytes.len() <= encode(&texts).len());
            prop_assert_eq!(decode::<Vec<String>>(&bytes, 1 << 20).expect("decodes"), texts);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in any::<Vec<u8>>()) {
            prop_assert!(decode::<UploadBatch>(&bytes, 1 << 20).is_err());
            prop_assert!(decode::<FetchPage>(&bytes, 1 << 20).is_err());
            prop_assert!(decode::<Outcome>(&bytes, 1 << 20).is_err());
        }
    }
}
