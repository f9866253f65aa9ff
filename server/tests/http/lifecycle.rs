//! Tokens end while devices work, keys cannot be had, and users share one connection to Postgres.

use std::sync::Arc;

use axum::http::StatusCode;
use futures::future::join_all;
use jsonwebtoken::get_current_timestamp;
use serde_json::json;
use sqlx_core::connection::Connection;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Hlc, Patch, RecordBody,
    RowId, TableName, UserId, Value,
};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Network, NetworkError, StaticToken};
use synchrotron_core::wire::{
    self, FaultCode, FetchRequest, Outcome, Session, SessionRequest, SnapshotPosition, SnapshotRequest, UploadBatch,
    UploadRecord,
};
use synchrotron_http::{HttpNetwork, routes};
use synchrotron_server::settings::{JwtSettings, Settings};
use synchrotron_testkit::wait_for;
use uuid::Uuid;

use crate::api::{Api, SECRET, session_request, token};
use crate::issuer::{Answer, KeyServer, SigningKey, claims_of, key_set};

const NONE: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A server that reads one record and one row at a time, on one connection for all.
async fn narrow(jwt: JwtSettings) -> Api {
    let set = |settings: &mut Settings| {
        settings.jwt = jwt;
        settings.pool_connections_max = 1;
        settings.page_bytes_max = 1;
        settings.snapshots.chunk_bytes_max = 1;
    };
    Api::start_with(set).await
}

/// A device of a user, whose notes only that user sees.
struct Device {
    user: UserId,
    client_id: ClientId,
    session: Session,
}

impl Device {
    async fn open(api: &Api, user: &str, token: &str) -> Self {
        let user = UserId::new(user).expect("ok");
        api.allow(&user, &own_audience(&user)).await;
        let client_id = ClientId::from_uuid(Uuid::new_v4());
        let session = with_token(api, token).session(&SessionRequest { client_id }).await.expect("a session");
        Self { user, client_id, session }
    }

    /// A note of this owner, who may be somebody else.
    fn note(&self, owner: &UserId) -> UploadBatch {
        let columns = [("owner", owner.as_str()), ("body", "…")];
        let row = Patch {
            sequence: 0,
            table: TableName::new("notes").expect("ok"),
            row_id: RowId::new(Uuid::new_v4().to_string()).expect("ok"),
            audience_key: own_audience(owner),
            effect: Effect::Insert(columns.map(|(name, text)| (name.to_owned(), Value::from(text))).into()),
        };
        let body = RecordBody::Action {
            tag: ActionTag::new("write_note_v1").expect("ok"),
            args: ActionArgs::from_encoded(vec![0x80]).expect("an empty map"),
        };
        let clock = Hlc::at_millis(self.session.server_time_ms);
        let record =
            UploadRecord { id: ActionId::from_uuid(Uuid::now_v7()), clock, trace_parent: None, body, rows: vec![row] };
        UploadBatch {
            batch_id: BatchId::from_uuid(Uuid::new_v4()),
            client_id: self.client_id,
            epoch: self.session.epoch,
            basis: Cursors::new(),
            records: vec![record],
        }
    }

    fn fetch(&self, cursors: Cursors) -> FetchRequest {
        FetchRequest { client_id: self.client_id, epoch: self.session.epoch, cursors }
    }

    fn snapshot(&self, resume: Option<SnapshotPosition>) -> SnapshotRequest {
        let audiences = vec![own_audience(&self.user)];
        SnapshotRequest { client_id: self.client_id, epoch: self.session.epoch, audiences, ids: Vec::new(), resume }
    }
}

fn own_audience(user: &UserId) -> AudienceKey {
    AudienceKey::new(format!("user:{user}")).expect("ok")
}

fn with_token(api: &Api, token: &str) -> HttpNetwork {
    HttpNetwork::new(&api.url, Arc::new(StaticToken::new(token))).expect("a URL")
}

async fn records(api: &Api) -> i64 {
    let mut connection = PgConnection::connect(&api.database).await.expect("connects");
    let count = query_scalar::<Postgres, i64>("SELECT count(*) FROM synchrotron.action_records");
    count.fetch_one(&mut connection).await.expect("counts")
}

