//! An app with two tables, a view, and a table that a trigger keeps up to date; and where it syncs.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Client, ClientBuilder, ClientError, OpenError, Timing};
use synchrotron_core::model::{AudienceKey, Epoch, UserId};
use synchrotron_core::network::memory::MemoryServer;
use synchrotron_core::store::Durability;
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("not that late")
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, text TEXT, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS tags (id TEXT PRIMARY KEY, text TEXT, audience_key TEXT NOT NULL);
    CREATE VIEW IF NOT EXISTS loud_notes AS SELECT id, text FROM notes WHERE text LIKE '%!';
    CREATE TABLE IF NOT EXISTS lengths (id TEXT PRIMARY KEY, length INTEGER);
    CREATE TRIGGER IF NOT EXISTS measure AFTER INSERT ON notes BEGIN
        INSERT INTO lengths VALUES (NEW.id, length(NEW.text));
    END;
    CREATE TRIGGER IF NOT EXISTS forget AFTER DELETE ON notes BEGIN
        DELETE FROM lengths WHERE id = OLD.id;
    END;
";

/// Writes a note.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) text: String,
}

impl Action for Note {
    const TAG: &'static str = "note_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        insert(ctx, "notes", &self.text)
    }
}

/// Writes a tag.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) text: String,
}

impl Action for Tag {
    const TAG: &'static str = "tag_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        insert(ctx, "tags", &self.text)
    }
}

/// Panics after a write.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Break {}

impl Action for Break {
    const TAG: &'static str = "break_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        insert(ctx, "notes", "broken")?;
        panic!("the test made the action panic")
    }
}

pub(crate) fn insert(ctx: &mut Context<'_>, table: &str, text: &str) -> Result<(), ActionError> {
    let audience = format!("user:{}", ctx.user_id());
    ctx.insert(table, &[("text", text.into()), ("audience_key", audience.into())]).map(drop)
}

pub(crate) fn note(text: impl Into<String>) -> Note {
    Note { text: text.into() }
}

pub(crate) fn tag(text: impl Into<String>) -> Tag {
    Tag { text: text.into() }
}

/// Short waits, so that what must happen by itself happens soon.
pub(crate) fn quick() -> Timing {
    Timing {
        poll: Duration::from_millis(50),
        retry_first: Duration::from_millis(10),
        patience: Duration::from_secs(2),
        elsewhere: Duration::from_millis(20),
        takeover: Duration::from_millis(100),
        ..Timing::default()
    }
}

pub(crate) async fn open(path: &Path, timing: Timing) -> Client {
    open_for("alice", path, timing).await.expect("opens")
}

pub(crate) async fn open_for(user: &str, path: &Path, timing: Timing) -> Result<Client, OpenError> {
    open_builder(user, path, timing).open().await
}

/// The app, before it is opened.
pub(crate) fn open_builder(user: &str, path: &Path, timing: Timing) -> ClientBuilder {
    Client::builder()
        .database(path)
        .user(user)
        .schema(SCHEMA)
        .table(Table::new("notes").identity(["text"]))
        .table(Table::new("tags").identity(["text"]))
        .action::<Note>()
        .action::<Tag>()
        .action::<Break>()
        .action::<crate::readers::Slow>()
        .action::<crate::driver::Grown>()
        .durability(Durability::Normal)
        .timing(timing)
}

pub(crate) fn alice() -> UserId {
    UserId::new("alice").expect("an id")
}

/// A server that knows Alice, and a folder for her databases.
pub(crate) struct World {
    pub(crate) server: MemoryServer,
    folder: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), wall_clock_ms());
        server.set_clock(wall_clock_ms);
        server.allow(&alice(), &AudienceKey::new("user:alice").expect("an audience"));
        Self { server, folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.db"))
    }

    pub(crate) async fn client(&self, name: &str) -> Client {
        open(&self.path(name), quick()).await
    }

    /// A server that has something already, so that a new device begins with a snapshot; it is left with one action.
    pub(crate) async fn with_history() -> Self {
        Self::with_notes(["history"]).await
    }

    /// The same, with these notes, an action each.
    pub(crate) async fn with_notes(texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let world = Self::new();
        let other = world.client("other").await;
        for text in texts {
            within(other.execute(note(text))).await;
        }
        other.go_online(std::sync::Arc::new(world.server.connect(alice())));
        within(other.sync_now()).await;
        world
    }

    pub(crate) fn texts(&self) -> usize {
        self.server.log().len()
    }
}

/// The answer, in time.
pub(crate) async fn within<T>(future: impl Future<Output = Result<T, ClientError>>) -> T {
    soon(future).await.expect("works")
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}
