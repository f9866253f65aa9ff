//! Uploads → log rows, canonical rows and outbox rows, many in one transaction; or outcomes that say why not.
//!
//! Place in the journey: between `upload` and `publish`, for every transport. An upload waits in the [`queue`] until a
//! worker takes it. One that comes alone, and with which all is well, is done in one statement ([`fast_path`]); otherwise all
//! that wait beside it share one transaction ([`group`]), and where one holds up the others, each goes [`alone`]. The hops in
//! there, in order: [`opening`], which locks and reads; [`known`], [`validate`], [`age`] and [`gate`], which judge;
//! [`append`], [`materialize`](crate::materialize), commit.
//!
//! # Invariants
//! - All of a batch is kept, or none of it, whatever becomes of those beside it.
//! - A batch, or a record, that comes again changes nothing and gets the same answer.
//! - Nothing that a payload says about users is believed.
//! - Trouble of the server is never a rejection: rejected work is set aside by the device, retried work is not.

mod age;
mod alone;
mod answers;
mod append;
mod fast_path;
mod fresh;
mod gate;
mod group;
mod known;
mod line;
mod new_rows;
mod opening;
mod own;
mod pass;
mod queue;
mod validate;

use sqlx_postgres::PgPool;
use std::sync::Arc;

use synchrotron_core::model::{ActionId, UserId};
use synchrotron_core::wire::{Fault, FaultCode, Outcome, RejectionKind, UploadBatch};

#[cfg(test)]
pub(crate) use fast_path::TAKE;
pub(crate) use known::{bind_client, read_epoch};
#[cfg(test)]
pub(crate) use opening::OPEN;
pub(crate) use own::{OWN_USER, append_own, lock_audiences};
pub(crate) use queue::IngestQueue;

use crate::materialize::Catalogue;
use crate::outbox::Announcer;
use crate::settings::Settings;

/// How long a device waits after trouble of the server.
const RETRY_AFTER_MS: u64 = 500;

/// What ingest works with.
#[derive(Debug)]
pub(crate) struct Ingest {
    /// Connections.
    pub(crate) pool: PgPool,
    /// Bounds and the gate.
    pub(crate) settings: Settings,
    /// The tracked tables.
    pub(crate) catalogue: Arc<Catalogue>,
    /// Whom commits are told.
    pub(crate) announcer: Announcer,
}

/// One batch, and the user that its connection proved.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Who uploads.
    pub(crate) user_id: UserId,
    /// What.
    pub(crate) batch: UploadBatch,
}

/// One record that can never be accepted.
#[derive(Debug)]
struct Rejection {
    action: ActionId,
    kind: RejectionKind,
    reason: String,
}

impl From<Rejection> for Outcome {
    fn from(Rejection { action, kind, reason }: Rejection) -> Self {
        Self::Rejected { action, kind, reason }
    }
}

/// The fault for a device that another user used first.
pub(crate) fn foreign_client() -> Fault {
    Fault::new(FaultCode::ForeignClient, "the device belongs to another user")
}
