//! Images: the server's own undo.
//!
//! Place in the journey: beside [`apply`](super::apply) and [`late`](super::late). A late effect is folded from what its
//! row was before it; the log alone does not say that of rows that are older than the log, or whose first effects were
//! compacted away, and for a row with a long history it would say it slowly.
//!
//! # Invariants
//! - An image is the row after every effect at or beneath its position, in the transaction that keeps it and ever after:
//!   what arrives beneath an image removes it.
//! - A row that was there when its first effect came has an image before everything. It may have had others before, which
//!   were compacted away.
//! - The image that a compaction leaves is final: ingest takes nothing at or beneath it.
//! - Of a row with a long history about one effect in [`EVERY`] has an image, so a fold reads that many effects beneath
//!   the late one, however long the row's history is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{
    ActionId, AudienceKey, ClientId, Effect, Hlc, RecordBody, ReplayKey, RowId, RowKey, TableName,
};
use synchrotron_core::wire::UploadRecord;
use uuid::Uuid;

use super::catalogue::Catalogue;
use super::fold::Folded;
use super::present::rows_by_id;
use crate::pg::{StoredFormError, decode_columns, encode_columns, position_of, query};

/// How many effects of a row lie between two of its images, on average. Beneath it, reading more is cheaper than keeping
/// more.
pub(super) const EVERY: i64 = 64;

/// Before everything: no action has the empty id.
pub(crate) const BEFORE_ALL: ReplayKey = ReplayKey {
    clock: Hlc::ZERO,
    client_id: ClientId::from_uuid(Uuid::nil()),
    action_id: ActionId::from_uuid(Uuid::nil()),
};

/// A row as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// After the effects at and beneath which position.
    pub(crate) position: ReplayKey,
    /// The row, if it was there.
    pub(crate) row: Option<Folded>,
}

impl Image {
    /// From the columns of the table.
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx_core::Error> {
        let folded = match row.try_get::<Option<String>, _>("audience_key")? {
            Some(audience) => Some(Folded {
                audience_key: AudienceKey::new(audience).map_err(StoredFormError::from)?,
                columns: decode_columns(row.try_get("columns")?)?,
            }),
            None => None,
        };
        Ok(Self { position: position_of(row)?, row: folded })
    }
}

/// Whether a record with this number leaves images of its rows.
pub(super) const fn is_due(number: i64) -> bool {
    number % EVERY == 0
}

/// Keeps what rows are whose first effects in the log these records bring, unless that is an INSERT in order, which finds
/// out by itself whether the row was there. To be called before the records are applied.
pub(crate) async fn keep_older<'r>(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    newest: &HashMap<RowKey, ReplayKey>,
    records: impl Iterator<Item = &'r UploadRecord>,
) -> Result<(), sqlx_core::Error> {
    let mut seen: BTreeSet<RowKey> = BTreeSet::new();
    let mut older: BTreeMap<RowKey, ReplayKey> = BTreeMap::new();
    for record in records {
        let correction = matches!(record.body, RecordBody::Correction { .. });
        for patch in &record.rows {
            let key = patch.row_key();
            if newest.contains_key(&key) || !seen.insert(key.clone()) {
                continue;
            }
            if correction || !matches!(patch.effect, Effect::Insert(_)) {
                older.insert(key, BEFORE_ALL);
            }
        }
    }
    keep_present(conn, catalogue, &older).await
}

/// Keeps each row as it is now, as its image at a position. `BEFORE_ALL` of an absent row needs none.
pub(super) async fn keep_present(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    rows: &BTreeMap<RowKey, ReplayKey>,
) -> Result<(), sqlx_core::Error> {
    let mut by_table: BTreeMap<&TableName, BTreeSet<&RowId>> = BTreeMap::new();
    for key in rows.keys() {
        by_table.entry(&key.table).or_default().insert(&key.row_id);
    }
    let mut images = Vec::with_capacity(rows.len());
    for (name, ids) in by_table {
        let Some(table) = catalogue.table(name) else { continue };
        let found = rows_by_id(conn, table, &Vec::from_iter(ids.iter().copied())).await?;
        let mut found: HashMap<RowId, Folded> = found.into_iter().collect();
        for id in ids {
            let key = RowKey { table: name.clone(), row_id: id.clone() };
            let image = Image { position: rows[&key], row: found.remove(id) };
            if image.row.is_some() || image.position != BEFORE_ALL {
                images.push((key, image));
            }
        }
    }
    keep(conn, &images).await
}

