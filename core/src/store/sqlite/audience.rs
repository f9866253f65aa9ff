//! Audiences on SQLite: their state, their rows, and snapshots on their way.

use rusqlite::{OptionalExtension, ffi};

use super::SqliteTxn;
use super::capture::{DISPLACED, Mode};
use super::codec::{pack, unpack};
use super::place::is;
use super::tables::TrackedTable;
use crate::action::quoted;
use crate::model::{
    AudienceKey, AudienceRow, Columns, Cursor, Effect, RowId, RowKey, RowsDigest, SnapshotId, TableName,
};
use crate::store::{AudienceState, AudienceStore, Staged, StoreError};
use crate::wire::{SnapshotChunk, SnapshotPosition, SnapshotRow};

impl SqliteTxn<'_> {
    /// Writes rows that are no effects of any action. In a partial view a reference may point to a row that is not
    /// visible here, and no cascade may take rows of another audience along: foreign keys are the server's to check.
    fn write_uncaptured<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.enforce_foreign_keys(false)?;
        self.capture.set(Mode::Rewind);
        let written = write();
        self.capture.close();
        written
    }

    /// Empties every tracked table, and what is displaced from them; returns those that had rows.
    pub(super) fn empty_tracked_tables(&self) -> Result<Vec<TableName>, StoreError> {
        let mut emptied = Vec::new();
        self.write_uncaptured(|| {
            for table in self.capture.tables() {
                if self.transaction.execute(&format!("DELETE FROM {}", quoted(&table.name)), [])? > 0 {
                    emptied.extend(TableName::new(table.name.clone()));
                }
            }
            self.transaction.execute(&format!("DELETE FROM {DISPLACED}"), [])?;
            Ok(())
        })?;
        self.displaced.set(None);
        Ok(emptied)
    }

    fn each_row_of(
        &self,
        table: &TrackedTable,
        audience: Option<&AudienceKey>,
        each: &mut dyn FnMut(AudienceRow, &Columns),
    ) -> Result<(), StoreError> {
        let columns: String = table.columns.keys().map(|column| format!(", {}", quoted(column))).collect();
        let of_audience = if audience.is_some() { "WHERE \"audience_key\" = ?" } else { "" };
        let sql = format!("SELECT \"id\", \"audience_key\"{columns} FROM {} {of_audience}", quoted(&table.name));
        let mut statement = self.transaction.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(audience.map(AudienceKey::as_str)))?;
        let name = TableName::new(table.name.clone()).map_err(|_| StoreError::Damaged { what: "a table's name" })?;
        while let Some(row) = rows.next()? {
            let row_id =
                RowId::new(row.get::<_, String>(0)?).map_err(|_| StoreError::Damaged { what: "a row's id" })?;
            let audience_key = AudienceKey::new(row.get::<_, String>(1)?)
                .map_err(|_| StoreError::Damaged { what: "a row's audience_key" })?;
            let values = table
                .columns
                .iter()
                .zip(2..)
                .map(|((column, reading), index)| Ok((column.clone(), reading.read(row.get_ref(index)?)?)));
            let columns = values.collect::<Result<Columns, StoreError>>()?;
            each(AudienceRow { row: RowKey { table: name.clone(), row_id }, audience_key }, &columns);
        }
        Ok(())
    }
}

