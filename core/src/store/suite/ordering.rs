//! Rules of the log's order: positions, arrivals, and what is not sent yet.

use uuid::Uuid;

use super::StoreFixture;
use super::subject::{accepted, action, correction, ids, pending, put, step, walk};
use crate::model::{ClientId, Hlc, ReplayKey, ServerIngestId};
use crate::store::{StoreTxn, StoredRecord, UNSENT};

fn position(record: &StoredRecord) -> ReplayKey {
    record.record.position()
}

fn by(mut record: StoredRecord, client: u128) -> StoredRecord {
    record.record.client_id = ClientId::from_uuid(Uuid::from_u128(client));
    record
}

fn number(n: i64) -> ServerIngestId {
    ServerIngestId::new(n)
}

/// The order is clock, then client, then action, each bytewise; a correction stands where its action does.
pub fn the_log_is_walked_in_replay_order(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let high = u128::MAX - 1; // signed or textual comparison would put it first
    let first = by(pending(9, 10, vec![]), 1);
    let mut sorted = vec![
        first.clone(),
        correction(2, 900, position(&first)),
        correction(4, 800, position(&first)),
        by(pending(3, 10, vec![]), 2),
        by(pending(high, 10, vec![]), 2),
        by(pending(1, 10, vec![]), high),
        by(pending(5, 11, vec![]), 1),
    ];
    let mut later = pending(6, 11, vec![]);
    later.record.clock = Hlc::from_packed(Hlc::at_millis(11).packed() + 1);
    sorted.push(by(later, 1));
    step(&mut store, |txn| {
        put(txn, &[5, 1, 7, 3, 0, 6, 2, 4].map(|index: usize| sorted[index].clone()));
        assert_eq!(walk(txn), ids(&sorted));
        let at = txn.at_or_after(position(&first)).expect("reads").expect("is there");
        assert_eq!((at.position, at.action.as_ref()), (position(&first), Some(&first)));
        assert_eq!(at.corrections, sorted[1..3]);
        let mut between = position(&first);
        between.action_id = action(10);
        let next = txn.at_or_after(between).expect("reads").expect("is there");
        assert_eq!(next.action, Some(sorted[3].clone()));
        assert_eq!(txn.after(position(&sorted[7])).expect("reads"), None);
        let alone = correction(7, 5, position(&pending(77, 12, vec![])));
        put(txn, std::slice::from_ref(&alone));
        let logged = txn.after(position(&sorted[7])).expect("reads").expect("is there");
        assert_eq!((logged.action, logged.corrections), (None, vec![alone]), "its action is not visible here");
    });
}

/// Unsent records come in order, corrections among them, at most as many as asked; the first number stays.
pub fn what_is_accepted_is_no_longer_unsent(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let old = accepted(pending(1, 10, vec![]), 1);
    let amends = correction(2, 50, position(&old));
    let (third, fourth) = (pending(3, 20, vec![]), pending(4, 15, vec![]));
    step(&mut store, |txn| {
        put(txn, &[third.clone(), old, fourth.clone(), amends.clone()]);
        assert_eq!(txn.unsent(None, 10).expect("reads"), [amends.clone(), fourth.clone(), third.clone()]);
        assert_eq!(ids(&txn.unsent(None, 2).expect("reads")), [action(2), action(4)]);
        assert_eq!(txn.unsent(None, 0).expect("reads"), []);
        assert_eq!(ids(&txn.unsent(None, usize::MAX).expect("reads")).len(), 3);
        assert_eq!(txn.pending_count().expect("reads"), 2, "corrections are no actions");
        txn.accept(action(4), number(8)).expect("accepts");
        txn.accept(action(4), number(9)).expect("again");
        txn.accept(action(2), number(7)).expect("accepts");
        txn.accept(action(99), number(5)).expect("what is not here does no harm");
        assert_eq!(txn.record(action(4)).expect("reads"), Some(accepted(fourth, 8)));
        assert_eq!((txn.unsent(None, 10).expect("reads"), txn.pending_count().expect("reads")), (vec![third], 1));
    });
}

/// Only corrections, only unsent ones, only at or after the position that they amend.
pub fn unsent_corrections_are_forgotten_from_a_position(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let actions = [1, 2, 3].map(|n| accepted(pending(n, i64::try_from(n).expect("small") * 10, vec![]), 1));
    step(&mut store, |txn| {
        put(txn, &actions);
        put(txn, &[pending(9, 40, vec![])]);
        for (n, amended) in (10..).zip(&actions) {
            // Their own clocks are the wrong way round: they do not count.
            let clock = 1_000 - i64::try_from(n).expect("small");
            put(
                txn,
                &[correction(n, clock, position(amended)), accepted(correction(n + 10, clock, position(amended)), 2)],
            );
        }
        txn.remove_unsent_corrections(position(&actions[1])).expect("forgets");
        assert_eq!(walk(txn), [1, 10, 20, 2, 21, 3, 22, 9].map(action));
    });
}

