//! Rights follow membership: a connection whose user's audiences have changed gets the rights of now, or ends.
//!
//! Place in the journey: beside it. NATS fixes a connection's rights when it is made. Who is in which audience is the app's
//! own SQL, which tells nobody when it changes; so the audiences of all who are connected are read again every
//! `membership_every`, and after each commit of this process. Devices whose rights are old are told, and connect anew by
//! themselves without losing a call; whoever has not done so a moment later is cut off by NATS.
//!
//! Every process looks after every connection, whoever let it in: NATS tells all of them who connects, and the name of a
//! connection says whose it is and with which rights. To be told or cut off twice does no harm.
//!
//! # Invariants
//! - A connection never keeps rights that its user has lost for longer than an interval, a look and the grace.
//! - What it costs follows how many are connected, and not the log: it takes at most a tenth of one connection to Postgres.

mod connections;
mod pages;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::wire;
use synchrotron_nats::control::Control;
use synchrotron_nats::subjects::UserToken;
use tokio::time::Instant;

pub(super) use connections::Connections;

use self::connections::{Connection, Granted};
use super::callout::{grant_name, granted};
use super::{Api, NatsApiError};

/// How long a device that was told may take to connect anew. One that does no such thing is cut off then.
const GRACE: Duration = Duration::from_secs(1);
/// After a commit, others are most likely to follow.
const AFTER_COMMIT: Duration = Duration::from_millis(100);
/// How much longer than a look the pause after it is, at least.
const PAUSE_PER_LOOK: u32 = 9;

/// Looks after all connections until that to NATS's own events is lost.
pub(super) async fn serve(api: &Arc<Api>, connects: u64) -> Result<(), NatsApiError> {
    tokio::select! {
        ended = system::follow(api) => ended,
        ended = look_for_ever(api) => ended,
        () = api.system.lost(connects) => Err(NatsApiError::Lost),
    }
}

async fn look_for_ever(api: &Api) -> Result<(), NatsApiError> {
    let mut committed = api.service.committed();
    let mut told = BTreeMap::new();
    loop {
        let began = Instant::now();
        look(api, &mut told).await?;
        let rest = began.elapsed() * PAUSE_PER_LOOK;
        let until_next = api.settings.membership_every.min(if told.is_empty() { Duration::MAX } else { GRACE });
        tokio::time::sleep(rest).await;
        tokio::select! {
            () = tokio::time::sleep(until_next) => {}
            changed = committed.changed() => {
                changed.expect("BUG: the service is ours, and tells as long as it lives");
                tokio::time::sleep(AFTER_COMMIT).await;
            }
        }
    }
}

/// Tells those whose rights are old, and cuts off who was told a while ago.
async fn look(api: &Api, told: &mut BTreeMap<Connection, Instant>) -> Result<(), NatsApiError> {
    let connections = api.connections.all();
    let users: BTreeSet<&UserId> = connections.values().map(|granted| &granted.user_id).collect();
    if users.is_empty() {
        told.clear();
        return Ok(());
    }
    let now: BTreeMap<&UserId, BTreeSet<AudienceKey>> = api.service.audiences_of_all(&users).await?;
    let max = api.system.client().max_payload();
    let name = |user_id, audiences| grant_name(user_id, granted(api, max, user_id, audiences));
    let names: BTreeMap<&UserId, String> =
        now.iter().map(|(user_id, audiences)| (*user_id, name(user_id, audiences))).collect();
    let is_old = |granted: &Granted| names.get(&granted.user_id) != Some(&granted.name);
    let old: BTreeMap<_, _> = connections.iter().filter(|(_, granted)| is_old(granted)).collect();
    told.retain(|connection, _| old.contains_key(connection));
    let mut to_tell = BTreeSet::new();
    for (&connection, granted) in &old {
        match told.get(connection) {
            Some(since) if since.elapsed() >= GRACE => {
                tracing::info!(connection = connection.id, "cuts off a connection with rights of before");
                system::cut_off(api, connection).await?;
            }
            Some(_) => {}
            None => {
                told.insert(connection.clone(), Instant::now());
                to_tell.insert(&granted.user_id);
            }
        }
    }
    for user_id in to_tell {
        let control = wire::encode(&Control::Renew);
        api.link.client().publish(api.subjects.ctl(&UserToken::of(user_id)), control.into()).await?;
    }
    Ok(())
}
