//! One message as it travels: the bytes of its envelope.
//!
//! Place in the journey: everything between a device and the server passes through here, in the form that both carriers
//! bring it in; so the simulator runs the same encoders and decoders as they do. A message may break off in the middle.
//!
//! Invariant: what arrives whole is read as it was written, and no part of a message is ever read as one.

use std::fmt::Debug;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::network::NetworkError;
use synchrotron_core::wire::{self, Reply, WireError};

/// The largest message of a run; fleets are small.
const BYTES_MAX: usize = 16 << 20;

/// A message of this type under way.
#[derive(Debug, Clone)]
pub(crate) struct Parcel<T> {
    bytes: Vec<u8>,
    is_whole: bool,
    message: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Parcel<T> {
    /// As small messages travel.
    pub(crate) fn of(message: &T) -> Self {
        Self { bytes: wire::encode(message), is_whole: true, message: PhantomData }
    }

    /// What its reader makes of it.
    pub(crate) fn read(&self) -> Result<T, WireError> {
        let read = wire::decode(&self.bytes, BYTES_MAX);
        assert!(self.is_whole || read.is_err(), "a part of a message is read as one");
        assert!(!self.is_whole || read.is_ok(), "a whole message is not read: {:?}", read.err());
        read
    }
}

impl<A: Serialize + DeserializeOwned> Parcel<Reply<A>> {
    /// As large answers travel: compressed. A fault arrives at once.
    pub(crate) fn answer(answer: Result<A, NetworkError>) -> Result<Self, NetworkError> {
        match answer {
            Ok(answer) => {
                let bytes = wire::encode_compressed(&Reply::Ok(answer));
                Ok(Self { bytes, is_whole: true, message: PhantomData })
            }
            Err(NetworkError::Fault(fault)) => Err(NetworkError::Fault(carried(&fault))),
            Err(error) => Err(error),
        }
    }

    /// The answer in it.
    pub(crate) fn open(&self) -> Result<A, NetworkError> {
        Result::from(self.read()?).map_err(NetworkError::Fault)
    }
}

/// A message that arrives at once.
pub(crate) fn carried<T: Serialize + DeserializeOwned>(message: &T) -> T {
    Parcel::of(message).read().expect("BUG: a whole message is read")
}

/// What can break on its way.
pub(crate) trait Breaks {
    /// Only its first bytes arrive, fewer than all.
    fn break_off(&mut self, at: usize);
}

impl<T> Breaks for Parcel<T> {
    fn break_off(&mut self, at: usize) {
        self.bytes.truncate(at % self.bytes.len().max(1));
        self.is_whole = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_or_not_at_all() {
        let whole = Parcel::of(&"a message".to_owned());
        assert_eq!(whole.read().expect("reads"), "a message");
        for at in 0..whole.bytes.len() {
            let mut part = whole.clone();
            part.break_off(at);
            assert!(part.read().is_err(), "the first {at} bytes");
        }
    }
}
