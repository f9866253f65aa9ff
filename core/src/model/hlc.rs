//! The hybrid logical clock: 48 bits of milliseconds and 16 bits of counter in one `i64`.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks" (2014); the packing makes "counter overflows into the next
//! millisecond" the plain carry of an addition. Size is constant, whatever the number of clients.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point of the hybrid logical clock. Orders as its packed integer does.
///
/// ```
/// use synchrotron_core::model::Hlc;
/// let first = Hlc::ZERO.tick(1_000);
/// let second = first.tick(900); // the wall clock went back
/// assert!(second > first);
/// assert_eq!((second.millis(), second.counter()), (1_000, 1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(#[serde(with = "super::human::decimal")] i64);

const COUNTER_BITS: u32 = 16;

impl Hlc {
    /// Before every action.
    pub const ZERO: Self = Self(0);
    /// The largest wall time that fits, in milliseconds since 1970 (the year 6429).
    pub const MAX_MILLIS: i64 = (1 << 47) - 1;

    /// From its packed form, as stored and sent.
    #[must_use]
    pub const fn from_packed(packed: i64) -> Self {
        Self(packed)
    }

    /// The packed form.
    #[must_use]
    pub const fn packed(self) -> i64 {
        self.0
    }

    /// The first point of a millisecond. Times outside `0..=MAX_MILLIS` are clamped.
    #[must_use]
    pub fn at_millis(millis: i64) -> Self {
        Self(millis.clamp(0, Self::MAX_MILLIS) << COUNTER_BITS)
    }

    /// Wall part in milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0 >> COUNTER_BITS
    }

    /// Logical part within the millisecond.
    #[must_use]
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The next point for an action executed at wall time `now_millis`: after `self`, and not before the wall clock.
    #[must_use]
    pub fn tick(self, now_millis: i64) -> Self {
        Self(self.0.saturating_add(1)).max(Self::at_millis(now_millis))
    }

    /// The clock after seeing `remote`: the next tick sorts after both.
    #[must_use]
    pub fn merge(self, remote: Self) -> Self {
        self.max(remote)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.counter())
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counter_overflows_into_the_next_millisecond() {
        let last = Hlc::from_packed((7 << COUNTER_BITS) | 0xffff);
        assert_eq!((last.tick(0).millis(), last.tick(0).counter()), (8, 0));
    }

    #[test]
    fn wall_times_out_of_range_are_clamped() {
        assert_eq!(Hlc::at_millis(-5), Hlc::ZERO);
        assert_eq!(Hlc::at_millis(i64::MAX).millis(), Hlc::MAX_MILLIS);
    }

    proptest! {
        #[test]
        fn tick_is_after_the_clock_and_not_before_the_wall(packed in 0..i64::MAX - 1, now in 0..Hlc::MAX_MILLIS) {
            let clock = Hlc::from_packed(packed);
            let next = clock.tick(now);
            prop_assert!(next > clock);
            prop_assert!(next >= Hlc::at_millis(now));
        }

        #[test]
        fn an_action_after_a_merge_sorts_after_both(a in 0..i64::MAX - 1, b in 0..i64::MAX - 1, now in 0..Hlc::MAX_MILLIS) {
            let (a, b) = (Hlc::from_packed(a), Hlc::from_packed(b));
            let next = a.merge(b).tick(now);
            prop_assert!(next > a && next > b);
        }
    }
}
