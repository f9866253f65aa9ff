//! What a device is told when Postgres did not serve, and what the operator is.

use std::sync::atomic::{AtomicBool, Ordering};

use synchrotron_core::wire::{Fault, FaultCode};

use crate::pg::{is_denied, words};

/// Whether this process has told its operator that a right is missing.
static DENIAL_TOLD: AtomicBool = AtomicBool::new(false);

/// Postgres's own words stay here: they may quote rows.
pub(crate) fn unavailable(hop: &'static str, error: &sqlx_core::Error) -> Fault {
    let said = words(error);
    if !is_denied(error) {
        tracing::warn!(hop, error = said, "postgres did not serve");
        return Fault::new(FaultCode::Unavailable, "the server cannot reach its database now");
    }
    // Every request meets it until somebody grants what is missing; the operator is to see it, not to drown in it.
    if DENIAL_TOLD.swap(true, Ordering::Relaxed) {
        tracing::debug!(hop, error = said, "a right is missing still");
    } else {
        let hint = "the command check says what to grant";
        tracing::error!(hop, error = said, hint, "the server or its users lack a right in postgres: requests fail");
    }
    Fault::new(
        FaultCode::Unavailable,
        "the server is set up wrongly: its operator should run `synchrotron-server check`",
    )
}
