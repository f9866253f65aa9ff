//! What should not come in: no token, no message, no end.

use jsonwebtoken::Algorithm;
use reqwest::StatusCode;
use synchrotron_core::wire::{self, FaultCode, Outcome, Reply, WIRE_VERSION};
use synchrotron_http::routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{Api, BODY_BYTES_MAX, SECRET, fault_of, read, session_request, signed, token};

const CALLS: [&str; 5] = [routes::SESSION, routes::FETCH, routes::UPLOAD, routes::SNAPSHOT, routes::DIGEST];

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
    let api = Api::start_with(|settings| settings.http.body_within = std::time::Duration::from_millis(200)).await;
    let never = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let (status, fault) = api.fault(routes::SESSION, never).await;
    assert_eq!((status, fault.code), (StatusCode::BAD_REQUEST, FaultCode::Malformed));
    assert!(fault.message.contains("within"), "{}", fault.message);
}

#[tokio::test]
async fn more_than_it_can_serve_at_once_is_told_to_come_back() {
    let api = Api::start_with(|settings| settings.http.requests_max = 1).await;
    let bearer = format!("Bearer {}", token("alice", 3_600));
    // The one place is held by a body that does not come.
    let never = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let holder =
        api.client.post(format!("{}{}", api.url, routes::SESSION)).header("authorization", &bearer).body(never);
    let holder = tokio::spawn(holder.send());
    let refused = async || {
        let response = api.post(routes::SESSION, Some(&bearer), wire::encode(&session_request())).await;
        (response.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(response)
    };
    let response =
        synchrotron_testkit::wait_for("no room", std::time::Duration::from_secs(30), refused).await.expect("full");
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(fault_of(response).await.code, FaultCode::Unavailable);
    let response = api.post(routes::UPLOAD, Some(&bearer), "").await;
    assert_eq!(read::<Reply<Outcome>>(response).await, Reply::Ok(Outcome::Retry { after_ms: 1_000 }));
    holder.abort();
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
