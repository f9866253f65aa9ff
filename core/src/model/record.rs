//! Action records: one execution of one action, or one correction of an earlier one.

use serde::{Deserialize, Serialize};

use super::{ActionId, ActionTag, ClientId, Hlc, ServerIngestId, TraceParent, UserId, well_formed};

/// The one total order of actions: `(clock, client_id, action id)`, bytewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct ReplayKey {
    /// When it was executed.
    pub clock: Hlc,
    /// Where it was executed.
    pub client_id: ClientId,
    /// Which execution it is; the last tie-break, so that two actions are never equal.
    pub action_id: ActionId,
}

/// An action's arguments: one MessagePack map, opaque to everything but the action itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionArgs(#[serde(with = "super::human::bytes")] Vec<u8>);

impl ActionArgs {
    /// Wraps encoded arguments if they are exactly one MessagePack map.
    #[must_use]
    pub fn from_encoded(bytes: Vec<u8>) -> Option<Self> {
        crate::wire::is_one_map(&bytes).then_some(Self(bytes))
    }

    /// The encoded map.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the bytes are exactly one MessagePack map; false only for arguments that came from the wire unchecked.
    #[must_use]
    pub fn is_map(&self) -> bool {
        crate::wire::is_one_map(&self.0)
    }
}

impl std::fmt::Debug for ActionArgs {
    /// Arguments are app data: only their size is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ActionArgs({} bytes)", self.0.len())
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecordBody {
    /// An action was executed.
    Action {
        /// Which action.
        tag: ActionTag,
        /// With which arguments.
        args: ActionArgs,
    },
    /// An earlier action's effect on some rows is replaced (patch only, runs no code).
    Correction {
        /// The position of the amended action, where this takes its place.
        amends: ReplayKey,
        /// The rule's own words, where replay failed and effects were removed.
        reason: Option<String>,
    },
}

/// One execution: who, when, what. Its row effects travel beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct ActionRecord {
    /// Its identity, the same on every replica.
    pub id: ActionId,
    /// When it was made. A correction's own clock is after everything its maker had seen.
    pub clock: Hlc,
    /// The device that made it.
    pub client_id: ClientId,
    /// The user that device was signed in as.
    pub user_id: UserId,
    /// The server's number; `None` while it is pending.
    pub server_ingest_id: Option<ServerIngestId>,
    /// Action or correction.
    pub body: RecordBody,
    /// The trace that it belongs to, if its app named one; not part of what it is.
    #[serde(default, deserialize_with = "well_formed", skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<TraceParent>,
}

impl ActionRecord {
    /// Where it takes effect in the one order: an action at its own key, a correction at the action it amends.
    #[must_use]
    pub fn position(&self) -> ReplayKey {
        match &self.body {
            RecordBody::Action { .. } => ReplayKey { clock: self.clock, client_id: self.client_id, action_id: self.id },
            RecordBody::Correction { amends, .. } => *amends,
        }
    }
}
