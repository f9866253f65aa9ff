//! Rows as they were: where a fold starts when the effects beneath are gone.
//!
//! Place in the journey: written by [`compaction`](crate::compaction), read when something arrives late.
//!
//! Invariant: an image is the row after every effect at or beneath its position, and is final: nothing is taken there any
//! more.

use sqlx_core::row::Row;
use sqlx_postgres::PgRow;
use synchrotron_core::model::{AudienceKey, ReplayKey, RowKey};

use super::Materializer;
use super::fold::Folded;
use crate::pg::{Positions, StoredFormError, decode_columns, position_of, query};

/// A row as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// After everything at or beneath this.
    pub(crate) position: ReplayKey,
    /// The row, if it was there.
    pub(crate) row: Option<Folded>,
}

impl Image {
    /// From the columns of the table.
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx_core::Error> {
        let folded = match row.try_get::<Option<String>, _>("audience_key")? {
            Some(audience_key) => Some(Folded {
                audience_key: AudienceKey::new(audience_key).map_err(StoredFormError::from)?,
                columns: decode_columns(row.try_get("columns")?)?,
            }),
            None => None,
        };
        Ok(Self { position: position_of(row)?, row: folded })
    }
}

impl Materializer<'_> {
    /// The row's newest image at or beneath a position.
    pub(super) async fn image_beneath(
        &mut self,
        key: &RowKey,
        position: ReplayKey,
    ) -> Result<Option<Image>, sqlx_core::Error> {
        let at = Positions::of([&position]);
        let found = query(IMAGE)
            .bind(key.table.as_str())
            .bind(key.row_id.as_str())
            .bind(at.clocks[0])
            .bind(at.clients[0])
            .bind(at.actions[0])
            .fetch_optional(&mut *self.actor.conn)
            .await?;
        found.as_ref().map(Image::read).transpose()
    }
}

/// A row's newest image at or beneath a position.
pub(crate) const IMAGE: &str = "/* history.image */ SELECT position_clock, position_client_id, position_action_id, \
    audience_key, columns FROM synchrotron.row_images WHERE table_name = $1 AND row_id = $2 \
    AND (position_clock, position_client_id, position_action_id) <= ($3, $4, $5) \
    ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1";
