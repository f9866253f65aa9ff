//! What clients and servers say to each other.

use serde::{Deserialize, Serialize};

use crate::model::{
    ActionId, ActionRecord, AudienceKey, BatchId, ClientId, Cursor, Cursors, Epoch, Hlc, Patch, RecordBody, SliceTag,
    TraceParent, UserId, well_formed,
};

/// Opens a session for a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct SessionRequest {
    /// The device.
    pub client_id: ClientId,
}

/// Who the server sees, and what that user may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Session {
    /// The user that the connection proved.
    pub user_id: UserId,
    /// The server's history.
    pub epoch: Epoch,
    /// The server's wall clock, in milliseconds since 1970.
    pub server_time_ms: i64,
    /// The user's audiences, each with its head, in byte order of the key.
    pub audiences: Vec<AudienceHead>,
}

/// One audience of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct AudienceHead {
    /// The audience.
    pub audience_key: AudienceKey,
    /// Its newest server_ingest_id.
    pub head: Cursor,
    /// Records through here are compacted away: a device with a cursor below needs a snapshot.
    pub retained: Cursor,
}

/// Asks for what came after these cursors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct FetchRequest {
    /// The asking device.
    pub client_id: ClientId,
    /// The history that the cursors belong to.
    pub epoch: Epoch,
    /// Through where the device has each audience; an audience that is not named starts from the beginning.
    pub cursors: Cursors,
}

/// Records after the request's cursors, in order of server_ingest_id, from one consistent read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct FetchPage {
    /// The server's history.
    pub epoch: Epoch,
    /// The records, each with every row that the user may see.
    pub records: Vec<LogRecord>,
    /// The cursors that this page reaches; exactly the user's audiences.
    pub cursors: Cursors,
    /// Whether more follows after these cursors.
    pub more: bool,
}

/// An accepted record as it travels to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct LogRecord {
    /// The record; its server_ingest_id is always set.
    pub record: ActionRecord,
    /// How many rows it has in all audiences together.
    pub row_count: u32,
    /// One tag for each audience that it has rows in, sorted.
    pub slices: Vec<SliceTag>,
    /// The rows of it that are in this message.
    pub rows: Vec<Patch>,
}

/// The accepted records of one commit with their rows in one audience, as published live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Slice {
    /// The server's history.
    pub epoch: Epoch,
    /// The audience that the rows belong to.
    pub audience_key: AudienceKey,
    /// The audience's head before this commit.
    pub prev: Cursor,
    /// The audience's head after it.
    pub through: Cursor,
    /// The records in order of server_ingest_id; empty if they were too large to publish and must be fetched.
    pub records: Vec<LogRecord>,
}

/// A device's pending work, offered to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct UploadBatch {
    /// Names this content: the server answers a repeated batch from what it has.
    pub batch_id: BatchId,
    /// The uploading device.
    pub client_id: ClientId,
    /// The history that the basis belongs to.
    pub epoch: Epoch,
    /// Through where the device had each audience when it made this batch.
    pub basis: Cursors,
    /// Actions and corrections in replay order.
    pub records: Vec<UploadRecord>,
}

/// One pending record. Device and user come from the batch and the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct UploadRecord {
    /// The record's id.
    pub id: ActionId,
    /// The record's clock.
    pub clock: Hlc,
    /// Action or correction.
    pub body: RecordBody,
    /// All its row effects, sequence ascending.
    pub rows: Vec<Patch>,
    /// The trace that it belongs to, if its app named one; not part of what it is.
    #[serde(default, deserialize_with = "well_formed", skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<TraceParent>,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{ActionArgs, ActionTag, Columns, Effect, ReplayKey, RowId, ServerIngestId, TableName, Value};
    use crate::wire::{decode, encode};

    fn record(body: RecordBody) -> LogRecord {
        let id = ActionId::from_uuid(Uuid::from_u128(7));
        let audience_key = AudienceKey::new("a.b > 🎭\n*").expect("ok");
        let columns = Columns::from([
            ("json".to_owned(), Value::Json("{\"a\":[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}".to_owned())),
            ("null".to_owned(), Value::Null),
            ("real".to_owned(), Value::Real(f64::NAN)),
            ("bytes".to_owned(), Value::Bytes(vec![0, 255])),
        ]);
        let patch = |sequence, effect| Patch {
            sequence,
            table: TableName::new("quoted \" table").expect("ok"),
            row_id: RowId::new("r").expect("ok"),
            audience_key: audience_key.clone(),
            effect,
        };
        LogRecord {
            record: ActionRecord {
                id,
                clock: Hlc::at_millis(1_000),
                client_id: ClientId::from_uuid(Uuid::from_u128(8)),
                user_id: UserId::new("alice").expect("ok"),
                server_ingest_id: Some(ServerIngestId::new(5)),
                trace_parent: None,
                body,
            },
            row_count: 3,
            slices: vec![SliceTag::of(id, &audience_key)],
            rows: vec![
                patch(0, Effect::Insert(columns.clone())),
                patch(1, Effect::Update(columns)),
                patch(2, Effect::Delete),
                patch(3, Effect::Nothing),
            ],
        }
    }

    #[test]
    fn a_page_survives_the_wire() {
        let action = RecordBody::Action {
            tag: ActionTag::new("book_seat_v1").expect("ok"),
            args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
        };
        let amends = ReplayKey {
            clock: Hlc::at_millis(3),
            client_id: ClientId::from_uuid(Uuid::from_u128(1)),
            action_id: ActionId::from_uuid(Uuid::from_u128(2)),
        };
        let page = FetchPage {
            epoch: Epoch::from_uuid(Uuid::from_u128(9)),
            records: vec![record(action), record(RecordBody::Correction { amends, reason: Some("taken".into()) })],
            cursors: Cursors::from([(AudienceKey::new("p").expect("ok"), Cursor::new(5))]),
            more: false,
        };
        assert_eq!(decode::<FetchPage>(&encode(&page), 1 << 20).expect("decodes"), page);
        let json = serde_json::to_string(&page).expect("encodes");
        assert_eq!(serde_json::from_str::<FetchPage>(&json).expect("decodes"), page);
    }
}
