//! The nouns of the journey: ids, clock, values, patches, records. Plain data that cannot be wrong once built.
//!
//! Place in the journey: beneath everything. Nothing here reads a clock, a database or the network.

mod cursor;
mod digest;
mod encoding;
mod hlc;
mod human;
mod ids;
mod patch;
mod record;
#[cfg(feature = "json-schema")]
mod schema;
mod trace;
mod value;

pub use cursor::{Cursor, Cursors, ServerIngestId};
pub use digest::RowsDigest;
pub use hlc::Hlc;
pub use ids::{
    ActionId, ActionTag, AudienceKey, AudienceRow, BatchId, ClientId, Epoch, IdError, RowId, RowKey, SliceTag,
    SnapshotId, TableName, UserId, WakeupId,
};
pub use patch::{Columns, Effect, Operation, Patch};
pub use record::{ActionArgs, ActionRecord, RecordBody, ReplayKey};
pub(crate) use trace::well_formed;
pub use trace::{TraceParent, TraceParentError};
pub use value::{FromValue, Value, ValueError};
