//! What the server tells a user's devices beside answers and slices.
//!
//! Invariant: its shape is that of no answer. A device can have an answer sent to any subject, another user's too, and must
//! not be able to say this with one.

use serde::{Deserialize, Serialize};

/// Said on a user's `ctl` subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// The user's audiences are others than when a connection was made: connect anew, to get the rights of now.
    Renew,
}
