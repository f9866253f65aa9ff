//! Bodies in fewer bytes: zstd, and never more out of it than was asked for.
//!
//! A frame may claim to hold gigabytes, or hold them: neither is believed. What comes out goes into a buffer that stops at
//! the reader's bound, and the window that a frame may ask memory for is bounded too.

use std::io::{self, Read};

use zstd::stream::read::Decoder;

/// Higher ones cost several times as much and save a few per cent on rows.
const LEVEL: i32 = 3;
/// The power of two of the largest window that is followed: 8 MiB, four times what [`LEVEL`] writes.
const WINDOW_LOG_MAX: u32 = 23;

/// Why a compressed body is none.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// More comes out of it than the receiver takes.
    #[error("holds more than {max} bytes")]
    TooLarge {
        /// The receiver's bound.
        max: usize,
    },
    /// Not a zstd frame, one that ends early, or one that asks for too large a window.
    #[error("damaged: {0}")]
    Damaged(#[from] io::Error),
    /// Bytes follow the frame.
    #[error("{count} bytes follow the frame")]
    Trailing {
        /// How many.
        count: usize,
    },
}

/// The bytes as one frame.
pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, LEVEL).expect("BUG: the buffer is as large as a frame of these bytes can be")
}

/// What one zstd frame holds, of at most `max` bytes; no more than that is ever allocated for it, a window of 8 MiB aside.
///
/// # Errors
/// [`InflateError`].
pub fn inflate(frame: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
    let mut decoder = Decoder::with_buffer(frame)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut bytes = Vec::new();
    // One byte beyond the bound tells a message that ends there from one that goes on.
    decoder.by_ref().take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(InflateError::TooLarge { max });
    }
    match decoder.finish().len() {
        0 => Ok(bytes),
        count => Err(InflateError::Trailing { count }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bomb_stops_at_the_bound() {
        let bomb = deflate(&vec![0; 16 << 20]);
        assert!(bomb.len() < 4_000, "{}", bomb.len());
        assert!(matches!(inflate(&bomb, 1_000), Err(InflateError::TooLarge { max: 1_000 })));
    }

    #[test]
    fn the_bound_itself_is_taken() {
        let frame = deflate(&[7; 1_000]);
        assert_eq!(inflate(&frame, 1_000).expect("fits"), [7; 1_000]);
        assert!(matches!(inflate(&frame, 999), Err(InflateError::TooLarge { max: 999 })));
    }

    #[test]
    fn exactly_one_whole_frame() {
        let frame = deflate(b"rows");
        assert!(matches!(inflate(&frame[..frame.len() - 1], 64), Err(InflateError::Damaged(_))));
        let two = [frame.clone(), frame].concat();
        assert!(matches!(inflate(&two, 64), Err(InflateError::Trailing { .. })));
        assert!(matches!(inflate(b"", 64), Err(InflateError::Damaged(_))));
        assert!(matches!(inflate(b"no frame", 64), Err(InflateError::Damaged(_))));
    }

    /// A frame of a few bytes that wants a window of 128 MiB: its descriptor, and nothing else.
    #[test]
    fn a_window_is_bounded_before_it_is_allocated() {
        let wants_128_mib = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 0x01, 0x00, 0x00];
        assert!(matches!(inflate(&wants_128_mib, 1 << 20), Err(InflateError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(inflate(&deflate(&bytes), bytes.len()).expect("a frame"), bytes);
        }

        #[test]
        fn garbage_never_panics(bytes in any::<Vec<u8>>()) {
            let _verdict = inflate(&bytes, 1 << 16);
            let magic = [&[0x28, 0xb5, 0x2f, 0xfd], &bytes[..]].concat();
            let _verdict = inflate(&magic, 1 << 16);
        }
    }
}
