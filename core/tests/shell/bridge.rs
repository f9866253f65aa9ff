//! A server in this process, reached from others: one TCP connection per call, a kind and a message each way.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FetchPage, FetchRequest, Outcome, Reply, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch, decode, encode,
};
use tokio::runtime::Handle;

const SESSION: u8 = 0;
const FETCH: u8 = 1;
const UPLOAD: u8 = 2;
const SNAPSHOT: u8 = 3;
const DIGEST: u8 = 4;
const BYTES_MAX: usize = 64 << 20;

/// Serves this connection to other processes until this one ends; returns the port.
pub(crate) fn serve(network: MemoryNetwork) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let runtime = Handle::current();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (network, runtime) = (network.clone(), runtime.clone());
            // A process that was killed in the middle of a call is no trouble of ours.
            std::thread::spawn(move || stream.and_then(|stream| answer(stream, &network, &runtime)));
        }
    });
    port
}

fn answer(mut stream: TcpStream, network: &MemoryNetwork, runtime: &Handle) -> io::Result<()> {
    let mut asked = Vec::new();
    stream.read_to_end(&mut asked)?;
    let Some((kind, body)) = asked.split_first() else { return Ok(()) };
    let reply = match *kind {
        SESSION => encode(&reply(runtime.block_on(network.session(&read(body)?)))),
        FETCH => encode(&reply(runtime.block_on(network.fetch(&read(body)?)))),
        UPLOAD => encode(&reply(runtime.block_on(network.upload(&read(body)?)))),
        SNAPSHOT => encode(&reply(runtime.block_on(network.snapshot(&read(body)?)))),
        _ => encode(&reply(runtime.block_on(network.digest(&read(body)?)))),
    };
    stream.write_all(&reply)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    // A killed process sends half a message.
    decode(body, BYTES_MAX).map_err(io::Error::other)
}

fn reply<T>(answer: Result<T, NetworkError>) -> Reply<T> {
    answer
        .map_err(|error| match error {
            NetworkError::Fault(fault) => fault,
            other => panic!("the server in this process cannot fail otherwise: {other}"),
        })
        .into()
}

/// The other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bridge {
    pub(crate) port: u16,
}

impl Bridge {
    async fn call<T: DeserializeOwned>(&self, kind: u8, request: &impl Serialize) -> Result<T, NetworkError> {
        let mut message = vec![kind];
        message.extend(encode(request));
        let port = self.port;
        let exchange = move || -> io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.write_all(&message)?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(answer)
        };
        let unavailable = |detail: String| NetworkError::Unavailable { carrier: Carrier::Http, detail };
        let answer = tokio::task::spawn_blocking(exchange).await.map_err(|error| unavailable(error.to_string()))?;
        let reply: Reply<T> = decode(&answer.map_err(|error| unavailable(error.to_string()))?, BYTES_MAX)?;
        Result::<T, Fault>::from(reply).map_err(NetworkError::from)
    }
}

#[async_trait]
impl Network for Bridge {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.call(SESSION, request).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.call(FETCH, request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.call(UPLOAD, batch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.call(SNAPSHOT, request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.call(DIGEST, request).await
    }

    async fn subscribe(&self, _: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        Ok(None)
    }

    fn carrier(&self) -> Carrier {
        Carrier::Http
    }
}
