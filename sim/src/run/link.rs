//! What lies between one device and the server: messages under way, a cut line, an expired token.

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use synchrotron_core::engine::SentBatch;
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, OutcomeMessage, Reply, Session,
    SessionRequest, Slice, SnapshotChunk, SnapshotRequest, UploadBatch,
};

use super::parcel::{Breaks, Parcel, carried};

/// More live messages than this are not kept for a device that takes none; the oldest are lost.
const LIVE_MAX: usize = 40;

/// A batch under way. The process that sent it may be gone by now.
#[derive(Debug, Clone)]
pub(crate) struct Uplink {
    pub(crate) batch: Parcel<UploadBatch>,
    pub(crate) sent: Option<SentBatch>,
}

/// An outcome under way, to the process that waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Downlink {
    pub(crate) sent: SentBatch,
    pub(crate) outcome: Parcel<OutcomeMessage>,
}

/// What the server pushes.
#[derive(Debug, Clone)]
pub(crate) enum Pushed {
    Slice(Parcel<Slice>),
    Wakeup,
}

/// Messages under way, oldest first.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    pub(crate) pages: Vec<Parcel<Reply<FetchPage>>>,
    pub(crate) uplinks: Vec<Uplink>,
    pub(crate) outcomes: Vec<Downlink>,
    pub(crate) live: Vec<Pushed>,
    pub(crate) chunks: Vec<Parcel<Reply<SnapshotChunk>>>,
}

impl Breaks for Uplink {
    fn break_off(&mut self, at: usize) {
        self.batch.break_off(at);
    }
}

impl Breaks for Downlink {
    fn break_off(&mut self, at: usize) {
        self.outcome.break_off(at);
    }
}

impl Breaks for Pushed {
    fn break_off(&mut self, at: usize) {
        if let Self::Slice(slice) = self {
            slice.break_off(at);
        }
    }
}

/// The kinds of messages under way.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Page,
    Uplink,
    Outcome,
    Live,
    Chunk,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Page => "an answer",
            Self::Uplink => "a batch",
            Self::Outcome => "an outcome",
            Self::Live => "a live message",
            Self::Chunk => "a chunk",
        }
    }
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
        let Some((kind, index)) = self.find(nth) else { return "nothing" };
        match kind {
            Kind::Page => drop(self.pages.remove(index)),
            Kind::Uplink => drop(self.uplinks.remove(index)),
            Kind::Outcome => drop(self.outcomes.remove(index)),
            Kind::Live => drop(self.live.remove(index)),
            Kind::Chunk => drop(self.chunks.remove(index)),
        }
        kind.words()
    }

    /// Lets one message break off in the middle; says which kind.
    pub(crate) fn break_off(&mut self, nth: usize, at: usize) -> &'static str {
        let Some((kind, index)) = self.find(nth) else { return "nothing" };
        let message: &mut dyn Breaks = match kind {
            Kind::Page => &mut self.pages[index],
            Kind::Uplink => &mut self.uplinks[index],
            Kind::Outcome => &mut self.outcomes[index],
            Kind::Live => &mut self.live[index],
            Kind::Chunk => &mut self.chunks[index],
        };
        message.break_off(at);
        kind.words()
    }

    /// One of all messages.
    fn find(&self, nth: usize) -> Option<(Kind, usize)> {
        let counts = [
            (Kind::Page, self.pages.len()),
            (Kind::Uplink, self.uplinks.len()),
            (Kind::Outcome, self.outcomes.len()),
            (Kind::Live, self.live.len()),
            (Kind::Chunk, self.chunks.len()),
        ];
        let all: usize = counts.iter().map(|(_, count)| count).sum();
        let mut index = nth.checked_rem(all)?;
        for (kind, count) in counts {
            if index < count {
                return Some((kind, index));
            }
            index -= count;
        }
        None
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
        Parcel::answer(now(self.network.session(&carried(request))))?.open()
    }

    pub(crate) fn fetch(&self, request: &FetchRequest) -> Result<Parcel<Reply<FetchPage>>, NetworkError> {
        self.check()?;
        Parcel::answer(now(self.network.fetch(&carried(request))))
    }

    pub(crate) fn snapshot(&self, request: &SnapshotRequest) -> Result<Parcel<Reply<SnapshotChunk>>, NetworkError> {
        self.check()?;
        Parcel::answer(now(self.network.snapshot(&carried(request))))
    }

    pub(crate) fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        Parcel::answer(now(self.network.digest(&carried(request))))?.open()
    }

    /// What the server makes of a batch that has reached it, as a server that reads it from a carrier does.
    pub(crate) fn upload(
        &self,
        batch: &Parcel<UploadBatch>,
        server_in_trouble: bool,
    ) -> Result<Parcel<OutcomeMessage>, NetworkError> {
        let batch = batch.read();
        let batch_id = batch.as_ref().ok().map(|batch| batch.batch_id);
        let outcome = match batch {
            _ if !self.token_is_valid => Outcome::Unauthenticated { reason: "the token is expired".to_owned() },
            Err(error) => Outcome::Refused(Fault::new(FaultCode::Malformed, error.to_string())),
            Ok(_) if server_in_trouble => Outcome::Retry { after_ms: 1_000 },
            Ok(batch) => now(self.network.upload(&batch))?,
        };
        Ok(Parcel::of(&OutcomeMessage { batch_id, outcome }))
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
                self.under_way.live.push(match ingress {
                    Ingress::Slice(slice) => Pushed::Slice(Parcel::of(&slice)),
                    Ingress::Wakeup => Pushed::Wakeup,
                });
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
