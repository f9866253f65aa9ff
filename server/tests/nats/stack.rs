//! A server on a database of its own and a NATS of its own, and devices that talk to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Hlc, Patch, RecordBody,
    RowId, TableName, UserId, Value,
};
use synchrotron_core::network::{Ingress, Network, NetworkError, StaticToken};
use synchrotron_core::wire::{Outcome, Session, SessionRequest, Slice, UploadBatch, UploadRecord, encode};
use synchrotron_nats::link::Login;
use synchrotron_nats::subjects::{RpcMethod, SubjectPrefix, Subjects, UserToken, inbox_prefix};
use synchrotron_nats::{NatsNetwork, NatsSettings};
use synchrotron_server::api::nats::{NatsApiSettings, NatsConf, NatsKeys};
use synchrotron_server::settings::{Secret, Settings};
use synchrotron_server::{RunningServer, Server, ServerSettings};
use synchrotron_testkit::{NatsOptions, NatsServer, wait_for};
use uuid::Uuid;

pub(crate) const SECRET: &[u8] = b"the secret of these tests";
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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

/// Each test's own. A port changes hands when a nats-server of some test is killed, and a server of that test must not be let in
/// by another's. The test's thread has its name.
fn nats_secret() -> String {
    format!("the secret of NATS in {}", std::thread::current().name().expect("a test's thread has a name"))
}

/// The configuration that NATS gets.
pub(crate) fn conf() -> NatsConf {
    let keys = NatsKeys::derive(&Secret::new(nats_secret())).expect("long enough");
    NatsConf { prefix: prefix(), ..NatsConf::new(keys) }
}

pub(crate) fn prefix() -> SubjectPrefix {
    SubjectPrefix::new("test.sync").expect("plain")
}

/// A NATS server with accounts.
pub(crate) async fn nats() -> NatsServer {
    NatsServer::start(NatsOptions::default().with_config(conf().to_string())).await.expect("nats-server")
}

/// A server, and what it stands on.
pub(crate) struct Stack {
    pub(crate) server: RunningServer,
    /// Where it was not made for this stack, its maker has it.
    pub(crate) nats: Option<NatsServer>,
    pub(crate) nats_url: String,
    pub(crate) subjects: Subjects,
    pub(crate) settings: ServerSettings,
    pub(crate) database: String,
}

