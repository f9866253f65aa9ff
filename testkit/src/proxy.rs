//! A way to a server that can be cut, or fall silent: what a network does that no server tells of.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How it is with the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Bytes pass.
    Open,
    /// Connections break, and new ones break at once.
    Cut,
    /// Connections stay, new ones come about, and nothing passes until it is open again.
    Silent,
}

/// A port of loopback that leads to a server. Connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// A way to this server, which may be away; open.
    ///
    /// # Errors
    /// If no port can be listened on.
    pub async fn to(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (way, seen) = watch::channel(Way::Open);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                passing.spawn(pass(client, server, seen.clone()));
            }
        });
        Ok(Self { address, way, _accepting: accepting })
    }

    /// Where to connect instead.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how it is with the way, also for connections that there are.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

/// Passes what one connection brings, until either side ends or the way is cut.
async fn pass(client: TcpStream, server: SocketAddr, way: watch::Receiver<Way>) {
    let mut cut = way.clone();
    let passing = async {
        open(&mut way.clone()).await;
        let Ok(server) = TcpStream::connect(server).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = pump(from_client, to_server, way.clone()) => {}
            () = pump(from_server, to_client, way.clone()) => {}
        }
    };
    tokio::select! {
        () = passing => {}
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
    }
}

async fn open(way: &mut watch::Receiver<Way>) {
    // An error means that the proxy is gone, and this with it.
    let _gone = way.wait_for(|way| *way == Way::Open).await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        open(&mut way).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        address
    }

    async fn answer(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_u8(7).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn bytes_pass_or_wait_or_never_come() {
        let proxy = Proxy::to(echo().await).await.expect("a port");
        let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
        assert_eq!(answer(&mut stream).await.expect("passes"), 7);

        proxy.set(Way::Silent);
        let silence = tokio::time::timeout(Duration::from_millis(50), answer(&mut stream)).await;
        assert!(silence.is_err(), "{silence:?}");
        proxy.set(Way::Open);
        assert_eq!(stream.read_u8().await.expect("it waited"), 7);

        proxy.set(Way::Cut);
        assert!(stream.read_u8().await.is_err(), "broken");
        let mut again = TcpStream::connect(proxy.address()).await.expect("connects");
        assert!(answer(&mut again).await.is_err(), "broken at once");
    }
}
