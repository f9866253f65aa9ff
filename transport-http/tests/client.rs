//! The client against a server that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use synchrotron_core::model::{ClientId, Cursors, Epoch, UserId, WakeupId};
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError, StaticToken, TokenSource};
use synchrotron_core::wire::{self, Fault, FaultCode, Reply, Session, SessionRequest, Wakeup, WireError};
use synchrotron_http::{HttpNetwork, HttpSettings, SetupError, routes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Gives `token-1`, `token-2` and so on.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

#[async_trait]
impl TokenSource for Counting {
    async fn token(&self) -> Result<String, NetworkError> {
        Ok(format!("token-{}", self.0.fetch_add(1, Ordering::SeqCst) + 1))
    }
}

/// Serves each request, given as text, with the bytes that `answer` returns; `None` never answers.
async fn serve(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/behind/", listener.local_addr().expect("bound"));
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    match answer(&request) {
                        Some(bytes) => stream.write_all(&bytes).await.expect("writes"),
                        None => std::future::pending().await,
                    }
                }
            });
        }
    });
    url
}

/// One request, or `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some(head) = text.find("\r\n\r\n") {
            let declared = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length = declared.map_or(Some(0), |length| length.parse::<usize>().ok())?;
            if bytes.len() >= head + 4 + length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn session() -> Session {
    Session {
        user_id: UserId::new("alice").expect("ok"),
        epoch: Epoch::from_uuid(uuid::Uuid::from_u128(1)),
        server_time_ms: 5,
        audiences: vec![],
    }
}

fn ok() -> Vec<u8> {
    answer("200 OK", routes::MESSAGEPACK, &wire::encode(&Reply::Ok(session())))
}

fn refused() -> Vec<u8> {
    let fault = Reply::<Session>::Fault(Fault::new(FaultCode::Unauthenticated, "expired"));
    answer("401 Unauthorized", routes::MESSAGEPACK, &wire::encode(&fault))
}

async fn ask(url: &str, tokens: Arc<dyn TokenSource>) -> Result<Session, NetworkError> {
    let mut settings = HttpSettings::default();
    settings.session_within = Duration::from_millis(500);
    settings.response_bytes_max = 10_000;
    let network = HttpNetwork::with_settings(url, tokens, settings).expect("a URL");
    network.session(&SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(2)) }).await
}

fn any_token() -> Arc<dyn TokenSource> {
    Arc::new(StaticToken::new("secret"))
}

#[tokio::test]
async fn asks_beneath_the_base_path_with_the_token() {
    let url = serve(|request| {
        let right = request.starts_with("post /behind/v1/session ") && request.contains("authorization: bearer secret");
        Some(if right { ok() } else { refused() })
    });
    assert_eq!(ask(&url.await, any_token()).await.expect("served"), session());
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let url = serve(|request| Some(if request.contains("bearer token-2") { ok() } else { refused() })).await;
    let tokens = Arc::new(Counting::default());
    assert_eq!(ask(&url, tokens.clone()).await.expect("served"), session());

    let url = serve(|_| Some(refused())).await;
    let tokens = Arc::new(Counting::default());
    let error = ask(&url, tokens.clone()).await.expect_err("refused twice");
    assert!(matches!(error, NetworkError::Fault(fault) if fault.code == FaultCode::Unauthenticated));
    assert_eq!(tokens.0.load(Ordering::SeqCst), 2);
}

/// Calls that find the same token refused share one renewal, whether it helps or not.
#[tokio::test]
async fn u12_concurrent_calls_renew_a_refused_token_once() {
    for helps in [true, false] {
        let url =
            serve(move |request| Some(if helps && request.contains("bearer token-2") { ok() } else { refused() }));
        let tokens = Arc::new(Counting::default());
        let network = HttpNetwork::new(&url.await, tokens.clone()).expect("a URL");
        let request = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(2)) };
        let calls = futures::future::join_all((0..8).map(|_| network.session(&request))).await;
        assert!(calls.iter().all(|call| call.is_ok() == helps), "{calls:?}");
        assert_eq!(tokens.0.load(Ordering::SeqCst), 2);
    }
}

