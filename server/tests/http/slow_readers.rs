//! Peers that ask and do not read.

use std::time::Duration;

use reqwest::StatusCode;
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::network::Network;
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::wire;
use synchrotron_http::routes;
use synchrotron_server::settings::Settings;
use synchrotron_testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::api::{Api, session_request, token};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server whose snapshots are far larger than what sockets take by themselves.
async fn with_large_answers(set: impl FnOnce(&mut Settings)) -> Api {
    let api = Api::start_with(|settings| {
        settings.snapshots.chunk_bytes_max = 64 << 20;
        set(settings);
    })
    .await;
    let (alice, own) = (UserId::new("alice").expect("ok"), AudienceKey::new("user:alice").expect("ok"));
    api.allow(&alice, &own).await;
    let mut connection = PgConnection::connect(&api.database).await.expect("connects");
    let fill = "INSERT INTO notes (id, owner, body) SELECT 'n' || n, 'alice', repeat('x', 1000000) FROM generate_series(1, 24) n";
    connection.execute(fill).await.expect("fills");
    api
}

/// Asks for a snapshot and reads no more than the first bytes of it.
async fn ask_and_read_the_beginning(api: &Api) -> TcpStream {
    let session = api.network("alice").session(&session_request()).await.expect("a session");
    let (client_id, epoch, token) = (session_request().client_id, session.epoch, token("alice", 3_600));
    let body = format!(
        r#"{{"client_id": "{client_id}", "epoch": "{epoch}", "audiences": ["user:alice"], "ids": [], "resume": null}}"#
    );
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        routes::SNAPSHOT,
        body.len()
    );
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a small one");
    let address = api.url.trim_start_matches("http://").parse().expect("an address");
    let mut stream = socket.connect(address).await.expect("connects");
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("sends");
    let mut beginning = [0; 15];
    timeout(PATIENCE, stream.read_exact(&mut beginning)).await.expect("in time").expect("an answer");
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    stream
}

async fn session_status(api: &Api) -> StatusCode {
    api.send(routes::SESSION, &[], wire::encode(&session_request())).await.status()
}

#[tokio::test]
async fn who_does_not_read_its_answer_has_its_share_until_it_is_cut_off() {
    let api = with_large_answers(|settings| {
        settings.http.write_within = Duration::from_secs(3);
        settings.http.requests_per_user_max = 1;
        // What is left of the room is enough for others.
        settings.http.requests_max = 1;
    })
    .await;
    let mut stream = ask_and_read_the_beginning(&api).await;
    assert_eq!(session_status(&api).await, StatusCode::TOO_MANY_REQUESTS, "its answer is not sent");
    let bob = Some(format!("Bearer {}", token("bob", 3_600)));
    let others = api.post(routes::SESSION, bob.as_deref(), wire::encode(&session_request())).await;
    assert_ne!(others.status(), StatusCode::SERVICE_UNAVAILABLE, "nobody else has less room");
    let free = async || (session_status(&api).await == StatusCode::OK).then_some(());
    wait_for("the share to be free", PATIENCE, free).await.expect("free");
    let mut rest = Vec::new();
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end");
    assert!(rest.len() < 24_000_000, "the connection was cut off: {}", rest.len());
}

/// The kernel keeps megabytes for a peer that takes them slowly. Were the server told of room only once a third of that is
/// free, a reader on a slow line would look like one that reads nothing.
#[tokio::test]
async fn who_reads_slowly_gets_all_of_its_answer() {
    let api = with_large_answers(|settings| settings.http.write_within = Duration::from_secs(1)).await;
    let mut stream = ask_and_read_the_beginning(&api).await;
    let mut portion = vec![0; 40_000];
    for read in 0..120 {
        // The line is slow: nothing is waited for.
        sleep(Duration::from_millis(100)).await;
        let count = timeout(PATIENCE, stream.read_exact(&mut portion)).await.expect("in time");
        count.unwrap_or_else(|error| panic!("cut off after {read} portions: {error}"));
    }
}

#[tokio::test]
async fn a_stream_of_events_lives_longer_than_a_write_may_take() {
    let api = Api::start_with(|settings| {
        settings.http.write_within = Duration::from_millis(100);
        settings.http.heartbeat = Duration::from_millis(300);
    })
    .await;
    let mut events = api.get(routes::EVENTS, &[]).await;
    let mut text = String::new();
    while text.matches("alive").count() < 4 {
        let chunk = timeout(PATIENCE, events.chunk()).await.expect("in time").expect("whole chunks");
        text.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).expect("text"));
    }
}

#[tokio::test]
async fn who_does_not_read_holds_up_no_shutdown() {
    let api = with_large_answers(|_| {}).await;
    let _unread = ask_and_read_the_beginning(&api).await;
    api.stop.cancel();
    timeout(Duration::from_secs(20), api.served).await.expect("in time").expect("runs");
}
