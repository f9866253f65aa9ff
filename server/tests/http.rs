//! What comes in over HTTP, good and bad, over real sockets and a real Postgres.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{BatchId, ClientId, Cursors, Epoch, TableName};
use synchrotron_core::network::{Network, NetworkError, StaticToken};
use synchrotron_core::wire::{
    self, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Reply, Session, SessionRequest, UploadBatch, WIRE_VERSION,
};
use synchrotron_http::{HttpNetwork, routes};
use synchrotron_server::api::http::{HttpLimits, router};
use synchrotron_server::service::Service;
use synchrotron_server::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

const SECRET: &[u8] = b"the secret of these tests";
const BODY_BYTES_MAX: usize = 64 << 10;
const SCHEMA: &str = "
    DO $$ BEGIN CREATE ROLE synchrotron_user; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE notes (id text PRIMARY KEY, audience_key text NOT NULL, body text);
    CREATE TABLE members (user_id text NOT NULL, audience_key text NOT NULL);
    INSERT INTO members VALUES ('alice', 'team:1');
    CREATE SCHEMA IF NOT EXISTS synchrotron;
    CREATE VIEW synchrotron.user_audiences AS SELECT user_id, audience_key FROM members;
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY members_only ON notes USING (EXISTS (SELECT FROM members WHERE members.audience_key =
        notes.audience_key AND user_id = current_setting('synchrotron.user_id', true)));
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO synchrotron_user;
    GRANT SELECT ON members TO synchrotron_user;";

struct Api {
    url: String,
    client: Client,
}

impl Api {
    /// A server on a database of its own.
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut HttpLimits)) -> Self {
        let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("http").await;
        let database = database.expect("a database");
        let mut connection = PgConnection::connect(&database).await.expect("connects");
        connection.execute(SCHEMA).await.expect("the app's schema");
        let settings = Settings::new(database, vec![TableName::new("notes").expect("ok")], SECRET);
        let service = Service::connect(&settings).await.expect("starts");
        let mut limits = HttpLimits::for_settings(&settings);
        limits.body_bytes_max = BODY_BYTES_MAX;
        change(&mut limits);
        let app = router(service, Arc::new(settings.token_verifier()), limits);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, client: Client::new() }
    }

    async fn post(&self, path: &str, authorization: Option<&str>, body: impl Into<reqwest::Body>) -> Response {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        request.send().await.expect("an answer, whatever was sent")
    }

    /// Posts as alice and expects a fault.
    async fn fault(&self, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Fault) {
        let response = self.post(path, Some(&format!("Bearer {}", token("alice", 3_600))), body).await;
        let status = response.status();
        if path == routes::UPLOAD {
            let Reply::Ok(Outcome::Refused(fault)) = read::<Reply<Outcome>>(response).await else {
                panic!("an upload was not refused: {status}")
            };
            return (status, fault);
        }
        (status, fault_of(response).await)
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> T {
    assert_eq!(response.headers()["content-type"], routes::MESSAGEPACK);
    wire::decode(&response.bytes().await.expect("a body"), 1 << 20).expect("a message")
}

async fn fault_of(response: Response) -> Fault {
    match read::<Reply<()>>(response).await {
        Reply::Fault(fault) => fault,
        Reply::Ok(()) => panic!("served"),
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: i64,
}

fn token(user: &str, expires_in_seconds: i64) -> String {
    signed(user, expires_in_seconds, Algorithm::HS256, SECRET)
}

fn signed(user: &str, expires_in_seconds: i64, algorithm: Algorithm, secret: &[u8]) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let exp = i64::try_from(now.as_secs()).expect("before the end") + expires_in_seconds;
    let claims = Claims { sub: user, exp };
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret)).expect("signs")
}

fn session_request() -> SessionRequest {
    SessionRequest { client_id: ClientId::from_uuid(Uuid::from_u128(1)) }
}

const CALLS: [&str; 3] = [routes::SESSION, routes::FETCH, routes::UPLOAD];

