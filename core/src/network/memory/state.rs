//! What the server knows, and how it answers each call: one consistent read or one commit under its lock.

use std::collections::{BTreeMap, BTreeSet};

use super::admit::Upload;
use super::history::History;
use super::page::{self, PageBounds};
use crate::model::{AudienceKey, ClientId, Epoch, UserId};
use crate::wire::{
    AudienceHead, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest, Slice, UploadBatch,
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
        }
    }

    pub(super) fn begin_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.history = History::default();
    }

    pub(super) fn audiences_of(&self, user: &UserId) -> BTreeSet<AudienceKey> {
        self.members.get(user).cloned().unwrap_or_default()
    }

    pub(super) fn session(&mut self, user: &UserId, request: &SessionRequest) -> Result<Session, Fault> {
        self.own(user, request.client_id)?;
        let head = |audience_key: AudienceKey| AudienceHead { head: self.history.head(&audience_key), audience_key };
        Ok(Session {
            user_id: user.clone(),
            epoch: self.epoch,
            server_time_ms: (self.now_ms)(),
            audiences: self.audiences_of(user).into_iter().map(head).collect(),
        })
    }

    pub(super) fn fetch(&mut self, user: &UserId, request: &FetchRequest) -> Result<FetchPage, Fault> {
        self.own(user, request.client_id)?;
        if request.epoch != self.epoch {
            let message = format!("the cursors belong to epoch {}, the server is at {}", request.epoch, self.epoch);
            return Err(Fault::new(FaultCode::EpochChanged, message));
        }
        Ok(page::page(&self.history, self.epoch, &self.audiences_of(user), &request.cursors, self.page_bounds))
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
