//! Why an action did not do what it was asked.

use crate::model::ValueError;
use crate::store::SqlError;

/// An action failed; nothing of what it did stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The app's own rule says no.
    #[error("{reason}")]
    Rejected {
        /// The rule's words, shown to users and kept with what the rule removed.
        reason: String,
    },
    /// A statement failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A column holds another kind of value than the action reads.
    #[error("column {column}: {source}")]
    Column {
        /// The column's name.
        column: String,
        /// What was expected and found.
        source: ValueError,
    },
    /// The query has no such column.
    #[error("no column {column} in the row")]
    NoColumn {
        /// The name that was asked for.
        column: String,
    },
    /// The table is not tracked, so it has no row identity.
    #[error("table {table} is not tracked")]
    UntrackedTable {
        /// The table's name.
        table: String,
    },
    /// The values given for a new row lack an identity column.
    #[error("row of {table} lacks its identity column {column}")]
    IdentityColumnMissing {
        /// The table's name.
        table: String,
        /// The missing column.
        column: String,
    },
    /// Two inserts of one action have the same identity.
    #[error(
        "two rows of {table} have the same identity {columns:?} in one action: choose identity columns that differ"
    )]
    IdentityCollision {
        /// The table's name.
        table: String,
        /// The identity columns that the app configured.
        columns: Vec<String>,
    },
    /// The stored arguments do not read as those of this action.
    #[error("the arguments do not read as those of {tag}")]
    Arguments {
        /// The action's tag.
        tag: String,
    },
    /// The action's code panicked.
    #[error("{tag} panicked")]
    Panicked {
        /// The action's tag.
        tag: String,
    },
}

impl ActionError {
    /// The app's rule says no, for this reason.
    #[must_use]
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Rejected { reason: reason.into() }
    }
}
