//! Devices that listen: by events, by polls, and by our own client, which goes on whatever breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join_all;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Hlc, Patch, RecordBody,
    RowId, TableName, UserId,
};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Ingress, Network, NetworkError, TokenSource};
use synchrotron_core::wire::{Outcome, Reply, SessionRequest, UploadBatch, UploadRecord, Wakeup};
use synchrotron_http::sse::{Message, Parser};
use synchrotron_http::{HttpNetwork, HttpSettings, routes};
use synchrotron_testkit::wait_for;
use tokio::time::timeout;
use uuid::Uuid;

use crate::api::{Api, token};
use crate::forms::{fault_in_json, json_of};

const PATIENCE: Duration = Duration::from_secs(30);

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user")
}

fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("a key")
}

/// Commits a new seat of this audience as its member; the audience's new head.
async fn book(api: &Api, member: &str, key: &str) -> i64 {
    let network = api.network(member);
    let client_id = ClientId::from_uuid(Uuid::now_v7());
    let session = network.session(&SessionRequest { client_id }).await.expect("a session");
    let heads: Cursors = session.audiences.iter().map(|head| (head.audience_key.clone(), head.head)).collect();
    let row = Patch {
        sequence: 0,
        table: TableName::new("seats").expect("a name"),
        row_id: RowId::new(Uuid::now_v7().to_string()).expect("an id"),
        audience_key: audience(key),
        effect: Effect::Insert(Columns::from([("label".to_owned(), "A1".into())])),
    };
    let body = RecordBody::Action {
        tag: ActionTag::new("book_v1").expect("a tag"),
        args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
    };
    let clock = Hlc::at_millis(session.server_time_ms);
    let record =
        UploadRecord { id: ActionId::from_uuid(Uuid::now_v7()), clock, body, rows: vec![row], trace_parent: None };
    let batch_id = BatchId::from_uuid(Uuid::now_v7());
    let batch = UploadBatch { batch_id, client_id, epoch: session.epoch, basis: heads, records: vec![record] };
    match network.upload(&batch).await.expect("an outcome") {
        Outcome::Accepted { ids } => ids.values().next().expect("one").get(),
        other => panic!("{other:?}"),
    }
}

/// A stream of events as a program without our client reads it.
struct Events {
    response: Response,
    parser: Parser,
    waiting: Vec<Message>,
}

impl Events {
    async fn open(api: &Api, bearer: &str, last_event_id: Option<&str>) -> Self {
        let mut request = api.client.get(format!("{}{}", api.url, routes::EVENTS)).bearer_auth(bearer);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers()["content-type"].to_str().expect("text").starts_with(routes::EVENT_STREAM));
        assert_eq!(response.headers()["cache-control"], "no-cache");
        Self { response, parser: Parser::new(1 << 20), waiting: Vec::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        let reading = async {
            while self.waiting.is_empty() {
                let chunk = self.response.chunk().await.expect("whole chunks")?;
                self.waiting = self.parser.read(&chunk).expect("bounded");
                self.waiting.reverse();
            }
            self.waiting.pop()
        };
        timeout(PATIENCE, reading).await.expect("an event in time")
    }

    async fn wakeup(&mut self) -> Wakeup {
        let message = self.next().await.expect("the stream goes on");
        assert_eq!(message.event, routes::EVENT_WAKEUP);
        let wakeup: Wakeup = serde_json::from_str(&message.data).expect("a wakeup");
        assert_eq!(message.id, Some(wakeup.seen.to_string()));
        wakeup
    }

    /// The head of this audience as some wakeup tells it; others may come before.
    async fn head_of(&mut self, key: &str, head: i64) -> Wakeup {
        loop {
            let wakeup = self.wakeup().await;
            if wakeup.heads.get(&audience(key)).is_some_and(|told| told.get() >= head) {
                return wakeup;
            }
        }
    }

    async fn end(&mut self) -> String {
        loop {
            let message = self.next().await.expect("a reason, before the end");
            if message.event == routes::EVENT_END {
                let end: Value = serde_json::from_str(&message.data).expect("JSON");
                assert_eq!(self.next().await, None);
                return end["reason"].as_str().expect("a reason").to_owned();
            }
        }
    }
}

/// One look is for all who listen, so what cannot be read of one user would be missed by all.
#[tokio::test]
async fn a_key_that_is_no_audience_keeps_nobody_from_hearing() {
    let api = Api::start().await;
    for name in ["alice", "eve"] {
        api.allow(&user(name), &audience("project:1")).await;
    }
    let mut connection = PgConnection::connect(&api.database).await.expect("connects");
    connection.execute("INSERT INTO members VALUES ('eve', ''), ('eve', repeat('x', 600))").await.expect("inserts");
    let mut eve = Events::open(&api, &token("eve", 3_600), None).await;
    let mut alice = Events::open(&api, &token("alice", 3_600), None).await;
    let head = book(&api, "eve", "project:1").await;
    alice.head_of("project:1", head).await;
    assert_eq!(eve.head_of("project:1", head).await.heads.len(), 1);
}

