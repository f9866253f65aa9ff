//! Readers of uploads: which partitions this process reads, and for how long.
//!
//! Place in the journey: around [`super::uploads`]. A lease in Postgres says who reads a partition; this keeps a reader for
//! each that the process holds, starts one for what it gains, and gives back what is more than its share.
//!
//! # Invariants
//! - A reader that loses its lease stops at once. Should it have been slow to notice, what it did was decided once anyway:
//!   the gate and the ids in Postgres see to that.
//! - A lease is given back after its reader has ended what it began; then nothing waits for a redelivery.
//! - A process that cannot read leaves, so that others do: while NATS is away from it for longer than a lease lasts, and
//!   when one of its readers fails for as long.
//!
//! Tests: `tests/faults/readers.rs`; the leases themselves beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::partition::Partition;
use super::{Api, NatsApiError, PAUSE_MAX, PAUSE_MIN, WORK_ENDS_WITHIN, uploads};
use crate::lease::{Leases, Part, Round};
use crate::metrics::METRICS;
use crate::pg::words;

/// A lease is renewed so often while it lasts.
const ROUNDS_PER_LEASE: u32 = 5;
/// Below this, a Postgres that is merely busy would lose leases.
const LEASE_MIN: Duration = Duration::from_secs(1);
/// How long Postgres may take to hear that a process leaves.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// Keeps a reader for each partition that this process holds, until shutdown.
pub(super) async fn run(api: &Arc<Api>) {
    let settings = &api.settings;
    let lasting = settings.lease.max(LEASE_MIN);
    let work = format!("uploads beneath {} in {}", settings.prefix, settings.partitions.get());
    let leases = Leases::new(api.service.pool().clone(), work, settings.partitions.get(), lasting);
    let (reading, now) = (BTreeMap::new(), Instant::now());
    let mut readers = Readers { api, leases, lasting, reading, until: now, away_since: None, rests_until: now };
    let mut rounds = tokio::time::interval(lasting / ROUNDS_PER_LEASE);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => readers.round().await,
            () = api.shutdown.cancelled() => break,
        }
    }
    readers.end().await;
}

struct Readers<'a> {
    api: &'a Arc<Api>,
    leases: Leases,
    lasting: Duration,
    reading: BTreeMap<Part, Reader>,
    /// Until then what is held is held for sure.
    until: Instant,
    /// Since when NATS is away.
    away_since: Option<Instant>,
    /// After a reader gave up, others have their turn.
    rests_until: Instant,
}

struct Reader {
    /// Asks it to take no more, and to end what it began.
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Readers<'_> {
    async fn round(&mut self) {
        if self.must_rest() {
            return self.rest().await;
        }
        let began = Instant::now();
        // A round that is late comes in vain.
        let late = if self.reading.is_empty() { began + self.lasting } else { self.until };
        let round = timeout_at(late, self.leases.round()).await;
        match round {
            Ok(Ok(round)) => {
                self.until = began + self.lasting;
                self.follow(round).await;
            }
            Ok(Err(error)) => tracing::warn!(error = words(&error), "leases of uploads are not renewed"),
            Err(_late) => tracing::warn!("leases of uploads are not renewed: postgres is silent"),
        }
        if Instant::now() >= self.until && !self.reading.is_empty() {
            tracing::warn!("leases of uploads have expired: stops reading");
            self.reading.clear();
        }
        METRICS.partitions_held.set(u32::try_from(self.reading.len()).unwrap_or(u32::MAX));
    }

    /// Reads what is held; what is more than the share is given back when its reader has ended.
    async fn follow(&mut self, Round { held, share }: Round) {
        self.reading.retain(|part, _| held.contains(part));
        for part in held.iter().copied().take(share) {
            self.reading.entry(part).or_insert_with(|| start(self.api, part));
        }
        let mut free: BTreeSet<Part> = BTreeSet::new();
        for part in held.iter().copied().skip(share) {
            match self.reading.get(&part) {
                Some(reader) => reader.stop.cancel(),
                None => drop(free.insert(part)),
            }
        }
        let ended = self.reading.extract_if(.., |_, reader| reader.stop.is_cancelled() && reader.task.is_finished());
        free.extend(ended.map(|(part, _)| part));
        if !free.is_empty()
            && let Err(error) = self.leases.give_back(&free).await
        {
            tracing::debug!(error = words(&error), "partitions are given back when they expire");
        }
    }

    /// Whether others should read: NATS is away, or a reader has given up.
    fn must_rest(&mut self) -> bool {
        let now = Instant::now();
        if self.reading.values().any(|reader| !reader.stop.is_cancelled() && reader.task.is_finished()) {
            self.rests_until = now + self.lasting;
        }
        if self.api.link.state().connected {
            self.away_since = None;
        } else {
            self.away_since.get_or_insert(now);
        }
        now < self.rests_until || self.away_since.is_some_and(|since| now - since > self.lasting)
    }

    async fn rest(&mut self) {
        if self.reading.is_empty() {
            return;
        }
        tracing::warn!("cannot read uploads over NATS: lets other servers do it");
        self.reading.clear();
        METRICS.partitions_held.set(0);
        self.leave().await;
    }

    /// Ends every reader, and lets others have its partition.
    async fn end(&mut self) {
        self.reading.values().for_each(|reader| reader.stop.cancel());
        let ending = async {
            for (_, reader) in std::mem::take(&mut self.reading) {
                // One that panicked has ended, too.
                let _ended = reader.task.await;
            }
        };
        if timeout(WORK_ENDS_WITHIN, ending).await.is_err() {
            tracing::warn!("some uploads over NATS did not end in time; they are rolled back and will be sent again");
        }
        METRICS.partitions_held.set(0);
        self.leave().await;
    }

    async fn leave(&self) {
        match timeout(LEAVE_WITHIN, self.leases.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = words(&error), "partitions are given back when they expire"),
            Err(_late) => tracing::debug!("partitions are given back when they expire: postgres is silent"),
        }
    }
}

fn start(api: &Arc<Api>, part: Part) -> Reader {
    let partition = Partition { part, count: api.settings.partitions };
    let stop = CancellationToken::new();
    let reading = read(Arc::clone(api), partition, stop.clone());
    Reader { stop, task: AbortOnDropHandle::new(tokio::spawn(reading)) }
}

/// Reads one partition until asked to stop, or until it has failed for as long as a lease lasts.
async fn read(api: Arc<Api>, partition: Partition, stop: CancellationToken) {
    let fails_max = api.settings.lease.max(LEASE_MIN);
    let (mut pause, mut well) = (PAUSE_MIN, Instant::now());
    while !stop.is_cancelled() {
        let connects = tokio::select! {
            connects = api.link.up() => connects,
            () = stop.cancelled() => return,
        };
        let began = Instant::now();
        let Err(error) = uploads::serve(&api, partition, connects, &stop).await else { return };
        if began.elapsed() > fails_max {
            (pause, well) = (PAUSE_MIN, Instant::now());
        }
        if matches!(error, NatsApiError::Lost) {
            tracing::debug!(part = partition.part, "waits for NATS");
            well = Instant::now();
            continue;
        }
        tracing::warn!(part = partition.part, %error, "begins anew to read uploads");
        if well.elapsed() > fails_max {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
        let paused = timeout_at(Instant::now() + pause, stop.cancelled()).await;
        if paused.is_ok() {
            return;
        }
    }
}
