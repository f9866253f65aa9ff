//! The only shapes that leave a process, and the only way in: bounded before anything is allocated.
//!
//! Every message is a MessagePack map `{v, body}`, or `{v, zstd}` where the body's bytes are compressed. Maps, not arrays, so that readers of an older version skip fields
//! they do not know. No wire type is recursive; JSON stays text inside values.

mod bounds;
mod compressed;
mod envelope;
mod json;
mod message;
mod outcome;
mod snapshot;
mod wakeup;

pub use bounds::is_one_map;
pub use compressed::{InflateError, inflate};
pub use envelope::{WIRE_VERSION, WireError, decode, encode, encode_compressed};
pub use json::{decode_json, encode_json};
pub use message::{
    AudienceHead, FetchPage, FetchRequest, LogRecord, Session, SessionRequest, Slice, UploadBatch, UploadRecord,
};
pub use outcome::{Fault, FaultCode, Outcome, OutcomeMessage, RejectionKind, Reply};
pub use snapshot::{
    AudienceDigest, DigestReply, DigestRequest, SnapshotAudience, SnapshotChunk, SnapshotHeader, SnapshotPosition,
    SnapshotRequest, SnapshotRow,
};
pub use wakeup::{EndReason, StreamEnd, Wakeup};
