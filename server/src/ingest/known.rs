//! What the log and earlier answers already say about an upload.
//!
//! Place in the journey: under the device's row lock, before anything is judged. So a repeated upload gets the same
//! answer, whichever process has it and however far behind the device is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{
    ActionId, AudienceKey, BatchId, ClientId, Epoch, Hlc, RecordBody, ReplayKey, ServerIngestId, UserId,
};
use synchrotron_core::wire::{Outcome, RejectionKind, UploadBatch};
use uuid::Uuid;

use super::validate::Measured;
use super::{Decision, Rejection};
use crate::pg::query;

/// The server's present history.
pub(crate) async fn read_epoch(conn: &mut PgConnection) -> Result<Epoch, sqlx_core::Error> {
    let row = query("/* epoch */ SELECT epoch FROM synchrotron.server_meta").fetch_one(conn).await?;
    Ok(Epoch::from_uuid(row.try_get(0)?))
}

/// Binds a device to the first user that uses it; returns whom it belongs to, and holds its row until the end of the
/// transaction, so that one device has one upload at a time.
pub(crate) async fn bind_client(
    conn: &mut PgConnection,
    client_id: ClientId,
    user_id: &UserId,
) -> Result<String, sqlx_core::Error> {
    loop {
        let bound = query(
            "/* client.lock */ SELECT user_id, used_at < now() - interval '1 day' FROM synchrotron.clients \
             WHERE client_id = $1 FOR NO KEY UPDATE",
        )
        .bind(*client_id.as_uuid())
        .fetch_optional(&mut *conn)
        .await?;
        if let Some(row) = bound {
            if row.try_get(1)? {
                query("/* client.used */ UPDATE synchrotron.clients SET used_at = now() WHERE client_id = $1")
                    .bind(*client_id.as_uuid())
                    .execute(conn)
                    .await?;
            }
            return row.try_get(0);
        }
        query("/* client.bind */ INSERT INTO synchrotron.clients (client_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(*client_id.as_uuid())
            .bind(user_id.as_str())
            .execute(&mut *conn)
            .await?;
    }
}

/// The answer that this batch was given before, if it is the same batch.
pub(super) async fn stored_outcome(
    conn: &mut PgConnection,
    batch: &UploadBatch,
    hash: &[u8; 32],
) -> Result<Option<Outcome>, sqlx_core::Error> {
    let stored = query(
        "/* ingest.stored */ SELECT outcome FROM synchrotron.upload_outcomes \
         WHERE client_id = $1 AND batch_id = $2 AND content_hash = $3",
    )
    .bind(*batch.client_id.as_uuid())
    .bind(*batch.batch_id.as_uuid())
    .bind(hash.as_slice())
    .fetch_optional(conn)
    .await?;
    let Some(row) = stored else { return Ok(None) };
    rmp_serde::from_slice(row.try_get(0)?).map(Some).map_err(|error| sqlx_core::Error::Decode(Box::new(error)))
}

/// Keeps the answer for when the batch comes again.
pub(super) async fn store_outcome(
    conn: &mut PgConnection,
    (client_id, batch_id): (ClientId, BatchId),
    user_id: &UserId,
    hash: &[u8; 32],
    outcome: &Outcome,
) -> Result<(), sqlx_core::Error> {
    let encoded = rmp_serde::to_vec_named(outcome).expect("BUG: outcomes hold nothing that MessagePack cannot say");
    query(
        "/* ingest.store */ INSERT INTO synchrotron.upload_outcomes (client_id, batch_id, user_id, content_hash, outcome) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (client_id, batch_id) \
         DO UPDATE SET content_hash = excluded.content_hash, outcome = excluded.outcome, created_at = now()",
    )
    .bind(*client_id.as_uuid())
    .bind(*batch_id.as_uuid())
    .bind(user_id.as_str())
    .bind(hash.as_slice())
    .bind(encoded)
    .execute(conn)
    .await
    .map(drop)
}

/// The numbers of those records that are, or were, in the log already, with the same content.
pub(super) async fn known_records(
    conn: &mut PgConnection,
    records: &[Measured<'_>],
) -> Result<BTreeMap<ActionId, ServerIngestId>, Decision> {
    let ids: Vec<Uuid> = records.iter().map(|record| *record.upload.id.as_uuid()).collect();
    let found = query(KNOWN).bind(&ids).fetch_all(conn).await?;
    let hashes: HashMap<ActionId, [u8; 32]> = records.iter().map(|r| (r.upload.id, r.content_hash)).collect();
    let mut known = BTreeMap::new();
    for row in found {
        let id = ActionId::from_uuid(row.try_get(0)?);
        let hash: &[u8] = row.try_get(2)?;
        if hashes.get(&id).is_none_or(|mine| mine != hash) {
            let reason = "the id was used for other content".to_owned();
            return Err(Rejection { action: id, kind: RejectionKind::DuplicateId, reason }.into());
        }
        known.insert(id, ServerIngestId::new(row.try_get(1)?));
    }
    Ok(known)
}

/// Checks that what corrections amend are actions that are in the log, or earlier in the upload, at the position named,
/// and that the user may know of them.
pub(super) async fn check_amended(
    conn: &mut PgConnection,
    records: &[&Measured<'_>],
    user_id: &UserId,
    audiences: &BTreeSet<AudienceKey>,
) -> Result<(), Decision> {
    let amended: Vec<Uuid> = records.iter().filter_map(|r| amends(r)).map(|key| *key.action_id.as_uuid()).collect();
    if amended.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = audiences.iter().map(AudienceKey::as_str).collect();
    let found = query(
        "/* ingest.amended */ SELECT r.clock, r.client_id, r.id FROM synchrotron.action_records r \
         WHERE r.id = ANY($1) AND r.tag IS NOT NULL AND (r.user_id = $2 OR EXISTS \
         (SELECT FROM synchrotron.action_audiences a \
          WHERE a.server_ingest_id = r.server_ingest_id AND a.audience_key = ANY($3)))",
    )
    .bind(&amended)
    .bind(user_id.as_str())
    .bind(&keys)
    .fetch_all(conn)
    .await?;
    let mut actions = BTreeSet::new();
    for row in found {
        actions.insert(ReplayKey {
            clock: Hlc::from_packed(row.try_get(0)?),
            client_id: ClientId::from_uuid(row.try_get(1)?),
            action_id: ActionId::from_uuid(row.try_get(2)?),
        });
    }
    for record in records {
        match amends(record) {
            Some(key) if !actions.contains(&key) => {
                let reason = format!("amends action {}, which is not known at that position", key.action_id);
                return Err(Rejection { action: record.upload.id, kind: RejectionKind::Malformed, reason }.into());
            }
            Some(_) => {}
            None => drop(actions.insert(record.position)),
        }
    }
    Ok(())
}

fn amends(record: &Measured<'_>) -> Option<ReplayKey> {
    match &record.upload.body {
        RecordBody::Action { .. } => None,
        RecordBody::Correction { amends, .. } => Some(*amends),
    }
}

/// Which of these ids are in the log, or were.
pub(crate) const KNOWN: &str = "/* ingest.known */ SELECT id, server_ingest_id, content_hash FROM synchrotron.action_records WHERE id = ANY($1) \
     UNION ALL SELECT id, server_ingest_id, content_hash FROM synchrotron.compacted_records WHERE id = ANY($1)";
