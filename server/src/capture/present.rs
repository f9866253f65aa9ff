//! Looks up what rows are now, and what the log says of them.

use std::collections::BTreeMap;

use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, Hlc, Operation, RowKey, TableName};

use super::effects::Present;
use super::staged::{StagedRow, Taken, Written};
use crate::materialize::{Catalogue, FORMS, Table, columns_in_log};
use crate::pg::{StoredFormError, query};
use crate::snapshot::{read_row, rows_of};

/// What the log's newest effect on each of these rows is; rows without effects are absent.
pub(crate) const NEWEST_EFFECTS: &str = "/* capture.newest */ SELECT w.place, n.* \
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(table_name, row_id, place) CROSS JOIN LATERAL \
    (SELECT m.operation, m.audience_key, m.position_clock \
    FROM synchrotron.action_modified_rows m WHERE m.table_name = w.table_name AND m.row_id = w.row_id \
    ORDER BY m.position_clock DESC, m.position_client_id DESC, m.position_action_id DESC, m.server_ingest_id DESC, \
    m.sequence DESC LIMIT 1) n";

/// The greatest clock of any record with rows in these audiences.
const FLOORS: &str = "/* capture.floors */ SELECT max(floor_clock) FROM synchrotron.audience_heads \
    WHERE audience_key = ANY($1)";

/// Rows as they are, and the clock that everything known of them and of their audiences is at or before.
pub(super) struct Found {
    pub(super) rows: BTreeMap<RowKey, Present>,
    pub(super) clock: Hlc,
}

/// Looks up the rows of staged changes, as the server; the heads of their audiences must be locked.
pub(super) async fn look_up(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    taken: &Taken,
) -> Result<Found, sqlx_core::Error> {
    query(FORMS).execute(&mut *conn).await?;
    let audiences: Vec<&str> = taken.audiences().into_iter().map(AudienceKey::as_str).collect();
    let floor = query(FLOORS).bind(&audiences).fetch_one(&mut *conn).await?;
    let floor = floor.try_get::<Option<i64>, _>(0)?.map_or(Hlc::ZERO, Hlc::from_packed);
    let mut found = Found { rows: BTreeMap::new(), clock: floor };
    let mut ids: BTreeMap<&TableName, Vec<&str>> = BTreeMap::new();
    for key in taken.rows.keys() {
        found.rows.insert(key.clone(), Present::default());
        ids.entry(&key.table).or_default().push(key.row_id.as_str());
    }
    for (name, ids) in ids {
        let table = catalogue.table(name).expect("BUG: only changes of tracked tables are taken");
        let rows = sqlx_core::query::query(AssertSqlSafe(rows_with_ids(table)));
        for row in rows.bind(&audiences).bind(ids).fetch_all(&mut *conn).await? {
            let (row, _) = read_row(name, table, &row)?;
            let key = RowKey { table: row.table, row_id: row.row_id };
            found.rows.entry(key).or_default().row = Some((row.audience_key, row.columns));
        }
    }
    found.ask_log(conn, taken).await?;
    Ok(found)
}

/// Selects rows by audience and id.
pub(crate) fn rows_with_ids(table: &Table) -> String {
    // Safe: built from catalogue identifiers only.
    let cast = table.id_type.cast();
    format!("/* capture.rows */ {} AND \"id\" = ANY($2::text[]::{cast}[])", rows_of(table))
}

impl Found {
    async fn ask_log(&mut self, conn: &mut PgConnection, taken: &Taken) -> Result<(), sqlx_core::Error> {
        let keys: Vec<&RowKey> = taken.rows.keys().collect();
        let newest = query(NEWEST_EFFECTS)
            .bind(keys.iter().map(|key| key.table.as_str()).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.row_id.as_str()).collect::<Vec<_>>())
            .fetch_all(&mut *conn)
            .await?;
        for row in newest {
            self.clock = self.clock.max(Hlc::from_packed(row.try_get("position_clock")?));
            if row.try_get::<&str, _>("operation")? == Operation::Delete.as_str() {
                let place = usize::try_from(row.try_get::<i64, _>("place")? - 1).expect("BUG: counted from 1");
                let audience_key = AudienceKey::new(row.try_get::<String, _>("audience_key")?);
                let removed_from = Some(audience_key.map_err(StoredFormError::from)?);
                self.rows.entry(keys[place].clone()).or_default().removed_from = removed_from;
            }
        }
        for (key, staged) in &taken.rows {
            let present = self.rows.entry(key.clone()).or_default();
            if let Some((audience_key, echo)) = echoed(staged, present) {
                let older = (!echo.whole).then_some(audience_key);
                present.in_log = columns_in_log(conn, key, older).await?;
            }
        }
        Ok(())
    }
}

/// What was written beneath the server to a row that is there, and the row's audience.
fn echoed<'a>(staged: &'a StagedRow, present: &Present) -> Option<(&'a AudienceKey, &'a Written)> {
    let (audience_key, _) = present.row.as_ref()?;
    let (audience_key, changes) = staged.audiences.get_key_value(audience_key)?;
    Some((audience_key, changes.echo.as_ref()?))
}
