//! Frozen bytes of every message: what version 1 of the wire looks like, whatever becomes of the code.
//!
//! Each file in `tests/wire/v1` holds one message: MessagePack as hex, and JSON as it is. It must decode to the message here
//! and encode to the same bytes again. A test that fails here means that released peers no longer understand this build: give the new form a new
//! version instead of changing a file. A new message gets its file by running this test with `WIRE_GOLDEN=write`, which
//! never overwrites.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursor, Cursors, Effect,
    Epoch, Hlc, Patch, RecordBody, ReplayKey, RowId, RowKey, RowsDigest, ServerIngestId, SliceTag, SnapshotId,
    TableName, TraceParent, UserId, Value, WakeupId,
};
use synchrotron_core::wire::{
    AudienceDigest, AudienceHead, DigestReply, DigestRequest, EndReason, Fault, FaultCode, FetchPage, FetchRequest,
    LogRecord, Outcome, OutcomeMessage, RejectionKind, Reply, Session, SessionRequest, Slice, SnapshotAudience,
    SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRequest, SnapshotRow, StreamEnd, UploadBatch,
    UploadRecord, Wakeup, decode, decode_json, encode, encode_json,
};
use uuid::Uuid;

const BYTES_MAX: usize = 1 << 20;

/// The message and its frozen bytes are each other.
fn assert_frozen<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1").join(format!("{name}.hex"));
    if !path.exists() && std::env::var("WIRE_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, to_hex(&encode(message))).expect("the folder of frozen messages can be written");
    }
    let frozen = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name} is not frozen: {error}"));
    let decoded: T = decode(&from_hex(&frozen), BYTES_MAX).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(&decoded, message, "{name} decodes to another message");
    assert_eq!(to_hex(&encode(message)), frozen, "{name} encodes to other bytes");
    assert_frozen_json(name, message);
}

