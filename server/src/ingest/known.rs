//! What the log already says about uploads.
//!
//! Place in the journey: under the devices' row locks, before anything is judged. So a repeated upload gets the same
//! answer, whichever process has it and however far behind the device is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{
    ActionId, AudienceKey, ClientId, Epoch, Hlc, RecordBody, ReplayKey, ServerIngestId, UserId,
};
use synchrotron_core::wire::RejectionKind;
use uuid::Uuid;

use super::Rejection;
use super::validate::Measured;
use crate::pg::{query, unreadable};

/// The server's present history.
pub(crate) async fn read_epoch(conn: &mut PgConnection) -> Result<Epoch, sqlx_core::Error> {
    let row = query("/* epoch */ SELECT epoch FROM synchrotron.server_meta").fetch_one(conn).await?;
    Ok(Epoch::from_uuid(row.try_get(0)?))
}

/// Binds a device to the first user that uses it; returns whom it belongs to. See [`bind_clients`].
pub(crate) async fn bind_client(
    conn: &mut PgConnection,
    client_id: ClientId,
    user_id: &UserId,
) -> Result<String, sqlx_core::Error> {
    let owners = bind_clients(conn, &BTreeMap::from([(client_id, user_id)])).await?;
    Ok(owners.into_values().next().expect("BUG: a device that is bound has an owner"))
}

/// Binds devices to the first users that use them; returns whom each belongs to, and holds their rows until the end of the
/// transaction, so that one device has one upload at a time. Rows are locked in the order of their ids, before any head:
/// so no two transactions wait for each other.
pub(super) async fn bind_clients(
    conn: &mut PgConnection,
    clients: &BTreeMap<ClientId, &UserId>,
) -> Result<BTreeMap<ClientId, String>, sqlx_core::Error> {
    let ids: Vec<Uuid> = clients.keys().map(|client_id| *client_id.as_uuid()).collect();
    loop {
        let bound = query(
            "/* client.lock */ SELECT client_id, user_id, used_at < now() - interval '1 day' \
             FROM synchrotron.clients WHERE client_id = ANY($1) ORDER BY client_id FOR NO KEY UPDATE",
        )
        .bind(&ids)
        .fetch_all(&mut *conn)
        .await?;
        if bound.len() == ids.len() {
            renew(conn, &bound).await?;
            let owner = |row: &PgRow| Ok((ClientId::from_uuid(row.try_get(0)?), row.try_get(1)?));
            return bound.iter().map(owner).collect();
        }
        query(
            "/* client.bind */ INSERT INTO synchrotron.clients (client_id, user_id) \
             SELECT * FROM unnest($1::uuid[], $2::text[]) ON CONFLICT DO NOTHING",
        )
        .bind(&ids)
        .bind(clients.values().map(|user_id| user_id.as_str()).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    }
}

/// Notes that devices are in use, once a day: the others are forgotten at some time.
async fn renew(conn: &mut PgConnection, bound: &[PgRow]) -> Result<(), sqlx_core::Error> {
    let mut due: Vec<Uuid> = Vec::new();
    for row in bound {
        if row.try_get(2)? {
            due.push(row.try_get(0)?);
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    query("/* client.used */ UPDATE synchrotron.clients SET used_at = now() WHERE client_id = ANY($1)")
        .bind(due)
        .execute(conn)
        .await
        .map(drop)
}

/// Records that are, or were, in the log already: their numbers, and the hashes of their contents.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<ActionId, (ServerIngestId, [u8; 32])>);

impl Known {
    /// Looks for an upload's records.
    pub(super) async fn read(conn: &mut PgConnection, records: &[Measured<'_>]) -> Result<Self, sqlx_core::Error> {
        let ids: Vec<Uuid> = records.iter().map(|record| *record.upload.id.as_uuid()).collect();
        let found = query(KNOWN).bind(&ids).fetch_all(conn).await?;
        let mut known = Self::default();
        for row in &found {
            known.add(ActionId::from_uuid(row.try_get(0)?), ServerIngestId::new(row.try_get(1)?), hash_of(row)?);
        }
        Ok(known)
    }

    /// One that is known.
    pub(super) fn add(&mut self, id: ActionId, number: ServerIngestId, content_hash: [u8; 32]) {
        self.0.insert(id, (number, content_hash));
    }

    /// Whether a record of this id is known.
    pub(super) fn contains(&self, id: ActionId) -> bool {
        self.0.contains_key(&id)
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

/// The hash of what a record or a batch holds.
pub(super) fn hash_of(row: &PgRow) -> Result<[u8; 32], sqlx_core::Error> {
    let hash = row.try_get::<&[u8], _>("content_hash")?.try_into();
    hash.map_err(|error: std::array::TryFromSliceError| unreadable(error))
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

/// Which of these ids are in the log, or were.
pub(crate) const KNOWN: &str = "/* ingest.known */ SELECT id, server_ingest_id, content_hash FROM synchrotron.action_records WHERE id = ANY($1) \
     UNION ALL SELECT id, server_ingest_id, content_hash FROM synchrotron.compacted_records WHERE id = ANY($1)";
