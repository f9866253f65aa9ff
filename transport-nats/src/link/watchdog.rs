//! What the client of NATS says of its connection is believed once NATS has answered on it.
//!
//! The client takes whatever NATS says first for its being let in. NATS pings also those who still wait for that, and closes
//! on them when nobody answers for them in time: what they had sent by then is lost, and they would never have been there.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Event};
use tokio::time::MissedTickBehavior;

use super::info;
use super::told::Told;

/// How often the link's own account is compared with the client's: its events are lost when too many come at once.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Keeps the link's account true, until the client ends.
pub(super) async fn watch_over(client: Client, told: Arc<Told>) {
    tokio::select! {
        () = correct(&client, &told) => {}
        () = prove(&client, &told) => {}
    }
}

/// Asks something on each new connection.
async fn prove(client: &Client, told: &Told) {
    let mut reported = told.reported.subscribe();
    while let Ok(connection) = reported.wait_for(|reported| reported.up).await.map(|reported| *reported) {
        let proving = async {
            let info = info::ask(client, told).await;
            told.proved(connection, info);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ended = reported.wait_for(|now| *now != connection) => {}
            () = proving => {}
        }
    }
}

/// Corrects the account where an event was lost.
async fn correct(client: &Client, told: &Told) {
    let mut check = tokio::time::interval(CHECK_EVERY);
    // Of checks that come late, two at once would take one moment for two.
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut differed = false;
    loop {
        check.tick().await;
        let connected = client.connection_state() == State::Connected;
        let differs = connected != told.reported.borrow().up;
        // An event may be on its way: only what differs twice was lost.
        if differs && differed {
            told.take(if connected { &Event::Connected } else { &Event::Disconnected });
        }
        differed = differs;
    }
}