/// The same as people and browsers have it.
fn assert_frozen_json<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1").join(format!("{name}.json"));
    if !path.exists() && std::env::var("WIRE_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, encode_json(message)).expect("the folder of frozen messages can be written");
    }
    let frozen = std::fs::read(&path).unwrap_or_else(|error| panic!("{name} is not frozen as JSON: {error}"));
    let decoded: T = decode_json(&frozen, BYTES_MAX).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(&decoded, message, "{name}.json decodes to another message");
    assert_eq!(encode_json(message), frozen, "{name}.json is encoded otherwise");
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.chunks(40).fold(String::new(), |mut text, line| {
        for byte in line {
            write!(text, "{byte:02x}").expect("a String takes every write");
        }
        text + "\n"
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex digits");
    digits.chunks(2).map(byte).collect()
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("a good key")
}

fn cursors() -> Cursors {
    Cursors::from([(audience("project:1"), Cursor::new(300)), (audience("user:🎭 a.b>*"), Cursor::START)])
}

fn epoch() -> Epoch {
    Epoch::from_uuid(uuid(1))
}

fn client_id() -> ClientId {
    ClientId::from_uuid(uuid(2))
}

fn action_id() -> ActionId {
    ActionId::from_uuid(uuid(3))
}

/// One of each kind of value, and the awkward ones.
fn columns() -> Columns {
    let values = [
        ("bool", Value::Bool(true)),
        ("bytes", Value::Bytes(vec![0, 127, 128, 255])),
        ("integer", Value::Integer(-1)),
        ("integer_large", Value::Integer((1 << 53) + 1)),
        ("integer_max", Value::Integer(i64::MAX)),
        ("integer_min", Value::Integer(i64::MIN)),
        ("json", Value::Json(r#"{"a":[1,{"b":null}]}"#.to_owned())),
        ("null", Value::Null),
        ("real", Value::Real(0.1)),
        ("real_nan", Value::Real(f64::NAN)),
        ("real_negative_zero", Value::Real(-0.0)),
        ("real_whole", Value::Real(1.0)),
        ("text", Value::Text("Grüße 🎭".to_owned())),
        ("text_empty", Value::Text(String::new())),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

fn patches(effects: Vec<Effect>) -> Vec<Patch> {
    let patch = |(sequence, effect)| Patch {
        sequence,
        table: TableName::new("quoted \" table").expect("a good name"),
        row_id: RowId::new(format!("row-{sequence}")).expect("a good id"),
        audience_key: audience("project:1"),
        effect,
    };
    (0..).zip(effects).map(patch).collect()
}

fn action() -> RecordBody {
    RecordBody::Action {
        tag: ActionTag::new("book_seat_v1").expect("a good tag"),
        args: ActionArgs::from_encoded(b"\x81\xa4seat\xa2s1".to_vec()).expect("a map"),
    }
}

fn correction(reason: Option<&str>) -> RecordBody {
    let amends = ReplayKey { clock: Hlc::at_millis(1_800_000_000_000), client_id: client_id(), action_id: action_id() };
    RecordBody::Correction { amends, reason: reason.map(str::to_owned) }
}

fn every_effect() -> Vec<Patch> {
    let update = Columns::from([("holder".to_owned(), Value::Null)]);
    patches(vec![Effect::Insert(columns()), Effect::Update(update), Effect::Delete, Effect::Nothing])
}

fn log_records() -> Vec<LogRecord> {
    let bodies = [action(), correction(Some("seat s1 is taken")), correction(None)];
    let log_record = |(number, body)| LogRecord {
        record: ActionRecord {
            id: action_id(),
            clock: Hlc::at_millis(1_800_000_000_000).tick(0),
            client_id: client_id(),
            user_id: UserId::new("alice").expect("a good name"),
            server_ingest_id: Some(ServerIngestId::new(number)),
            trace_parent: None,
            body,
        },
        row_count: 70_000,
        slices: vec![SliceTag::of(action_id(), &audience("project:1"))],
        rows: every_effect(),
    };
    (299..).zip(bodies).map(log_record).collect()
}

fn session() -> Session {
    Session {
        user_id: UserId::new("alice").expect("a good name"),
        epoch: epoch(),
        server_time_ms: 1_800_000_000_000,
        audiences: cursors()
            .into_iter()
            .map(|(audience_key, head)| AudienceHead { audience_key, head, retained: Cursor::new(7) })
            .collect(),
    }
}

fn page() -> FetchPage {
    FetchPage { epoch: epoch(), records: log_records(), cursors: cursors(), more: true }
}

#[test]
fn session_messages() {
    assert_frozen("session_request", &SessionRequest { client_id: client_id() });
    assert_frozen("session", &session());
    assert_frozen("session_reply", &Reply::Ok(session()));
    let fault = Fault::new(FaultCode::ForeignClient, "the device belongs to another user");
    assert_frozen("session_reply_fault", &Reply::<Session>::Fault(fault));
}

#[test]
fn fetch_messages() {
    assert_frozen("fetch_request", &FetchRequest { client_id: client_id(), epoch: epoch(), cursors: cursors() });
    assert_frozen("fetch_page", &page());
    assert_frozen("fetch_reply", &Reply::Ok(page()));
}

#[test]
fn slices() {
    let slice = Slice {
        epoch: epoch(),
        audience_key: audience("project:1"),
        prev: Cursor::new(298),
        through: Cursor::new(301),
        records: log_records(),
    };
    assert_frozen("slice", &slice);
    assert_frozen("slice_to_be_fetched", &Slice { records: vec![], ..slice });
}

#[test]
fn snapshots() {
    let position = SnapshotPosition { snapshot_id: SnapshotId::from_uuid(uuid(5)), chunk: 1 };
    let request = SnapshotRequest {
        client_id: client_id(),
        epoch: epoch(),
        audiences: cursors().into_keys().collect(),
        ids: vec![action_id()],
        resume: None,
    };
    assert_frozen("snapshot_request", &request);
    assert_frozen("snapshot_request_resumed", &SnapshotRequest { resume: Some(position), ..request });
    let floor = ReplayKey { clock: Hlc::at_millis(1_800_000_000_000), client_id: client_id(), action_id: action_id() };
    let of = |(audience_key, cursor)| SnapshotAudience { audience_key, cursor, floor: Some(floor), rows: 2 };
    let row = SnapshotRow {
        table: TableName::new("seats").expect("a good name"),
        row_id: RowId::new("s1").expect("a good id"),
        audience_key: audience("project:1"),
        columns: columns(),
    };
    let header = SnapshotHeader {
        audiences: cursors().into_iter().map(of).collect(),
        known: BTreeMap::from([(action_id(), ServerIngestId::new(301))]),
    };
    let chunk = SnapshotChunk { position, header: Some(header), rows: vec![row.clone()], last: false };
    assert_frozen("snapshot_chunk", &chunk);
    assert_frozen("snapshot_reply", &Reply::Ok(SnapshotChunk { header: None, last: true, ..chunk }));
}

#[test]
fn digests() {
    let audiences: Vec<AudienceKey> = cursors().into_keys().collect();
    let request = DigestRequest { client_id: client_id(), epoch: epoch(), audiences: audiences.clone() };
    assert_frozen("digest_request", &request);
    let mut digest = RowsDigest::default();
    let key = RowKey { table: TableName::new("t").expect("a name"), row_id: RowId::new("r").expect("an id") };
    digest.add(&key, &columns());
    let of = |audience| (audience, AudienceDigest { head: Cursor::new(300), rows: 1, digest });
    let reply = DigestReply { epoch: epoch(), audiences: audiences.into_iter().map(of).collect() };
    assert_frozen("digest_reply", &Reply::Ok(reply));
}

#[test]
fn upload_batches() {
    let record = |body| UploadRecord {
        id: action_id(),
        clock: Hlc::at_millis(5),
        body,
        rows: every_effect(),
        trace_parent: None,
    };
    let batch = UploadBatch {
        batch_id: BatchId::from_uuid(uuid(4)),
        client_id: client_id(),
        epoch: epoch(),
        basis: cursors(),
        records: vec![record(action()), record(correction(Some("seat s1 is taken"))), record(correction(None))],
    };
    assert_frozen("upload_batch", &batch);
}

/// Without a trace, the field is not there, and the bytes are those from before it was.
#[test]
fn traces_of_records() {
    let trace_parent: TraceParent =
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().expect("well-formed");
    let record = |trace_parent| UploadRecord {
        id: action_id(),
        clock: Hlc::at_millis(5),
        body: action(),
        rows: Vec::new(),
        trace_parent,
    };
    let batch = |records| UploadBatch {
        batch_id: BatchId::from_uuid(uuid(4)),
        client_id: client_id(),
        epoch: epoch(),
        basis: cursors(),
        records,
    };
    let traced = batch(vec![record(Some(trace_parent)), record(None)]);
    assert_frozen("upload_batch_traced", &traced);
    let mut records = log_records();
    records[0].record.trace_parent = Some(trace_parent);
    assert_frozen("fetch_page_traced", &FetchPage { epoch: epoch(), records, cursors: cursors(), more: false });

    let digits = |text: &[u8]| to_hex(text).trim_end().to_owned();
    let bytes = to_hex(&encode(&traced)).replace('\n', "");
    let malformed = bytes.replace(&digits(b"00-4bf9"), &digits(b"00-4BF9"));
    assert_ne!(malformed, bytes);
    let decoded: UploadBatch = decode(&from_hex(&malformed), BYTES_MAX).expect("a record stands without its trace");
    assert_eq!(decoded, batch(vec![record(None), record(None)]));
}

#[test]
fn outcomes() {
    let outcomes = [
        ("accepted", Outcome::Accepted { ids: BTreeMap::from([(action_id(), ServerIngestId::new(301))]) }),
        ("behind_head", Outcome::BehindHead { heads: cursors() }),
        (
            "rejected",
            Outcome::Rejected { action: action_id(), kind: RejectionKind::Denied, reason: "not a member".to_owned() },
        ),
        ("clock_ahead", Outcome::ClockAhead { server_time_ms: 1_800_000_000_000, max_ahead_ms: 60_000 }),
        ("too_old", Outcome::TooOld { oldest_ms: 1_790_000_000_000 }),
        ("epoch_changed", Outcome::EpochChanged { current: epoch() }),
        ("unauthenticated", Outcome::Unauthenticated { reason: "expired".to_owned() }),
        ("retry", Outcome::Retry { after_ms: 250 }),
        ("refused", Outcome::Refused(Fault::new(FaultCode::TooLarge, "batch of 2 MB"))),
    ];
    for (name, outcome) in outcomes {
        let message = OutcomeMessage { batch_id: Some(BatchId::from_uuid(uuid(4))), outcome };
        assert_frozen(&format!("outcome_{name}"), &message);
    }
    let unreadable = Outcome::Refused(Fault::new(FaultCode::Malformed, "not a batch"));
    assert_frozen("outcome_of_an_unreadable_batch", &OutcomeMessage { batch_id: None, outcome: unreadable });
}

/// Stored and compared by name on both sides.
#[test]
fn names_of_reasons() {
    let kinds = [
        RejectionKind::Denied,
        RejectionKind::UnknownTable,
        RejectionKind::UnknownColumn,
        RejectionKind::Constraint,
        RejectionKind::AudienceMismatch,
        RejectionKind::DuplicateId,
        RejectionKind::Malformed,
        RejectionKind::TooLarge,
    ];
    assert_frozen("rejection_kinds", &kinds.to_vec());
    let codes = [
        FaultCode::Unauthenticated,
        FaultCode::ForeignClient,
        FaultCode::Malformed,
        FaultCode::UnsupportedVersion,
        FaultCode::TooLarge,
        FaultCode::EpochChanged,
        FaultCode::Compacted,
        FaultCode::SnapshotGone,
        FaultCode::Unavailable,
    ];
    assert_frozen("fault_codes", &codes.to_vec());
}

#[test]
fn wakeups() {
    let heads = Cursors::from([(audience("project:1"), Cursor::new(7))]);
    let seen = WakeupId::of(Epoch::from_uuid(uuid(9)), &heads);
    assert_frozen("wakeup", &Wakeup { epoch: Epoch::from_uuid(uuid(9)), heads, seen });
    assert_frozen("stream_end", &[EndReason::TokenExpired, EndReason::ShuttingDown].map(|reason| StreamEnd { reason }));
}
