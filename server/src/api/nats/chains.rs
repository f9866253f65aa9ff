//! How far each audience is published, as this process knows it.
//!
//! Place in the journey: between a commit of this process and the stream. A slice that follows the last one that was sent
//! of its audience goes as it is. Before any other there may be one in the outbox, of another process or of before.
//!
//! # Invariants
//! - What is believed sent was handed to the stream, or was in the outbox when it was read, by this publisher.

use std::collections::HashMap;

use synchrotron_core::model::{AudienceKey, Cursor, Epoch};
use synchrotron_core::wire::Slice;

use crate::service::{Fresh, OutboxId};

/// So many audiences are remembered; then all are forgotten, and each is looked up once.
const AUDIENCES_MAX: usize = 100_000;

/// Through where audiences are published.
#[derive(Debug, Default)]
pub(super) struct Chains {
    epoch: Option<Epoch>,
    through: HashMap<AudienceKey, Cursor>,
}

impl Chains {
    /// Those of these slices that are to be sent, if each follows what was sent before it.
    pub(super) fn continued_by(&mut self, slices: Fresh) -> Option<Vec<(OutboxId, Slice)>> {
        let mut next = Vec::with_capacity(slices.len());
        for (id, slice) in slices {
            let sent = self.sent(&slice)?;
            if sent < slice.prev {
                return None;
            }
            if sent < slice.through {
                self.note(&slice);
                next.push((id, slice));
            }
        }
        Some(next)
    }

    /// Notes a slice that is sent.
    pub(super) fn note(&mut self, slice: &Slice) {
        if self.epoch != Some(slice.epoch) || self.through.len() >= AUDIENCES_MAX {
            self.through.clear();
            self.epoch = Some(slice.epoch);
        }
        let sent = self.through.entry(slice.audience_key.clone()).or_default();
        *sent = slice.through.max(*sent);
    }

    /// Through where the slice's audience is published, if that is known.
    fn sent(&self, slice: &Slice) -> Option<Cursor> {
        if self.epoch != Some(slice.epoch) {
            return None;
        }
        self.through.get(&slice.audience_key).copied()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn slice(epoch: u128, audience: &str, prev: i64, through: i64) -> Slice {
        Slice {
            epoch: Epoch::from_uuid(Uuid::from_u128(epoch)),
            audience_key: AudienceKey::new(audience).expect("ok"),
            prev: Cursor::new(prev),
            through: Cursor::new(through),
            records: Vec::new(),
        }
    }

    /// The ends of what is to be sent.
    fn continued(chains: &mut Chains, slices: &[Slice]) -> Option<Vec<i64>> {
        let fresh = slices.iter().map(|slice| (OutboxId::for_test(slice.through.get()), slice.clone())).collect();
        chains.continued_by(fresh).map(|next| next.iter().map(|(_, slice)| slice.through.get()).collect())
    }

    #[test]
    fn what_follows_goes_and_what_was_sent_does_not_go_again() {
        let mut chains = Chains::default();
        chains.note(&slice(1, "a", 0, 5));
        assert_eq!(
            continued(&mut chains, &[slice(1, "a", 0, 5), slice(1, "a", 5, 7), slice(1, "a", 7, 9)]),
            Some(vec![7, 9])
        );
        assert_eq!(continued(&mut chains, &[slice(1, "a", 7, 9)]), Some(Vec::new()));
    }

    #[test]
    fn whatever_may_follow_another_is_looked_up() {
        let mut chains = Chains::default();
        assert_eq!(continued(&mut chains, &[slice(1, "a", 0, 5)]), None, "nothing is known");
        chains.note(&slice(1, "a", 0, 5));
        assert_eq!(continued(&mut chains, &[slice(1, "a", 6, 7)]), None, "another process committed 6");
        assert_eq!(continued(&mut chains, &[slice(1, "b", 0, 6)]), None, "another audience");
        assert_eq!(continued(&mut chains, &[slice(2, "a", 5, 7)]), None, "another history");
        chains.note(&slice(2, "a", 2, 3));
        assert_eq!(continued(&mut chains, &[slice(2, "a", 3, 4)]), Some(vec![4]));
    }
}
