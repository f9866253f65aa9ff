//! What the log already says about uploads.
//!
//! Place in the journey: under the devices' row locks, before anything is judged. So a repeated upload gets the same
//! answer, whichever process has it and however far behind the device is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{
    ActionId, AudienceKey, ClientId, Epoch, Hlc, RecordBody, ReplayKey, ServerIngestId, UserId,
};
use synchrotron_core::wire::RejectionKind;
use uuid::Uuid;

use super::Rejection;
use super::validate::Measured;
use crate::pg::query;

/// The server's present history.
pub(crate) async fn read_epoch(conn: &mut PgConnection) -> Result<Epoch, sqlx_core::Error> {
    let row = query("/* epoch */ SELECT epoch FROM synchrotron.server_meta").fetch_one(conn).await?;
    Ok(Epoch::from_uuid(row.try_get(0)?))
}

/// Binds a device to the first user that uses it; returns whom it belongs to, and holds its row until the end of the
/// transaction.
pub(crate) async fn bind_client(
    conn: &mut PgConnection,
    client_id: ClientId,
    user_id: &UserId,
) -> Result<String, sqlx_core::Error> {
    let binding = query("/* client.bind */ SELECT owners[1] FROM synchrotron.bind_clients(ARRAY[$1], ARRAY[$2])");
    binding.bind(client_id.as_uuid()).bind(user_id.as_str()).fetch_one(conn).await?.try_get(0)
}

/// Records that are, or were, in the log already: their numbers, and the hashes of their contents.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<ActionId, (ServerIngestId, [u8; 32])>);

impl Known {
    /// One that is known.
    pub(super) fn add(&mut self, id: ActionId, number: ServerIngestId, content_hash: [u8; 32]) {
        self.0.insert(id, (number, content_hash));
    }

    /// Whether a record of this id is known.
    pub(super) fn contains(&self, id: ActionId) -> bool {
        self.0.contains_key(&id)
    }

    /// Whether some of an upload's records are known, and others not.
    pub(super) fn is_part_of(&self, records: &[Measured<'_>]) -> bool {
        let known = records.iter().filter(|record| self.contains(record.upload.id)).count();
        known > 0 && known < records.len()
    }

    /// The numbers of those of an upload's records that are known.
    pub(super) fn of(&self, records: &[Measured<'_>]) -> Result<BTreeMap<ActionId, ServerIngestId>, Rejection> {
        let mut ids = BTreeMap::new();
        for record in records {
            let action = record.upload.id;
            match self.0.get(&action) {
                Some((number, hash)) if *hash == record.content_hash => drop(ids.insert(action, *number)),
                Some(_) => {
                    let reason = "the id was used for other content".to_owned();
                    return Err(Rejection { action, kind: RejectionKind::DuplicateId, reason });
                }
                None => {}
            }
        }
        Ok(ids)
    }
}

/// Checks that what corrections amend are actions that are in the log, or earlier in the upload, at the position named,
/// and that the user may know of them.
pub(super) async fn check_amended(
    conn: &mut PgConnection,
    records: &[&Measured<'_>],
    user_id: &UserId,
    audiences: &BTreeSet<AudienceKey>,
) -> Result<Result<(), Rejection>, sqlx_core::Error> {
    let amended: Vec<Uuid> = records.iter().filter_map(|r| amends(r)).map(|key| *key.action_id.as_uuid()).collect();
    if amended.is_empty() {
        return Ok(Ok(()));
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
                return Ok(Err(Rejection { action: record.upload.id, kind: RejectionKind::Malformed, reason }));
            }
            Some(_) => {}
            None => drop(actions.insert(record.position)),
        }
    }
    Ok(Ok(()))
}

fn amends(record: &Measured<'_>) -> Option<ReplayKey> {
    match &record.upload.body {
        RecordBody::Action { .. } => None,
        RecordBody::Correction { amends, .. } => Some(*amends),
    }
}