/// A source that has nothing newer is asked once for all calls that could use it.
#[tokio::test]
async fn u12_a_source_with_nothing_newer_is_not_asked_by_every_call() {
    #[derive(Debug, Default)]
    struct Same(AtomicUsize);
    #[async_trait]
    impl TokenSource for Same {
        async fn token(&self) -> Result<String, NetworkError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok("the same".to_owned())
        }
    }
    let tokens = Arc::new(Same::default());
    let network = HttpNetwork::new(&serve(|_| Some(refused())).await, tokens.clone()).expect("a URL");
    let request = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(2)) };
    let calls = futures::future::join_all((0..8).map(|_| network.session(&request))).await;
    assert!(calls.iter().all(Result::is_err), "{calls:?}");
    assert_eq!(tokens.0.load(Ordering::SeqCst), 2);
}

/// Gives `token-1` at once; the next one is asked for, and given when the test lets it.
#[derive(Debug, Default)]
struct Slow {
    asked: AtomicUsize,
    asks: Notify,
    gives: Notify,
}

#[async_trait]
impl TokenSource for Slow {
    async fn token(&self) -> Result<String, NetworkError> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if asked > 1 {
            self.asks.notify_one();
            self.gives.notified().await;
        }
        Ok(format!("token-{asked}"))
    }
}

/// Who listens is polled only between calls: what it has begun to ask must be answered all the same.
#[tokio::test]
async fn u12_a_token_that_a_stream_asked_for_comes_also_while_nobody_polls_the_stream() {
    let url = serve(|request| {
        let expired = events("event: end\ndata: {\"reason\":\"token_expired\"}\n\n");
        Some(if request.contains("get /behind/v1/events ") { expired } else { ok() })
    });
    let tokens = Arc::new(Slow::default());
    let network = HttpNetwork::new(&url.await, tokens.clone()).expect("a URL");
    let mut stream = network.subscribe(&[]).await.expect("subscribes").expect("wakeups");
    tokio::select! {
        heard = stream.next() => panic!("{heard:?}"),
        () = tokens.asks.notified() => {}
    }
    tokens.gives.notify_one();
    let request = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(2)) };
    let served = tokio::time::timeout(Duration::from_secs(20), network.session(&request)).await;
    assert_eq!(served.expect("it waits for nobody who is not polled").expect("served"), session());
    assert_eq!(tokens.asked.load(Ordering::SeqCst), 2, "one question for both");
}

/// An app that forgets to answer keeps no call for longer than the setting says, and is asked again.
#[tokio::test]
async fn u12_a_source_that_does_not_answer_is_given_up_in_time_and_asked_again() {
    let tokens = Arc::new(Slow::default());
    let mut settings = HttpSettings::default();
    settings.token_within = Duration::from_millis(100);
    let url = serve(|request| Some(if request.contains("bearer token-3") { ok() } else { refused() })).await;
    let network = HttpNetwork::with_settings(&url, tokens.clone(), settings).expect("a URL");
    let request = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(2)) };
    let given_up = tokio::time::timeout(Duration::from_secs(20), network.session(&request)).await.expect("bounded");
    let error = given_up.expect_err("no token");
    assert!(matches!(error, NetworkError::Timeout { carrier: Carrier::Http, call: "token", after_ms: 100 }), "{error}");
    tokens.gives.notify_one();
    assert_eq!(network.session(&request).await.expect("served"), session());
}

