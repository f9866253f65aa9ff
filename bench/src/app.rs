//! The app that is measured: notes of one audience, an action that adds one and an action that renames one.

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, ClientId, Columns, Cursor, Cursors, Effect, Epoch, Hlc,
    Patch, RecordBody, RowId, ServerIngestId, SliceTag, TableName, UserId, Value,
};
use synchrotron_core::params;
use synchrotron_core::wire::{FetchPage, LogRecord};
use uuid::{Builder, Uuid};

pub(crate) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS notes (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, body TEXT, stars INTEGER, audience_key TEXT NOT NULL)";
pub(crate) const TABLE: &str = "notes";
pub(crate) const AUDIENCE: &str = "project:1";
pub(crate) const BODY: &str = "What a note says is about as long as this sentence, seldom longer, often shorter.";
/// Notes that are there before anything is measured; renames go round them.
pub(crate) const BASE_NOTES: u32 = 1_000;
/// How many records the server puts into one page.
pub(crate) const PAGE: u32 = 500;
/// When the history of a measured device begins. One action a millisecond.
pub(crate) const BEGIN_MS: i64 = 1_800_000_000_000;

pub(crate) fn tables() -> Vec<Table> {
    vec![Table::new(TABLE).given_ids()]
}

pub(crate) fn audience() -> AudienceKey {
    AudienceKey::new(AUDIENCE).expect("BUG: it is not empty")
}

/// This user's own device.
pub(crate) fn user() -> UserId {
    UserId::new("alice").expect("BUG: it is not empty")
}

pub(crate) fn client_id() -> ClientId {
    ClientId::from_uuid(Uuid::from_u128(0xa11ce))
}

pub(crate) fn epoch() -> Epoch {
    Epoch::from_uuid(Uuid::from_u128(0xe))
}

/// Adds a note.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddNote {
    pub(crate) id: RowId,
    pub(crate) title: String,
}

impl Action for AddNote {
    const TAG: &'static str = "add_note_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        ctx.execute(
            "INSERT INTO notes (id, title, body, stars, audience_key) VALUES (?, ?, ?, 0, ?)",
            params![&self.id, &self.title, BODY, AUDIENCE],
        )?;
        Ok(())
    }
}

/// Gives a note another title.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RenameNote {
    pub(crate) id: RowId,
    pub(crate) title: String,
}

impl Action for RenameNote {
    const TAG: &'static str = "rename_note_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        ctx.execute("UPDATE notes SET title = ? WHERE id = ?", params![&self.title, &self.id])?;
        Ok(())
    }
}

/// What one action of the app does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Add,
    Rename,
}

/// One action to come, the same for a device and for a floor.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) action_id: ActionId,
    pub(crate) now_ms: i64,
    pub(crate) note: RowId,
    pub(crate) title: String,
}

impl Step {
    /// The step of this number at this time: numbers make ids, so no two steps may share one.
    pub(crate) fn new(kind: Kind, number: u32, now_ms: i64) -> Self {
        let note = match kind {
            Kind::Add => uuid(now_ms, 1, number).to_string(),
            Kind::Rename => uuid(BEGIN_MS, 1, number % BASE_NOTES).to_string(),
        };
        Self {
            kind,
            action_id: ActionId::from_uuid(uuid(now_ms, 2, number)),
            now_ms,
            note: RowId::new(note).expect("BUG: a UUID's text is a row id"),
            title: format!("Note number {number}"),
        }
    }

    /// The base note of this number.
    pub(crate) fn base(number: u32) -> Self {
        Self::new(Kind::Add, number, BEGIN_MS)
    }

    pub(crate) fn args(&self) -> Vec<u8> {
        let (id, title) = (self.note.clone(), self.title.clone());
        match self.kind {
            Kind::Add => rmp_serde::to_vec_named(&AddNote { id, title }),
            Kind::Rename => rmp_serde::to_vec_named(&RenameNote { id, title }),
        }
        .expect("BUG: text has a MessagePack form")
    }

    pub(crate) fn tag(&self) -> &'static str {
        match self.kind {
            Kind::Add => AddNote::TAG,
            Kind::Rename => RenameNote::TAG,
        }
    }

    /// What the action does to its row.
    pub(crate) fn effect(&self) -> Effect {
        let title = ("title".to_owned(), Value::from(&self.title));
        match self.kind {
            Kind::Rename => Effect::Update(Columns::from([title])),
            Kind::Add => Effect::Insert(Columns::from([
                title,
                ("body".to_owned(), Value::from(BODY)),
                ("stars".to_owned(), Value::Integer(0)),
            ])),
        }
    }

    /// The step as another user's action that the server has accepted under this number.
    fn accepted(&self, number: i64) -> LogRecord {
        let record = ActionRecord {
            id: self.action_id,
            clock: Hlc::at_millis(self.now_ms),
            client_id: ClientId::from_uuid(Uuid::from_u128(0xb0b)),
            user_id: UserId::new("bob").expect("BUG: it is not empty"),
            server_ingest_id: Some(ServerIngestId::new(number)),
            trace_parent: None,
            body: RecordBody::Action {
                tag: ActionTag::new(self.tag()).expect("BUG: the app's tags are tags"),
                args: ActionArgs::from_encoded(self.args()).expect("BUG: a struct encodes to a map"),
            },
        };
        let row = Patch {
            sequence: 0,
            table: TableName::new(TABLE).expect("BUG: it is not empty"),
            row_id: self.note.clone(),
            audience_key: audience(),
            effect: self.effect(),
        };
        LogRecord { slices: vec![SliceTag::of(record.id, &row.audience_key)], record, row_count: 1, rows: vec![row] }
    }
}

/// Another user's steps as the server's pages, the first with the number after `cursor`.
pub(crate) fn pages(steps: impl Iterator<Item = Step>, cursor: Cursor) -> impl Iterator<Item = FetchPage> {
    let mut numbered = steps.zip(cursor.get() + 1..).peekable();
    std::iter::from_fn(move || {
        let records: Vec<LogRecord> =
            numbered.by_ref().take(PAGE as usize).map(|(step, number)| step.accepted(number)).collect();
        let through = records.last()?.record.server_ingest_id.expect("BUG: it was just given");
        let cursors = Cursors::from([(audience(), Cursor::through(through))]);
        Some(FetchPage { epoch: epoch(), records, cursors, more: numbered.peek().is_some() })
    })
}

/// A UUIDv7 of this time; the same in every run.
fn uuid(now_ms: i64, purpose: u8, number: u32) -> Uuid {
    let [a, b, c, d] = number.to_be_bytes();
    Builder::from_unix_timestamp_millis(now_ms.cast_unsigned(), &[0, 0, purpose, 0, 0, 0, a, b, c, d]).into_uuid()
}
