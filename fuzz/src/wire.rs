//! Messages in their envelope, compressed or not.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;
use synchrotron_core::wire::{self, FetchPage, Reply, WIRE_VERSION, WireError};

/// The largest message of these targets, compressed or not.
const BYTES_MAX: usize = 1 << 20;

/// What was taken is written in one form, and read from that as the same.
pub(crate) fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    match wire::decode::<T>(bytes, BYTES_MAX) {
        Ok(message) => {
            survives(&message);
            true
        }
        Err(error) => {
            tells(&error);
            false
        }
    }
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let plain = wire::encode(message);
    // A reader's bound holds for what it is sent, not for what it would itself write of it.
    let max = BYTES_MAX.max(plain.len());
    let again: T = wire::decode(&plain, max).expect("BUG: what was written can be read");
    assert_eq!(&again, message, "another message is read than was written");
    assert_eq!(wire::encode(&again), plain, "a message has two forms");
    let compressed: T =
        wire::decode(&wire::encode_compressed(message), max).expect("BUG: compressed, it can be read too");
    assert_eq!(&compressed, message, "compressed, it is another message");
}

/// An error has words, and they are few: it never quotes what it was given.
fn tells(error: &WireError) {
    let words = error.to_string();
    assert!(!words.is_empty() && words.len() < 1_000, "{} bytes of error", words.len());
}

#[derive(Serialize)]
struct Plain<'a> {
    v: u16,
    body: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct Compressed<'a> {
    v: u16,
    #[serde(borrow)]
    zstd: &'a Bytes,
}

fn compressed(frame: &[u8]) -> Vec<u8> {
    let envelope = Compressed { v: WIRE_VERSION, zstd: Bytes::new(frame) };
    rmp_serde::to_vec_named(&envelope).expect("BUG: bytes have a MessagePack form")
}

/// These bytes as an uncompressed envelope's body, whatever they are.
fn plain(body: &[u8]) -> Vec<u8> {
    let empty: &[u8] = &[];
    let mut bytes = rmp_serde::to_vec_named(&Plain { v: WIRE_VERSION, body: empty }).expect("BUG: it has a form");
    bytes.pop();
    bytes.extend_from_slice(body);
    bytes
}

/// A body is taken or not, and means the same, whether it travels compressed or not.
pub(crate) fn compressed_body(body: &[u8]) -> bool {
    let frame = zstd::bulk::compress(body, 1).expect("BUG: the buffer is as large as a frame can be");
    let plain = wire::decode::<Reply<FetchPage>>(&plain(body), BYTES_MAX);
    let inflated = wire::decode::<Reply<FetchPage>>(&compressed(&frame), BYTES_MAX);
    match (&plain, &inflated) {
        (Ok(plain), Ok(inflated)) => assert_eq!(plain, inflated, "compressed, it means something else"),
        (Err(_), Err(error)) => tells(error),
        (Ok(_), Err(error)) => panic!("taken, and compressed not: {error}"),
        (Err(error), Ok(_)) => panic!("taken compressed only: {error}"),
    }
    inflated.is_ok()
}

/// Any bytes as a frame.
pub(crate) fn compressed_frame(frame: &[u8]) -> bool {
    message::<Reply<FetchPage>>(&compressed(frame))
}