impl AudienceStore for SqliteTxn<'_> {
    fn audiences(&self) -> Result<Vec<(AudienceKey, AudienceState)>, StoreError> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT audience_key, cursor, stale, floor FROM client_audiences ORDER BY audience_key")?;
        let mut rows = statement.query([])?;
        let mut audiences = Vec::new();
        while let Some(row) = rows.next()? {
            let audience = AudienceKey::new(row.get::<_, String>(0)?)
                .map_err(|_| StoreError::Damaged { what: "client_audiences.audience_key" })?;
            let floor: Option<Vec<u8>> = row.get(3)?;
            let floor = floor.map(|packed| unpack(&packed, "client_audiences.floor")).transpose()?;
            audiences.push((audience, AudienceState { cursor: Cursor::new(row.get(1)?), stale: row.get(2)?, floor }));
        }
        Ok(audiences)
    }

    fn put_audience(&self, audience: &AudienceKey, state: &AudienceState) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO client_audiences (audience_key, cursor, stale, floor) VALUES (?, ?, ?, ?)",
            )?
            .execute((audience.as_str(), state.cursor.get(), state.stale, state.floor.as_ref().map(pack)))?;
        Ok(())
    }

    fn forget_audience(&self, audience: &AudienceKey) -> Result<Vec<TableName>, StoreError> {
        let mut emptied = Vec::new();
        self.write_uncaptured(|| {
            for table in self.capture.tables() {
                let sql = format!("DELETE FROM {} WHERE \"audience_key\" = ?", quoted(&table.name));
                if self.transaction.prepare_cached(&sql)?.execute([audience.as_str()])? > 0 {
                    emptied.extend(TableName::new(table.name.clone()));
                }
            }
            Ok(())
        })?;
        let key = [audience.as_str()];
        self.transaction.prepare_cached("DELETE FROM local_undo WHERE audience_key = ?")?.execute(key)?;
        let sql = format!("DELETE FROM {DISPLACED} WHERE audience_key = ?");
        self.write_uncaptured(|| Ok(self.transaction.prepare_cached(&sql)?.execute(key)?))?;
        self.displaced.set(None);
        self.transaction
            .prepare_cached(
                "DELETE FROM action_modified_rows WHERE audience_key = ? AND EXISTS (SELECT 1 FROM action_records \
                 WHERE id = action_id AND server_ingest_id IS NOT NULL)",
            )?
            .execute(key)?;
        self.transaction
            .prepare_cached(
                "DELETE FROM action_records WHERE server_ingest_id IS NOT NULL AND row_count > 0 \
                 AND NOT EXISTS (SELECT 1 FROM action_modified_rows WHERE action_id = id)",
            )?
            .execute([])?;
        self.transaction.prepare_cached("DELETE FROM client_audiences WHERE audience_key = ?")?.execute(key)?;
        Ok(emptied)
    }

    fn load_rows(&self, rows: &[SnapshotRow]) -> Result<(), StoreError> {
        self.write_uncaptured(|| {
            rows.iter().try_for_each(|row| {
                let key = RowKey { table: row.table.clone(), row_id: row.row_id.clone() };
                let place = AudienceRow { row: key, audience_key: row.audience_key.clone() };
                let effect = Effect::Insert(row.columns.clone());
                if !self.capture.fits([(row.table.as_str(), &effect)]) {
                    self.note_unfit_snapshot()?;
                }
                if self.capture.table(row.table.as_str()).is_none() {
                    return Ok(());
                }
                match self.apply(&place, &effect) {
                    // A row of another audience has its value, or its id.
                    Err(StoreError::Sql(error)) if is(&error, ffi::SQLITE_CONSTRAINT_UNIQUE) => {
                        self.park(&place, &row.columns)
                    }
                    placed => placed,
                }
            })
        })
    }

    fn return_displaced(&self) -> Result<(), StoreError> {
        if self.has_displaced_rows()? { self.write_uncaptured(|| self.put_back_rows()) } else { Ok(()) }
    }

    fn digest(&self, audience: &AudienceKey) -> Result<(u64, RowsDigest), StoreError> {
        let (mut count, mut digest) = (0, RowsDigest::default());
        for table in self.capture.tables() {
            self.each_row_of(&table, Some(audience), &mut |row, columns| {
                count += 1;
                digest.add(&row.row, columns);
            })?;
        }
        Ok((count, digest))
    }

    fn each_row(&self, each: &mut dyn FnMut(AudienceRow, RowsDigest)) -> Result<(), StoreError> {
        for table in self.capture.tables() {
            self.each_row_of(&table, None, &mut |row, columns| {
                let mut digest = RowsDigest::default();
                digest.add(&row.row, columns);
                each(row, digest);
            })?;
        }
        Ok(())
    }

    fn staged(&self) -> Result<Option<Staged>, StoreError> {
        let mut statement =
            self.transaction.prepare_cached("SELECT snapshot_id, chunks, header, rows_done FROM local_snapshot")?;
        let staged = statement.query_row([], |row| {
            let snapshot_id = SnapshotId::from_uuid(uuid::Uuid::from_bytes(row.get(0)?));
            let next = SnapshotPosition { snapshot_id, chunk: row.get(1)? };
            Ok((next, row.get::<_, Vec<u8>>(2)?, row.get::<_, i64>(3)?))
        });
        let Some((next, header, rows_done)) = staged.optional()? else { return Ok(None) };
        let header = unpack(&header, "local_snapshot.header")?;
        Ok(Some(Staged { next, header, rows_done: rows_done.cast_unsigned() }))
    }

    fn stage(&self, chunk: &SnapshotChunk) -> Result<(), StoreError> {
        if let Some(header) = &chunk.header {
            self.drop_staged()?;
            self.transaction
                .prepare_cached(
                    "INSERT INTO local_snapshot (one, snapshot_id, header, chunks, rows_done) \
                     VALUES (1, ?, ?, 0, 0)",
                )?
                .execute((chunk.position.snapshot_id.as_uuid().as_bytes(), pack(header)))?;
        }
        self.transaction
            .prepare_cached("INSERT INTO local_snapshot_chunks (chunk, rows) VALUES (?, ?)")?
            .execute((chunk.position.chunk, pack(&chunk.rows)))?;
        let rows = i64::try_from(chunk.rows.len()).expect("BUG: more rows than memory holds");
        self.transaction
            .prepare_cached("UPDATE local_snapshot SET chunks = ?, rows_done = rows_done + ?")?
            .execute((chunk.position.chunk + 1, rows))?;
        Ok(())
    }

    fn staged_rows(&self, chunk: u32) -> Result<Vec<SnapshotRow>, StoreError> {
        let packed: Vec<u8> = self
            .transaction
            .prepare_cached("SELECT rows FROM local_snapshot_chunks WHERE chunk = ?")?
            .query_row([chunk], |row| row.get(0))?;
        unpack(&packed, "local_snapshot_chunks.rows")
    }

    fn drop_staged(&self) -> Result<(), StoreError> {
        self.transaction.prepare_cached("DELETE FROM local_snapshot_chunks")?.execute([])?;
        self.transaction.prepare_cached("DELETE FROM local_snapshot")?.execute([])?;
        Ok(())
    }
}
