//! Why a record was not materialized: it is at fault, the server is, or that is still to be found out.

use synchrotron_core::model::{ActionId, Patch};
use synchrotron_core::wire::RejectionKind;

use crate::pg::{Complaint, classify};

/// Why a record was not materialized.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterializeError {
    /// The record is at fault.
    #[error("refused: {}", .0.reason)]
    Refused(Complaint),
    /// The server is.
    #[error(transparent)]
    Database(sqlx_core::Error),
    /// Several effects at once did not go well; a slower [`Pace`](super::Pace) shows what is to be said of each.
    #[error("not all effects could be applied at once")]
    TooFast,
}

impl From<sqlx_core::Error> for MaterializeError {
    fn from(error: sqlx_core::Error) -> Self {
        match classify(error) {
            Ok(complaint) => Self::Refused(complaint),
            Err(error) => Self::Database(error),
        }
    }
}

impl MaterializeError {
    /// What a pace that hopes for the best makes of it: whoever is at fault is found out at a slower one.
    pub(super) fn too_fast(self) -> Self {
        match self {
            Self::Refused(_) => Self::TooFast,
            other => other,
        }
    }

    pub(super) fn refused(kind: RejectionKind, reason: impl Into<String>) -> Self {
        Self::Refused(Complaint { kind, reason: reason.into(), after_policies: false })
    }

    /// Says which row of the record is complained about.
    pub(super) fn at(self, patch: &Patch) -> Self {
        match self {
            Self::Refused(complaint) => {
                let reason = format!("row {} (table {}): {}", patch.sequence, patch.table, complaint.reason);
                Self::Refused(Complaint { reason, ..complaint })
            }
            other => other,
        }
    }

    /// Says which record is complained about.
    pub(super) const fn of(self, action: ActionId) -> Refused {
        Refused { action, error: self }
    }
}

/// A record that was not materialized, and why. Of several whose effects one statement was to apply, the first is named:
/// taken one by one, they show which it is.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Which record.
    pub(crate) action: ActionId,
    /// Why.
    pub(crate) error: MaterializeError,
}

/// The refusal of an effect that names another audience than the row has at that point.
pub(super) fn wrong_audience(patch: &Patch) -> MaterializeError {
    let reason = format!("the row is not of audience {} at that point", patch.audience_key);
    MaterializeError::refused(RejectionKind::AudienceMismatch, reason)
}
