//! Which audiences a user is in, as the app's own view says.
//!
//! # Invariants
//! - A text that is no [`AudienceKey`] is nobody's audience, wherever the view is read: no row can be in it, so nobody misses
//!   anything, and a mistake about one user costs the others nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, UserId};
use tokio::time::Instant;

use crate::pg::{query, unreadable};

/// How often it is said that some texts are no audiences: they are met again by every look.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// The user's audiences now, by the app's view; read as the server.
pub(crate) async fn audiences_of(
    conn: &mut PgConnection,
    user_id: &UserId,
) -> Result<BTreeSet<AudienceKey>, sqlx_core::Error> {
    Ok(audiences_of_all(conn, &BTreeSet::from([user_id])).await?.into_values().next().unwrap_or_default())
}

/// The audiences of several users.
pub(crate) async fn audiences_of_all<'u>(
    conn: &mut PgConnection,
    users: &BTreeSet<&'u UserId>,
) -> Result<BTreeMap<&'u UserId, BTreeSet<AudienceKey>>, sqlx_core::Error> {
    let rows = query(
        "/* audiences */ SELECT u.user_id, a FROM unnest($1::text[]) AS u(user_id) \
         CROSS JOIN LATERAL synchrotron.audiences_of(u.user_id) a WHERE a IS NOT NULL",
    )
    .bind(users.iter().map(|user_id| user_id.as_str()).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let mut audiences: BTreeMap<&UserId, BTreeSet<AudienceKey>> =
        users.iter().map(|user_id| (*user_id, BTreeSet::new())).collect();
    for row in &rows {
        let user_id = UserId::new(row.try_get::<String, _>(0)?).map_err(unreadable)?;
        let of_user = audiences.get_mut(&user_id).expect("BUG: only these users were asked for");
        of_user.extend(named(row.try_get(1)?));
    }
    Ok(audiences)
}

/// The audience that the view names by this text, if it is one.
pub(crate) fn named(text: &str) -> Option<AudienceKey> {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let error = match AudienceKey::new(text) {
        Ok(audience_key) => return Some(audience_key),
        Err(error) => error,
    };
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
        *said = Some(Instant::now());
        tracing::warn!(%error, "synchrotron.user_audiences names what is no audience: it is passed over");
    }
    None
}
