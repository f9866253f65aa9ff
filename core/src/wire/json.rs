//! The same messages as JSON, for people, `curl` and browsers.
//!
//! A message without its envelope: the version is the path's. Numbers that a double cannot hold are text, and so are bytes
//! (see [`crate::model`]). Bounds are those of MessagePack, and are checked first.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bounds::{BoundsError, DEPTH_MAX};
use super::envelope::WireError;

/// So much of what serde says is passed on: it may quote what it was given.
const WORDS_MAX: usize = 200;

/// Encodes a message as JSON.
///
/// ```
/// use synchrotron_core::wire;
/// assert_eq!(wire::encode_json(&["a"]), br#"["a"]"#);
/// ```
#[must_use]
pub fn encode_json<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("BUG: every wire type has a JSON form, and a Vec takes every write")
}

/// Decodes a message of at most `max` bytes of JSON.
///
/// # Errors
/// [`WireError`]; nothing is allocated for a text that is too long or too deep.
pub fn decode_json<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, WireError> {
    if bytes.len() > max {
        return Err(WireError::TooLarge { max, actual: bytes.len() });
    }
    check_depth(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| {
        let words: String = error.to_string().chars().take(WORDS_MAX).collect();
        WireError::Json { words, line: error.line(), column: error.column() }
    })
}

/// Whether nothing nests deeper than messages do. What is no JSON is left to the parser.
fn check_depth(bytes: &[u8]) -> Result<(), BoundsError> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(BoundsError::TooDeep { max: DEPTH_MAX });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FetchPage, Reply, SessionRequest};
    use super::*;

    #[test]
    fn nesting_is_bounded_before_it_is_parsed() {
        let bomb = "[".repeat(1 << 20);
        let error = decode_json::<SessionRequest>(bomb.as_bytes(), 2 << 20).expect_err("deep");
        assert!(matches!(error, WireError::Malformed(BoundsError::TooDeep { .. })), "{error}");
        let brackets = format!("\"{}\\\"{}\"", "[".repeat(100), "{".repeat(100));
        assert_eq!(decode_json::<String>(brackets.as_bytes(), 1_000).expect("a text").len(), 201);
    }

    #[test]
    fn an_error_names_the_place_and_stays_short() {
        let long = format!("{{\"client_id\": \"{}\"}}", "x".repeat(10_000));
        let error = decode_json::<SessionRequest>(long.as_bytes(), 20_000).expect_err("no UUID").to_string();
        assert!(error.len() < 400 && error.contains("line 1"), "{error}");
        assert!(matches!(decode_json::<String>(b"\"long\"", 3), Err(WireError::TooLarge { max: 3, actual: 6 })));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in any::<Vec<u8>>()) {
            let _verdict = decode_json::<Reply<FetchPage>>(&bytes, 1 << 20);
        }
    }
}
