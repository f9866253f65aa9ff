//! Who takes more than its share is told when to come back, and who says nothing is cut off.

use std::time::Duration;

use reqwest::StatusCode;
use synchrotron_core::network::Network;
use synchrotron_core::wire::{self, FaultCode, Outcome, Reply};
use synchrotron_http::routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::api::{Api, fault_of, read, session_request, token};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_user_who_asks_too_often_is_told_when_to_come_back_and_others_are_served() {
    let api = Api::start_with(|settings| settings.http.requests_per_second_per_user = 1).await;
    let body = wire::encode(&session_request());
    let mut refused = None;
    for _ in 0..30 {
        let response = api.send(routes::SESSION, &[], body.clone()).await;
        if response.status() != StatusCode::OK {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("a burst is ten");
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let after: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=2).contains(&after), "{after}");
    assert_eq!(fault_of(refused).await.code, FaultCode::Unavailable);
    let upload = api.send(routes::UPLOAD, &[], "").await;
    if upload.status() == StatusCode::TOO_MANY_REQUESTS {
        assert!(matches!(read::<Reply<Outcome>>(upload).await, Reply::Ok(Outcome::Retry { after_ms: 1.. })));
    }
    let bob = Some(format!("Bearer {}", token("bob", 3_600)));
    assert_eq!(api.post(routes::FETCH, bob.as_deref(), "").await.status(), StatusCode::BAD_REQUEST, "bob was heard");

    // Our client comes back when it was told to.
    let network = api.network("alice");
    while network.session(&session_request()).await.is_ok() {}
    let begun = Instant::now();
    network.session(&session_request()).await.expect("served");
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn so_many_requests_of_one_user_at_once_and_no_more() {
    let api = Api::start_with(|settings| settings.http.requests_per_user_max = 1).await;
    // One whose body does not come.
    let never = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let held = tokio::spawn({
        let request = api.client.post(format!("{}{}", api.url, routes::SESSION)).bearer_auth(token("alice", 3_600));
        request.body(never).send()
    });
    let refused = async || {
        let response = api.send(routes::SESSION, &[], wire::encode(&session_request())).await;
        (response.status() == StatusCode::TOO_MANY_REQUESTS).then_some(response)
    };
    let refused = synchrotron_testkit::wait_for("a refusal", PATIENCE, refused).await.expect("refused");
    assert_eq!(refused.headers()["retry-after"], "1");
    let bob = Some(format!("Bearer {}", token("bob", 3_600)));
    assert_eq!(api.post(routes::FETCH, bob.as_deref(), "").await.status(), StatusCode::BAD_REQUEST, "bob was heard");
    held.abort();
}

#[tokio::test]
async fn a_head_that_does_not_end_and_a_connection_that_says_nothing_are_cut_off() {
    let api = Api::start_with(|settings| settings.http.head_within = Duration::from_millis(300)).await;
    let address = api.url.trim_start_matches("http://");
    for said in ["", "POST /v1/session HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(said.as_bytes()).await.expect("sends");
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time").expect("an end");
    }
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let endless = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(1_000_000));
    // It is refused before it is read to its end.
    let _refused_early = stream.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn so_many_listeners_and_no_more() {
    let api = Api::start_with(|settings| settings.http.streams_per_user_max = 2).await;
    let first = api.get(routes::EVENTS, &[]).await;
    let _second = api.get(routes::EVENTS, &[]).await;
    let third = api.get(routes::EVENTS, &[]).await;
    assert_eq!(third.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(third.headers().contains_key("retry-after"));
    drop(first);
    let again = async || (api.get(routes::EVENTS, &[]).await.status() == StatusCode::OK).then_some(());
    synchrotron_testkit::wait_for("room", PATIENCE, again).await.expect("room again");
}