#[tokio::test]
async fn no_token_no_service() {
    let api = Api::start().await;
    let good = token("alice", 3_600);
    let tampered = format!("{}x", &good[..good.len() - 1]);
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    let refused = [
        None,
        Some("Basic YTpi".to_owned()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer not.a.token".to_owned()),
        Some(format!("Bearer {none}")),
        Some(format!("Bearer {tampered}")),
        Some(format!("Bearer {}", token("alice", -3_600))),
        Some(format!("Bearer {}", token("", 3_600))),
        Some(format!("Bearer {}", signed("alice", 3_600, Algorithm::HS256, b"another secret altogether"))),
        Some(format!("Bearer {}", signed("alice", 3_600, Algorithm::HS512, SECRET))),
    ];
    for path in CALLS {
        for authorization in &refused {
            let response = api.post(path, authorization.as_deref(), wire::encode(&session_request())).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path} {authorization:?}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let fault = fault_of(response).await;
            assert_eq!(fault.code, FaultCode::Unauthenticated, "{path} {authorization:?}");
            assert!(!fault.message.contains("eyJ"), "{}", fault.message);
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_by_name() {
    let api = Api::start().await;
    let another_version = rmp_serde::to_vec_named(&serde_json::json!({"v": WIRE_VERSION + 1, "body": {}}));
    let deep = [vec![0x91; 10_000], vec![0xc0]].concat();
    let claimed = vec![0xdd, 0xff, 0xff, 0xff, 0xff];
    let cases: [(Vec<u8>, FaultCode, &str); 7] = [
        (vec![], FaultCode::Malformed, "ends at byte 0"),
        (b"{\"v\":1}".to_vec(), FaultCode::Malformed, "malformed"),
        (vec![0xc1], FaultCode::Malformed, "reserved"),
        (deep, FaultCode::Malformed, "deeper"),
        (claimed, FaultCode::Malformed, "ends at byte 5"),
        (another_version.expect("encodes"), FaultCode::UnsupportedVersion, "version 2"),
        (wire::encode(&"not a request"), FaultCode::Malformed, "not the expected message"),
    ];
    for path in CALLS {
        for (bytes, code, part) in &cases {
            let (status, fault) = api.fault(path, bytes.clone()).await;
            assert_eq!((status, fault.code), (StatusCode::BAD_REQUEST, *code), "{path} {part}");
            assert!(fault.message.contains(part), "{path} {part}: {}", fault.message);
        }
    }
}

#[tokio::test]
async fn a_body_too_large_is_told_so_and_the_connection_lives_on() {
    let api = Api::start().await;
    for size in [BODY_BYTES_MAX + 1, 3 * BODY_BYTES_MAX] {
        let (status, fault) = api.fault(routes::UPLOAD, vec![0; size]).await;
        assert_eq!((status, fault.code), (StatusCode::PAYLOAD_TOO_LARGE, FaultCode::TooLarge));
        // Without a declared length.
        let chunks = futures::stream::iter((0..size / 1_000 + 1).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 1_000])));
        let (status, fault) = api.fault(routes::FETCH, reqwest::Body::wrap_stream(chunks)).await;
        assert_eq!((status, fault.code), (StatusCode::PAYLOAD_TOO_LARGE, FaultCode::TooLarge));
    }

    let address = api.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let body = vec![b'x'; 2 * BODY_BYTES_MAX];
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", routes::UPLOAD, body.len());
    let probe = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", routes::HEALTHZ);
    stream.write_all(&[head.as_bytes(), &body, probe.as_bytes()].concat()).await.expect("sends");
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).await.expect("reads");
    let answers = String::from_utf8_lossy(&answers);
    assert!(answers.starts_with("HTTP/1.1 401") && answers.contains("HTTP/1.1 200"), "{answers}");
}

#[tokio::test]
async fn a_body_that_never_ends_does_not_hold_the_server() {
    let api = Api::start_with(|limits| limits.body_within = std::time::Duration::from_millis(200)).await;
    let never = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let (status, fault) = api.fault(routes::SESSION, never).await;
    assert_eq!((status, fault.code), (StatusCode::BAD_REQUEST, FaultCode::Malformed));
    assert!(fault.message.contains("within"), "{}", fault.message);
}

#[tokio::test]
async fn more_than_it_can_serve_at_once_is_told_to_come_back() {
    let api = Api::start_with(|limits| limits.requests_max = 0).await;
    let bearer = format!("Bearer {}", token("alice", 3_600));
    let response = api.post(routes::SESSION, Some(&bearer), wire::encode(&session_request())).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(fault_of(response).await.code, FaultCode::Unavailable);
    let response = api.post(routes::UPLOAD, Some(&bearer), "").await;
    assert_eq!(read::<Reply<Outcome>>(response).await, Reply::Ok(Outcome::Retry { after_ms: 1_000 }));
}

#[tokio::test]
async fn probes_and_paths() {
    let api = Api::start().await;
    for (path, status) in [
        (routes::HEALTHZ, StatusCode::OK),
        (routes::READYZ, StatusCode::OK),
        (routes::SESSION, StatusCode::METHOD_NOT_ALLOWED),
        ("/v2/session", StatusCode::NOT_FOUND),
    ] {
        let response = api.client.get(format!("{}{path}", api.url)).send().await.expect("an answer");
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn the_client_gets_what_the_service_says() {
    let api = Api::start().await;
    let network = HttpNetwork::new(&api.url, Arc::new(StaticToken::new(token("alice", 3_600)))).expect("a URL");
    let session: Session = network.session(&session_request()).await.expect("a session");
    assert_eq!(session.user_id.as_str(), "alice");
    assert_eq!(session.audiences.iter().map(|head| head.audience_key.as_str()).collect::<Vec<_>>(), ["team:1"]);

    let client_id = session_request().client_id;
    let ask = |epoch| FetchRequest { client_id, epoch, cursors: Cursors::new() };
    let page: FetchPage = network.fetch(&ask(session.epoch)).await.expect("a page");
    assert!(page.records.is_empty() && !page.more);
    let error = network.fetch(&ask(Epoch::from_uuid(Uuid::from_u128(9)))).await.expect_err("another history");
    assert!(matches!(&error, NetworkError::Fault(fault) if fault.code == FaultCode::EpochChanged), "{error}");

    let batch = UploadBatch {
        batch_id: BatchId::from_uuid(Uuid::from_u128(2)),
        client_id,
        epoch: Epoch::from_uuid(Uuid::from_u128(9)),
        basis: Cursors::new(),
        records: vec![],
    };
    let outcome = network.upload(&batch).await.expect("an outcome");
    assert_eq!(outcome, Outcome::EpochChanged { current: session.epoch });

    let stranger = HttpNetwork::new(&api.url, Arc::new(StaticToken::new(token("bob", 3_600)))).expect("a URL");
    let error = stranger.session(&session_request()).await.expect_err("alice's device");
    assert!(matches!(&error, NetworkError::Fault(fault) if fault.code == FaultCode::ForeignClient), "{error}");
}