/// Keeps images, instead of those at the same positions.
pub(crate) async fn keep(conn: &mut PgConnection, images: &[(RowKey, Image)]) -> Result<(), sqlx_core::Error> {
    if images.is_empty() {
        return Ok(());
    }
    let text = |value: fn(&(RowKey, Image)) -> Option<&str>| images.iter().map(value).collect::<Vec<_>>();
    let columns = images.iter().map(|(_, image)| image.row.as_ref().map(|row| encode_columns(&row.columns)));
    query(
        "/* images.keep */ INSERT INTO synchrotron.row_images (table_name, row_id, position_clock, position_client_id, \
         position_action_id, audience_key, columns) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], \
         $4::uuid[], $5::uuid[], $6::text[], $7::bytea[]) ON CONFLICT (table_name, row_id, position_clock, \
         position_client_id, position_action_id) DO UPDATE SET audience_key = excluded.audience_key, \
         columns = excluded.columns",
    )
    .bind(text(|(key, _)| Some(key.table.as_str())))
    .bind(text(|(key, _)| Some(key.row_id.as_str())))
    .bind(images.iter().map(|(_, image)| image.position.clock.packed()).collect::<Vec<_>>())
    .bind(images.iter().map(|(_, image)| *image.position.client_id.as_uuid()).collect::<Vec<_>>())
    .bind(images.iter().map(|(_, image)| *image.position.action_id.as_uuid()).collect::<Vec<_>>())
    .bind(text(|(_, image)| image.row.as_ref().map(|row| row.audience_key.as_str())))
    .bind(columns.collect::<Vec<_>>())
    .execute(conn)
    .await
    .map(drop)
}

/// The row's newest image beneath a position.
pub(crate) async fn newest_beneath(
    conn: &mut PgConnection,
    key: &RowKey,
    position: ReplayKey,
) -> Result<Option<Image>, sqlx_core::Error> {
    let found = query(BENEATH)
        .bind(key.table.as_str())
        .bind(key.row_id.as_str())
        .bind(position.clock.packed())
        .bind(*position.client_id.as_uuid())
        .bind(*position.action_id.as_uuid())
        .fetch_optional(conn)
        .await?;
    found.as_ref().map(Image::read).transpose()
}

/// Removes the row's images at and above a position: something arrives beneath them.
pub(super) async fn forget_from(
    conn: &mut PgConnection,
    key: &RowKey,
    position: ReplayKey,
) -> Result<(), sqlx_core::Error> {
    query(FORGET)
        .bind(key.table.as_str())
        .bind(key.row_id.as_str())
        .bind(position.clock.packed())
        .bind(*position.client_id.as_uuid())
        .bind(*position.action_id.as_uuid())
        .execute(conn)
        .await
        .map(drop)
}

/// The newest image beneath a position.
pub(crate) const BENEATH: &str = "/* images.beneath */ SELECT position_clock, position_client_id, position_action_id, \
    audience_key, columns FROM synchrotron.row_images WHERE table_name = $1 AND row_id = $2 \
    AND (position_clock, position_client_id, position_action_id) < ($3, $4, $5) \
    ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1";

/// Forgets images.
pub(crate) const FORGET: &str = "/* images.forget */ DELETE FROM synchrotron.row_images \
    WHERE table_name = $1 AND row_id = $2 AND (position_clock, position_client_id, position_action_id) >= ($3, $4, $5)";