#[tokio::test]
async fn a_stream_tells_of_the_users_audiences_and_of_no_others() {
    let api = Api::start().await;
    api.allow(&user("alice"), &audience("project:1")).await;
    api.allow(&user("bob"), &audience("project:1")).await;
    api.allow(&user("bob"), &audience("project:2")).await;
    let mut alice = Events::open(&api, &token("alice", 3_600), None).await;
    assert_eq!(alice.wakeup().await.heads, Cursors::from([(audience("project:1"), Default::default())]));
    assert!(alice.parser.retry_ms().is_some_and(|retry| (500..3_000).contains(&retry)));
    book(&api, "bob", "project:2").await;
    let head = book(&api, "bob", "project:1").await;
    let told = alice.head_of("project:1", head).await;
    assert_eq!(told.heads.keys().collect::<Vec<_>>(), [&audience("project:1")]);

    // Memberships come and go, without a commit of ours.
    api.allow(&user("alice"), &audience("project:2")).await;
    let gained = alice.head_of("project:2", 1).await;
    assert!(!gained.heads.contains_key(&audience("project:1")), "{gained:?}");
    let mut connection = PgConnection::connect(&api.database).await.expect("connects");
    connection
        .execute("DELETE FROM members WHERE user_id = 'alice' AND audience_key = 'project:1'")
        .await
        .expect("deletes");
    assert_eq!(alice.wakeup().await.heads, Cursors::new(), "one is lost");
    book(&api, "bob", "project:1").await;
    let head = book(&api, "bob", "project:2").await;
    assert!(!alice.head_of("project:2", head).await.heads.contains_key(&audience("project:1")));
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_on_another_server() {
    let api = Api::start().await;
    api.allow(&user("alice"), &audience("project:1")).await;
    let other = Api::on(api.database.clone(), |_| {}).await;
    let first = Events::open(&api, &token("alice", 3_600), None).await.wakeup().await;
    let seen = first.seen.to_string();

    // Nothing was missed: only what is new comes, and it comes from the other server's commit.
    let mut events = Events::open(&other, &token("alice", 3_600), Some(&seen)).await;
    let head = book(&api, "alice", "project:1").await;
    let told = events.wakeup().await;
    assert_eq!(told.heads[&audience("project:1")].get(), head);

    // Something was: it is told at once; and all of it to whom nobody knows.
    for last_event_id in [seen.as_str(), "not an id", "00000000-0000-0000-0000-000000000000"] {
        let missed = Events::open(&other, &token("alice", 3_600), Some(last_event_id)).await.wakeup().await;
        assert_eq!((missed.heads, missed.seen), (told.heads.clone(), told.seen));
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_with_its_server_and_says_so() {
    let api = Api::start_with(|settings| settings.jwt.leeway_seconds = 0).await;
    api.allow(&user("alice"), &audience("project:1")).await;
    let mut short = Events::open(&api, &token("alice", 2), None).await;
    let mut long = Events::open(&api, &token("alice", 3_600), None).await;
    assert_eq!(short.end().await, "token_expired");
    api.stop.cancel();
    assert_eq!(long.end().await, "shutting_down");
}

/// All of them share one watcher, and a commit reaches each.
#[tokio::test(flavor = "multi_thread")]
async fn many_listen_cheaply() {
    let api = Api::start_with(|settings| settings.http.streams_per_user_max = 1_000).await;
    for name in ["alice", "bob", "carol", "dave"] {
        api.allow(&user(name), &audience("project:1")).await;
    }
    let opening = (0..400).map(async |n| {
        let name = ["alice", "bob", "carol", "dave"][n % 4];
        let mut events = Events::open(&api, &token(name, 3_600), None).await;
        events.wakeup().await;
        events
    });
    let mut events = join_all(opening).await;
    let head = book(&api, "alice", "project:1").await;
    let told = join_all(events.iter_mut().map(|events| events.head_of("project:1", head))).await;
    assert_eq!(told.len(), 400);
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives() {
    let api = Api::start_with(|settings| settings.http.heartbeat = Duration::from_millis(50)).await;
    let mut events = Events::open(&api, &token("nobody", 3_600), None).await;
    let mut text = String::new();
    while text.matches(": alive").count() < 3 {
        let chunk = timeout(PATIENCE, events.response.chunk()).await.expect("in time").expect("whole").expect("more");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test]
async fn listening_wants_a_token_a_form_and_good_parameters() {
    let api = Api::start().await;
    for path in [routes::EVENTS, routes::POLL] {
        for bearer in [token("alice", -3_600), "nonsense".to_owned()] {
            let response =
                api.client.get(format!("{}{path}", api.url)).bearer_auth(bearer).send().await.expect("answers");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert_eq!(fault_in_json(response).await, (StatusCode::UNAUTHORIZED, "unauthenticated".to_owned()));
        }
        let html = fault_in_json(api.get(path, &[("accept", "text/html")]).await).await;
        assert_eq!(html, (StatusCode::NOT_ACCEPTABLE, "malformed".to_owned()), "{path}");
    }
    for query in ["seen=7", "seen=", "wait=soon", "wait=-1"] {
        let fault = fault_in_json(api.get(&format!("{}?{query}", routes::POLL), &[]).await).await;
        assert_eq!(fault, (StatusCode::BAD_REQUEST, "malformed".to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_poll_waits_for_news_and_no_longer_than_it_is_asked_to() {
    let api = Api::start().await;
    api.allow(&user("alice"), &audience("project:1")).await;
    let poll = async |query: String| {
        let answered = json_of(api.get(&format!("{}?{query}", routes::POLL), &[]).await).await;
        serde_json::from_value::<Wakeup>(answered["ok"].clone()).expect("a wakeup")
    };
    let first = poll(String::new()).await;
    assert_eq!(first.heads.len(), 1);
    let nothing = poll(format!("seen={}&wait=0", first.seen)).await;
    assert_eq!((nothing.heads.len(), nothing.seen), (0, first.seen));
    let (news, head) = tokio::join!(poll(format!("seen={}&wait=25", first.seen)), book(&api, "alice", "project:1"));
    assert_eq!(news.heads[&audience("project:1")].get(), head);
    let packed = api.get(&format!("{}?seen={}", routes::POLL, first.seen), &[("accept", routes::MESSAGEPACK)]).await;
    assert!(matches!(crate::api::read::<Reply<Wakeup>>(packed).await, Reply::Ok(missed) if missed.seen == news.seen));
}

/// Gives tokens that are soon over, and counts them.
#[derive(Debug, Default)]
struct ShortTokens(AtomicUsize);

#[async_trait]
impl TokenSource for ShortTokens {
    async fn token(&self) -> Result<String, NetworkError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(token("alice", 2))
    }
}

async fn wake(events: &mut futures::stream::BoxStream<'static, Ingress>) {
    let woken = timeout(PATIENCE, events.next()).await.expect("woken in time");
    assert_eq!(woken, Some(Ingress::Wakeup));
}

#[tokio::test]
async fn u30_our_client_goes_on_when_tokens_end_and_servers_do() {
    let api = Api::start_with(|settings| settings.jwt.leeway_seconds = 0).await;
    api.allow(&user("alice"), &audience("project:1")).await;
    let tokens = Arc::new(ShortTokens::default());
    let network = HttpNetwork::new(&api.url, tokens.clone()).expect("a URL");
    let mut events = network.subscribe(&[]).await.expect("subscribes").expect("wakeups");
    assert!(!network.is_pushing());
    wake(&mut events).await;
    assert!(network.is_pushing());
    let renewed = async || (tokens.0.load(Ordering::SeqCst) >= 3).then_some(());
    // It works while it is polled, and says nothing while nothing was missed.
    tokio::select! {
        woken = events.next() => panic!("{woken:?} for nothing"),
        renewed = wait_for("new tokens", PATIENCE, renewed) => renewed.expect("renewed"),
    }
    book(&api, "alice", "project:1").await;
    wake(&mut events).await;

    drop(events);
    assert!(!network.is_pushing());
}

/// Streams do not come through: polls do.
#[tokio::test]
async fn u30_polls_stand_in_for_streams_that_are_held_back() {
    let api = Api::start().await;
    api.allow(&user("alice"), &audience("project:1")).await;
    let proxy = holding_streams_back(&api.url).await;
    let mut settings = HttpSettings::default();
    settings.silence_max = Duration::from_millis(200);
    settings.again_first = Duration::from_millis(10);
    let token = Arc::new(synchrotron_core::network::StaticToken::new(token("alice", 3_600)));
    let network = HttpNetwork::with_settings(&proxy, token, settings).expect("a URL");
    let mut events = network.subscribe(&[]).await.expect("subscribes").expect("wakeups");
    wake(&mut events).await;
    assert!(network.is_pushing());
    for _ in 0..2 {
        book(&api, "alice", "project:1").await;
        wake(&mut events).await;
    }
}

/// A proxy that waits for the end of an answer before it passes on any of it, as some do.
async fn holding_streams_back(upstream: &str) -> String {
    use axum::body::Body;
    use axum::extract::Request;
    let (client, upstream) = (reqwest::Client::new(), upstream.to_owned());
    let forward = move |request: Request| {
        let (client, upstream) = (client.clone(), upstream.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
            let mut headers = head.headers;
            headers.remove("host");
            let asked = client.request(head.method, format!("{upstream}{}", head.uri)).headers(headers).body(body);
            let answered = asked.send().await.expect("an answer");
            let (status, mut headers) = (answered.status(), answered.headers().clone());
            headers.remove("transfer-encoding");
            headers.remove("content-length");
            let whole = async move { answered.bytes().await };
            let mut response = axum::response::Response::new(Body::from_stream(futures::stream::once(whole)));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(forward)).await });
    url
}
