//! Reads one row's effects from the log, by index, as the server.

use std::collections::HashMap;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{ActionId, AudienceKey, ClientId, Columns, Hlc, ReplayKey, RowKey, ServerIngestId};
use uuid::Uuid;

use super::fold::{Fold, Folded, Logged, begins_whole, ever_whole, fold_row};
use super::images::{self, BEFORE_ALL, Image};
use super::{Materializer, Numbered};
use crate::pg::{Acting, patch_of, position_of, query};

/// Each row's newest position in the log; rows without effects are absent.
pub(crate) async fn newest_positions(
    conn: &mut PgConnection,
    keys: &[RowKey],
) -> Result<HashMap<RowKey, ReplayKey>, sqlx_core::Error> {
    let tables: Vec<&str> = keys.iter().map(|key| key.table.as_str()).collect();
    let rows: Vec<&str> = keys.iter().map(|key| key.row_id.as_str()).collect();
    let found = query(NEWEST).bind(&tables).bind(&rows).fetch_all(conn).await?;
    let newest = |row: &PgRow| {
        let place = usize::try_from(row.try_get::<i64, _>("place")? - 1).expect("BUG: ordinality counts from 1");
        Ok((keys[place].clone(), position_of(row)?))
    };
    found.iter().map(newest).collect()
}

/// What of a row's history a fold needs.
#[derive(Debug)]
pub(super) struct History {
    /// The row beneath the effects, if it was there.
    pub(super) base: Option<Folded>,
    /// Effects, ordered by position.
    pub(super) logged: Vec<Logged>,
}

/// Up to where the log counts: a transaction's later records are in it before they are applied.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Records through this number count.
    number: i64,
    /// Those after it do not, up to this one.
    last_number: i64,
}

/// What the log says that the columns of a row are; `None` if by the log it is not there. A row that may be `older` than
/// its history, and of which nothing is known from before, is taken to have been there, in this audience.
pub(crate) async fn columns_in_log(
    conn: &mut PgConnection,
    key: &RowKey,
    older: Option<&AudienceKey>,
) -> Result<Option<Columns>, sqlx_core::Error> {
    let everything = Seen { number: i64::MAX, last_number: i64::MAX };
    let end = ReplayKey {
        clock: Hlc::from_packed(i64::MAX),
        client_id: ClientId::from_uuid(Uuid::max()),
        action_id: ActionId::from_uuid(Uuid::max()),
    };
    let History { base, logged } = history_beneath(conn, key, end, everything).await?;
    let was_there = older.filter(|_| base.is_none() && !ever_whole(&logged));
    let unknown = was_there.map(|key| Folded { audience_key: key.clone(), columns: Columns::new() });
    Ok(fold_row(base.or(unknown), &logged).row.map(|row| row.columns))
}

/// The row's effects around `position`: all that are above its newest image beneath, or from the newest whole-row effect
/// beneath on, whichever are fewer. So the fold knows the row as it was right before the position, and whose it was.
async fn history_beneath(
    conn: &mut PgConnection,
    key: &RowKey,
    position: ReplayKey,
    seen: Seen,
) -> Result<History, sqlx_core::Error> {
    let image = images::newest_beneath(conn, key, position).await?;
    let image = image.unwrap_or(Image { position: BEFORE_ALL, row: None });
    let mut bound = position;
    loop {
        let Some(start) = whole_row_beneath(conn, key, bound, image.position, seen).await? else {
            let logged = effects_from(conn, key, (image.position, false), seen).await?;
            return Ok(History { base: image.row, logged });
        };
        let logged = effects_from(conn, key, (start, true), seen).await?;
        if begins_whole(&logged) {
            return Ok(History { base: None, logged });
        }
        bound = start;
    }
}

/// The newest whole-row effect beneath a position and above another.
async fn whole_row_beneath(
    conn: &mut PgConnection,
    key: &RowKey,
    bound: ReplayKey,
    above: ReplayKey,
    seen: Seen,
) -> Result<Option<ReplayKey>, sqlx_core::Error> {
    let found = query(START)
        .bind(key.table.as_str())
        .bind(key.row_id.as_str())
        .bind(bound.clock.packed())
        .bind(*bound.client_id.as_uuid())
        .bind(*bound.action_id.as_uuid())
        .bind(above.clock.packed())
        .bind(*above.client_id.as_uuid())
        .bind(*above.action_id.as_uuid())
        .bind(seen.number)
        .bind(seen.last_number)
        .fetch_optional(conn)
        .await?;
    found.as_ref().map(position_of).transpose()
}

/// Effects above a position, or from it on.
async fn effects_from(
    conn: &mut PgConnection,
    key: &RowKey,
    (start, inclusive): (ReplayKey, bool),
    seen: Seen,
) -> Result<Vec<Logged>, sqlx_core::Error> {
    let found = query(EFFECTS)
        .bind(key.table.as_str())
        .bind(key.row_id.as_str())
        .bind(start.clock.packed())
        .bind(*start.client_id.as_uuid())
        .bind(*start.action_id.as_uuid())
        .bind(inclusive)
        .bind(seen.number)
        .bind(seen.last_number)
        .fetch_all(conn)
        .await?;
    found.iter().map(logged_of).collect()
}