/// The newest arrival beneath a position is what was remembered at the position before it.
pub fn the_newest_arrival_before_a_position_is_known(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let log = [1, 2, 3].map(|n| accepted(pending(n, i64::try_from(n).expect("small") * 10, vec![]), 1));
    let newest = |txn: &dyn StoreTxn, record: &StoredRecord| txn.newest_before(position(record)).expect("reads");
    step(&mut store, |txn| {
        assert_eq!(newest(txn, &log[0]), 0, "nothing is there");
        put(txn, &log);
        put(txn, &[accepted(correction(11, 99, position(&log[0])), 5)]);
        txn.remember_newest(position(&log[0]), 5).expect("is put");
        txn.remember_newest(position(&log[1]), UNSENT).expect("is put");
        assert_eq!(newest(txn, &log[0]), 0);
        assert_eq!(newest(txn, &log[1]), 5);
        assert_eq!(newest(txn, &log[2]), UNSENT);
        assert_eq!(newest(txn, &pending(4, 15, vec![])), 5, "between two positions");
        txn.remember_newest(position(&log[1]), 6).expect("is put");
        assert_eq!(newest(txn, &log[2]), 6, "it may sink again");
    });
}

/// The smallest position that arrived after a number, or is not sent, before a position.
pub fn the_first_later_arrival_is_found(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let [a, b, c, d] = [(1, 3), (2, 9), (3, 5), (4, 7)]
        .map(|(n, number): (u128, i64)| accepted(pending(n, i64::try_from(n).expect("small") * 10, vec![]), number));
    step(&mut store, |txn| {
        put(txn, &[a.clone(), b.clone(), c.clone(), d.clone()]);
        let first =
            |after: i64, before: &StoredRecord| txn.first_later_than(number(after), position(before)).expect("reads");
        assert_eq!(first(0, &a), None, "nothing is before the first");
        assert_eq!(first(2, &d), Some(position(&a)));
        assert_eq!(first(3, &d), Some(position(&b)), "later than, not at");
        assert_eq!(first(9, &d), None);
        assert_eq!(first(5, &b), None, "before, not at");
        assert_eq!(first(5, &c), Some(position(&b)));
        put(txn, &[correction(10, 99, position(&a))]);
        assert_eq!(first(9, &d), Some(position(&a)), "what is not sent is later than all");
        txn.accept(action(10), number(10)).expect("accepts");
        assert_eq!(first(9, &d), Some(position(&a)));
        assert_eq!(first(10, &d), None);
        put(txn, &[pending(5, 35, vec![])]);
        assert_eq!(first(10, &d), Some(position(&pending(5, 35, vec![]))));
    });
}

/// The ends of the log, of what is accepted and of what is not, and the neighbour of any position.
pub fn the_ends_of_the_log_are_known(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let [a, b, c] = [1, 2, 3].map(|n| pending(n, i64::try_from(n).expect("small") * 10, vec![]));
    step(&mut store, |txn| {
        let ends = || {
            [txn.first_position(), txn.last_position(), txn.first_unsent(), txn.last_accepted()]
                .map(|found| found.expect("reads").map(|position| position.action_id))
        };
        assert_eq!(ends(), [None; 4]);
        put(txn, &[b.clone(), c.clone(), accepted(a.clone(), 1)]);
        assert_eq!(ends(), [1, 3, 2, 1].map(|n| Some(action(n))));
        txn.accept(action(3), number(2)).expect("accepts");
        assert_eq!(ends(), [1, 3, 2, 3].map(|n| Some(action(n))));
        put(txn, &[correction(9, 99, position(&a))]);
        assert_eq!(ends()[2], Some(action(1)), "a correction counts at the position that it amends");
        for (of, before) in [(&a, None), (&b, Some(position(&a))), (&c, Some(position(&b)))] {
            assert_eq!(txn.position_before(position(of)).expect("reads"), before);
        }
    });
}

/// Unsent records go on after the last that was seen, also within one position.
pub fn unsent_records_are_read_on(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let old = accepted(pending(1, 10, vec![]), 1);
    let all = [
        correction(5, 90, position(&old)),
        correction(6, 80, position(&old)),
        pending(2, 20, vec![]),
        pending(3, 30, vec![]),
    ];
    step(&mut store, |txn| {
        put(txn, std::slice::from_ref(&old));
        put(txn, &all);
        for (index, last) in all.iter().enumerate() {
            let rest = txn.unsent(Some((position(last), last.record.id)), 10).expect("reads");
            assert_eq!(ids(&rest), ids(&all[index + 1..]));
        }
    });
}

/// Accepted actions of one device are pending again; those of others, and corrections, are not.
pub fn a_devices_actions_are_pending_again(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let (mine, others) = (accepted(pending(1, 10, vec![]), 1), accepted(by(pending(2, 20, vec![]), 0xb0b), 2));
    let amends = accepted(correction(3, 30, position(&mine)), 3);
    step(&mut store, |txn| {
        put(txn, &[mine, others, amends]);
        txn.reopen(super::client()).expect("reopens");
        assert_eq!(txn.unsent(None, 10).expect("reads"), [pending(1, 10, vec![])]);
    });
}
