//! Displaced rows: kept aside while another row holds a value that is UNIQUE here, or their id in another audience.
//!
//! Accepted history can pass through states that this database cannot show: of two rows that had one value, one after the
//! other, the log may bring the second one's first. The older holder then leaves its table for `local_displaced_rows`,
//! where effects on it go on, and returns once the value is free. Both steps are captured like effects on rows, so a
//! rewind to any position undoes them exactly.
//!
//! # Invariants
//! - A displaced row is in no tracked table, and what is in a tracked table is not displaced.
//! - While any row is displaced, the engine judges nothing: it applies patches only.

use rusqlite::ffi;
use uuid::Uuid;

use super::SqliteTxn;
use super::capture::DISPLACED;
use super::codec::{pack, unpack};
use super::place::is;
use super::undo::Captured;
use crate::model::{AudienceKey, Columns, Effect, RowId, RowKey, TableName, Value};
use crate::patch::fold;
use crate::store::StoreError;

struct Parked {
    row: RowKey,
    audience_key: AudienceKey,
    columns: Columns,
}

impl SqliteTxn<'_> {
    pub(super) fn has_displaced_rows(&self) -> Result<bool, StoreError> {
        if let Some(known) = self.displaced.get() {
            return Ok(known);
        }
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {DISPLACED})");
        let has = self.transaction.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        self.displaced.set(Some(has));
        Ok(has)
    }

    /// Gives a row an effect, and keeps the rows aside that are in its way; returns those.
    pub(super) fn displace(
        &self,
        key: &RowKey,
        audience: &AudienceKey,
        effect: &Effect,
    ) -> Result<Vec<(RowKey, AudienceKey)>, StoreError> {
        let before: i64 = self
            .transaction
            .prepare_cached("SELECT coalesce(max(seq), 0) FROM local_undo")?
            .query_row([], |row| row.get(0))?;
        self.force(key, audience, effect)?;
        let removed = self.captured_where(
            "SELECT table_name, row_id, audience_key, operation, image FROM local_undo \
             WHERE seq > ? AND operation = 'DELETE' ORDER BY seq",
            [before],
        )?;
        let mut rows = Vec::new();
        for Captured { row, audience_key, image, .. } in removed {
            if (&row, &audience_key) != (key, audience) {
                self.park(&row, &audience_key, &image.0)?;
                rows.push((row, audience_key));
            }
        }
        Ok(rows)
    }

    /// Keeps a row aside that is in no table.
    pub(super) fn park(&self, row: &RowKey, audience: &AudienceKey, columns: &Columns) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT OR REPLACE INTO {DISPLACED} (id, audience_key, table_name, row_id, columns) VALUES (?, ?, ?, ?, ?)"
        );
        let values = (key_of(row, audience), audience.as_str(), row.table.as_str(), row.row_id.as_str(), pack(columns));
        self.transaction.prepare_cached(&sql)?.execute(values)?;
        self.displaced.set(Some(true));
        Ok(())
    }

    /// Gives a displaced row its next effect. False if the row is none, or is now given as a whole: then the effect goes
    /// to its table.
    pub(super) fn is_taken_by_displaced(
        &self,
        key: &RowKey,
        audience: &AudienceKey,
        effect: &Effect,
    ) -> Result<bool, StoreError> {
        let Some(parked) = self.parked(key, audience)? else { return Ok(false) };
        match (effect, fold(Some(parked.columns), effect)) {
            (Effect::Update(_), Some(columns)) => {
                let sql = format!("UPDATE {DISPLACED} SET columns = ? WHERE {THE_ROW}");
                let (table, row_id, audience) = place_of(key, audience);
                self.transaction.prepare_cached(&sql)?.execute((pack(&columns), table, row_id, audience))?;
                Ok(true)
            }
            (Effect::Nothing, _) => Ok(true),
            _ => self.unpark(key, audience).map(|()| false),
        }
    }

    /// Puts back every row whose place is free.
    pub(super) fn put_back_rows(&self) -> Result<(), StoreError> {
        while self.has_displaced_rows()? {
            let mut moved = false;
            for Parked { row, audience_key, columns } in self.all_parked()? {
                let Some(table) = self.capture.table(row.table.as_str()) else { continue };
                // A row that was made anew meanwhile has its say.
                if !self.row_exists(&table, [&Value::from(&row.row_id), &Value::from(&audience_key)])? {
                    match self.apply(&row, &audience_key, &Effect::Insert(columns)) {
                        Err(StoreError::Sql(error)) if is(&error, ffi::SQLITE_CONSTRAINT_UNIQUE) => continue,
                        placed => placed?,
                    }
                }
                self.unpark(&row, &audience_key)?;
                moved = true;
            }
            if !moved {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn is_displaced(&self, key: &RowKey, audience: &AudienceKey) -> Result<bool, StoreError> {
        Ok(self.has_displaced_rows()? && self.parked(key, audience)?.is_some())
    }

    fn unpark(&self, key: &RowKey, audience: &AudienceKey) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM {DISPLACED} WHERE {THE_ROW}");
        self.transaction.prepare_cached(&sql)?.execute(place_of(key, audience))?;
        self.displaced.set(None);
        Ok(())
    }

    fn parked(&self, key: &RowKey, audience: &AudienceKey) -> Result<Option<Parked>, StoreError> {
        Ok(self.parked_where(&format!("WHERE {THE_ROW}"), place_of(key, audience))?.pop())
    }

    fn all_parked(&self) -> Result<Vec<Parked>, StoreError> {
        self.parked_where("ORDER BY id", [])
    }

    fn parked_where(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Parked>, StoreError> {
        let damaged = |what| StoreError::Damaged { what };
        let sql = format!("SELECT table_name, row_id, audience_key, columns FROM {DISPLACED} {sql}");
        let mut statement = self.transaction.prepare_cached(&sql)?;
        let mut rows = statement.query(params)?;
        let mut parked = Vec::new();
        while let Some(row) = rows.next()? {
            parked.push(Parked {
                row: RowKey {
                    table: TableName::new(row.get::<_, String>(0)?)
                        .map_err(|_| damaged("local_displaced_rows.table_name"))?,
                    row_id: RowId::new(row.get::<_, String>(1)?).map_err(|_| damaged("local_displaced_rows.row_id"))?,
                },
                audience_key: AudienceKey::new(row.get::<_, String>(2)?)
                    .map_err(|_| damaged("local_displaced_rows.audience_key"))?,
                columns: unpack(&row.get::<_, Vec<u8>>(3)?, "local_displaced_rows.columns")?,
            });
        }
        Ok(parked)
    }
}

/// Rows are looked up by what they are: a file of an older version has ids that do not name the audience.
const THE_ROW: &str = "table_name = ? AND row_id = ? AND audience_key = ?";

fn place_of<'k>(key: &'k RowKey, audience: &'k AudienceKey) -> (&'k str, &'k str, &'k str) {
    (key.table.as_str(), key.row_id.as_str(), audience.as_str())
}

/// One text for a row of any table and audience, short enough for an undo entry's row id.
fn key_of(key: &RowKey, audience: &AudienceKey) -> String {
    let name = rmp_serde::to_vec(&place_of(key, audience)).expect("BUG: texts have a MessagePack form");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &name).to_string()
}
