//! Spans leave the process for a collector, the last of them when it ends.
#![cfg(feature = "otlp")]

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use synchrotron_core::model::{ClientId, Cursors};
use synchrotron_core::network::Network;
use synchrotron_core::wire::{FetchRequest, SessionRequest};
use synchrotron_testkit::free_port;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::database::Database;
use crate::memory::network;
use crate::process::{Running, SECRET};

#[tokio::test]
async fn what_is_left_is_sent_before_the_end() {
    let database = Database::create().await;
    let (endpoint, mut collected) = collector().await;
    let address = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("SYNCHROTRON_LISTEN", &address),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
    ];
    let server = Running::start(&["serve"], &environment);
    server.ready(&address).await;
    let network = network(&address, "alice");
    let client_id = ClientId::from_uuid(Uuid::from_u128(1));
    let epoch = network.session(&SessionRequest { client_id }).await.expect("a session").epoch;
    network.fetch(&FetchRequest { client_id, epoch, cursors: Cursors::new() }).await.expect("a page");
    assert_eq!(server.stop().await, Some(0));
    let sent = collected.recv().await.expect("what was left was sent before the end");
    assert!(sent.windows(5).any(|name| name == b"fetch"), "no span of the request");
}

/// Where spans may be sent, and the bodies that come.
async fn collector() -> (String, mpsc::UnboundedReceiver<Bytes>) {
    let (bodies, collected) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let take = async move |body: Bytes| drop(bodies.send(body));
    let app = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, collected)
}
