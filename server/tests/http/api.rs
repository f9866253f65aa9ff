//! A server on a database of its own, listening on a real socket.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{ClientId, TableName};
use synchrotron_core::network::StaticToken;
use synchrotron_core::wire::{self, Fault, Outcome, Reply, SessionRequest};
use synchrotron_http::media::Media;
use synchrotron_http::{HttpNetwork, HttpSettings, routes};
use synchrotron_server::api::http::{router, serve};
use synchrotron_server::auth::TokenVerifier;
use synchrotron_server::service::Service;
use synchrotron_server::settings::Settings;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::issuer::quick;

pub(crate) const SECRET: &[u8] = b"the secret of these tests";
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
const SCHEMA: &str = "
    DO $$ BEGIN CREATE ROLE synchrotron_user; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE members (user_id text NOT NULL, audience_key text NOT NULL, PRIMARY KEY (user_id, audience_key));
    CREATE TABLE notes (id text PRIMARY KEY, owner text NOT NULL, body text NOT NULL,
        audience_key text NOT NULL GENERATED ALWAYS AS ('user:' || owner) STORED);
    CREATE TABLE seats (id text PRIMARY KEY, label text NOT NULL, holder text, audience_key text NOT NULL);
    CREATE SCHEMA IF NOT EXISTS synchrotron;
    CREATE VIEW synchrotron.user_audiences AS SELECT user_id, audience_key FROM members;
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    ALTER TABLE seats ENABLE ROW LEVEL SECURITY;
    CREATE POLICY members_only ON notes USING (EXISTS (SELECT FROM members m WHERE m.audience_key =
        notes.audience_key AND m.user_id = current_setting('synchrotron.user_id', true)));
    CREATE POLICY members_only ON seats USING (EXISTS (SELECT FROM members m WHERE m.audience_key =
        seats.audience_key AND m.user_id = current_setting('synchrotron.user_id', true)));
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes, seats TO synchrotron_user;
    GRANT SELECT ON members TO synchrotron_user;";

/// A running server, and a plain client of it.
pub(crate) struct Api {
    pub(crate) url: String,
    pub(crate) database: String,
    pub(crate) client: Client,
    /// What devices speak to it.
    pub(crate) media: Media,
    /// Ends it.
    pub(crate) stop: CancellationToken,
    /// Until when it runs.
    pub(crate) served: JoinHandle<()>,
}

impl Api {
    /// A server on a database of its own.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(set: impl FnOnce(&mut Settings)) -> Self {
        let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("http").await;
        let database = database.expect("a database");
        let mut connection = PgConnection::connect(&database).await.expect("connects");
        connection.execute(SCHEMA).await.expect("the app's schema");
        Self::on(database, set).await
    }

    /// A server on a database that is there.
    pub(crate) async fn on(database: String, set: impl FnOnce(&mut Settings)) -> Self {
        let tables = ["notes", "seats"].map(|name| TableName::new(name).expect("ok")).to_vec();
        let mut settings = Settings::new(database.as_str(), tables, SECRET);
        (settings.max_upload_bytes, settings.max_record_bytes) = (BODY_BYTES_MAX, BODY_BYTES_MAX);
        settings.http.requests_per_second_per_user = 0;
        set(&mut settings);
        let service = Service::connect(&settings).await.expect("starts");
        let verifier = TokenVerifier::with_limits(&settings.jwt, quick()).expect("verifies");
        let stop = CancellationToken::new();
        let app = router(service, Arc::new(verifier), stop.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let served = tokio::spawn(serve(listener, app, settings.http, stop.clone()));
        // Whoever is first: clients with TLS want it whatever their URL.
        let _earlier = rustls::crypto::ring::default_provider().install_default();
        Self { url, database, client: Client::new(), media: Media::default(), stop, served }
    }

    /// The network of a device of this user.
    pub(crate) fn network(&self, user: &str) -> HttpNetwork {
        let mut settings = HttpSettings::default();
        settings.media = self.media;
        let token = Arc::new(StaticToken::new(token(user, 3_600)));
        HttpNetwork::with_settings(&self.url, token, settings).expect("a URL")
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        authorization: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        request.send().await.expect("an answer, whatever was sent")
    }

    /// Posts as alice and expects a fault.
    pub(crate) async fn fault(&self, path: &str, body: impl Into<reqwest::Body>) -> (StatusCode, Fault) {
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

pub(crate) async fn read<T: DeserializeOwned>(response: Response) -> T {
    assert_eq!(response.headers()["content-type"], routes::MESSAGEPACK);
    wire::decode(&response.bytes().await.expect("a body"), 1 << 20).expect("a message")
}

pub(crate) async fn fault_of(response: Response) -> Fault {
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

pub(crate) fn token(user: &str, expires_in_seconds: i64) -> String {
    signed(user, expires_in_seconds, Algorithm::HS256, SECRET)
}

pub(crate) fn signed(user: &str, expires_in_seconds: i64, algorithm: Algorithm, secret: &[u8]) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let exp = i64::try_from(now.as_secs()).expect("before the end") + expires_in_seconds;
    let claims = Claims { sub: user, exp };
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret)).expect("signs")
}

pub(crate) fn session_request() -> SessionRequest {
    SessionRequest { client_id: ClientId::from_uuid(Uuid::from_u128(1)) }
}
