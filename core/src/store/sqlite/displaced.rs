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
use crate::model::{AudienceKey, AudienceRow, Columns, Effect, RowId, RowKey, TableName, Value};
use crate::patch::fold;
use crate::store::StoreError;

struct Parked {
    row: AudienceRow,
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
    pub(super) fn displace(&self, row: &AudienceRow, effect: &Effect) -> Result<Vec<AudienceRow>, StoreError> {
        let before: i64 = self
            .transaction
            .prepare_cached("SELECT coalesce(max(seq), 0) FROM local_undo")?
            .query_row([], |row| row.get(0))?;
        self.force(row, effect)?;
        let removed = self.captured_where(
            "SELECT table_name, row_id, audience_key, operation, image FROM local_undo \
             WHERE seq > ? AND operation = 'DELETE' ORDER BY seq",
            [before],
        )?;
        let mut displaced = Vec::new();
        for removed in removed.into_iter().filter(|removed| removed.row != *row) {
            self.park(&removed.row, &removed.image.0)?;
            displaced.push(removed.row);
        }
        Ok(displaced)
    }

    /// Keeps a row aside that is in no table.
    pub(super) fn park(&self, row: &AudienceRow, columns: &Columns) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT OR REPLACE INTO {DISPLACED} (id, audience_key, table_name, row_id, columns) VALUES (?, ?, ?, ?, ?)"
        );
        let (table, row_id, audience) = place_of(row);
        let values = (key_of(row), audience, table, row_id, pack(columns));
        self.transaction.prepare_cached(&sql)?.execute(values)?;
        self.displaced.set(Some(true));
        Ok(())
    }

    /// Gives a displaced row its next effect. False if the row is none, or is now given as a whole: then the effect goes
    /// to its table.
    pub(super) fn is_taken_by_displaced(&self, row: &AudienceRow, effect: &Effect) -> Result<bool, StoreError> {
        let Some(parked) = self.parked(row)? else { return Ok(false) };
        match (effect, fold(Some(parked.columns), effect)) {
            (Effect::Update(_), Some(columns)) => {
                let sql = format!("UPDATE {DISPLACED} SET columns = ? WHERE {THE_ROW}");
                let (table, row_id, audience) = place_of(row);
                self.transaction.prepare_cached(&sql)?.execute((pack(&columns), table, row_id, audience))?;
                Ok(true)
            }
            (Effect::Nothing, _) => Ok(true),
            _ => self.unpark(row).map(|()| false),
        }
    }

    /// Puts back every row whose place is free.
    pub(super) fn put_back_rows(&self) -> Result<(), StoreError> {
        while self.has_displaced_rows()? {
            let mut moved = false;
            for Parked { row, columns } in self.all_parked()? {
                let Some(table) = self.capture.table(row.row.table.as_str()) else { continue };
                // A row that was made anew meanwhile has its say.
                if !self.row_exists(&table, [&Value::from(&row.row.row_id), &Value::from(&row.audience_key)])? {
                    match self.apply(&row, &Effect::Insert(columns)) {
                        Err(StoreError::Sql(error)) if is(&error, ffi::SQLITE_CONSTRAINT_UNIQUE) => continue,
                        placed => placed?,
                    }
                }
                self.unpark(&row)?;
                moved = true;
            }
            if !moved {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn is_displaced(&self, row: &AudienceRow) -> Result<bool, StoreError> {
        Ok(self.has_displaced_rows()? && self.parked(row)?.is_some())
    }

    fn unpark(&self, row: &AudienceRow) -> Result<(), StoreError> {
        let sql = format!("DELETE FROM {DISPLACED} WHERE {THE_ROW}");
        self.transaction.prepare_cached(&sql)?.execute(place_of(row))?;
        self.displaced.set(None);
        Ok(())
    }

    fn parked(&self, row: &AudienceRow) -> Result<Option<Parked>, StoreError> {
        Ok(self.parked_where(&format!("WHERE {THE_ROW}"), place_of(row))?.pop())
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
            let key = RowKey {
                table: TableName::new(row.get::<_, String>(0)?)
                    .map_err(|_| damaged("local_displaced_rows.table_name"))?,
                row_id: RowId::new(row.get::<_, String>(1)?).map_err(|_| damaged("local_displaced_rows.row_id"))?,
            };
            let audience_key =
                AudienceKey::new(row.get::<_, String>(2)?).map_err(|_| damaged("local_displaced_rows.audience_key"))?;
            parked.push(Parked {
                row: AudienceRow { row: key, audience_key },
                columns: unpack(&row.get::<_, Vec<u8>>(3)?, "local_displaced_rows.columns")?,
            });
        }
        Ok(parked)
    }
}

/// Rows are looked up by what they are: a file of an older version has ids that do not name the audience.
const THE_ROW: &str = "table_name = ? AND row_id = ? AND audience_key = ?";

fn place_of(AudienceRow { row, audience_key }: &AudienceRow) -> (&str, &str, &str) {
    (row.table.as_str(), row.row_id.as_str(), audience_key.as_str())
}

/// One text for a row of any table and audience, short enough for an undo entry's row id.
fn key_of(row: &AudienceRow) -> String {
    let name = rmp_serde::to_vec(&place_of(row)).expect("BUG: texts have a MessagePack form");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &name).to_string()
}
