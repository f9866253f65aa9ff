//! The versioned envelope around every message.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::bounds::{self, BoundsError};

/// The version that this build writes, and the only one it reads.
pub const WIRE_VERSION: u16 = 1;

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
    #[error("malformed MessagePack: {0}")]
    Malformed(#[from] BoundsError),
    /// An envelope of another version.
    #[error("envelope version {actual}, this side speaks {expected}")]
    Version {
        /// What this side speaks.
        expected: u16,
        /// What came.
        actual: u16,
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

#[derive(Deserialize)]
struct Incoming<T> {
    body: T,
}

#[derive(Deserialize)]
struct Version {
    v: u16,
    #[serde(default, rename = "body")]
    _body: IgnoredAny,
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

/// Decodes a message of at most `max` bytes.
///
/// # Errors
/// [`WireError`]; nothing is allocated for bytes that are too long, too deep or shorter than they claim.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, WireError> {
    if bytes.len() > max {
        return Err(WireError::TooLarge { max, actual: bytes.len() });
    }
    bounds::check(bytes)?;
    let version: Version = rmp_serde::from_slice(bytes).map_err(WireError::Shape)?;
    if version.v != WIRE_VERSION {
        return Err(WireError::Version { expected: WIRE_VERSION, actual: version.v });
    }
    rmp_serde::from_slice::<Incoming<T>>(bytes).map(|message| message.body).map_err(WireError::Shape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in any::<Vec<u8>>()) {
            prop_assert!(decode::<UploadBatch>(&bytes, 1 << 20).is_err());
            prop_assert!(decode::<FetchPage>(&bytes, 1 << 20).is_err());
            prop_assert!(decode::<Outcome>(&bytes, 1 << 20).is_err());
        }
    }
}
