//! A server in this process, for apps' tests.
//!
//! Place in the journey: instead of Postgres, NATS and HTTP. It keeps the whole contract of a server towards devices:
//! identity, idempotence by id, the gate, audiences, one number per accepted record, pages, live slices. It knows no
//! schema and no policies: any table is tracked, and a user may write every row of its audiences.
//!
//! It is deterministic: it reads no clock and no randomness. Epoch, time and membership are what the test says.
//!
//! ```
//! use synchrotron_core::model::{AudienceKey, ClientId, Epoch, UserId};
//! use synchrotron_core::network::{Network, memory::MemoryServer};
//! use synchrotron_core::wire::SessionRequest;
//! use uuid::Uuid;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), 1_700_000_000_000);
//! let alice = UserId::new("alice")?;
//! server.allow(&alice, &AudienceKey::new("project:1")?);
//!
//! let network = server.connect(alice);
//! let request = SessionRequest { client_id: ClientId::from_uuid(Uuid::from_u128(2)) };
//! assert_eq!(network.session(&request).await?.audiences.len(), 1);
//!
//! network.set_online(false);
//! assert!(network.session(&request).await.is_err());
//! # Ok(()) }
//! ```

mod admit;
mod history;
mod network;
mod page;
mod snapshot;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast;

pub use history::MemoryRow;
pub use network::MemoryNetwork;
pub use page::PageBounds;

use crate::model::{AudienceKey, Cursor, Epoch, RowId, RowKey, TableName, UserId};
use crate::wire::LogRecord;
use network::Event;
use state::State;

/// How many live events a slow subscriber may be behind before it gets a wakeup instead.
const LIVE_EVENTS_MAX: usize = 1024;

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct MemoryServer {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    live: broadcast::Sender<Event>,
}

impl MemoryServer {
    /// An empty server of this history, at this time (milliseconds since 1970) until the test sets another.
    #[must_use]
    pub fn new(epoch: Epoch, now_ms: i64) -> Self {
        let (live, _) = broadcast::channel(LIVE_EVENTS_MAX);
        Self { inner: Arc::new(Inner { state: Mutex::new(State::new(epoch, now_ms)), live }) }
    }

    /// A connection that proves to be `user`, from one device.
    #[must_use]
    pub fn connect(&self, user: UserId) -> MemoryNetwork {
        MemoryNetwork::new(self.clone(), user)
    }

    /// Puts a user into an audience, and wakes its devices.
    pub fn allow(&self, user: &UserId, audience: &AudienceKey) {
        let mut state = self.state();
        state.members.entry(user.clone()).or_default().insert(audience.clone());
        self.announce([Event::Changed(user.clone())]);
    }

    /// Takes a user out of an audience, and wakes its devices. What it wrote stays.
    pub fn revoke(&self, user: &UserId, audience: &AudienceKey) {
        let mut state = self.state();
        state.members.entry(user.clone()).or_default().remove(audience);
        self.announce([Event::Changed(user.clone())]);
    }

    /// Sets the server's wall clock, in milliseconds since 1970.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.set_clock(move || now_ms);
    }

    /// Lets the server read its wall clock from here, in milliseconds since 1970.
    pub fn set_clock(&self, now_ms: impl Fn() -> i64 + Send + 'static) {
        self.state().now_ms = Box::new(now_ms);
    }

    /// Sets how far ahead of the server's clock a record may be, in milliseconds (60,000 if not set).
    pub fn set_clock_ahead_max_ms(&self, max_ms: i64) {
        self.state().clock_ahead_max_ms = max_ms;
    }

    /// Sets where fetched pages end.
    pub fn set_page_bounds(&self, bounds: PageBounds) {
        self.state().page_bounds = bounds;
    }

    /// Begins another history, with an empty log. Users, devices and memberships stay; all devices are woken.
    pub fn begin_epoch(&self, epoch: Epoch) {
        self.restore(epoch, Cursor::START);
    }

    /// Begins another history with what was accepted through a number, as after a restored backup. Users, devices and
    /// memberships stay; all devices are woken.
    pub fn restore(&self, epoch: Epoch, through: Cursor) {
        let mut state = self.state();
        state.restore(epoch, through);
        let users: Vec<_> = state.members.keys().cloned().map(Event::Changed).collect();
        self.announce(users);
    }

    /// Compacts records through a number away: devices behind it need a snapshot, and nothing is accepted beneath them.
    pub fn compact(&self, through: Cursor) {
        self.state().history.compact(through);
    }

    /// Sets how many rows a chunk of a snapshot holds (500 if not set).
    pub fn set_snapshot_rows_max(&self, rows_max: usize) {
        self.state().snapshots.rows_max = rows_max.max(1);
    }

    /// Forgets the snapshots that devices are taking: their next chunk is gone.
    pub fn expire_snapshots(&self) {
        self.state().snapshots.expire();
    }

    /// The history that the server has now.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.state().epoch
    }

    /// An audience's newest server_ingest_id.
    #[must_use]
    pub fn head(&self, audience: &AudienceKey) -> Cursor {
        self.state().history.head(audience)
    }

    /// The rows of a table: the fold of effective patches in replay order.
    #[must_use]
    pub fn rows(&self, table: &TableName) -> BTreeMap<RowId, MemoryRow> {
        let state = self.state();
        let rows = state.history.rows().iter().filter(|(key, _)| key.table == *table);
        rows.map(|(key, row)| (key.row_id.clone(), row.clone())).collect()
    }

    /// The rows that a user may see, of all tables: what its devices hold when they have synced.
    #[must_use]
    pub fn rows_visible_to(&self, user: &UserId) -> BTreeMap<RowKey, MemoryRow> {
        let state = self.state();
        let audiences = state.audiences_of(user);
        let visible = state.history.rows().iter().filter(|(_, row)| audiences.contains(&row.audience_key));
        visible.map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    /// Every accepted record with all its rows, in order of server_ingest_id.
    #[must_use]
    pub fn log(&self) -> Vec<LogRecord> {
        self.state().history.log().iter().map(|entry| page::log_record(entry, |_| true)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("BUG: nothing panics while it holds the server's state")
    }

    /// Called with the state locked, so that events leave in the order of commits. Nobody may be listening.
    fn announce(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let _listeners = self.inner.live.send(event);
        }
    }

    fn listen(&self) -> broadcast::Receiver<Event> {
        self.inner.live.subscribe()
    }
}

impl fmt::Debug for MemoryServer {
    /// Rows are app data: only counts are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let records = state.history.log().len();
        f.debug_struct("MemoryServer").field("epoch", &state.epoch).field("records", &records).finish()
    }
}
