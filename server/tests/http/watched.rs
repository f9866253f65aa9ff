//! What whoever watches a server sees.

use std::time::Duration;

use reqwest::StatusCode;
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, Columns, Cursors, Effect, Hlc, Patch, RecordBody, RowId,
    TableName, UserId,
};
use synchrotron_core::network::Network;
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::wire::{self, FetchRequest, Outcome, UploadBatch, UploadRecord};
use synchrotron_http::routes;
use synchrotron_server::settings::Settings;
use synchrotron_server::{RunningServer, Server, ServerSettings};
use synchrotron_testkit::wait_for;
use uuid::Uuid;

use crate::api::{Api, SECRET, session_request, token};

impl Api {
    /// What is exported now.
    async fn metrics(&self) -> String {
        let answer = self.client.get(format!("{}{}", self.url, routes::METRICS)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.headers()["content-type"].to_str().expect("text").starts_with("text/plain; version=0.0.4"));
        answer.text().await.expect("text")
    }
}

/// The value of a series. Other tests of this process count, too.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{metrics}")).parse().expect("a number")
}

#[tokio::test]
async fn metrics_count_what_is_done_and_name_nobody() {
    let api = Api::start().await;
    let before = api.metrics().await;
    let body = wire::encode(&session_request());
    let expired = format!("Bearer {}", token("alice", -3_600));
    for refused in [None, Some("Basic x"), Some(expired.as_str()), Some("Bearer nonsense")] {
        assert_eq!(api.post(routes::SESSION, refused, body.clone()).await.status(), StatusCode::UNAUTHORIZED);
    }
    let served = api.post(routes::SESSION, Some(&format!("Bearer {}", token("alice", 3_600))), body).await;
    assert_eq!(served.status(), StatusCode::OK);
    let after = api.metrics().await;
    for (reason, at_least) in [("no_token", 2.0), ("expired", 1.0), ("bad_token", 1.0)] {
        let series = format!("synchrotron_auth_refusals_total{{reason=\"{reason}\"}}");
        assert!(value(&after, &series) - value(&before, &series) >= at_least, "{series}\n{after}");
    }
    assert!(!after.contains("alice"), "{after}");
    let pooled = async || {
        let metrics = api.metrics().await;
        let connections = |state| value(&metrics, &format!("synchrotron_pool_connections{{state=\"{state}\"}}"));
        (connections("in_use") + connections("idle") >= 1.0).then_some(())
    };
    wait_for("connections to be looked at", Duration::from_secs(30), pooled).await.expect("looked at");
}

/// An action at this time that does this to the one seat.
fn on_seat(at_ms: i64, effect: Effect) -> UploadRecord {
    let body = RecordBody::Action {
        tag: ActionTag::new("seat_v1").expect("a tag"),
        args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
    };
    let row = Patch {
        sequence: 0,
        table: TableName::new("seats").expect("a name"),
        row_id: RowId::new("s1").expect("an id"),
        audience_key: AudienceKey::new("project:1").expect("a key"),
        effect,
    };
    let (id, clock) = (ActionId::from_uuid(Uuid::now_v7()), Hlc::at_millis(at_ms));
    UploadRecord { id, clock, body, rows: vec![row], trace_parent: None }
}

#[tokio::test]
async fn uploads_late_records_and_pages_are_counted() {
    let api = Api::start().await;
    let alice = UserId::new("alice").expect("an id");
    let audience = AudienceKey::new("project:1").expect("a key");
    NetworkFixture::allow(&api, &alice, &audience).await;
    let network = api.network("alice");
    let client_id = session_request().client_id;
    let epoch = network.session(&session_request()).await.expect("a session").epoch;
    let before = api.metrics().await;
    let label = Columns::from([("label".to_owned(), "stalls".into())]);
    for record in [on_seat(20, Effect::Insert(label.clone())), on_seat(10, Effect::Update(label))] {
        let batch_id = BatchId::from_uuid(Uuid::now_v7());
        let batch = UploadBatch { batch_id, client_id, epoch, basis: Cursors::new(), records: vec![record] };
        let outcome = network.upload(&batch).await.expect("an outcome");
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let request = FetchRequest { client_id, epoch, cursors: Cursors::new() };
    assert_eq!(network.fetch(&request).await.expect("a page").records.len(), 2);
    let after = api.metrics().await;
    for (series, at_least) in [
        ("synchrotron_uploads_total{outcome=\"accepted\"}", 2.0),
        ("synchrotron_upload_seconds_count", 2.0),
        ("synchrotron_records_accepted_total", 2.0),
        ("synchrotron_records_late_total", 1.0),
        ("synchrotron_fetches_total", 1.0),
        ("synchrotron_fetched_bytes_total", 100.0),
    ] {
        // A histogram that measured nothing yet is not exported.
        let had = if before.contains(series) { value(&before, series) } else { 0.0 };
        assert!(value(&after, series) - had >= at_least, "{series}\n{after}");
    }
}

/// A whole server, over HTTP alone.
async fn server() -> RunningServer {
    let core = Settings::new(Api::start().await.database, vec![TableName::new("notes").expect("a name")], SECRET);
    let settings = ServerSettings { core, http_listen: ([127, 0, 0, 1], 0).into(), nats: None };
    Server::start(settings).await.expect("starts")
}

#[tokio::test]
async fn readiness_ends_when_a_server_begins_to_stop_and_life_does_not() {
    let server = server().await;
    let (url, service) = (format!("http://{}", server.http_addr()), server.service().clone());
    let probe = async |path| reqwest::get(format!("{url}{path}")).await.expect("an answer").status();
    assert_eq!(probe(routes::READYZ).await, StatusCode::OK);
    service.leave();
    assert_eq!(probe(routes::READYZ).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(probe(routes::HEALTHZ).await, StatusCode::OK);
    server.shutdown().await;
    assert!(reqwest::get(format!("{url}{}", routes::HEALTHZ)).await.is_err());
}

#[tokio::test]
async fn a_shutdown_is_the_end_of_readiness() {
    let server = server().await;
    let service = server.service().clone();
    assert!(service.ready().await);
    server.shutdown().await;
    assert!(!service.ready().await);
}