/// Whoever is told to come back later does not ask before, and one who has not that long hears it at once.
#[tokio::test]
async fn a_retry_after_is_honoured() {
    let fault = Reply::<Session>::Fault(Fault::new(FaultCode::Unavailable, "full"));
    let body = wire::encode(&fault);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let url = serve(move |_| {
        let head = "HTTP/1.1 429 Too Many\r\nContent-Type: application/vnd.msgpack\r\nRetry-After: ";
        let after = if counted.fetch_add(1, Ordering::SeqCst) == 0 { 1 } else { 3_600 };
        Some([format!("{head}{after}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat())
    });
    let network = HttpNetwork::new(&url.await, any_token()).expect("a URL");
    let request = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(2)) };
    let refused = |answer| matches!(answer, Err(NetworkError::Fault(Fault { code: FaultCode::Unavailable, .. })));
    assert!(refused(network.session(&request).await));
    let begun = std::time::Instant::now();
    assert!(refused(network.session(&request).await));
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    let error = network.session(&request).await.expect_err("not for a minute");
    assert!(matches!(error, NetworkError::Unavailable { .. }), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// An answer that the server knows to be at hand is not sent again, and its clock goes on.
#[tokio::test]
async fn an_answer_that_is_at_hand_is_taken_from_there() {
    let url = serve(|request| {
        Some(if request.contains("if-none-match: w/\"7\"") {
            b"HTTP/1.1 304 Not Modified\r\nETag: W/\"7\"\r\nSynchrotron-Server-Time-Ms: 9\r\n\r\n".to_vec()
        } else {
            let body = wire::encode(&Reply::Ok(session()));
            let head = "HTTP/1.1 200 OK\r\nETag: W/\"7\"\r\nContent-Type: application/vnd.msgpack\r\n";
            [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
        })
    });
    let network = HttpNetwork::new(&url.await, any_token()).expect("a URL");
    let request = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(2)) };
    assert_eq!(network.session(&request).await.expect("served"), session());
    assert_eq!(network.session(&request).await.expect("served"), Session { server_time_ms: 9, ..session() });
    let other = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::from_u128(3)) };
    assert_eq!(network.session(&other).await.expect("another question"), session());
}

fn events(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{body}\r\n", body.len()).into_bytes()
}

async fn listening(url: &str) -> (HttpNetwork, futures::stream::BoxStream<'static, Ingress>) {
    let mut settings = HttpSettings::default();
    settings.session_within = Duration::from_millis(200);
    settings.silence_max = Duration::from_millis(200);
    settings.again_first = Duration::from_millis(20);
    settings.again_max = Duration::from_millis(200);
    let network = HttpNetwork::with_settings(url, any_token(), settings).expect("a URL");
    let stream = network.subscribe(&[]).await.expect("subscribes").expect("wakeups");
    (network, stream)
}

/// A peer that died says nothing, and no socket tells: silence does. The next stream goes on where the last one was.
#[tokio::test]
async fn u30_a_dead_stream_is_given_up_and_goes_on_where_it_was() {
    let url = serve(|request| {
        let id = if request.contains("last-event-id: one") { "two" } else { "one" };
        Some(events(&format!("event: wakeup\ndata: {{}}\nid: {id}\n\n")))
    });
    let (network, mut stream) = listening(&url.await).await;
    for _ in 0..3 {
        let woken = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("woken again");
        assert_eq!(woken, Some(Ingress::Wakeup));
        assert!(network.is_pushing());
    }
}

/// Proxies hold streams back in more than one way: also their heads, and some end what they have held back.
#[tokio::test]
async fn a_stream_that_is_held_back_in_whatever_way_leads_to_polls() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    let ways = [
        None,
        Some(format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes()),
        Some(format!("{head}Content-Length: 0\r\n\r\n").into_bytes()),
        Some(format!("{head}Transfer-Encoding: chunked\r\n\r\nnonsense").into_bytes()),
        Some(answer("504 Gateway Timeout", "text/html", b"")),
    ];
    for held_back in ways {
        let shown = held_back.clone();
        let url = serve(move |request| {
            if request.contains("get /behind/v1/events ") {
                return held_back.clone();
            }
            let (epoch, heads) = (session().epoch, Cursors::new());
            let wakeup = Wakeup { seen: WakeupId::of(epoch, &heads), epoch, heads };
            Some(answer("200 OK", routes::MESSAGEPACK, &wire::encode(&Reply::Ok(wakeup))))
        });
        let (network, mut stream) = listening(&url.await).await;
        let woken = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        assert_eq!(woken.ok(), Some(Some(Ingress::Wakeup)), "{shown:?}");
        assert!(network.is_pushing());
    }
}