fn is_unauthenticated<A>(answer: &Result<A, NetworkError>) -> bool {
    answer.as_ref().is_err_and(NetworkError::is_unauthenticated)
}

/// Whatever ends a token, and whenever: the call that meets it is refused by type, nothing is done, and the same call
/// goes on from where it was with a new token.
#[tokio::test]
async fn auth_06_u12_a_token_that_ends_between_two_calls_costs_nothing_but_a_new_one() {
    let key = SigningKey::ed25519("1");
    let server = KeyServer::publishing(&[&key]).await;
    let (issuer, audience) = (Some("us".to_owned()), Some("sync".to_owned()));
    let api = narrow(JwtSettings { issuer, audience, ..JwtSettings::with_jwks(server.url.clone()) }).await;
    let says = |changes: serde_json::Value| {
        let mut claims = claims_of("alice");
        (claims["iss"], claims["aud"]) = (json!("us"), json!("sync"));
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        key.sign(&claims)
    };
    let good = says(json!({}));
    let alice = Device::open(&api, "alice", &good).await;
    let network = with_token(&api, &good);
    for _ in 0..2 {
        let outcome = network.upload(&alice.note(&alice.user)).await.expect("an outcome");
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let ended = [
        ("expired", says(json!({ "exp": get_current_timestamp() - 60 }))),
        ("not valid yet", says(json!({ "nbf": get_current_timestamp() + 600 }))),
        ("another issuer's", says(json!({ "iss": "them" }))),
        ("for another audience", says(json!({ "aud": "mail" }))),
        ("unsigned", NONE.to_owned()),
        ("of an unknown key", SigningKey::ed25519("2").token()),
    ];
    for (what, ended) in ended {
        let refused = with_token(&api, &ended);
        let first = network.fetch(&alice.fetch(Cursors::new())).await.expect("a page");
        assert!(first.more, "{what}");
        assert!(is_unauthenticated(&refused.fetch(&alice.fetch(first.cursors.clone())).await), "fetch, {what}");
        let second = network.fetch(&alice.fetch(first.cursors.clone())).await.expect("the next page");
        assert_ne!(first.records, second.records, "{what}");

        let first = network.snapshot(&alice.snapshot(None)).await.expect("a chunk");
        let next = SnapshotPosition { chunk: first.position.chunk + 1, ..first.position };
        assert!(is_unauthenticated(&refused.snapshot(&alice.snapshot(Some(next))).await), "snapshot, {what}");
        let second = network.snapshot(&alice.snapshot(Some(next))).await.expect("the next chunk");
        assert_eq!((second.position, second.rows.len()), (next, 1), "{what}");

        let (batch, before) = (alice.note(&alice.user), records(&api).await);
        assert!(is_unauthenticated(&refused.upload(&batch).await), "upload, {what}");
        assert_eq!(records(&api).await, before, "{what}");
        let outcome = network.upload(&batch).await.expect("an outcome");
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{what}: {outcome:?}");
    }
}

/// Without keys nobody can say whose a token is: devices are told to come back, and keep what they have.
#[tokio::test]
async fn u12_without_keys_calls_are_to_be_tried_again_and_nothing_is_done() {
    let key = SigningKey::ed25519("1");
    let server = KeyServer::start(Answer::Status(StatusCode::INTERNAL_SERVER_ERROR)).await;
    let api = narrow(JwtSettings::with_jwks(server.url.clone())).await;
    let network = with_token(&api, &key.token());
    let asked = network.session(&session_request()).await;
    assert!(matches!(&asked, Err(NetworkError::Fault(fault)) if fault.code == FaultCode::Unavailable), "{asked:?}");
    let authorization = format!("Bearer {}", key.token());
    let response = api.post(routes::SESSION, Some(&authorization), wire::encode(&session_request())).await;
    assert_eq!(response.status().as_u16(), 503);
    assert!(response.headers().contains_key("retry-after"));

    let user = UserId::new("alice").expect("ok");
    let session = Session {
        user_id: user.clone(),
        epoch: synchrotron_core::model::Epoch::from_uuid(Uuid::nil()),
        server_time_ms: 0,
        audiences: Vec::new(),
    };
    let stranger = Device { user: user.clone(), client_id: ClientId::from_uuid(Uuid::new_v4()), session };
    let outcome = network.upload(&stranger.note(&user)).await.expect("an outcome");
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    assert_eq!(records(&api).await, 0);

    server.answer(key_set(&[&key]));
    let served = async || network.session(&session_request()).await.ok();
    assert_eq!(wait_for("keys", PATIENCE, served).await.expect("served").user_id, user);
}

/// Two users on one connection, all at once: refused uploads, calls that are given up half way, bad tokens in between.
#[tokio::test(flavor = "multi_thread")]
async fn u12_no_request_is_served_under_a_previous_users_principal() {
    let api = narrow(JwtSettings::with_secret(SECRET)).await;
    let (alice_token, bob_token) = (token("alice", 3_600), token("bob", 3_600));
    let alice = Device::open(&api, "alice", &alice_token).await;
    let bob = Device::open(&api, "bob", &bob_token).await;
    for round in 0..8 {
        let both = [(&alice, &alice_token, &bob.user), (&bob, &bob_token, &alice.user)];
        let rounds = both.into_iter().map(async |(device, token, other)| {
            let network = with_token(&api, token);
            let denied = network.upload(&device.note(other)).await.expect("an outcome");
            assert!(matches!(denied, Outcome::Rejected { .. }), "{denied:?}");
            let given_up = device.note(&device.user);
            let patience = std::time::Duration::from_millis(round);
            drop(tokio::time::timeout(patience, network.upload(&given_up)).await);
            let expired = with_token(&api, &self::token(device.user.as_str(), -3_600));
            assert!(is_unauthenticated(&expired.upload(&device.note(&device.user)).await));
            let kept = network.upload(&device.note(&device.user)).await.expect("an outcome");
            assert!(matches!(kept, Outcome::Accepted { .. }), "{kept:?}");
            only_their_own(&network, device).await;
        });
        join_all(rounds).await;
    }
    let mut connection = PgConnection::connect(&api.database).await.expect("connects");
    let strangers = "SELECT count(*) FROM notes n JOIN synchrotron.action_modified_rows m \
         ON m.row_id = n.id JOIN synchrotron.action_records r ON r.id = m.action_id WHERE r.user_id <> n.owner";
    let strangers = query_scalar::<Postgres, i64>(strangers).fetch_one(&mut connection).await.expect("counts");
    assert_eq!(strangers, 0, "a note that its owner did not write");
}

/// Everything that the device can read is its user's.
async fn only_their_own(network: &HttpNetwork, device: &Device) {
    let session = network.session(&SessionRequest { client_id: device.client_id }).await.expect("a session");
    assert_eq!(session.user_id, device.user);
    let audiences: Vec<_> = session.audiences.into_iter().map(|audience| audience.audience_key).collect();
    assert_eq!(audiences, [own_audience(&device.user)]);
    let (mut cursors, mut read) = (Cursors::new(), 0);
    loop {
        let page = network.fetch(&device.fetch(cursors)).await.expect("a page");
        for record in &page.records {
            assert_eq!(record.record.user_id, device.user);
            assert!(record.rows.iter().all(|row| row.audience_key == own_audience(&device.user)));
        }
        read += page.records.len();
        cursors = page.cursors;
        if !page.more {
            break;
        }
    }
    assert!(read > 0);
    let owner = Value::from(device.user.as_str());
    let is_own = |columns: &Columns| columns.get("owner") == Some(&owner);
    let mut resume = None;
    loop {
        let chunk = network.snapshot(&device.snapshot(resume)).await.expect("a chunk");
        assert!(chunk.rows.iter().all(|row| is_own(&row.columns)), "{:?}", chunk.rows);
        if chunk.last {
            return;
        }
        resume = Some(SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position });
    }
}
