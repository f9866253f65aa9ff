//! A network that stops, fails or panics at one chosen call.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    self, DigestReply, DigestRequest, FaultCode, FetchPage, FetchRequest, Outcome, RejectionKind, Session,
    SessionRequest, SnapshotChunk, SnapshotRequest, UploadBatch, UploadRecord,
};
use tokio::sync::watch;

/// Where the network can be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Session,
    Subscribe,
    Snapshot,
    Fetch,
    Upload,
    Stream,
}

pub(crate) const CALLS: [Call; 6] =
    [Call::Session, Call::Subscribe, Call::Snapshot, Call::Fetch, Call::Upload, Call::Stream];

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never answers; the server has not heard of it.
    Stop,
    /// The server did it, and the answer never comes.
    StopAfter,
    Panic,
    /// The stream closes as soon as it is read.
    Close,
    /// It fails from this call on, the first being 1.
    FailFrom(usize),
    /// Of a snapshot: what is asked to go on with it does not hold it, as behind a balancer that sends each call elsewhere.
    Elsewhere,
    /// Of an upload: the server knows no tags yet.
    NoTags,
}

#[derive(Debug)]
pub(crate) struct Scripted {
    to_server: MemoryNetwork,
    faults: Mutex<BTreeMap<Call, Fault>>,
    calls: [AtomicUsize; CALLS.len()],
    /// Calls so far, for who waits for one.
    called: watch::Sender<usize>,
    /// Closed while fetches and snapshots have to wait.
    fetches: watch::Sender<bool>,
    pushed: Mutex<Vec<Ingress>>,
}

impl Scripted {
    pub(crate) fn new(to_server: MemoryNetwork) -> Arc<Self> {
        Arc::new(Self {
            to_server,
            faults: Mutex::default(),
            calls: Default::default(),
            called: watch::Sender::new(0),
            fetches: watch::Sender::new(true),
            pushed: Mutex::default(),
        })
    }

    pub(crate) fn fault(&self, call: Call, fault: Fault) {
        self.faults.lock().expect("no panic").insert(call, fault);
    }

    pub(crate) fn mend(&self) {
        self.faults.lock().expect("no panic").clear();
    }

    pub(crate) fn count(&self, call: Call) -> usize {
        self.calls[call as usize].load(Ordering::SeqCst)
    }

    /// Waits until a call was made this many times.
    pub(crate) async fn called(&self, call: Call, times: usize) {
        self.called.subscribe().wait_for(|_| self.count(call) >= times).await.expect("it lives");
    }

    /// Lets fetches and snapshots wait, or go on.
    pub(crate) fn let_fetch(&self, go_on: bool) {
        self.fetches.send_replace(go_on);
    }

    /// The next streams begin with these.
    pub(crate) fn push(&self, ingress: impl IntoIterator<Item = Ingress>) {
        self.pushed.lock().expect("no panic").extend(ingress);
    }

    fn has(&self, call: Call, fault: Fault) -> bool {
        self.faults.lock().expect("no panic").get(&call) == Some(&fault)
    }

    async fn meet<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, NetworkError>>,
    ) -> Result<T, NetworkError> {
        let number = self.calls[call as usize].fetch_add(1, Ordering::SeqCst) + 1;
        self.called.send_modify(|calls| *calls += 1);
        let fault = self.faults.lock().expect("no panic").get(&call).copied();
        match fault {
            Some(Fault::Stop) => pending().await,
            Some(Fault::StopAfter) => {
                drop(answer.await);
                pending().await
            }
            Some(Fault::Panic) => panic!("the test made {call:?} panic"),
            Some(Fault::FailFrom(first)) if number >= first => {
                Err(NetworkError::Unavailable { carrier: Carrier::Memory, detail: "the test cut it".to_owned() })
            }
            Some(Fault::Close | Fault::FailFrom(_) | Fault::Elsewhere | Fault::NoTags) | None => answer.await,
        }
    }
}

#[async_trait]
impl Network for Scripted {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.meet(Call::Session, self.to_server.session(request)).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        let fetch = async {
            self.fetches.subscribe().wait_for(|go_on| *go_on).await.expect("it lives");
            self.to_server.fetch(request).await
        };
        self.meet(Call::Fetch, fetch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        let snapshot = async {
            self.fetches.subscribe().wait_for(|go_on| *go_on).await.expect("it lives");
            if request.resume.is_some() && self.has(Call::Snapshot, Fault::Elsewhere) {
                return Err(wire::Fault::new(FaultCode::SnapshotGone, "not held here").into());
            }
            self.to_server.snapshot(request).await
        };
        self.meet(Call::Snapshot, snapshot).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.to_server.digest(request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        let upload = async {
            let has_tag = |record: &&UploadRecord| record.rows.iter().any(|row| row.table.as_str() == "tags");
            match batch.records.iter().find(has_tag).filter(|_| self.has(Call::Upload, Fault::NoTags)) {
                Some(UploadRecord { id, .. }) => {
                    let reason = "table tags is not tracked".to_owned();
                    Ok(Outcome::Rejected { action: *id, kind: RejectionKind::UnknownTable, reason })
                }
                None => self.to_server.upload(batch).await,
            }
        };
        self.meet(Call::Upload, upload).await
    }

    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        let live = self.meet(Call::Subscribe, self.to_server.subscribe(audiences)).await?;
        let fault = self.faults.lock().expect("no panic").get(&Call::Stream).copied();
        self.calls[Call::Stream as usize].fetch_add(1, Ordering::SeqCst);
        let pushed = stream::iter(std::mem::take(&mut *self.pushed.lock().expect("no panic")));
        Ok(Some(match (fault, live) {
            (Some(Fault::Close), _) => stream::empty().boxed(),
            (Some(Fault::Panic), _) => stream::poll_fn(|_| panic!("the test made the stream panic")).boxed(),
            (Some(_), _) | (None, None) => pushed.chain(stream::pending()).boxed(),
            (None, Some(live)) => pushed.chain(live).boxed(),
        }))
    }

    fn carrier(&self) -> Carrier {
        Carrier::Memory
    }
}