/// Whatever a stream brings that is none of ours: it is left, after waits that grow, and no hot loop.
#[tokio::test]
async fn u30_nonsense_in_place_of_a_stream_is_tried_again_after_a_while() {
    let answers = [
        events("event: end\ndata: {\"reason\":\"boredom\"}\n\n"),
        events("event: end\ndata: {\"reason\":\"token_expired\"}\n\n"),
        events(&"data: x\n".repeat(1_000)),
        answer("200 OK", "text/html", b"<h1>"),
        answer("404 Not Found", "text/html", b""),
        answer("503 Service Unavailable", "text/html", b""),
        b"nonsense\r\n\r\n".to_vec(),
    ];
    for answer in answers {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let url = serve(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Some(answer.clone())
        });
        let (_network, mut stream) = listening(&url.await).await;
        let heard = tokio::time::timeout(Duration::from_millis(600), stream.next()).await;
        assert!(heard.is_err(), "{heard:?}");
        assert!((1..60).contains(&asked.load(Ordering::SeqCst)), "{asked:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let error = ask(&url, any_token()).await.expect_err("nobody there");
    assert!(matches!(&error, NetworkError::Unavailable { carrier: Carrier::Http, .. }), "{error}");
    assert!(error.is_carrier_trouble() && !error.to_string().contains("secret"));
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let url = serve(|_| None).await;
    let error = ask(&url, any_token()).await.expect_err("no answer");
    assert!(matches!(error, NetworkError::Timeout { carrier: Carrier::Http, call: "session", after_ms: 500 }));
}

#[tokio::test]
async fn a_body_that_stops_half_way_is_not_an_answer() {
    let cut = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.msgpack\r\nContent-Length: 900\r\n\r\nhalf".to_vec();
    let url = serve(move |_| Some(cut.clone())).await;
    let error = ask(&url, any_token()).await.expect_err("half an answer");
    assert!(matches!(error, NetworkError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.msgpack\r\nTransfer-Encoding: chunked\r\n\r\n";
    let endless = format!("{head}{}", chunk.repeat(3)).into_bytes();
    let url = serve(move |_| Some(endless.clone())).await;
    let error = ask(&url, any_token()).await.expect_err("too long");
    assert!(matches!(&error, NetworkError::Wire(wire) if matches!(**wire, WireError::TooLarge { .. })), "{error}");
}

#[tokio::test]
async fn garbage_and_strangers_are_told_apart() {
    let url = serve(|_| Some(answer("200 OK", routes::MESSAGEPACK, &[0xc1; 9]))).await;
    let error = ask(&url, any_token()).await.expect_err("garbage");
    assert!(matches!(error, NetworkError::Wire(_)), "{error}");

    let url = serve(|_| Some(answer("502 Bad Gateway", "text/html", b"<h1>"))).await;
    let error = ask(&url, any_token()).await.expect_err("a proxy");
    assert!(matches!(&error, NetworkError::Unavailable { detail, .. } if detail.contains("502")), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let away = b"HTTP/1.1 307 Away\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec();
    let url = serve(move |_| Some(away.clone())).await;
    let error = ask(&url, any_token()).await.expect_err("a redirect");
    assert!(matches!(&error, NetworkError::Unavailable { detail, .. } if detail.contains("307")), "{error}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_not() {
    let mut settings = HttpSettings::default();
    settings.request_bytes_max = 10;
    let network = HttpNetwork::with_settings("http://127.0.0.1:1", any_token(), settings).expect("a URL");
    let request = SessionRequest { client_id: ClientId::from_uuid(uuid::Uuid::nil()) };
    let error = network.session(&request).await.expect_err("too large");
    assert!(matches!(error, NetworkError::TooLarge { carrier: Carrier::Http, max: 10, .. }));
    let broken = ask("http://127.0.0.1:1", Arc::new(StaticToken::new("a\nb"))).await.expect_err("no header");
    assert!(matches!(broken, NetworkError::Token(_)));
}

#[test]
fn only_servers_urls() {
    let make = |url| HttpNetwork::new(url, any_token());
    assert!(matches!(make("not a url"), Err(SetupError::BaseUrl { .. })));
    assert!(matches!(make("ftp://host"), Err(SetupError::BaseUrl { .. })));
    if cfg!(feature = "tls") {
        assert!(make("https://host").is_ok());
    } else {
        assert!(matches!(make("https://host"), Err(SetupError::TlsMissing)));
    }
}