impl Materializer<'_> {
    /// The row's history around the place of a record.
    pub(super) async fn history_around(
        &mut self,
        key: &RowKey,
        position: ReplayKey,
        number: i64,
    ) -> Result<History, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        history_beneath(self.actor.conn, key, position, self.seen(number)).await
    }

    /// All effects on the row.
    pub(super) async fn whole_history(&mut self, key: &RowKey, number: i64) -> Result<Vec<Logged>, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        effects_from(self.actor.conn, key, (BEFORE_ALL, true), self.seen(number)).await
    }

    /// Whose a row was that is gone, as far as anything is known of it from before the record.
    pub(super) async fn last_audience(
        &mut self,
        key: &RowKey,
        record: Numbered<'_>,
    ) -> Result<Option<String>, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        let found = query(LAST_AUDIENCE)
            .bind(key.table.as_str())
            .bind(key.row_id.as_str())
            .bind(record.number)
            .fetch_optional(&mut *self.actor.conn)
            .await?;
        if let Some(row) = found {
            return row.try_get(0);
        }
        let image = images::newest_beneath(self.actor.conn, key, record.position).await?;
        Ok(image.and_then(|image| image.row).map(|row| row.audience_key.to_string()))
    }

    /// What a row was that is not there at this position, before it was removed last.
    pub(super) async fn row_that_was(
        &mut self,
        key: &RowKey,
        position: ReplayKey,
        number: i64,
    ) -> Result<Option<Folded>, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        let seen = self.seen(number - 1);
        // An image of a row that is gone says nothing of what it was.
        let image = images::newest_beneath(self.actor.conn, key, position).await?.filter(|image| image.row.is_some());
        let above = image.as_ref().map_or(BEFORE_ALL, |image| image.position);
        let mut bound = position;
        // It may have been removed more than once: each device that removes a row says so.
        while let Some(removed) = whole_row_beneath(self.actor.conn, key, bound, above, seen).await? {
            let History { base, logged } = history_beneath(self.actor.conn, key, removed, seen).await?;
            let beneath: Vec<Logged> = logged.into_iter().filter(|logged| logged.position < position).collect();
            let Fold { row, removed: was, .. } = fold_row(base, &beneath);
            if let Some(was) = row.or(was) {
                return Ok(Some(was));
            }
            bound = removed;
        }
        Ok(image.and_then(|image| image.row))
    }

    const fn seen(&self, number: i64) -> Seen {
        Seen { number, last_number: self.last_number }
    }
}

/// An effect from the columns of the table.
pub(crate) fn logged_of(row: &PgRow) -> Result<Logged, sqlx_core::Error> {
    Ok(Logged {
        record: ActionId::from_uuid(row.try_get("action_id")?),
        position: position_of(row)?,
        server_ingest_id: ServerIngestId::new(row.try_get("server_ingest_id")?),
        patch: patch_of(row)?,
    })
}

/// The newest position of each of these rows.
pub(crate) const NEWEST: &str = "/* history.newest */ SELECT w.place, n.* \
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(table_name, row_id, place) CROSS JOIN LATERAL \
    (SELECT m.position_clock, m.position_client_id, m.position_action_id \
    FROM synchrotron.action_modified_rows m WHERE m.table_name = w.table_name AND m.row_id = w.row_id \
    ORDER BY m.position_clock DESC, m.position_client_id DESC, m.position_action_id DESC LIMIT 1) n";

/// The newest whole-row effect beneath a position.
pub(crate) const START: &str = "/* history.start */ SELECT position_clock, position_client_id, position_action_id \
    FROM synchrotron.action_modified_rows WHERE table_name = $1 AND row_id = $2 \
    AND (position_clock, position_client_id, position_action_id) < ($3, $4, $5) \
    AND (position_clock, position_client_id, position_action_id) > ($6, $7, $8) \
    AND operation IN ('INSERT', 'DELETE') AND (server_ingest_id <= $9 OR server_ingest_id > $10) \
    ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1";

/// A row's effects above a position, or from it on.
pub(crate) const EFFECTS: &str = "/* history.effects */ SELECT action_id, sequence, table_name, row_id, audience_key, \
    operation, columns, server_ingest_id, position_clock, position_client_id, position_action_id \
    FROM synchrotron.action_modified_rows WHERE table_name = $1 AND row_id = $2 \
    AND (position_clock, position_client_id, position_action_id) >= ($3, $4, $5) \
    AND ($6 OR (position_clock, position_client_id, position_action_id) <> ($3, $4, $5)) \
    AND (server_ingest_id <= $7 OR server_ingest_id > $8) \
    ORDER BY position_clock, position_client_id, position_action_id, server_ingest_id, sequence";

/// The audience of a row's newest effect.
pub(crate) const LAST_AUDIENCE: &str = "/* history.audience */ SELECT audience_key FROM synchrotron.action_modified_rows \
    WHERE table_name = $1 AND row_id = $2 AND server_ingest_id < $3 \
    ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC, server_ingest_id DESC, \
    sequence DESC LIMIT 1";
