//! Two forms of every message, compressed or not, and answers that need not be sent again.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use synchrotron_core::model::{AudienceKey, Cursors, UserId};
use synchrotron_core::network::Network;
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::wire::{self, DigestRequest, FaultCode, FetchRequest, Reply, Session};
use synchrotron_http::routes;

use crate::api::{Api, BODY_BYTES_MAX, read, session_request, token};

const CALLS: [&str; 5] = [routes::SESSION, routes::FETCH, routes::UPLOAD, routes::SNAPSHOT, routes::DIGEST];

impl Api {
    /// Posts as alice, with these headers.
    pub(crate) async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(token("alice", 3_600)).body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.expect("an answer, whatever was sent")
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(token("alice", 3_600));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.expect("an answer, whatever was sent")
    }
}

pub(crate) async fn json_of(response: Response) -> Value {
    assert_eq!(response.headers()["content-type"], routes::JSON);
    serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
}

/// What is wrong, and with which status.
pub(crate) async fn fault_in_json(response: Response) -> (StatusCode, String) {
    let status = response.status();
    let reply = json_of(response).await;
    let fault = reply.get("fault").or_else(|| reply["ok"].get("refused")).unwrap_or_else(|| panic!("{status} {reply}"));
    (status, fault["code"].as_str().expect("a code").to_owned())
}

const JSON: (&str, &str) = ("content-type", routes::JSON);

fn client() -> String {
    json!({ "client_id": session_request().client_id }).to_string()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("a Vec takes every write");
    encoder.finish().expect("a Vec takes every write")
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).expect("compresses")
}

#[tokio::test]
async fn what_is_sent_in_json_is_answered_in_json_and_accept_goes_before() {
    let api = Api::start().await;
    let answered = json_of(api.send(routes::SESSION, &[JSON], client()).await).await;
    assert_eq!(answered["ok"]["user_id"], "alice");
    let packed = api.send(routes::SESSION, &[JSON, ("accept", routes::MESSAGEPACK)], client()).await;
    assert!(matches!(read::<Reply<Session>>(packed).await, Reply::Ok(_)));
    let body = wire::encode(&session_request());
    let wanted =
        api.send(routes::SESSION, &[("accept", "text/html;q=0.2, application/json;q=0.1")], body.clone()).await;
    assert_eq!(json_of(wanted).await["ok"]["user_id"], "alice");
    let whatever = api.send(routes::SESSION, &[("accept", "*/*")], body).await;
    assert!(matches!(read::<Reply<Session>>(whatever).await, Reply::Ok(_)));
}

