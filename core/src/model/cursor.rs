//! Positions in the server's order of arrival. They move cursors; they never decide which action runs first.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::AudienceKey;

/// The server's number of one accepted record. Within an audience, numbers become visible in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerIngestId(i64);

impl ServerIngestId {
    /// From the number that the server assigned.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ServerIngestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Through which [`ServerIngestId`] a client has everything of one audience; also that audience's head on the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(i64);

impl Cursor {
    /// Nothing yet.
    pub const START: Self = Self(0);

    /// From the number of the last record that is had.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The cursor that includes `id` and all before it.
    #[must_use]
    pub const fn through(id: ServerIngestId) -> Self {
        Self(id.0)
    }

    /// The number of the last record that is had, 0 for none.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whether the record with this number is had.
    #[must_use]
    pub const fn covers(self, id: ServerIngestId) -> bool {
        id.0 <= self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A cursor or head per audience.
pub type Cursors = BTreeMap<AudienceKey, Cursor>;
