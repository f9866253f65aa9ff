//! A snapshot over a connection that breaks: it goes on where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_core::wire::{SnapshotPosition, SnapshotRequest};
use synchrotron_http::HttpNetwork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::api::{Api, session_request, token};

const ROWS: usize = 60;

/// Passes on so many bytes of answers, and then cuts the connection; `usize::MAX` for all.
async fn proxy(upstream: String, left: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((down, _)) = listener.accept().await {
            let up = TcpStream::connect(&upstream).await.expect("connects");
            tokio::spawn(pass_on(down, up, Arc::clone(&left)));
        }
    });
    url
}

async fn pass_on(down: TcpStream, up: TcpStream, left: Arc<AtomicUsize>) {
    let ((mut down_read, mut down_write), (mut up_read, mut up_write)) = (down.into_split(), up.into_split());
    let asked = tokio::spawn(async move { tokio::io::copy(&mut down_read, &mut up_write).await });
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = up_read.read(&mut buffer).await {
        let passed = count.min(left.load(Ordering::SeqCst));
        left.fetch_sub(passed, Ordering::SeqCst);
        if down_write.write_all(&buffer[..passed]).await.is_err() || passed < count {
            break;
        }
    }
    asked.abort();
}

#[tokio::test]
async fn a_snapshot_that_is_cut_off_goes_on_where_it_was() {
    let api = Api::start_with(|settings| settings.snapshots.chunk_bytes_max = 2_000).await;
    let (alice, audience) = (UserId::new("alice").expect("ok"), AudienceKey::new("user:alice").expect("ok"));
    api.allow(&alice, &audience).await;
    let mut connection = PgConnection::connect(&api.database).await.expect("connects");
    let fill = "INSERT INTO notes (id, owner, body)
        SELECT 'n' || n, 'alice', string_agg(md5(n || '.' || m), '') FROM generate_series(1, 60) n, generate_series(1, 8) m GROUP BY n";
    connection.execute(fill).await.expect("fills");

    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let url = proxy(api.url.trim_start_matches("http://").to_owned(), Arc::clone(&left)).await;
    let network = HttpNetwork::new(&url, Arc::new(StaticToken::new(token("alice", 3_600)))).expect("a URL");
    let session = network.session(&session_request()).await.expect("a session");
    let (client_id, epoch) = (session_request().client_id, session.epoch);
    let ask = |resume| SnapshotRequest { client_id, epoch, audiences: vec![audience.clone()], ids: vec![], resume };
    let first = network.snapshot(&ask(None)).await.expect("a chunk");
    let (mut rows, mut position, mut cuts, mut last) = (first.rows.len(), first.position, 0, first.last);
    while !last {
        let next = SnapshotPosition { chunk: position.chunk + 1, ..position };
        left.store(700, Ordering::SeqCst);
        let chunk = match network.snapshot(&ask(Some(next))).await {
            Ok(chunk) => chunk,
            Err(error) => {
                assert!(error.is_carrier_trouble(), "{error}");
                cuts += 1;
                left.store(usize::MAX, Ordering::SeqCst);
                network.snapshot(&ask(Some(next))).await.expect("the same chunk, whole")
            }
        };
        assert_eq!(chunk.position, next);
        (rows, position, last) = (rows + chunk.rows.len(), next, chunk.last);
    }
    assert_eq!(rows, ROWS);
    assert!(cuts >= 3, "{cuts}");
}
