//! Who listens, and what each is to hear: the heads of its audiences, whenever one of them moves.
//!
//! Place in the journey: between a commit, of whichever server, and the devices that listen over HTTP. One task looks for
//! all of them ([`watcher`]); each device holds a receiver of its user's newest heads, and works out what it has not told yet.
//!
//! # Invariants
//! - Nothing waits for a listener, and nothing is kept for one: a slow one finds the newest heads, however many it missed.
//! - Nobody hears of an audience that its user was not in when its head was read.
//! - While nobody listens, nobody looks.
//!
//! Cost: a look is one row while nothing is committed, else one look-up for each audience that somebody listens to;
//! `NOTIFY` would be quicker to hear and takes a lock of the whole instance in every commit.

mod read;
mod settled;
mod watcher;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synchrotron_core::model::{Cursors, Epoch, UserId, WakeupId};
use synchrotron_core::wire::Wakeup;
use tokio::sync::{Notify, watch};

#[cfg(test)]
pub(crate) use read::{HEADS, MOVED, PROBE};

use crate::service::Service;

/// What a user is to know of its audiences.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) epoch: Epoch,
    pub(crate) heads: Cursors,
    pub(crate) id: WakeupId,
}

impl Told {
    fn new(epoch: Epoch, heads: Cursors) -> Self {
        let id = WakeupId::of(epoch, &heads);
        Self { epoch, heads, id }
    }

    /// What somebody is to hear who was told `before`; all of it if that is unknown.
    pub(crate) fn since(&self, before: Option<&Self>) -> Wakeup {
        let known = before.filter(|before| before.epoch == self.epoch);
        let is_news = |key: &_, head: &_| known.is_none_or(|known| known.heads.get(key) != Some(head));
        let heads = self.heads.iter().filter(|(key, head)| is_news(*key, *head));
        Wakeup { epoch: self.epoch, heads: heads.map(|(key, head)| (key.clone(), *head)).collect(), seen: self.id }
    }
}

/// A user's newest heads; `None` until they were read for the first time.
pub(crate) type Newest = watch::Receiver<Option<Arc<Told>>>;

/// Everybody who listens, over one process.
#[derive(Clone, Debug)]
pub(crate) struct Listeners {
    registry: Arc<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    users: Mutex<BTreeMap<UserId, watch::Sender<Option<Arc<Told>>>>>,
    joined: Notify,
}

impl Listeners {
    /// Nobody yet. What looks for them ends with the last of these handles.
    pub(crate) fn start(service: Service) -> Self {
        let registry = Arc::new(Registry::default());
        tokio::spawn(watcher::run(service, Arc::downgrade(&registry)));
        Self { registry }
    }

    /// Listens for a user, until the receiver is dropped.
    pub(crate) fn join(&self, user_id: &UserId) -> Newest {
        let mut users = self.registry.users();
        let newest = users.entry(user_id.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe();
        drop(users);
        self.registry.joined.notify_one();
        newest
    }
}

impl Registry {
    fn users(&self) -> MutexGuard<'_, BTreeMap<UserId, watch::Sender<Option<Arc<Told>>>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who listens now; those that nobody listens for any more are forgotten.
    fn present(&self) -> Vec<UserId> {
        let mut users = self.users();
        users.retain(|_, newest| newest.receiver_count() > 0);
        users.keys().cloned().collect()
    }

    fn tell(&self, user_id: &UserId, told: &Arc<Told>) {
        if let Some(newest) = self.users().get(user_id) {
            newest.send_if_modified(|before| {
                let differs = before.as_ref().is_none_or(|before| before.id != told.id);
                if differs {
                    *before = Some(Arc::clone(told));
                }
                differs
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use synchrotron_core::model::{AudienceKey, Cursor};
    use uuid::Uuid;

    use super::*;

    fn told(epoch: u128, heads: &[(&str, i64)]) -> Told {
        let heads = heads.iter().map(|(key, head)| (AudienceKey::new(*key).expect("ok"), Cursor::new(*head)));
        Told::new(Epoch::from_uuid(Uuid::from_u128(epoch)), heads.collect())
    }

    #[test]
    fn what_moved_or_was_gained_is_news_and_all_of_another_history() {
        let (before, after) = (told(1, &[("a", 1), ("b", 2), ("gone", 3)]), told(1, &[("a", 1), ("b", 5), ("c", 0)]));
        assert_eq!(after.since(Some(&before)).heads, told(1, &[("b", 5), ("c", 0)]).heads);
        assert_eq!(after.since(None).heads, after.heads);
        assert_eq!(told(2, &[("a", 1)]).since(Some(&told(1, &[("a", 1)]))).heads.len(), 1);
    }

    #[test]
    fn equal_heads_have_one_id_on_every_server() {
        assert_eq!(told(1, &[("a", 1)]).id, told(1, &[("a", 1)]).id);
        assert_ne!(told(1, &[("a", 1)]).id, told(1, &[("a", 2)]).id);
        assert_ne!(told(1, &[("a", 1)]).id, told(2, &[("a", 1)]).id);
        assert_ne!(told(1, &[("a", 1)]).id, told(1, &[("a", 1), ("b", 0)]).id);
    }
}
