//! A line between a client and a server that can stall, be slow, and break, also in the middle of a message.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// How a [`Proxy`] carries bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// At once.
    Clear,
    /// Not at all, and nobody is told: connections stay open, new ones are taken.
    Stalled,
    /// Each piece after a pause.
    Slow(Duration),
    /// Connections are closed, new ones too.
    Cut,
}

/// A TCP proxy on a port of its own. What it carries stops when it is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use synchrotron_testkit::{LineState, Proxy};
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let server = listener.local_addr()?;
/// let line = Proxy::start(server).await?;
/// let client = tokio::net::TcpStream::connect(line.address()).await?;
/// line.set(LineState::Stalled);
/// # drop(client); Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Line {
    state: watch::Sender<LineState>,
    /// So many bytes pass from the server to clients before their connection breaks.
    bytes_left: Mutex<Option<usize>>,
}

impl Proxy {
    /// Carries connections to `server`.
    ///
    /// # Errors
    /// If no port can be listened on.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let line = Arc::new(Line { state: watch::Sender::new(LineState::Clear), bytes_left: Mutex::new(None) });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&line))).abort_handle();
        Ok(Self { address, line, accepting })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the line is so.
    pub fn set(&self, state: LineState) {
        self.line.state.send_replace(state);
    }

    /// Breaks the connection over which the byte after these comes from the server: in the middle of whatever that is.
    /// Others, and later ones, are carried on.
    pub fn break_after(&self, bytes: usize) {
        *self.line.bytes_left() = Some(bytes);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Line {
    fn bytes_left(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        self.bytes_left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of these bytes pass, and whether the connection lives on.
    fn pass(&self, bytes: usize) -> (usize, bool) {
        let mut left = self.bytes_left();
        match &mut *left {
            None => (bytes, true),
            Some(some) if *some >= bytes => {
                *some -= bytes;
                (bytes, true)
            }
            Some(some) => {
                let passes = *some;
                *left = None;
                (passes, false)
            }
        }
    }

    /// Waits until something may pass; `None` if the line is cut.
    async fn open(&self) -> Option<()> {
        let mut states = self.state.subscribe();
        let state = *states.wait_for(|state| *state != LineState::Stalled).await.ok()?;
        match state {
            LineState::Cut => return None,
            LineState::Slow(pause) => tokio::time::sleep(pause).await,
            LineState::Clear | LineState::Stalled => {}
        }
        Some(())
    }

    async fn cut(&self) {
        let mut states = self.state.subscribe();
        // An error means that the proxy is gone, which is a cut too.
        let _gone = states.wait_for(|state| *state == LineState::Cut).await;
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, line: Arc<Line>) {
    // Its connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let line = Arc::clone(&line);
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            if *line.state.borrow() == LineState::Cut {
                return;
            }
            if let Ok(server) = TcpStream::connect(server).await {
                carry(client, server, &line).await;
            }
        });
    }
}

/// Until one side ends, or the line breaks; then both sides are closed.
async fn carry(client: TcpStream, server: TcpStream, line: &Line) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, line, |_, bytes| (bytes, true)) => {}
        () = pump(from_server, to_client, line, Line::pass) => {}
        () = line.cut() => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line, pass: fn(&Line, usize) -> (usize, bool)) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        if line.open().await.is_none() {
            return;
        }
        let (passes, lives) = pass(line, length);
        if to.write_all(&piece[..passes]).await.is_err() || !lives {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers everything with itself, and a client through the line.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let server = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let line = Proxy::start(server).await.expect("a port");
        let client = TcpStream::connect(line.address()).await.expect("connects");
        (line, client)
    }

    async fn says(client: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        client.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        client.read_exact(&mut answer).await.map(|_| answer)
    }

    #[tokio::test]
    async fn a_stalled_line_loses_nothing() {
        let (line, mut client) = echo().await;
        assert_eq!(says(&mut client, b"one").await.expect("carried"), b"one");
        line.set(LineState::Stalled);
        client.write_all(b"two").await.expect("taken");
        let mut answer = [0; 3];
        let silent = tokio::time::timeout(Duration::from_millis(50), client.read_exact(&mut answer)).await;
        assert!(silent.is_err());
        line.set(LineState::Slow(Duration::from_millis(1)));
        client.read_exact(&mut answer).await.expect("carried");
        assert_eq!(&answer, b"two");
    }

    #[tokio::test]
    async fn a_cut_line_is_closed_until_it_is_mended() {
        let (line, mut client) = echo().await;
        assert_eq!(says(&mut client, b"one").await.expect("carried"), b"one");
        line.set(LineState::Cut);
        assert!(says(&mut client, b"two").await.is_err());
        let mut another = TcpStream::connect(line.address()).await.expect("taken");
        assert!(says(&mut another, b"three").await.is_err());
        line.set(LineState::Clear);
        let mut another = TcpStream::connect(line.address()).await.expect("taken");
        assert_eq!(says(&mut another, b"four").await.expect("carried"), b"four");
    }

    #[tokio::test]
    async fn a_line_breaks_in_the_middle_of_a_message() {
        let (line, mut client) = echo().await;
        line.break_after(4);
        client.write_all(b"a message").await.expect("taken");
        let mut answer = Vec::new();
        // However it is closed.
        let _closed = client.read_to_end(&mut answer).await;
        assert_eq!(answer, b"a me");
        let mut another = TcpStream::connect(line.address()).await.expect("taken");
        assert_eq!(says(&mut another, b"a message").await.expect("carried"), b"a message");
    }
}
