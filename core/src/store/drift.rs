//! What does not fit this database: columns and tables of newer versions, and rows that stand in each other's way.

use super::{SqlError, StoreError};
use crate::model::{ActionId, AudienceRow, Patch, ReplayKey};

/// A row that had to leave its table, because an accepted patch gives another one a value that is UNIQUE here, or has the
/// same id in another audience. It is kept aside, goes on taking effects, and comes back as soon as it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displaced {
    /// The row that left.
    pub row: AudienceRow,
    /// The columns of the constraint, `id` among them; none where it is on expressions.
    pub columns: Vec<String>,
    /// The constraint, in the database's words.
    pub constraint: SqlError,
}

/// Patches that this database cannot take whole, and what is to be done once it can.
pub trait DriftStore {
    /// Whether this database has every table and column of a patch. What it does not have stays in the log only.
    fn fits(&self, patch: &[Patch]) -> bool;
    /// Remembers that what is at `position` does not fit.
    fn note_unfit(&self, position: ReplayKey) -> Result<(), StoreError>;
    /// The first position that did not fit before tables or columns were added; history is to be gone through again from
    /// there.
    fn refit_from(&self) -> Result<Option<ReplayKey>, StoreError>;
    /// History is being gone through again from [`Self::refit_from`].
    fn begin_refit(&self) -> Result<(), StoreError>;

    /// Whether any row is displaced.
    fn has_displaced(&self) -> Result<bool, StoreError>;
    /// Puts displaced rows back that can come back, as effects of `action`.
    fn put_back(&self, action: ActionId) -> Result<(), StoreError>;
}
