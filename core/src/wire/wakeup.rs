//! What a server tells a device that listens: where there is something to fetch.

use serde::{Deserialize, Serialize};

use crate::model::{Cursors, Epoch, WakeupId};

/// Something moved: fetch. It holds no rows, and may be late, doubled or missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Wakeup {
    /// The server's history.
    pub epoch: Epoch,
    /// The audiences whose heads moved, or that the user gained, with their heads; all of the user's if the server cannot
    /// know what the device was told before.
    pub heads: Cursors,
    /// Names what the device has been told with this: with it, listening goes on where it was.
    pub seen: WakeupId,
}

/// Why a server ends a stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The token's time is over: come back with a new one.
    TokenExpired,
    /// This process stops: another one answers.
    ShuttingDown,
}

/// The last event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct StreamEnd {
    /// Why it ends.
    pub reason: EndReason,
}