#[tokio::test]
async fn forms_that_nobody_speaks_are_refused_by_status_and_type() {
    let api = Api::start().await;
    for path in CALLS {
        for (headers, body, status) in [
            (("content-type", "application/x-www-form-urlencoded"), "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (("content-type", "application/json; charset=latin1"), "{}", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (("content-encoding", "br"), "", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (("accept", "text/html"), "", StatusCode::NOT_ACCEPTABLE),
            (("accept", "application/json;q=0"), "", StatusCode::NOT_ACCEPTABLE),
        ] {
            let accept = ("accept", if headers.0 == "accept" { headers.1 } else { routes::JSON });
            let fault = fault_in_json(api.send(path, &[headers, accept], body).await).await;
            assert_eq!(fault, (status, "malformed".to_owned()), "{path} {headers:?}");
        }
        let wrong = ["", "{", "[]", "{\"client_id\":7}", "nonsense", "{} {}", "\u{feff}{}"];
        let deep = "[".repeat(5_000);
        for body in wrong.into_iter().chain([deep.as_str()]) {
            let fault = fault_in_json(api.send(path, &[JSON], body.to_owned()).await).await;
            assert_eq!(fault, (StatusCode::BAD_REQUEST, "malformed".to_owned()), "{path} {body}");
        }
        let unversioned =
            fault_in_json(api.send(path, &[("accept", routes::JSON)], b"\x82\xa1v\x09\xa4body\xc0".to_vec()).await);
        assert_eq!(unversioned.await, (StatusCode::BAD_REQUEST, "unsupported_version".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn bodies_may_be_compressed_and_no_bomb_is_unpacked() {
    let api = Api::start().await;
    let body = client().into_bytes();
    for (encoding, packed) in [("gzip", gzipped(&body)), ("zstd", zstandard(&body)), ("identity", body.clone())] {
        let answered = api.send(routes::SESSION, &[JSON, ("content-encoding", encoding)], packed).await;
        assert_eq!(json_of(answered).await["ok"]["user_id"], "alice", "{encoding}");
    }
    let in_envelope = api.send(routes::SESSION, &[], wire::encode_compressed(&session_request())).await;
    assert!(matches!(read::<Reply<Session>>(in_envelope).await, Reply::Ok(_)));

    let much = vec![b' '; 2 << 20];
    let bombs = [("gzip", gzipped(&much)), ("zstd", zstandard(&much))];
    assert!(bombs.iter().all(|(_, bomb)| bomb.len() <= BODY_BYTES_MAX));
    for path in CALLS {
        for (encoding, bomb) in bombs.clone() {
            let fault = fault_in_json(api.send(path, &[JSON, ("content-encoding", encoding)], bomb).await).await;
            assert_eq!(fault, (StatusCode::PAYLOAD_TOO_LARGE, "too_large".to_owned()), "{path} {encoding}");
        }
        let followed = [zstandard(&body), b"garbage".to_vec()].concat();
        let cut = gzipped(&body)[..20].to_vec();
        for (encoding, broken) in [("zstd", followed), ("gzip", cut), ("gzip", body.clone()), ("zstd", body.clone())] {
            let fault = fault_in_json(api.send(path, &[JSON, ("content-encoding", encoding)], broken).await).await;
            assert_eq!(fault, (StatusCode::BAD_REQUEST, "malformed".to_owned()), "{path} {encoding}");
        }
    }
}

/// JSON is compressed as the asker likes it; MessagePack is compressed in its envelope already, and streams are not.
#[tokio::test]
async fn long_answers_are_compressed_once() {
    let api = Api::start().await;
    for n in 0..100 {
        api.allow(&UserId::new("alice").expect("ok"), &AudienceKey::new(format!("project:{n}")).expect("ok")).await;
    }
    for (accepted, sent) in [("gzip", "gzip"), ("zstd", "zstd"), ("gzip;q=0.5, zstd", "zstd")] {
        let answered = api.send(routes::SESSION, &[JSON, ("accept-encoding", accepted)], client()).await;
        assert_eq!(answered.headers()["content-encoding"], sent, "{accepted}");
        let bytes = answered.bytes().await.expect("a body");
        let text = match sent {
            "gzip" => std::io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).expect("gzip"),
            _ => String::from_utf8(zstd::decode_all(&bytes[..]).expect("zstd")).expect("text"),
        };
        let session: Reply<Session> = serde_json::from_str(&text).expect("a session");
        assert!(matches!(session, Reply::Ok(session) if session.audiences.len() == 100));
    }
    for headers in [vec![JSON], vec![JSON, ("accept-encoding", "gzip;q=0")], vec![("accept-encoding", "gzip, zstd")]] {
        let packed = headers.len() == 1 && headers[0].0 != "content-type";
        let body = if packed { wire::encode(&session_request()) } else { client().into_bytes() };
        let answered = api.send(routes::SESSION, &headers, body).await;
        assert!(!answered.headers().contains_key("content-encoding"), "{headers:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_at_hand_is_not_sent_again() {
    let api = Api::start().await;
    let (alice, audience) = (UserId::new("alice").expect("ok"), AudienceKey::new("user:alice").expect("ok"));
    api.allow(&alice, &audience).await;
    let client_id = session_request().client_id;
    let network = api.network("alice");
    let epoch = network.session(&session_request()).await.expect("a session").epoch;
    let requests = [
        (routes::SESSION, serde_json::to_string(&session_request())),
        (routes::FETCH, serde_json::to_string(&FetchRequest { client_id, epoch, cursors: Cursors::new() })),
        (routes::DIGEST, serde_json::to_string(&DigestRequest { client_id, epoch, audiences: vec![audience.clone()] })),
    ];
    for (path, request) in requests {
        let request = request.expect("JSON");
        let first = api.send(path, &[JSON], request.clone()).await;
        let tag = first.headers()["etag"].to_str().expect("text").to_owned();
        for named in [tag.as_str(), &format!("\"other\", {tag}"), tag.trim_start_matches("W/")] {
            let again = api.send(path, &[JSON, ("if-none-match", named)], request.clone()).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path} {named}");
            assert_eq!(again.headers()["etag"], tag.as_str());
            assert_eq!(again.headers().contains_key(routes::SERVER_TIME_MS), path == routes::SESSION);
            assert!(again.bytes().await.expect("nothing").is_empty());
        }
        let other = api.send(path, &[JSON, ("if-none-match", "W/\"000\"")], request.clone()).await;
        assert_eq!(other.status(), StatusCode::OK, "{path}");
        // A client of ours makes nothing of it.
        if path == routes::FETCH {
            let fetch = FetchRequest { client_id, epoch, cursors: Cursors::new() };
            let pages = [network.fetch(&fetch).await.expect("a page"), network.fetch(&fetch).await.expect("a page")];
            assert_eq!(pages[0], pages[1]);
        }
    }
    let before = network.session(&session_request()).await.expect("a session");
    let after = network.session(&session_request()).await.expect("the same session");
    assert!(after.server_time_ms >= before.server_time_ms);
    api.allow(&alice, &AudienceKey::new("project:1").expect("ok")).await;
    let gained = network.session(&session_request()).await.expect("another session");
    assert_eq!((before.audiences.len(), gained.audiences.len()), (1, 2));
}

#[tokio::test]
async fn wrong_paths_and_methods_are_refused_in_words() {
    let api = Api::start().await;
    let nowhere = fault_in_json(api.get("/v2/session", &[]).await).await;
    assert_eq!(nowhere, (StatusCode::NOT_FOUND, "malformed".to_owned()));
    for path in CALLS {
        let response = api.get(path, &[]).await;
        assert_eq!(response.headers()["allow"], "POST", "{path}");
        assert_eq!(fault_in_json(response).await, (StatusCode::METHOD_NOT_ALLOWED, "malformed".to_owned()), "{path}");
    }
    for path in [routes::EVENTS, routes::POLL, routes::OPENAPI, routes::HEALTHZ] {
        let posted = fault_in_json(api.send(path, &[], "").await).await;
        assert_eq!(posted, (StatusCode::METHOD_NOT_ALLOWED, "malformed".to_owned()), "{path}");
    }
    let packed = api.get("/v2", &[("accept", routes::MESSAGEPACK)]).await;
    assert_eq!(crate::api::fault_of(packed).await.code, FaultCode::Malformed);
}
