//! Every id of the system as a type of its own, so that two of them cannot be swapped.
//!
//! Text ids are checked when they are built, also when they are decoded from the wire: a value of these types is never
//! empty, never longer than its bound, and never holds NUL (which Postgres text cannot store).

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Cursors;

/// Why a text could not become an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("{kind} is empty")]
    Empty {
        /// Which id was being built.
        kind: &'static str,
    },
    /// The text is longer than the id's bound.
    #[error("{kind} has {actual} bytes, at most {max} are allowed")]
    TooLong {
        /// Which id was being built.
        kind: &'static str,
        /// The bound in bytes.
        max: usize,
        /// The text's length in bytes.
        actual: usize,
    },
    /// The text holds a NUL character.
    #[error("{kind} holds a NUL character")]
    Nul {
        /// Which id was being built.
        kind: &'static str,
    },
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The longest allowed text, in bytes.
            pub const MAX_BYTES: usize = $max;

            /// Checks the text and wraps it.
            ///
            /// # Errors
            /// [`IdError`] if the text is empty, too long or holds NUL.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let kind = stringify!($name);
                if text.is_empty() {
                    return Err(IdError::Empty { kind });
                }
                if text.len() > Self::MAX_BYTES {
                    return Err(IdError::TooLong { kind, max: Self::MAX_BYTES, actual: text.len() });
                }
                if text.contains('\0') {
                    return Err(IdError::Nul { kind });
                }
                Ok(Self(text))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that was made for this purpose.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

uuid_id!(
    /// One execution of an action (UUIDv7), or one correction record (UUIDv5 of what it says).
    ActionId
);
uuid_id!(
    /// One device: one database file of one installation.
    ClientId
);
uuid_id!(
    /// One upload attempt's content; sending the same batch again keeps it.
    BatchId
);
uuid_id!(
    /// The server's history. A change means that every cursor is void.
    Epoch
);
uuid_id!(
    /// One snapshot that the server holds for a device.
    SnapshotId
);
uuid_id!(
    /// What a user was told of its audiences: equal for equal heads, whichever server tells them.
    WakeupId
);
text_id!(
    /// The user that a connection proved, never one that a payload names.
    UserId, 256
);
text_id!(
    /// Opaque name of who may see a row, such as `project:123` or `user:alice`.
    AudienceKey, 512
);
text_id!(
    /// A tracked table.
    TableName, 128
);
text_id!(
    /// The primary key of a tracked row, as text.
    RowId, 256
);
text_id!(
    /// An action's versioned name, such as `book_seat_v1`.
    ActionTag, 128
);

/// One row of one tracked table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey {
    /// The tracked table.
    pub table: TableName,
    /// The row in it.
    pub row_id: RowId,
}

/// One row in its audience, for the row's whole life: the same id in another audience is another row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AudienceRow {
    /// The row's table and id.
    pub row: RowKey,
    /// Who may see it.
    pub audience_key: AudienceKey,
}

/// Names one slice of an action without naming its audience: UUIDv5 of the audience in the action's namespace.
///
/// A client computes the tags of its own audiences and so knows which slices of an action it must wait for; it learns
/// nothing of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SliceTag(Uuid);

impl SliceTag {
    /// The tag of the slice that carries `action`'s rows of `audience`.
    #[must_use]
    pub fn of(action: ActionId, audience: &AudienceKey) -> Self {
        Self(Uuid::new_v5(action.as_uuid(), audience.as_str().as_bytes()))
    }
}

impl WakeupId {
    /// The id of having been told these heads of this history: UUIDv5 of them in the history's namespace.
    #[must_use]
    pub fn of(epoch: Epoch, heads: &Cursors) -> Self {
        let told = rmp_serde::to_vec(heads).expect("BUG: a map of texts to numbers has a MessagePack form");
        Self(Uuid::new_v5(epoch.as_uuid(), &told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ids_refuse_what_cannot_be_stored() {
        assert_eq!(UserId::new(""), Err(IdError::Empty { kind: "UserId" }));
        assert_eq!(AudienceKey::new("a\0b"), Err(IdError::Nul { kind: "AudienceKey" }));
        let long = "x".repeat(RowId::MAX_BYTES + 1);
        assert_eq!(RowId::new(long), Err(IdError::TooLong { kind: "RowId", max: 256, actual: 257 }));
    }

    #[test]
    fn audience_keys_may_hold_anything_else() {
        for key in ["a.b", "*", ">", "with space", "new\nline", "🎭", "quote\"'"] {
            assert_eq!(AudienceKey::new(key).expect("allowed").as_str(), key);
        }
    }

    #[test]
    fn slice_tags_differ_by_action_and_by_audience() {
        let (one, two) = (ActionId::from_uuid(Uuid::from_u128(1)), ActionId::from_uuid(Uuid::from_u128(2)));
        let (p, q) = (AudienceKey::new("p").expect("ok"), AudienceKey::new("q").expect("ok"));
        assert_eq!(SliceTag::of(one, &p), SliceTag::of(one, &p));
        assert_ne!(SliceTag::of(one, &p), SliceTag::of(two, &p));
        assert_ne!(SliceTag::of(one, &p), SliceTag::of(one, &q));
    }
}
