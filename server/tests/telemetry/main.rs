//! One trace, from the task that executes on one device, through a real server, to the step that integrates on another;
//! and what a collector is sent of it.

mod collector;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde::{Deserialize, Serialize};
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::Client;
use synchrotron_core::model::{TableName, TraceParent};
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_http::HttpNetwork;
use synchrotron_nats::subjects::SubjectPrefix;
use synchrotron_nats::{NatsNetwork, NatsSettings};
use synchrotron_server::api::nats::{NatsApiSettings, NatsConf};
use synchrotron_server::settings::Settings;
use synchrotron_server::telemetry::Otlp;
use synchrotron_server::{RunningServer, Server, ServerSettings};
use synchrotron_testkit::{NatsOptions, NatsServer, wait_for};
use tracing_subscriber::layer::SubscriberExt;

use collector::{Collector, Listening};

const SECRET: &[u8] = b"the secret of these tests";
const NATS_SECRET: &[u8] = b"the secret of NATS in these tests";
const PATIENCE: Duration = Duration::from_secs(30);
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER_TRACE: &str = "00-11111111111111111111111111111111-2222222222222222-01";
const SCHEMA: &str = "
    DO $$ BEGIN CREATE ROLE synchrotron_user; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE notes (id text PRIMARY KEY, body text NOT NULL, audience_key text NOT NULL);
    CREATE SCHEMA IF NOT EXISTS synchrotron;
    CREATE VIEW synchrotron.user_audiences AS SELECT 'alice'::text AS user_id, 'user:alice'::text AS audience_key;
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO synchrotron_user;";
const DEVICE_SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, body TEXT NOT NULL, audience_key TEXT NOT NULL)";

#[derive(Serialize, Deserialize)]
struct Note {
    body: String,
}

impl Action for Note {
    const TAG: &'static str = "note_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        ctx.insert("notes", &[("body", (&self.body).into()), ("audience_key", "user:alice".into())]).map(drop)
    }
}

tokio::task_local! {
    static CURRENT: TraceParent;
}

async fn device(path: &Path) -> Client {
    let builder = Client::builder().database(path).user("alice").schema(DEVICE_SCHEMA).action::<Note>();
    let builder = builder.table(Table::new("notes").identity(["body"]));
    builder.trace_context(|| CURRENT.try_with(|trace| *trace).ok()).open().await.expect("opens")
}

fn token() -> String {
    let claims = serde_json::json!({ "sub": "alice", "exp": 4_000_000_000_i64 });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)).expect("signs")
}

async fn start(prefix: &SubjectPrefix, nats_url: &str) -> RunningServer {
    let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("telemetry").await;
    let database = database.expect("a database");
    let mut connection = PgConnection::connect(&database).await.expect("connects");
    connection.execute(SCHEMA).await.expect("the app's schema");
    let core = Settings::new(database, vec![TableName::new("notes").expect("a name")], SECRET);
    let mut nats = NatsApiSettings::new(nats_url, NATS_SECRET).expect("a URL").with_prefix(prefix.clone());
    nats.stream_bytes_max = 32 << 20;
    let settings = ServerSettings { core, http_listen: ([127, 0, 0, 1], 0).into(), nats: Some(nats) };
    Server::start(settings).await.expect("the server starts")
}

async fn execute(client: &Client, body: &str, trace: &str) -> String {
    let trace = trace.parse().expect("well-formed");
    let executed = CURRENT.scope(trace, client.execute(Note { body: body.to_owned() })).await;
    executed.expect("executes").id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_one_device_through_the_server_to_another_and_to_the_collector() {
    let (collector, endpoint) = Collector::start().await;
    let (otlp, listening) = (Otlp::to(&endpoint).expect("a URL"), Listening::default());
    let subscriber = tracing_subscriber::registry().with(listening.clone()).with(otlp.layer());
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens here");
    let prefix = SubjectPrefix::new("telemetry").expect("plain");
    let keys = NatsApiSettings::new("127.0.0.1", NATS_SECRET).expect("an address").keys().expect("long enough");
    let conf = NatsConf { prefix: prefix.clone(), ..NatsConf::new(keys) };
    let nats = NatsServer::start(NatsOptions::default().with_config(conf.to_string())).await.expect("nats-server");
    let nats_url = nats.url();
    let server = start(&prefix, nats_url).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (device(&folder.path().join("a.db")).await, device(&folder.path().join("b.db")).await);
    let token = Arc::new(StaticToken::new(token()));

    let over_nats = NatsSettings::new(nats_url).expect("a URL").with_prefix(prefix);
    let over_nats = NatsNetwork::connect(over_nats, b.user_id().clone(), b.client_id(), token.clone()).await;
    b.go_online(Arc::new(over_nats));
    wait_for("B to be in step", PATIENCE, async || b.sync_now().await.ok()).await.expect("in step");
    let first = execute(&a, "first", TRACE).await;
    let second = execute(&a, "second", OTHER_TRACE).await;
    let over_http: Arc<dyn Network> =
        Arc::new(HttpNetwork::new(&format!("http://{}", server.http_addr()), token).expect("a URL"));
    a.go_online(over_http);
    a.sync_now().await.expect("uploads");

    for (action, trace) in [(first, TRACE), (second, OTHER_TRACE)] {
        let integrated = async || listening.of_action(&action).pop();
        let told = wait_for("B to integrate it", PATIENCE, integrated).await.expect("integrated");
        assert_eq!((told.span, told.fields["trace_parent"].as_str()), (Some("integrate"), trace));
    }
    server.shutdown().await;
    drop(otlp);
    let [ingest] = &collector.spans("ingest")[..] else { panic!("not one upload: {:?}", collector.spans("ingest")) };
    let traces: [TraceParent; 2] = [TRACE, OTHER_TRACE].map(|trace| trace.parse().expect("well-formed"));
    assert_eq!(ingest.trace_id, traces[0].trace_id());
    assert_eq!(ingest.parent_span_id, traces[0].parent_id());
    assert_eq!(ingest.links.iter().map(|link| &link.trace_id[..]).collect::<Vec<_>>(), [&traces[1].trace_id()[..]]);
    assert!(!collector.spans("publish").is_empty());
    assert!(!collector.spans("fetch").is_empty());
}
