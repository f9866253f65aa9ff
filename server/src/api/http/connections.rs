//! Connections: accepted while there is room, closed when they say nothing.
//!
//! # Invariants
//! - Whoever sends its request's head slowly, or nothing at all, is cut off; bodies have bounds of their own.
//! - Whoever takes nothing of what waits for it is cut off, be it an answer or a stream of events.
//! - On `stop` nothing new is accepted, what was begun is answered within a bound, and then every connection is closed.
//! - Dropped, it closes all connections at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::settings::HttpSettings;

/// How long to wait for room in the process when it has no file left for a connection.
const EXHAUSTED_FOR: Duration = Duration::from_millis(200);
/// How long what was begun may take to be answered, and the answers to be read, after `stop`.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// The longest head of a request, and the most that is read ahead of a slow handler.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// The most that the kernel keeps of what cannot be sent yet.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Serves until it is told to stop, and everything that was begun has been answered.
pub async fn serve(listener: TcpListener, router: Router, settings: HttpSettings, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let room = Arc::new(Semaphore::new(settings.connections_max.min(Semaphore::MAX_PERMITS)));
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(settings.head_within).max_buf_size(BUFFER_BYTES_MAX);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await.expect("BUG: nobody closes it");
            (accept(&listener).await, place)
        };
        let (stream, place) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        while connections.try_join_next().is_some() {}
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(settings.write_within));
        let connection = protocol.serve_connection(TokioIo::new(Box::pin(stream)), service.clone());
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if timeout(ANSWERED_WITHIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some answers were not read in time: their connections are cut");
        connections.abort_all();
    }
    while connections.join_next().await.is_some() {}
}

/// The next connection. One that broke before it was accepted is its peer's business; a process without room waits for it.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = fit_out(&stream) {
                    tracing::debug!(%error, "a connection is as quick as it is");
                }
                return stream;
            }
            Err(error) if is_the_peers(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(EXHAUSTED_FOR).await;
            }
        }
    }
}

fn fit_out(stream: &TcpStream) -> io::Result<()> {
    // Answers are small, and written whole.
    stream.set_nodelay(true)?;
    // Else the kernel takes megabytes, and says that there is room again when a third of that is gone: a peer that takes
    // less in `write_within` would look like one that takes nothing.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(())
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