impl Stack {
    /// On a NATS server of its own.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn start_with(change: impl FnOnce(&mut NatsApiSettings)) -> Self {
        let nats = nats().await;
        let stack = Self::start_on(&nats, change).await;
        stack.is_live().await;
        Self { nats: Some(nats), ..stack }
    }

    /// On this NATS server, which may be away.
    pub(crate) async fn start_on(nats: &NatsServer, change: impl FnOnce(&mut NatsApiSettings)) -> Self {
        let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("nats").await;
        let database = database.expect("a database");
        let mut connection = PgConnection::connect(&database).await.expect("connects");
        connection.execute(SCHEMA).await.expect("the app's schema");
        let tables = ["notes", "seats"].map(|name| TableName::new(name).expect("ok")).to_vec();
        let mut api = NatsApiSettings::new(nats.url(), nats_secret()).expect("a URL").with_prefix(prefix());
        api.stream_bytes_max = 32 << 20;
        api.sweep_every = Duration::from_millis(500);
        change(&mut api);
        let core = Settings::new(database.as_str(), tables, SECRET);
        let settings = ServerSettings { core, http_listen: ([127, 0, 0, 1], 0).into(), nats: Some(api) };
        let server = Server::start(settings.clone()).await.expect("the server starts");
        let (nats_url, subjects) = (nats.url().to_owned(), Subjects::new(prefix()));
        Self { server, nats: None, nats_url, subjects, settings, database }
    }

    /// Waits until the server lets devices in.
    pub(crate) async fn is_live(&self) {
        let probe = self.network("probe", ClientId::from_uuid(Uuid::new_v4()), token("probe", 3_600)).await;
        let mut connected = probe.connected();
        let connecting = tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected));
        connecting.await.expect("in time").expect("the network lives");
    }

    /// Does something in the database that no server does.
    pub(crate) async fn execute(&self, sql: &'static str) {
        let mut connection = PgConnection::connect(&self.database).await.expect("connects");
        connection.execute(sql).await.expect("does");
    }

    /// Puts a user into an audience.
    pub(crate) async fn allow(&self, user: &str, audience: &str) {
        let mut connection = PgConnection::connect(&self.database).await.expect("connects");
        query("INSERT INTO members VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(user)
            .bind(audience)
            .execute(&mut connection)
            .await
            .expect("inserts");
    }

    /// Puts a user into many audiences.
    pub(crate) async fn allow_all(&self, user: &str, audiences: &[String]) {
        let mut connection = PgConnection::connect(&self.database).await.expect("connects");
        query("INSERT INTO members SELECT $1, unnest($2::text[])")
            .bind(user)
            .bind(audiences)
            .execute(&mut connection)
            .await
            .expect("inserts");
    }

    /// Takes a user out of an audience.
    pub(crate) async fn forbid(&self, user: &str, audience: &str) {
        let mut connection = PgConnection::connect(&self.database).await.expect("connects");
        query("DELETE FROM members WHERE user_id = $1 AND audience_key = $2")
            .bind(user)
            .bind(audience)
            .execute(&mut connection)
            .await
            .expect("deletes");
    }

    /// How many records the server has.
    pub(crate) async fn records(&self) -> i64 {
        let mut connection = PgConnection::connect(&self.database).await.expect("connects");
        let counted = query_scalar::<Postgres, _>("SELECT count(*) FROM synchrotron.action_records");
        counted.fetch_one(&mut connection).await.expect("counts")
    }

    /// How many slices wait to be published.
    pub(crate) async fn unpublished(&self) -> usize {
        self.server.service().unpublished_slices(100).await.expect("served").len()
    }

    /// The network of one device.
    pub(crate) async fn network(&self, user: &str, client_id: ClientId, token: String) -> NatsNetwork {
        let settings = NatsSettings::new(&self.nats_url).expect("a URL").with_prefix(self.subjects.prefix().clone());
        NatsNetwork::connect(settings, user_id(user), client_id, Arc::new(StaticToken::new(token))).await
    }

    /// A new device that is in these audiences and has a session.
    pub(crate) async fn device(&self, user: &str, audiences: &[&str]) -> Device {
        for audience in audiences {
            self.allow(user, audience).await;
        }
        let client_id = ClientId::from_uuid(Uuid::new_v4());
        let network = self.network(user, client_id, token(user, 3_600)).await;
        let session =
            wait_for("a session", PATIENCE, async || network.session(&SessionRequest { client_id }).await.ok());
        let session = session.await.expect("a session");
        Device { network, client_id, user: user_id(user), session }
    }

    /// A plain client of NATS that is let in as a user's device is, and does what it likes.
    pub(crate) async fn raw(&self, user: &str) -> async_nats::Client {
        let connecting = wait_for("NATS to let it in", PATIENCE, async || {
            let options = ConnectOptions::with_token(token(user, 3_600))
                .custom_inbox_prefix(format!("{}.raw", inbox_prefix(&UserToken::of(&user_id(user)))));
            options.connect(&self.nats_url).await.ok()
        });
        connecting.await.expect("connects")
    }

    /// Waits until NATS and the server have read what a plain client of this device's user sent, and it has all that was
    /// sent to it before.
    pub(crate) async fn settle(&self, raw: &async_nats::Client, device: &Device) {
        let subject = self.subjects.rpc(&device.user, device.client_id, RpcMethod::Session);
        let request = encode(&SessionRequest { client_id: device.client_id });
        let answered = async || raw.request(subject.clone(), request.clone().into()).await.ok();
        wait_for("a session", PATIENCE, answered).await.expect("answered");
    }

    /// A plain client in the account of the server.
    pub(crate) async fn admin(&self) -> async_nats::Client {
        connect_as(&self.nats_url, conf().keys.server_login()).await
    }
}

pub(crate) async fn connect_as(url: &str, login: Login) -> async_nats::Client {
    let Login::Nkey(seed) = login else { panic!("a key pair") };
    ConnectOptions::with_nkey(seed.to_string()).connect(url).await.expect("connects")
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("server", &self.server).finish_non_exhaustive()
    }
}

/// One device with a session.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) network: NatsNetwork,
    pub(crate) client_id: ClientId,
    pub(crate) user: UserId,
    pub(crate) session: Session,
}

