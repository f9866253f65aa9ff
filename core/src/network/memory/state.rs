//! What the server knows, and how it answers each call: one consistent read or one commit under its lock.

use std::collections::{BTreeMap, BTreeSet};

use super::admit::Upload;
use super::history::History;
use super::page::{self, PageBounds};
use super::snapshot::{self, Snapshots};
use crate::model::{AudienceKey, ClientId, Cursor, Epoch, UserId};
use crate::wire::{
    AudienceHead, DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session,
    SessionRequest, Slice, SnapshotChunk, SnapshotRequest, UploadBatch,
};

const CLOCK_AHEAD_MAX_MS: i64 = 60_000;

pub(super) struct State {
    pub(super) epoch: Epoch,
    pub(super) now_ms: Box<dyn Fn() -> i64 + Send>,
    pub(super) clock_ahead_max_ms: i64,
    pub(super) page_bounds: PageBounds,
    pub(super) members: BTreeMap<UserId, BTreeSet<AudienceKey>>,
    /// A device belongs to the first user that used it.
    owners: BTreeMap<ClientId, UserId>,
    pub(super) history: History,
    pub(super) snapshots: Snapshots,
}

impl State {
    pub(super) fn new(epoch: Epoch, now_ms: i64) -> Self {
        Self {
            epoch,
            now_ms: Box::new(move || now_ms),
            clock_ahead_max_ms: CLOCK_AHEAD_MAX_MS,
            page_bounds: PageBounds::default(),
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            history: History::default(),
            snapshots: Snapshots::default(),
        }
    }

    pub(super) fn restore(&mut self, epoch: Epoch, through: Cursor) {
        self.epoch = epoch;
        self.history.truncate(usize::try_from(through.get()).unwrap_or(usize::MAX));
        self.snapshots.expire();
    }

    pub(super) fn audiences_of(&self, user: &UserId) -> BTreeSet<AudienceKey> {
        self.members.get(user).cloned().unwrap_or_default()
    }

    pub(super) fn session(&mut self, user: &UserId, request: &SessionRequest) -> Result<Session, Fault> {
        self.own(user, request.client_id)?;
        let head = |audience_key: AudienceKey| AudienceHead {
            head: self.history.head(&audience_key),
            retained: self.history.retained(&audience_key),
            audience_key,
        };
        Ok(Session {
            user_id: user.clone(),
            epoch: self.epoch,
            server_time_ms: (self.now_ms)(),
            audiences: self.audiences_of(user).into_iter().map(head).collect(),
        })
    }

    pub(super) fn fetch(&mut self, user: &UserId, request: &FetchRequest) -> Result<FetchPage, Fault> {
        self.own(user, request.client_id)?;
        self.check_epoch(request.epoch)?;
        let audiences = self.audiences_of(user);
        for audience in &audiences {
            let cursor = request.cursors.get(audience).copied().unwrap_or(Cursor::START);
            let retained = self.history.retained(audience);
            if cursor < retained {
                let message = format!("records of {audience:?} through {retained} are compacted away, cursor {cursor}");
                return Err(Fault::new(FaultCode::Compacted, message));
            }
        }
        Ok(page::page(&self.history, self.epoch, &audiences, &request.cursors, self.page_bounds))
    }

    pub(super) fn snapshot(&mut self, user: &UserId, request: &SnapshotRequest) -> Result<SnapshotChunk, Fault> {
        self.own(user, request.client_id)?;
        self.check_epoch(request.epoch)?;
        let visible = self.audiences_of(user);
        self.snapshots.chunk(&self.history, (user, &visible), request)
    }

    pub(super) fn digest(&mut self, user: &UserId, request: &DigestRequest) -> Result<DigestReply, Fault> {
        self.own(user, request.client_id)?;
        self.check_epoch(request.epoch)?;
        let visible = self.audiences_of(user);
        let asked = request.audiences.iter().filter(|audience| visible.contains(*audience));
        let audiences = asked.map(|audience| (audience.clone(), snapshot::digest(&self.history, audience))).collect();
        Ok(DigestReply { epoch: self.epoch, audiences })
    }

    fn check_epoch(&self, asked: Epoch) -> Result<(), Fault> {
        if asked == self.epoch {
            return Ok(());
        }
        let message = format!("the cursors belong to epoch {asked}, the server is at {}", self.epoch);
        Err(Fault::new(FaultCode::EpochChanged, message))
    }

    /// The outcome, and the slices of the commit if there was one.
    pub(super) fn upload(&mut self, user: &UserId, batch: &UploadBatch) -> (Outcome, Vec<Slice>) {
        if let Err(fault) = self.own(user, batch.client_id) {
            return (Outcome::Refused(fault), Vec::new());
        }
        if batch.epoch != self.epoch {
            return (Outcome::EpochChanged { current: self.epoch }, Vec::new());
        }
        let upload = Upload {
            user,
            audiences: &self.audiences_of(user),
            batch,
            server_time_ms: (self.now_ms)(),
            clock_ahead_max_ms: self.clock_ahead_max_ms,
        };
        let len = self.history.log().len();
        let outcome = upload.admit(&mut self.history);
        (outcome, page::slices(&self.history, self.epoch, len))
    }

    fn own(&mut self, user: &UserId, client_id: ClientId) -> Result<(), Fault> {
        if self.owners.entry(client_id).or_insert_with(|| user.clone()) == user {
            return Ok(());
        }
        Err(Fault::new(FaultCode::ForeignClient, format!("client {client_id} belongs to another user")))
    }
}
