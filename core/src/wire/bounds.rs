//! Walks MessagePack without decoding it: depth, counts and lengths are checked before serde sees a byte.
//!
//! rmp-serde's own depth guard has gaps (msgpack-rust issue 381), and a declared length is only a claim: every length is
//! compared with the bytes that are really there.

use rmp::Marker;

/// The deepest nesting any message of ours has, with room to grow.
pub(super) const DEPTH_MAX: usize = 16;

/// What a walk found wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundsError {
    /// Values nest deeper than any message does.
    #[error("nested deeper than {max}")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// The message ends before its last value does, or a declared length is longer than the message.
    #[error("ends at byte {at} inside a value")]
    Truncated {
        /// Where the message ends.
        at: usize,
    },
    /// Bytes follow the one value.
    #[error("{count} bytes follow the message")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// The reserved byte 0xc1.
    #[error("reserved marker at byte {at}")]
    Reserved {
        /// Where.
        at: usize,
    },
}

/// Checks that `bytes` is exactly one MessagePack value of bounded depth whose lengths are true.
pub(super) fn check(bytes: &[u8]) -> Result<(), BoundsError> {
    let mut walk = Walk { bytes, at: 0 };
    // One entry per open container: how many values it still holds.
    let mut open: Vec<usize> = vec![1];
    while let Some(remaining) = open.last_mut() {
        if *remaining == 0 {
            open.pop();
            continue;
        }
        *remaining -= 1;
        let children = walk.value()?;
        if children > 0 {
            if open.len() >= DEPTH_MAX {
                return Err(BoundsError::TooDeep { max: DEPTH_MAX });
            }
            open.push(children);
        }
    }
    match bytes.len() - walk.at {
        0 => Ok(()),
        count => Err(BoundsError::Trailing { count }),
    }
}

/// Whether the bytes are exactly one well-formed MessagePack map.
#[must_use]
pub fn is_one_map(bytes: &[u8]) -> bool {
    let map = matches!(
        bytes.first().map(|byte| Marker::from_u8(*byte)),
        Some(Marker::FixMap(_) | Marker::Map16 | Marker::Map32)
    );
    map && check(bytes).is_ok()
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    /// Steps over one scalar, or over a container's head; returns how many values the container holds.
    fn value(&mut self) -> Result<usize, BoundsError> {
        let at = self.at;
        let marker = Marker::from_u8(self.take(1)?[0]);
        let (skip, children) = match marker {
            Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(len) => (usize::from(len), 0),
            Marker::Str8 | Marker::Bin8 => (self.length(1)?, 0),
            Marker::Str16 | Marker::Bin16 => (self.length(2)?, 0),
            Marker::Str32 | Marker::Bin32 => (self.length(4)?, 0),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::Ext8 => (self.length(1)? + 1, 0),
            Marker::Ext16 => (self.length(2)? + 1, 0),
            Marker::Ext32 => (self.length(4)? + 1, 0),
            Marker::FixArray(len) => (0, usize::from(len)),
            Marker::Array16 => (0, self.length(2)?),
            Marker::Array32 => (0, self.length(4)?),
            Marker::FixMap(len) => (0, usize::from(len) * 2),
            Marker::Map16 => (0, self.length(2)? * 2),
            Marker::Map32 => (0, self.length(4)?.saturating_mul(2)),
            Marker::Reserved => return Err(BoundsError::Reserved { at }),
        };
        self.take(skip)?;
        // Each child is at least one byte, so a claim beyond the message's end is false.
        if children > self.bytes.len() - self.at {
            return Err(BoundsError::Truncated { at: self.bytes.len() });
        }
        Ok(children)
    }

    fn length(&mut self, width: usize) -> Result<usize, BoundsError> {
        Ok(self.take(width)?.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
    }

    fn take(&mut self, count: usize) -> Result<&[u8], BoundsError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(BoundsError::Truncated { at: self.bytes.len() });
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nesting_is_bounded_without_recursion() {
        let mut bomb = vec![0x91; 1_000_000];
        bomb.push(0xc0);
        assert_eq!(check(&bomb), Err(BoundsError::TooDeep { max: DEPTH_MAX }));
    }

    #[test]
    fn declared_lengths_must_be_there() {
        for claim in
            [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xdf, 0xff, 0xff, 0xff, 0xff], &[0xc6, 0xff, 0xff, 0xff, 0xff]]
        {
            assert_eq!(check(claim), Err(BoundsError::Truncated { at: 5 }));
        }
    }

    #[test]
    fn exactly_one_value() {
        assert_eq!(check(&[0xc0, 0xc0]), Err(BoundsError::Trailing { count: 1 }));
        assert_eq!(check(&[]), Err(BoundsError::Truncated { at: 0 }));
        assert_eq!(check(&[0xc1]), Err(BoundsError::Reserved { at: 0 }));
    }

    #[test]
    fn only_maps_are_maps() {
        assert!(is_one_map(&[0x80]));
        assert!(!is_one_map(&[0x90]));
        assert!(!is_one_map(&[0x81]));
        assert!(!is_one_map(&[]));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in any::<Vec<u8>>()) {
            let _verdict = check(&bytes);
        }
    }
}
