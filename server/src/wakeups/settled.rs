//! Whether anything can have been committed since heads were read last, from one row of Postgres.
//!
//! The sequence of server_ingest_ids says that numbers were drawn, before the transaction that drew them commits. So its
//! standing still is not enough: heads are read until every transaction has ended that could have drawn the newest number.
//! Whoever draws one holds the lock of a head, and so has a transaction id: a snapshot taken after the number was seen has
//! that id beneath its xmax, and one whose xmin has reached that is after its end.

/// One look at Postgres: the newest number, and then the bounds of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) number: i64,
    pub(super) xmin: i64,
    pub(super) xmax: i64,
}

/// What is known of the newest number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing was read.
    Unknown,
    /// It was seen; who drew it may be under way.
    Seen { number: i64 },
    /// Who drew it has a transaction id beneath this one.
    Ending { number: i64, beneath: i64 },
    /// Everything through it was read.
    Quiet { number: i64 },
}

impl Settled {
    /// Whether heads need not be read.
    pub(super) fn is_quiet(self, probe: Probe) -> bool {
        self == Self::Quiet { number: probe.number }
    }

    /// What is known once heads were read after this probe.
    pub(super) fn after_reading(self, probe: Probe) -> Self {
        let number = probe.number;
        match self {
            Self::Seen { number: seen } if seen == number => {
                // Nothing at all is under way.
                if probe.xmin >= probe.xmax {
                    Self::Quiet { number }
                } else {
                    Self::Ending { number, beneath: probe.xmax }
                }
            }
            Self::Ending { number: seen, beneath } if seen == number => {
                if probe.xmin >= beneath {
                    Self::Quiet { number }
                } else {
                    self
                }
            }
            Self::Quiet { number: seen } if seen == number => self,
            Self::Unknown | Self::Seen { .. } | Self::Ending { .. } | Self::Quiet { .. } => Self::Seen { number },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(number: i64, xmin: i64, xmax: i64) -> Probe {
        Probe { number, xmin, xmax }
    }

    #[test]
    fn a_number_is_settled_when_whoever_drew_it_has_ended() {
        let mut settled = Settled::Unknown;
        // Transaction 10 draws 5; it is still under way at the third look, and 12 began meanwhile.
        for look in [probe(5, 10, 11), probe(5, 10, 13), probe(5, 10, 14), probe(5, 12, 14)] {
            assert!(!settled.is_quiet(look), "{look:?}");
            settled = settled.after_reading(look);
        }
        assert!(!settled.is_quiet(probe(5, 13, 15)), "12 may have drawn it, and was under way");
        settled = settled.after_reading(probe(5, 13, 15));
        assert!(settled.is_quiet(probe(5, 13, 15)));
        assert!(!settled.is_quiet(probe(6, 13, 15)), "another number");
        assert_eq!(settled.after_reading(probe(6, 13, 15)), Settled::Seen { number: 6 });
    }

    #[test]
    fn where_nothing_is_under_way_the_second_look_settles_it() {
        let settled = Settled::Unknown.after_reading(probe(0, 7, 7)).after_reading(probe(0, 7, 7));
        assert!(settled.is_quiet(probe(0, 9, 12)));
    }
}
