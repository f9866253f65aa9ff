//! Whether NATS keeps devices apart from the server: one that knows no accounts would let anyone speak for anyone.
//!
//! Invariant: no message of such a NATS is believed, and nothing is published to it.

use synchrotron_nats::link::Link;

use super::NatsApiError;

/// The account of everyone where there are no accounts.
const EVERYONE: &str = "$G";

/// Fails unless only servers of ours can be where this one listens and publishes.
pub(super) fn require_ours(link: &Link, clients_account: &str) -> Result<(), NatsApiError> {
    let account = link.info().account.clone();
    if account.is_empty() || account == EVERYONE || account == clients_account {
        return Err(NatsApiError::Account { account });
    }
    Ok(())
}
