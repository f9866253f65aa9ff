//! The trace that an action belongs to, so that an operator can follow it from one device's tap to another's screen.
//!
//! Place in the journey: beside it. A trace is named where the action is executed, travels with its record, and says
//! nothing of what the action does: nothing is decided by it, and no hash, order or comparison of rows knows of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A W3C `traceparent` of version 00: which trace, which span of it caused this, and whether anybody keeps it.
///
/// ```
/// # use synchrotron_core::model::TraceParent;
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let trace_parent: TraceParent = text.parse()?;
/// assert!(trace_parent.is_sampled());
/// assert_eq!(trace_parent.to_string(), text);
/// # Ok::<(), synchrotron_core::model::TraceParentError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceParent {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

/// Why a text is no `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceParentError {
    /// It is shorter or longer than a `traceparent` is.
    #[error("traceparent has {actual} bytes, not {expected}", expected = TraceParent::BYTES)]
    Length {
        /// Its length in bytes.
        actual: usize,
    },
    /// It is of a version that this build does not know.
    #[error("traceparent is not of version 00")]
    Version,
    /// A field is not in lower-case hexadecimal digits, or a hyphen is missing around it.
    #[error("traceparent's {field} is malformed")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// An id is all zeros, which stands for none.
    #[error("traceparent's {field} is all zeros")]
    Zero {
        /// Which.
        field: &'static str,
    },
}

impl TraceParent {
    /// The length of its text, in bytes of ASCII.
    pub const BYTES: usize = 55;
    /// The flag of a trace that somebody keeps.
    const SAMPLED: u8 = 1;

    /// Names a span of a trace.
    ///
    /// # Errors
    /// [`TraceParentError::Zero`] if one of the ids is.
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], sampled: bool) -> Result<Self, TraceParentError> {
        Self { trace_id, parent_id, flags: u8::from(sampled) }.checked()
    }

    /// The trace.
    #[must_use]
    pub const fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span of it that caused this.
    #[must_use]
    pub const fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// Whether whoever began the trace keeps it.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    fn checked(self) -> Result<Self, TraceParentError> {
        let zero = |field| Err(TraceParentError::Zero { field });
        match self {
            Self { trace_id, .. } if trace_id == [0; 16] => zero("trace-id"),
            Self { parent_id, .. } if parent_id == [0; 8] => zero("parent-id"),
            well_formed => Ok(well_formed),
        }
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let bytes: &[u8; Self::BYTES] =
            text.as_bytes().try_into().map_err(|_| TraceParentError::Length { actual: text.len() })?;
        if !bytes.starts_with(b"00") {
            return Err(TraceParentError::Version);
        }
        let trace_id = field(&bytes[2..35], "trace-id")?;
        let parent_id = field(&bytes[35..52], "parent-id")?;
        let [flags] = field(&bytes[52..], "trace-flags")?;
        Self { trace_id, parent_id, flags }.checked()
    }
}

/// The bytes that a hyphen and lower-case hexadecimal digits say.
fn field<const N: usize>(text: &[u8], field: &'static str) -> Result<[u8; N], TraceParentError> {
    let malformed = TraceParentError::Field { field };
    let digits = text.strip_prefix(b"-").ok_or(malformed)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0]).ok_or(malformed)? << 4 | nibble(pair[1]).ok_or(malformed)?;
    }
    Ok(bytes)
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, parent_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.parent_id));
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Decodes the `trace_parent` of a record: a text that is none is dropped, for no work may be lost to its label.
pub(crate) fn well_formed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TraceParent>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_parent_is_its_text() {
        let parsed: TraceParent = GOOD.parse().expect("well-formed");
        assert_eq!(parsed.to_string(), GOOD);
        assert_eq!((parsed.trace_id()[..2].to_vec(), parsed.parent_id()[1]), (vec![0x4b, 0xf9], 0xf0));
        assert_eq!(TraceParent::new(parsed.trace_id(), parsed.parent_id(), true), Ok(parsed));
        let ignored: TraceParent = GOOD.replace("-01", "-fe").parse().expect("unknown flags are kept");
        assert!(!ignored.is_sampled());
    }

    #[test]
    fn what_is_malformed_is_named() {
        let field = |field| Err(TraceParentError::Field { field });
        let zero = |field| Err(TraceParentError::Zero { field });
        for (text, error) in [
            (String::new(), Err(TraceParentError::Length { actual: 0 })),
            (format!("{GOOD}-x"), Err(TraceParentError::Length { actual: 57 })),
            (GOOD.replacen("00", "01", 1), Err(TraceParentError::Version)),
            (GOOD.replacen("00", "ff", 1), Err(TraceParentError::Version)),
            (GOOD.replace("4bf9", "4BF9"), field("trace-id")),
            (GOOD.replace("00-4", "0004"), field("trace-id")),
            (GOOD.replace("02b7-", "02bé"), field("parent-id")),
            (GOOD.replace("-01", "-0 "), field("trace-flags")),
            (GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), zero("trace-id")),
            (GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)), zero("parent-id")),
        ] {
            assert_eq!(text.parse::<TraceParent>(), error, "{text}");
        }
    }
}
