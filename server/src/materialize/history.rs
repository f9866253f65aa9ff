//! Reads one row's effects from the log, by index, as the server.

use std::collections::HashMap;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{ActionId, Hlc, ReplayKey, RowKey, ServerIngestId};
use uuid::Uuid;

use super::Materializer;
use super::fold::{Folded, Logged, begins_whole};
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
    /// Effects, ordered by position.
    pub(super) logged: Vec<Logged>,
    /// What they are folded onto.
    pub(super) start: Start,
}

/// Where a history starts.
#[derive(Debug)]
pub(super) enum Start {
    /// With an effect that says what the whole row is.
    Whole,
    /// At an image of the row.
    Image(Option<Folded>),
    /// Before all effects there are.
    Beginning,
}

impl Materializer<'_> {
    /// The row's effects from the newest image or whole-row effect on that is at or beneath `position`, with and without
    /// the effects of `judged`.
    pub(super) async fn history_around(
        &mut self,
        key: &RowKey,
        position: ReplayKey,
        judged: ActionId,
        number: i64,
    ) -> Result<History, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        let image = self.image_beneath(key, position).await?;
        let mut bound = position;
        let mut inclusive = true;
        loop {
            let start = self.whole_row_at_or_beneath(key, bound, inclusive, number).await?;
            let start = start.filter(|start| image.as_ref().is_none_or(|image| image.position < *start));
            let Some(start) = start else {
                let mut logged = self.effects_from(key, image.as_ref().map(|image| image.position), number).await?;
                logged.retain(|logged| image.as_ref().is_none_or(|image| image.position < logged.position));
                return Ok(History { logged, start: image.map_or(Start::Beginning, |image| Start::Image(image.row)) });
            };
            let logged = self.effects_from(key, Some(start), number).await?;
            let others: Vec<Logged> = logged.iter().filter(|logged| logged.record != judged).cloned().collect();
            let starts_there = others.first().is_some_and(|first| first.position == start);
            if starts_there && begins_whole(&others) && begins_whole(&logged) {
                return Ok(History { logged, start: Start::Whole });
            }
            (bound, inclusive) = (start, false);
        }
    }

    /// All effects on the row.
    pub(super) async fn whole_history(&mut self, key: &RowKey, number: i64) -> Result<Vec<Logged>, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        self.effects_from(key, None, number).await
    }

    /// Whose the row was last, before the record with this number; for rows that are gone.
    pub(super) async fn last_audience(
        &mut self,
        key: &RowKey,
        number: i64,
    ) -> Result<Option<String>, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        let found = query(LAST_AUDIENCE)
            .bind(key.table.as_str())
            .bind(key.row_id.as_str())
            .bind(number)
            .fetch_optional(&mut *self.actor.conn)
            .await?;
        found.map(|row| row.try_get(0)).transpose()
    }

    async fn whole_row_at_or_beneath(
        &mut self,
        key: &RowKey,
        bound: ReplayKey,
        inclusive: bool,
        number: i64,
    ) -> Result<Option<ReplayKey>, sqlx_core::Error> {
        let found = query(START)
            .bind(key.table.as_str())
            .bind(key.row_id.as_str())
            .bind(bound.clock.packed())
            .bind(*bound.client_id.as_uuid())
            .bind(*bound.action_id.as_uuid())
            .bind(inclusive)
            .bind(number)
            .bind(self.last_number)
            .fetch_optional(&mut *self.actor.conn)
            .await?;
        found.as_ref().map(position_of).transpose()
    }

    /// Effects from a position on, without those of the upload's later records, which are not applied yet.
    async fn effects_from(
        &mut self,
        key: &RowKey,
        start: Option<ReplayKey>,
        number: i64,
    ) -> Result<Vec<Logged>, sqlx_core::Error> {
        let found = query(EFFECTS)
            .bind(key.table.as_str())
            .bind(key.row_id.as_str())
            .bind(start.map_or(Hlc::ZERO, |start| start.clock).packed())
            .bind(start.map_or(Uuid::nil(), |start| *start.client_id.as_uuid()))
            .bind(start.map_or(Uuid::nil(), |start| *start.action_id.as_uuid()))
            .bind(number)
            .bind(self.last_number)
            .fetch_all(&mut *self.actor.conn)
            .await?;
        found.iter().map(logged_of).collect()
    }
}

/// One effect from the columns of the table.
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

/// The newest whole-row effect at or beneath a position.
pub(crate) const START: &str = "/* history.start */ SELECT position_clock, position_client_id, position_action_id \
    FROM synchrotron.action_modified_rows WHERE table_name = $1 AND row_id = $2 \
    AND (position_clock, position_client_id, position_action_id) <= ($3, $4, $5) \
    AND ($6 OR (position_clock, position_client_id, position_action_id) <> ($3, $4, $5)) \
    AND operation IN ('INSERT', 'DELETE') AND (server_ingest_id <= $7 OR server_ingest_id > $8) \
    ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1";

/// A row's effects from a position on.
pub(crate) const EFFECTS: &str = "/* history.effects */ SELECT action_id, sequence, table_name, row_id, audience_key, operation, columns, \
    server_ingest_id, position_clock, position_client_id, position_action_id \
    FROM synchrotron.action_modified_rows WHERE table_name = $1 AND row_id = $2 \
    AND (position_clock, position_client_id, position_action_id) >= ($3, $4, $5) \
    AND (server_ingest_id <= $6 OR server_ingest_id > $7) \
    ORDER BY position_clock, position_client_id, position_action_id, server_ingest_id, sequence";

/// The audience of a row's newest effect.
pub(crate) const LAST_AUDIENCE: &str = "/* history.audience */ SELECT audience_key FROM synchrotron.action_modified_rows \
    WHERE table_name = $1 AND row_id = $2 AND server_ingest_id < $3 \
    ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC, server_ingest_id DESC, \
    sequence DESC LIMIT 1";
