//! The one task that looks for everybody who listens.
//!
//! It looks at once when somebody comes, soon after a commit of this process, and every so often for those of others. A
//! look that fails is made again; what it would have found is found then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use synchrotron_core::model::{AudienceKey, Cursor, Cursors, Epoch, UserId};
use tokio::time::{Instant, sleep, sleep_until};

use super::settled::Settled;
use super::{Registry, Told, read};
use crate::service::Service;

/// Under steady uploads, how long after a look their commits gather for the next, at most. One that comes alone waits for
/// nothing.
const GATHER_MAX: Duration = Duration::from_millis(20);
/// As long as a look takes a fifth of the time or less, commits gather no longer.
const LOOKS_PART: u32 = 5;
/// How long nobody waits for a commit before looking whether the server is still there.
const IDLE_FOR: Duration = Duration::from_secs(5);

/// Looks until nobody can listen any more.
pub(super) async fn run(service: Service, registry: Weak<Registry>) {
    let look_every = service.settings().http.look_every;
    let mut committed = service.committed();
    let mut watcher = Watcher::new(service.settings().http.members_every);
    loop {
        let Some(listening) = registry.upgrade() else { return };
        committed.mark_unchanged();
        let looked = Instant::now();
        if let Err(error) = watcher.look(&service, &listening).await {
            tracing::warn!(error = %error, "cannot look for those who listen");
            watcher.settled = Settled::Unknown;
        }
        let gathered = looked + GATHER_MAX.min(looked.elapsed() * LOOKS_PART);
        let anybody = !watcher.users.is_empty();
        tokio::select! {
            () = listening.joined.notified() => {}
            _ = committed.changed(), if anybody => sleep_until(gathered).await,
            () = sleep(if anybody { look_every } else { IDLE_FOR }) => {}
        }
    }
}

struct Watcher {
    /// What each user was told last.
    users: BTreeMap<UserId, Arc<Told>>,
    audiences: BTreeMap<AudienceKey, Watched>,
    epoch: Option<Epoch>,
    settled: Settled,
    members_every: Duration,
    members_due: Instant,
}

/// An audience that somebody listens to.
#[derive(Default)]
struct Watched {
    /// A head that all of its users were told, or a newer one.
    known: Cursor,
    users: BTreeSet<UserId>,
}

impl Watcher {
    fn new(members_every: Duration) -> Self {
        let (users, audiences) = (BTreeMap::new(), BTreeMap::new());
        Self { users, audiences, epoch: None, settled: Settled::Unknown, members_every, members_due: Instant::now() }
    }

    async fn look(&mut self, service: &Service, registry: &Registry) -> Result<(), sqlx_core::Error> {
        let present: BTreeSet<UserId> = registry.present().into_iter().collect();
        let gone: Vec<UserId> = self.users.keys().filter(|user_id| !present.contains(*user_id)).cloned().collect();
        for user_id in gone {
            self.forget(&user_id);
        }
        if present.is_empty() {
            return Ok(());
        }
        let mut conn = service.pool().acquire().await?;
        let (epoch, probe) = read::probe(&mut conn).await?;
        let everybody = self.epoch != Some(epoch) || self.members_due <= Instant::now();
        let mut asked: BTreeSet<UserId> =
            present.into_iter().filter(|user_id| everybody || !self.users.contains_key(user_id)).collect();
        if !self.settled.is_quiet(probe) {
            for (audience_key, head) in read::moved(&mut conn, &self.known()).await? {
                let watched = self.audiences.entry(audience_key).or_default();
                watched.known = head;
                asked.extend(watched.users.iter().cloned());
            }
        }
        if !asked.is_empty() {
            let asked: Vec<UserId> = asked.into_iter().collect();
            let mut heads = read::heads(&mut conn, &asked).await.inspect_err(|_| self.members_due = Instant::now())?;
            for user_id in asked {
                let told = Arc::new(Told::new(epoch, heads.remove(&user_id).unwrap_or_default()));
                registry.tell(&user_id, &told);
                self.remember(user_id, told);
            }
        }
        if everybody {
            self.epoch = Some(epoch);
            self.members_due = Instant::now() + self.members_every;
        }
        self.settled = self.settled.after_reading(probe);
        Ok(())
    }

    fn known(&self) -> Cursors {
        self.audiences.iter().map(|(audience_key, watched)| (audience_key.clone(), watched.known)).collect()
    }

    /// What one user was told says nothing of what the others of its audiences were: their `known` stays.
    fn remember(&mut self, user_id: UserId, told: Arc<Told>) {
        self.forget(&user_id);
        for (audience_key, head) in &told.heads {
            let new = || Watched { known: *head, users: BTreeSet::new() };
            self.audiences.entry(audience_key.clone()).or_insert_with(new).users.insert(user_id.clone());
        }
        self.users.insert(user_id, told);
    }

    fn forget(&mut self, user_id: &UserId) {
        let Some(told) = self.users.remove(user_id) else { return };
        for audience_key in told.heads.keys() {
            if let Some(watched) = self.audiences.get_mut(audience_key) {
                watched.users.remove(user_id);
                if watched.users.is_empty() {
                    self.audiences.remove(audience_key);
                }
            }
        }
    }
}
