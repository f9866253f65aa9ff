//! Bytes of one action as it travels: up, as a slice, and in a fetched page, against the same facts as JSON.

use std::sync::Arc;

use futures::StreamExt;
use serde::Serialize;
use serde_json::{Value as Json, json};
use synchrotron_core::model::{ActionArgs, AudienceKey, Cursors, Effect, Patch, RecordBody, Value};
use synchrotron_core::network::{Ingress, Network};
use synchrotron_core::wire::{self, FetchRequest, LogRecord, SessionRequest, Slice, UploadRecord};

use super::Bench;
use super::app::AddItem;
use super::stage::{Stage, go_online, in_time};
use super::watched::Watched;
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};

const AUDIENCE: &str = "project:1";

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    bench.runtime.block_on(async {
        let mut entries = Vec::new();
        for actions in [1, 100] {
            entries.extend(measure(actions).await?);
        }
        Ok(entries)
    })
}

/// So many actions, uploaded together.
async fn measure(actions: u32) -> Result<Vec<Entry>, BenchError> {
    let stage = Stage::open().await?;
    stage.admit(2, AUDIENCE).await?;
    let author = stage.device("u0").await?;
    let audience = AudienceKey::new(AUDIENCE).expect("BUG: a key");
    let network = Arc::new(Watched::new(stage.over_nats("u0", author.client_id()).await?, Arc::default()));
    let session = network.session(&SessionRequest { client_id: author.client_id() }).await?;
    let listener = stage.over_nats("u1", synchrotron_core::model::ClientId::from_uuid(uuid::Uuid::now_v7())).await?;
    let events = listener.subscribe(&[audience]).await?;
    let mut events = events.ok_or(BenchError::Late { what: "push" })?;
    for _action in 0..actions {
        author.execute(AddItem::to(AUDIENCE)).await?;
    }
    go_online(&author, Arc::clone(&network) as _).await?;
    let batches = network.take_accepted();
    let mut slices: Vec<Slice> = Vec::new();
    while slices.iter().map(|slice| slice.records.len()).sum::<usize>() < actions as usize {
        match in_time("a slice", events.next()).await? {
            Some(Ingress::Slice(slice)) => slices.push(slice),
            Some(Ingress::Wakeup) => {}
            None => return Err(BenchError::Late { what: "push" }),
        }
    }
    let request = FetchRequest { client_id: author.client_id(), epoch: session.epoch, cursors: Cursors::new() };
    let over_http = stage.over_http("u0")?;
    let page = over_http.fetch(&request).await?;
    let entry = |message: &str, form: &str, ours: usize, plain: usize| {
        let each = |bytes: usize| bytes as f64 / f64::from(actions);
        let of = Circumstances::new("B/action").with("message", message).with("form", form).with("actions", actions);
        of.entry("wire_bytes", each(ours), each(plain))
    };
    let up: usize = batches.iter().flat_map(|batch| &batch.records).map(|record| bytes_of(&uploaded(record))).sum();
    let down: usize = page.records.iter().map(|entry| bytes_of(&logged(entry))).sum();
    Ok(vec![
        entry("upload", "plain", encoded(&batches), up),
        entry("upload", "zstd", compressed(&batches), up),
        entry("slice", "plain", encoded(&slices), down),
        entry("slice", "zstd", compressed(&slices), down),
        entry("page", "plain", wire::encode(&page).len(), down),
        entry("page", "zstd", wire::encode_compressed(&page).len(), down),
    ])
}

fn encoded<T: Serialize>(messages: &[T]) -> usize {
    messages.iter().map(|message| wire::encode(message).len()).sum()
}

fn compressed<T: Serialize>(messages: &[T]) -> usize {
    messages.iter().map(|message| wire::encode_compressed(message).len()).sum()
}

fn bytes_of(json: &Json) -> usize {
    json.to_string().len()
}

/// A record as somebody would write it in JSON by hand: texts for ids, an object for arguments and for columns.
fn uploaded(record: &UploadRecord) -> Json {
    let rows: Vec<Json> = record.rows.iter().map(patch).collect();
    let clock = record.clock.packed();
    match &record.body {
        RecordBody::Action { tag, args } => {
            json!({"id": record.id, "clock": clock, "tag": tag, "args": arguments(args), "rows": rows})
        }
        RecordBody::Correction { .. } => json!({"id": record.id, "clock": clock, "rows": rows}),
    }
}

fn logged(entry: &LogRecord) -> Json {
    let LogRecord { record, rows, .. } = entry;
    let trace_parent = record.trace_parent;
    let sent = UploadRecord {
        id: record.id,
        clock: record.clock,
        body: record.body.clone(),
        rows: rows.clone(),
        trace_parent,
    };
    let mut json = uploaded(&sent);
    json["client_id"] = json!(record.client_id);
    json["user_id"] = json!(record.user_id);
    json["server_ingest_id"] = json!(record.server_ingest_id);
    json
}

fn arguments(args: &ActionArgs) -> Json {
    rmp_serde::from_slice(args.as_bytes()).expect("BUG: arguments of the app are texts")
}

fn patch(patch: &Patch) -> Json {
    let columns = match &patch.effect {
        Effect::Insert(columns) | Effect::Update(columns) => {
            columns.iter().map(|(name, at)| (name, plain(at))).collect()
        }
        Effect::Delete | Effect::Nothing => std::collections::BTreeMap::new(),
    };
    json!({
        "sequence": patch.sequence,
        "table": patch.table,
        "row_id": patch.row_id,
        "audience_key": patch.audience_key,
        "operation": patch.effect.operation().as_str(),
        "columns": columns,
    })
}

fn plain(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(text),
        Value::Integer(number) => json!(number),
        other => json!(other),
    }
}
