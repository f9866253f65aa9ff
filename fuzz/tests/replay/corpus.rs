//! The committed inputs of each target, and how they are made: from the frozen messages of the wire, and from encodings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::model::{AudienceKey, ClientId, Columns, UserId, Value};
use synchrotron_core::wire::{self, DigestRequest, FetchRequest, SessionRequest, Slice, SnapshotRequest, UploadBatch};
use synchrotron_fuzz::{TOKEN_SECRET, TOKEN_USER};
use synchrotron_nats::subjects::{ProcessToken, RpcMethod, SubjectPrefix, Subjects, UserToken};
use uuid::Uuid;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs of a target, by file name.
pub(crate) fn inputs(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = folder().join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("the corpus can be listed").path();
        let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
        (name, std::fs::read(&path).expect("the corpus can be read"))
    };
    files.map(read).collect()
}

/// Writes the inputs that are made here. What a fuzzer found and somebody kept stays.
pub(crate) fn bless() {
    for (target, name, bytes) in made() {
        let folder = folder().join(target);
        std::fs::create_dir_all(&folder).expect("the corpus can be made");
        std::fs::write(folder.join(name), bytes).expect("the corpus can be written");
    }
}

type Input = (&'static str, String, Vec<u8>);

fn made() -> Vec<Input> {
    let mut inputs = messages();
    for (name, bytes) in [("minimal", vec![0x80]), ("seat", b"\x81\xa4seat\xa2s1".to_vec())] {
        inputs.push(("arguments", name.to_owned(), bytes));
    }
    let columns = awkward_columns();
    let packed = rmp_serde::to_vec_named(&columns).expect("columns have a MessagePack form");
    inputs.push(("columns", "awkward".to_owned(), packed));
    let json = serde_json::to_vec(&columns).expect("columns have a JSON form");
    inputs.push(("columns_json", "awkward".to_owned(), json));
    inputs.extend(subjects());
    inputs.extend(ids());
    inputs.extend(routed());
    inputs.extend(over_http());
    inputs.push(("token", "alice".to_owned(), token().into_bytes()));
    inputs
}

/// Version 1 of a message as it is frozen beside the wire's golden test.
fn frozen(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/wire/v1");
    from_hex(&std::fs::read_to_string(folder.join(format!("{file}.hex"))).expect("a frozen message"))
}

/// All of them.
fn messages() -> Vec<Input> {
    let targets = [
        ("session_request", "session_request"),
        ("session_reply", "session_reply"),
        ("session_reply_fault", "session_reply"),
        ("fetch_request", "fetch_request"),
        ("fetch_reply", "fetch_reply"),
        ("upload_batch", "upload_batch"),
        ("slice", "slice"),
        ("slice_to_be_fetched", "slice"),
        ("snapshot_request", "snapshot_request"),
        ("snapshot_request_resumed", "snapshot_request"),
        ("snapshot_reply", "snapshot_reply"),
        ("digest_request", "digest_request"),
        ("digest_reply", "digest_reply"),
        ("outcome_accepted", "outcome"),
        ("outcome_behind_head", "outcome"),
        ("outcome_rejected", "outcome"),
        ("outcome_refused", "outcome"),
        ("outcome_of_an_unreadable_batch", "outcome"),
    ];
    let read = |(file, target): (&str, &'static str)| (target, file.to_owned(), frozen(file));
    let mut inputs: Vec<Input> = targets.map(read).into();
    let page = inputs.iter().find(|(target, ..)| *target == "fetch_reply").expect("one of them").2.clone();
    // After `{v: 1, body:`, which is nine bytes.
    let body = page[9..].to_vec();
    let frame = zstd::bulk::compress(&body, 3).expect("compresses");
    inputs.push(("compressed_body", "fetch_reply".to_owned(), body));
    inputs.push(("compressed_frame", "fetch_reply".to_owned(), frame));
    inputs
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex digits");
    digits.chunks(2).map(byte).collect()
}

fn awkward_columns() -> Columns {
    let values = [
        ("bool", Value::Bool(true)),
        ("bytes", Value::Bytes(vec![0, 127, 128, 255])),
        ("integer", Value::Integer(i64::MIN)),
        ("json", Value::Json(r#"{"a":[1,{"b":null}]}"#.to_owned())),
        ("null", Value::Null),
        ("nan", Value::Real(f64::NAN)),
        ("negative zero", Value::Real(-0.0)),
        ("text", Value::Text("Grüße 🎭".to_owned())),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}

fn subjects() -> Vec<Input> {
    let subjects = Subjects::new(SubjectPrefix::default());
    let client_id = ClientId::from_uuid(Uuid::from_u128(7));
    let (plain, escaped) = (UserId::new("alice").expect("ok"), UserId::new("a.b >*=🎭").expect("ok"));
    let long = AudienceKey::new("x".repeat(200)).expect("ok");
    let project = AudienceKey::new("project:1").expect("ok");
    let made = [
        ("up", subjects.up(Some(&project), &plain, client_id)),
        ("up_without_rows", subjects.up(None, &plain, client_id)),
        ("up_hashed", subjects.up(Some(&long), &escaped, client_id)),
        ("rpc", subjects.rpc(&escaped, client_id, RpcMethod::Fetch)),
        ("held", subjects.held(ProcessToken::new(1), &UserToken::of(&plain), client_id)),
    ];
    made.map(|(name, subject)| ("subject", name.to_owned(), subject.as_str().as_bytes().to_vec())).into()
}

/// An audience and a user in two lines.
fn ids() -> Vec<Input> {
    let long = "x".repeat(200);
    let made = [("plain", "project:1\nalice"), ("awkward", "a.b >*=🎭\n=none"), ("hashed", &format!("{long}\na.>"))];
    made.map(|(name, text)| ("subjects_of_ids", name.to_owned(), text.as_bytes().to_vec())).into()
}

/// Frozen messages on the subjects that they belong to.
fn routed() -> Vec<Input> {
    let subjects = Subjects::new(SubjectPrefix::default());
    let user = UserId::new("alice").expect("ok");
    let token = UserToken::of(&user);
    let batch: UploadBatch = message("upload_batch");
    let page: Slice = message("slice");
    let audience = batch.records.iter().flat_map(|record| &record.rows).next().map(|row| &row.audience_key);
    let held: SnapshotRequest = message("snapshot_request_resumed");
    let client_of = |method| match method {
        "session" => message::<SessionRequest>("session_request").client_id,
        "fetch" => message::<FetchRequest>("fetch_request").client_id,
        "snapshot" => message::<SnapshotRequest>("snapshot_request").client_id,
        _ => message::<DigestRequest>("digest_request").client_id,
    };
    let methods = [RpcMethod::Session, RpcMethod::Fetch, RpcMethod::Snapshot, RpcMethod::Digest];
    let request = |method: RpcMethod| {
        let name = method.as_str();
        (name, subjects.rpc(&user, client_of(name), method).to_string(), format!("{name}_request"))
    };
    let mut inputs: Vec<_> = methods.into_iter().map(request).collect();
    inputs.extend([
        ("up", subjects.up(audience, &user, batch.client_id).to_string(), "upload_batch".to_owned()),
        (
            "held",
            subjects.held(ProcessToken::new(1), &token, held.client_id).to_string(),
            "snapshot_request_resumed".to_owned(),
        ),
        ("live", subjects.live(&page.audience_key).to_string(), "slice".to_owned()),
        ("log", subjects.log(&page.audience_key).to_string(), "slice".to_owned()),
        ("outcome", subjects.outcome(&token, batch.client_id).to_string(), "outcome_accepted".to_owned()),
    ]);
    let input = |(name, subject, file): (&str, String, String)| {
        let bytes = [subject.as_bytes(), b"\n", &frozen(&file)].concat();
        ("routed_message", name.to_owned(), bytes)
    };
    inputs.into_iter().map(input).collect()
}

fn message<T: DeserializeOwned>(file: &str) -> T {
    wire::decode(&frozen(file), 1 << 20).expect("a frozen message is read")
}

/// Requests in both forms, compressed and not; and what else HTTP reads.
fn over_http() -> Vec<Input> {
    let requests = messages();
    let of = |target: &str| &requests.iter().find(|(of, ..)| *of == target).expect("one of them").2;
    let mut inputs = Vec::new();
    for (target, packed, json) in [
        ("http_session", of("session_request"), in_json::<SessionRequest>(of("session_request"))),
        ("http_fetch", of("fetch_request"), in_json::<FetchRequest>(of("fetch_request"))),
        ("http_upload", of("upload_batch"), in_json::<UploadBatch>(of("upload_batch"))),
        ("http_snapshot", of("snapshot_request"), in_json::<SnapshotRequest>(of("snapshot_request"))),
        ("http_digest", of("digest_request"), in_json::<DigestRequest>(of("digest_request"))),
    ] {
        let frame = zstd::bulk::compress(&json, 3).expect("compresses");
        let heads: [(&str, &[u8], &[u8]); 3] = [
            ("packed", b"\n\n", packed),
            ("json", b"application/json\n\n", &json),
            ("json_zstd", b"application/json\nzstd\n", &frame),
        ];
        inputs.extend(heads.map(|(name, head, body)| (target, name.to_owned(), [head, body].concat())));
    }
    let id = Uuid::from_u128(7);
    let told = format!("{{\"epoch\":\"{id}\",\"heads\":{{\"project:1\":7}},\"seen\":\"{id}\"}}");
    let stream = format!("retry: 500\n: listening\n\nevent: wakeup\ndata: {told}\nid: {id}\n\n: alive\n\n");
    inputs.push(("http_events", "wakeup".to_owned(), stream.into_bytes()));
    inputs.push(("http_poll", "seen".to_owned(), format!("seen={id}&wait=25").into_bytes()));
    inputs.push(("http_accept", "packed".to_owned(), b"text/html;q=0.9, application/vnd.msgpack, */*;q=0.1".to_vec()));
    inputs
}

fn in_json<T: Serialize + DeserializeOwned>(message: &[u8]) -> Vec<u8> {
    wire::encode_json(&wire::decode::<T>(message, 1 << 20).expect("a frozen message"))
}

/// Good until the year 9999.
fn token() -> String {
    let claims =
        BTreeMap::from([("sub", serde_json::json!(TOKEN_USER)), ("exp", serde_json::json!(253_402_300_799_u64))]);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(TOKEN_SECRET))
        .expect("signs")
}