impl Device {
    /// A batch of one action that makes this seat.
    pub(crate) fn seat(&self, id: &str, audience: &str) -> UploadBatch {
        self.seat_labelled(id, audience, id)
    }

    /// The same with a label of its own.
    pub(crate) fn seat_labelled(&self, id: &str, audience: &str, label: &str) -> UploadBatch {
        let columns = [("label", Value::from(label)), ("holder", Value::Null)];
        let columns: Columns = columns.map(|(name, value)| (name.to_owned(), value)).into();
        let row = Patch {
            sequence: 0,
            table: TableName::new("seats").expect("ok"),
            row_id: RowId::new(id).expect("ok"),
            audience_key: key(audience),
            effect: Effect::Insert(columns),
        };
        let body = RecordBody::Action {
            tag: ActionTag::new("make_seat_v1").expect("ok"),
            args: ActionArgs::from_encoded(vec![0x80]).expect("an empty map"),
        };
        let clock = Hlc::at_millis(self.session.server_time_ms);
        let record =
            UploadRecord { id: ActionId::from_uuid(Uuid::now_v7()), clock, body, rows: vec![row], trace_parent: None };
        UploadBatch {
            batch_id: BatchId::from_uuid(Uuid::new_v4()),
            client_id: self.client_id,
            epoch: self.session.epoch,
            basis: Cursors::new(),
            records: vec![record],
        }
    }

    /// Uploads until there is an outcome, which must be that it is accepted.
    pub(crate) async fn accepted(&self, batch: &UploadBatch) {
        let outcome = wait_for("an outcome", PATIENCE, async || match self.network.upload(batch).await {
            Ok(Outcome::Retry { .. }) | Err(NetworkError::Unavailable { .. } | NetworkError::Timeout { .. }) => None,
            // NATS refuses those who connect while no server tells it who they are.
            Err(NetworkError::Unauthenticated { .. }) => None,
            decided => Some(decided),
        });
        let outcome = outcome.await.expect("an outcome");
        assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
    }

    /// Live events of these audiences, from now on.
    pub(crate) async fn subscribe(&self, audiences: &[&str]) -> Events {
        let audiences: Vec<AudienceKey> = audiences.iter().map(|audience| key(audience)).collect();
        let events = self.network.subscribe(&audiences).await.expect("connected").expect("NATS pushes");
        let mut events = Events(events);
        events.wakeup().await;
        events
    }
}

impl Device {
    /// How often it connected.
    pub(crate) async fn connects(&self) -> u64 {
        // What was sent to it before is here.
        self.network.session(&SessionRequest { client_id: self.client_id }).await.expect("served");
        self.network.connects()
    }
}

/// Live events of one device.
pub(crate) struct Events(BoxStream<'static, Ingress>);

impl Events {
    /// The next event.
    pub(crate) async fn event(&mut self) -> Ingress {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("an event in time").expect("the stream goes on")
    }

    /// Whether the stream has ended; what waits is dropped.
    pub(crate) fn ended(&mut self) -> bool {
        while let Some(event) = self.0.next().now_or_never() {
            if event.is_none() {
                return true;
            }
        }
        false
    }

    /// The next slice, whatever wakeups come before it.
    pub(crate) async fn slice(&mut self) -> Slice {
        loop {
            if let Ingress::Slice(slice) = self.event().await {
                return slice;
            }
        }
    }

    /// The next wakeup, which must come before a slice does.
    pub(crate) async fn wakeup(&mut self) {
        assert_eq!(self.event().await, Ingress::Wakeup);
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: i64,
}

pub(crate) fn token(user: &str, expires_in_seconds: i64) -> String {
    signed(user, expires_in_seconds, SECRET)
}

pub(crate) fn signed(user: &str, expires_in_seconds: i64, secret: &[u8]) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let exp = i64::try_from(now.as_secs()).expect("before the end") + expires_in_seconds;
    let claims = Claims { sub: user, exp };
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).expect("signs")
}

pub(crate) fn user_id(user: &str) -> UserId {
    UserId::new(user).expect("ok")
}

pub(crate) fn key(audience: &str) -> AudienceKey {
    AudienceKey::new(audience).expect("ok")
}
