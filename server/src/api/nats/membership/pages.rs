//! All connections of a NATS server, page by page, while some of them end.
//!
//! A page is what there is at one moment, by number, from some place on. When a connection ends, all behind it move up: one
//! that moves from a page that is yet to come into one that was read is on neither, and would pass for one that has ended.
//!
//! Invariant: of those that are there all the time, none is left out. So pages overlap, and one that does not begin with a
//! connection that is known, or before it, is read again from further ahead.

use std::collections::BTreeMap;

/// The most connections of one page.
pub(super) const PAGE_MAX: usize = 1_024;
/// How many connections of one page are on the next one, too, if none of them ends in between.
const OVERLAP: usize = 64;

/// So many connections as there are from some place on, with their names.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) connections: BTreeMap<u64, String>,
    /// How many there are in all.
    pub(super) total: usize,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// All connections through the last of these, and their names.
    known: BTreeMap<u64, String>,
}

impl Pages {
    /// Adds a page from a place on; where the next one is to begin, if one is to be read.
    pub(super) fn add(&mut self, from: usize, Page { mut connections, total }: Page) -> Option<usize> {
        let known = |first: &u64| self.known.last_key_value().is_some_and(|(last, _)| first <= last);
        if from > 0 && !connections.first_key_value().is_some_and(|(first, _)| known(first)) {
            return Some(from.saturating_sub(PAGE_MAX));
        }
        let count = connections.len();
        self.known.append(&mut connections);
        let more = count > 0 && from + count < total;
        more.then(|| from + count - OVERLAP.min(count / 2))
    }

    /// All of them.
    pub(super) fn end(self) -> BTreeMap<u64, String> {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Reads all pages of a server on which, after each page, so many of the oldest connections end; who is left, and what
    /// was read.
    fn read(count: u64, ending: &[usize]) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let mut open: BTreeSet<u64> = (0..count).collect();
        let (mut pages, mut next, mut ending) = (Pages::default(), Some(0), ending.iter());
        while let Some(from) = next {
            let connections =
                open.iter().skip(from).take(PAGE_MAX).map(|id| (*id, "alice rights".to_owned())).collect();
            next = pages.add(from, Page { connections, total: open.len() });
            for _ in 0..*ending.next().unwrap_or(&0) {
                open.pop_first();
            }
        }
        (open, pages.end().into_keys().collect())
    }

    #[test]
    fn none_is_left_out_however_many_end_meanwhile() {
        for ending in
            [&[][..], &[40], &[1_000], &[1_500], &[2_900], &[5_000], &[64, 65, 2_000], &[1_024; 8], &[300; 20]]
        {
            for count in [0, 1, 1_024, 1_025, 4_000] {
                let (open, listed) = read(count, ending);
                let left_out: Vec<_> = open.difference(&listed).collect();
                assert!(left_out.is_empty(), "{count} connections, {ending:?} end: {left_out:?}");
            }
        }
    }
}
