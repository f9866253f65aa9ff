//! Partitions: which reader an upload is for.
//!
//! Place in the journey: between the stream and its readers. An upload belongs to the partition of the audience in its
//! subject, by a hash of our own: NATS knows nothing of it, so that the number of partitions can change while servers run,
//! a stream that an operator made needs no transform, and nothing depends on NATS filtering messages completely. Each
//! partition has a consumer of its own that brings every upload; its reader leaves what is another's, which costs it a look
//! at the subject.
//!
//! # Invariants
//! - For a given count, an audience has one partition, on every server and for ever.
//! - Partitions of different counts share no consumer and no lease: while servers of two counts run, both read everything,
//!   and what both decide is decided once.
//!
//! Order needs no partition: the gate and idempotence decide. What partitions give is that uploads of one audience meet in
//! one process, where they share a transaction instead of waiting for each other's locks.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use synchrotron_nats::subjects::AudienceToken;

use crate::lease::Part;

/// In how many partitions uploads are read, by all server processes together: from 1 to [`Self::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PartitionCount(NonZeroU16);

/// Uploads cannot be read in so many partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("uploads are read in 1 to {} partitions, not in {actual}", PartitionCount::MAX)]
pub struct PartitionCountError {
    /// How many were asked for.
    pub actual: u16,
}

impl PartitionCount {
    /// The most: every reader is brought every upload.
    pub const MAX: u16 = 32;
    /// All uploads in one.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// All of them.
    pub(super) fn partitions(self) -> impl Iterator<Item = Partition> {
        (0..self.get()).map(move |part| Partition { part, count: self })
    }
}

impl TryFrom<u16> for PartitionCount {
    type Error = PartitionCountError;

    fn try_from(actual: u16) -> Result<Self, PartitionCountError> {
        let count = NonZeroU16::new(actual).filter(|count| count.get() <= Self::MAX);
        count.map(Self).ok_or(PartitionCountError { actual })
    }
}

impl From<PartitionCount> for u16 {
    fn from(count: PartitionCount) -> Self {
        count.get()
    }
}

/// What the consumers of all partitions of all counts begin with.
pub(super) const CONSUMERS: &str = "synchrotron-server";

/// One partition of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    /// Which, counted from 0.
    pub(super) part: Part,
    /// Of how many.
    pub(super) count: PartitionCount,
}

impl Partition {
    /// Whether uploads of this audience are for its reader.
    pub(super) fn owns(self, audience: &AudienceToken) -> bool {
        part_of(audience, self.count) == self.part
    }

    /// Whether its reader does what one alone should do for all.
    pub(super) const fn is_first(self) -> bool {
        self.part == 0
    }

    /// Its durable consumer. That of the only one has the name that it had before there were several.
    pub(super) fn consumer(self) -> String {
        match self.count {
            PartitionCount::ONE => CONSUMERS.to_owned(),
            count => format!("{CONSUMERS}-{}-of-{}", self.part, count.get()),
        }
    }
}

/// The first eight bytes of the SHA-256 of the audience's token, as a big-endian number, modulo the count.
fn part_of(audience: &AudienceToken, count: PartitionCount) -> Part {
    let hash = Sha256::digest(audience.to_string().as_bytes());
    let first: [u8; 8] = hash[..8].try_into().expect("BUG: the hash has 32 bytes");
    let part = u64::from_be_bytes(first) % u64::from(count.get());
    Part::try_from(part).expect("BUG: it is below the count")
}

#[cfg(test)]
mod tests {
    use synchrotron_core::model::AudienceKey;

    use super::*;

    fn token(key: &str) -> AudienceToken {
        AudienceToken::of(&AudienceKey::new(key).expect("ok"))
    }

    fn count(number: u16) -> PartitionCount {
        number.try_into().expect("in range")
    }

    #[test]
    fn an_audience_stays_where_it_is() {
        let parts = |key: &str| [1, 2, 3, 8, 32].map(|number| part_of(&token(key), count(number)));
        // Computed apart from this code: with these, servers of two versions agree.
        assert_eq!(parts("project:1"), [0, 0, 1, 6, 22]);
        assert_eq!(parts("user:alice"), [0, 0, 0, 2, 18]);
    }

    #[test]
    fn every_upload_is_for_one_reader_and_all_have_some() {
        for number in [1, 2, 5, 32] {
            let mut uploads = vec![0; usize::from(number)];
            for audience in (0..2_000).map(|n| token(&format!("project:{n}"))).chain([AudienceToken::none()]) {
                let owners: Vec<_> = count(number).partitions().filter(|partition| partition.owns(&audience)).collect();
                assert_eq!(owners.len(), 1);
                uploads[usize::from(owners[0].part)] += 1;
            }
            let even = 2_000 / usize::from(number);
            assert!(uploads.iter().all(|uploads| *uploads > even / 2 && *uploads < even * 2), "{uploads:?}");
        }
    }

    #[test]
    fn consumers_of_different_counts_are_different() {
        let names = |number| count(number).partitions().map(Partition::consumer).collect::<Vec<_>>();
        assert_eq!(names(1), ["synchrotron-server"]);
        assert_eq!(names(2), ["synchrotron-server-0-of-2", "synchrotron-server-1-of-2"]);
        assert!(names(3).iter().all(|name| !names(2).contains(name)));
    }

    #[test]
    fn none_and_too_many_are_no_count() {
        assert_eq!(PartitionCount::try_from(0), Err(PartitionCountError { actual: 0 }));
        assert_eq!(PartitionCount::try_from(33), Err(PartitionCountError { actual: 33 }));
        assert_eq!(PartitionCount::try_from(32).map(u16::from), Ok(32));
    }
}
