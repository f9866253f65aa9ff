//! What carries a client's messages, as far as its driver has noticed.
//!
//! Place in the journey: beside the driver, which shows it in the status, and looks for what was missed when it changes.

use std::time::Duration;

use tokio::time::sleep;

use crate::network::{Carrier, CarrierReason, Network};

/// How soon a change of carrier is noticed. Looking costs no message.
const CARRIER_LOOK: Duration = Duration::from_millis(250);

/// What carries messages now, and why.
pub(super) fn carrying(network: &dyn Network) -> (Carrier, CarrierReason) {
    (network.carrier(), network.reason())
}

/// Waits until something other than `before` carries messages, or for another reason.
pub(super) async fn carrying_changes(
    network: &dyn Network,
    before: (Carrier, CarrierReason),
) -> (Carrier, CarrierReason) {
    loop {
        let now = carrying(network);
        if now != before {
            return now;
        }
        sleep(CARRIER_LOOK).await;
    }
}
