//! The head gate: an upload is taken only from a device that has seen what others did.
//!
//! Place in the journey: after the known records, before anything is written. The locks taken here are held until commit.
//!
//! # Invariants
//! - Two uploads of which one writes an audience that the other's gate covers never pass at once: writers lock heads
//!   FOR UPDATE, those who merely see them FOR SHARE (`synchrotron.lock_heads`).
//! - A device's own records never hold it back.

use std::collections::{BTreeMap, BTreeSet};

use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, Cursor, Cursors, UserId};
use synchrotron_core::wire::{Outcome, UploadBatch};

use super::Decision;
use crate::pg::query;
use crate::settings::HeadGate;

/// The heads of an upload's audiences, locked until the transaction ends.
#[derive(Debug)]
pub(super) struct LockedHeads(BTreeMap<String, i64>);

impl LockedHeads {
    /// The audience's head, before this upload.
    pub(super) fn head(&self, audience_key: &AudienceKey) -> i64 {
        self.0.get(audience_key.as_str()).copied().unwrap_or(0)
    }
}

/// The user's audiences now, by the app's view; read as the server.
pub(crate) async fn audiences_of(
    conn: &mut PgConnection,
    user_id: &UserId,
) -> Result<BTreeSet<AudienceKey>, sqlx_core::Error> {
    let rows = query("/* audiences */ SELECT a FROM synchrotron.audiences_of($1) a WHERE a IS NOT NULL")
        .bind(user_id.as_str())
        .fetch_all(conn)
        .await?;
    let key = |row: &sqlx_postgres::PgRow| {
        AudienceKey::new(row.try_get::<String, _>(0)?).map_err(|error| sqlx_core::Error::Decode(Box::new(error)))
    };
    rows.iter().map(key).collect()
}

/// Locks the heads that matter to an upload of these audiences.
pub(super) async fn lock_heads(
    conn: &mut PgConnection,
    gate: HeadGate,
    touched: &BTreeSet<&AudienceKey>,
    visible: &BTreeSet<AudienceKey>,
) -> Result<LockedHeads, sqlx_core::Error> {
    let touched: Vec<&str> = touched.iter().map(|key| key.as_str()).collect();
    let visible: Vec<&str> = match gate {
        HeadGate::Visible => visible.iter().map(AudienceKey::as_str).collect(),
        HeadGate::Touched => Vec::new(),
    };
    let rows = query("/* gate.lock */ SELECT audience_key, head FROM synchrotron.lock_heads($1, $2)")
        .bind(&touched)
        .bind(&visible)
        .fetch_all(conn)
        .await?;
    let heads = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    Ok(LockedHeads(heads.collect::<Result<_, sqlx_core::Error>>()?))
}

/// Refuses a batch whose basis lacks another device's record in a locked audience that the user sees.
pub(super) async fn check_heads(
    conn: &mut PgConnection,
    batch: &UploadBatch,
    heads: &LockedHeads,
    visible: &BTreeSet<AudienceKey>,
) -> Result<(), Decision> {
    let basis = |key: &AudienceKey| batch.basis.get(key).copied().unwrap_or(Cursor::START).get();
    let behind: Vec<&AudienceKey> = visible.iter().filter(|key| heads.head(key) > basis(key)).collect();
    if behind.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = behind.iter().map(|key| key.as_str()).collect();
    let cursors: Vec<i64> = behind.iter().map(|key| basis(key)).collect();
    let rows = query(GATE).bind(&keys).bind(&cursors).bind(*batch.client_id.as_uuid()).fetch_all(conn).await?;
    let unseen: BTreeSet<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if unseen.is_empty() {
        return Ok(());
    }
    let unseen = behind.into_iter().filter(|key| unseen.contains(key.as_str()));
    let heads: Cursors = unseen.map(|key| (key.clone(), Cursor::new(heads.head(key)))).collect();
    Err(Outcome::BehindHead { heads }.into())
}

/// Which of these audiences have, or had, a record of another device above the cursor.
pub(crate) const GATE: &str = "/* gate.check */ SELECT v.audience_key \
    FROM unnest($1::text[], $2::bigint[]) AS v(audience_key, cursor) \
    JOIN synchrotron.audience_heads h ON h.audience_key = v.audience_key \
    WHERE v.cursor < synchrotron.retained_for(h, $3) OR EXISTS (SELECT FROM synchrotron.action_audiences a WHERE a.audience_key = v.audience_key \
                  AND a.server_ingest_id > v.cursor AND a.client_id <> $3)";
