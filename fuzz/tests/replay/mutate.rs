//! Good inputs made bad, a little at a time: what a fuzzer does first, repeatable by its seed.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Heads of MessagePack values, and of a zstd frame: what a decoder decides by.
const HEADS: [u8; 20] = [
    0x00, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc6, 0xc9, 0xcb, 0xd9, 0xdb, 0xdd, 0xdf,
    0xff,
];

/// One input, changed in one to four places; `others` lends parts of its own.
pub(crate) fn mutated(input: &[u8], others: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        change(&mut bytes, others, rng);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=bytes.len());
    let until = rng.random_range(at..=bytes.len().min(at + 32));
    match rng.random_range(0..8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *HEADS.choose(rng).expect("BUG: there are some");
            }
        }
        2 => bytes.insert(at, *HEADS.choose(rng).expect("BUG: there are some")),
        3 => drop(bytes.drain(at..until)),
        4 => {
            let part = bytes[at..until].to_vec();
            bytes.splice(at..at, part);
        }
        5 => bytes.truncate(at),
        6 => {
            let claim = [HEADS[rng.random_range(16..19)], 0xff, 0xff, 0xff, 0xff];
            bytes.splice(at..until, claim);
        }
        _ => {
            let other = others.choose(rng).expect("BUG: a corpus is not empty");
            let from = rng.random_range(0..=other.len());
            let to = rng.random_range(from..=other.len().min(from + 64));
            bytes.splice(at..until, other[from..to].iter().copied());
        }
    }
}
