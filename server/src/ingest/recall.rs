//! What the server remembers of uploads before it judges them: its history, their earlier answers, their users' audiences,
//! and which of their records it has. One read, for a group.
//!
//! Place in the journey: under the devices' row locks, so a batch that comes again finds the answer that it was given,
//! whichever process gave it; and before the heads' locks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{ActionId, AudienceKey, BatchId, ClientId, Epoch, ServerIngestId, UserId};
use synchrotron_core::wire::Outcome;
use uuid::Uuid;

use super::group::Open;
use super::known::{Known, hash_of};
use crate::pg::{query, unreadable};

/// What there is about the uploads of a group.
#[derive(Debug)]
pub(super) struct Recall<'u> {
    /// The server's present history.
    pub(super) epoch: Epoch,
    /// By batch, the hash of what was answered before, and the answer.
    pub(super) answers: HashMap<(ClientId, BatchId), ([u8; 32], Outcome)>,
    /// Each user's audiences now, by the app's view; read as the server.
    pub(super) audiences: BTreeMap<&'u UserId, BTreeSet<AudienceKey>>,
    /// Records that are, or were, in the log.
    pub(super) known: Known,
}

impl<'u> Recall<'u> {
    /// Reads all of it.
    pub(super) async fn read(conn: &mut PgConnection, open: &[Open<'u>]) -> Result<Self, sqlx_core::Error> {
        let mut audiences: BTreeMap<&UserId, BTreeSet<AudienceKey>> =
            open.iter().map(|open| (&open.upload.user_id, BTreeSet::new())).collect();
        let records = open.iter().flat_map(|open| &open.records);
        let rows = query(RECALL)
            .bind(open.iter().map(|open| *open.upload.batch.client_id.as_uuid()).collect::<Vec<_>>())
            .bind(open.iter().map(|open| *open.upload.batch.batch_id.as_uuid()).collect::<Vec<_>>())
            .bind(audiences.keys().map(|user_id| user_id.as_str()).collect::<Vec<_>>())
            .bind(records.map(|record| *record.upload.id.as_uuid()).collect::<Vec<_>>())
            .fetch_all(conn)
            .await?;
        let mut epoch = None;
        let mut answers = HashMap::new();
        let mut known = Known::default();
        for row in &rows {
            match row.try_get("thing")? {
                "epoch" => epoch = Some(Epoch::from_uuid(row.try_get("id")?)),
                "answer" => {
                    let (names, answer) = answer_of(row)?;
                    answers.insert(names, answer);
                }
                "audience" => {
                    let user_id = UserId::new(row.try_get::<String, _>("user_id")?).map_err(unreadable)?;
                    let of_user = audiences.get_mut(&user_id).expect("BUG: only these users were asked for");
                    of_user.insert(AudienceKey::new(row.try_get::<String, _>("audience_key")?).map_err(unreadable)?);
                }
                _ => {
                    let number = ServerIngestId::new(row.try_get("number")?);
                    known.add(ActionId::from_uuid(row.try_get("id")?), number, hash_of(row)?);
                }
            }
        }
        Ok(Self { epoch: epoch.ok_or(sqlx_core::Error::RowNotFound)?, answers, audiences, known })
    }
}

/// A batch's names, and the hash of its content with its answer.
type Answer = ((ClientId, BatchId), ([u8; 32], Outcome));

fn answer_of(row: &PgRow) -> Result<Answer, sqlx_core::Error> {
    let batch_id = BatchId::from_uuid(row.try_get::<Uuid, _>("batch_id")?);
    let outcome = rmp_serde::from_slice(row.try_get("outcome")?).map_err(unreadable)?;
    Ok(((ClientId::from_uuid(row.try_get("id")?), batch_id), (hash_of(row)?, outcome)))
}

/// The epoch; the answers that batches were given; the audiences of users; the records of ids.
pub(crate) const RECALL: &str = "/* ingest.recall */ \
    SELECT 'epoch' AS thing, epoch AS id, NULL::uuid AS batch_id, NULL AS user_id, NULL AS audience_key, \
        NULL::bigint AS number, NULL::bytea AS content_hash, NULL::bytea AS outcome FROM synchrotron.server_meta \
    UNION ALL SELECT 'answer', o.client_id, o.batch_id, NULL, NULL, NULL, o.content_hash, o.outcome \
        FROM unnest($1::uuid[], $2::uuid[]) AS b(client_id, batch_id) \
        JOIN synchrotron.upload_outcomes o USING (client_id, batch_id) \
    UNION ALL SELECT 'audience', NULL, NULL, u.user_id, a, NULL, NULL, NULL FROM unnest($3::text[]) AS u(user_id) \
        CROSS JOIN LATERAL synchrotron.audiences_of(u.user_id) a WHERE a IS NOT NULL \
    UNION ALL SELECT 'record', id, NULL, NULL, NULL, server_ingest_id, content_hash, NULL \
        FROM synchrotron.action_records WHERE id = ANY($4) \
    UNION ALL SELECT 'record', id, NULL, NULL, NULL, server_ingest_id, content_hash, NULL \
        FROM synchrotron.compacted_records WHERE id = ANY($4)";
