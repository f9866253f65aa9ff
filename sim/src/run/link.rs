//! What lies between one device and the server: messages under way, a cut line, an expired token.

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use synchrotron_core::engine::SentBatch;
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest,
    SnapshotChunk, SnapshotRequest, UploadBatch,
};

/// More live messages than this are not kept for a device that takes none; the oldest are lost.
const LIVE_MAX: usize = 40;

/// A batch under way. The process that sent it may be gone by now.
#[derive(Debug, Clone)]
pub(crate) struct Uplink {
    pub(crate) batch: UploadBatch,
    pub(crate) sent: Option<SentBatch>,
}

/// Messages under way, oldest first.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    pub(crate) pages: Vec<FetchPage>,
    pub(crate) uplinks: Vec<Uplink>,
    pub(crate) outcomes: Vec<(SentBatch, Outcome)>,
    pub(crate) live: Vec<Ingress>,
    pub(crate) chunks: Vec<SnapshotChunk>,
}

impl UnderWay {
    /// What the process waited for goes with it; what it sent is still on its way.
    pub(crate) fn process_died(&mut self) {
        self.pages.clear();
        self.outcomes.clear();
        self.live.clear();
        self.chunks.clear();
        self.uplinks.iter_mut().for_each(|uplink| uplink.sent = None);
    }

    /// Loses one message; says which kind.
    pub(crate) fn lose(&mut self, nth: usize) -> &'static str {
        let counts = [self.pages.len(), self.uplinks.len(), self.outcomes.len(), self.live.len(), self.chunks.len()];
        let all: usize = counts.iter().sum();
        if all == 0 {
            return "nothing";
        }
        let mut index = nth % all;
        if index < counts[0] {
            self.pages.remove(index);
            return "an answer";
        }
        index -= counts[0];
        if index < counts[1] {
            self.uplinks.remove(index);
            return "a batch";
        }
        index -= counts[1];
        if index < counts[2] {
            self.outcomes.remove(index);
            return "an outcome";
        }
        index -= counts[2];
        if index < counts[3] {
            self.live.remove(index);
            return "a live message";
        }
        self.chunks.remove(index - counts[3]);
        "a chunk"
    }
}

/// Takes the nth of the messages, and leaves a copy if it is to arrive again.
pub(crate) fn take<T: Clone>(messages: &mut Vec<T>, nth: usize, again: bool) -> Option<T> {
    if messages.is_empty() {
        return None;
    }
    let index = nth % messages.len();
    Some(if again { messages[index].clone() } else { messages.remove(index) })
}

/// A device's line to the server.
pub(crate) struct Link {
    pub(crate) under_way: UnderWay,
    pub(crate) is_cut: bool,
    pub(crate) token_is_valid: bool,
    network: MemoryNetwork,
    live: Option<BoxStream<'static, Ingress>>,
}

impl Link {
    pub(crate) fn new(network: MemoryNetwork) -> Self {
        Self { under_way: UnderWay::default(), is_cut: false, token_is_valid: true, network, live: None }
    }

    /// The process that listened is gone.
    pub(crate) fn process_died(&mut self) {
        self.live = None;
        self.under_way.process_died();
    }

    pub(crate) fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.check()?;
        now(self.network.session(request))
    }

    pub(crate) fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.check()?;
        now(self.network.fetch(request))
    }

    pub(crate) fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.check()?;
        now(self.network.snapshot(request))
    }

    pub(crate) fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        now(self.network.digest(request))
    }

    /// What the server makes of a batch that has reached it; nothing comes of one that a cut line holds back.
    pub(crate) fn upload(&self, batch: &UploadBatch, server_in_trouble: bool) -> Result<Outcome, NetworkError> {
        if !self.token_is_valid {
            return Ok(Outcome::Unauthenticated { reason: "the token is expired".to_owned() });
        }
        if server_in_trouble {
            return Ok(Outcome::Retry { after_ms: 1_000 });
        }
        now(self.network.upload(batch))
    }

    /// Listens to these audiences from now on.
    pub(crate) fn listen(&mut self, audiences: &[AudienceKey]) {
        self.live = now(self.network.subscribe(audiences)).ok().flatten();
    }

    /// Takes what the server has published by now; a device that is cut off misses it.
    pub(crate) fn hear(&mut self) {
        let Some(live) = &mut self.live else { return };
        while let Some(Some(ingress)) = live.next().now_or_never() {
            if !self.is_cut {
                self.under_way.live.push(ingress);
            }
        }
        let excess = self.under_way.live.len().saturating_sub(LIVE_MAX);
        self.under_way.live.drain(..excess);
    }

    fn check(&self) -> Result<(), NetworkError> {
        if self.token_is_valid {
            return Ok(());
        }
        Err(NetworkError::Fault(Fault::new(FaultCode::Unauthenticated, "the token is expired")))
    }
}

/// The answer of the server in this process, which is always there at once.
fn now<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("BUG: the server in memory never waits")
}
