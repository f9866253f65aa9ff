//! Undo: captured effects are taken back, newest first.
//!
//! Nearly always each finds the rows as it left them. Not so where whole audiences came or went since, which leaves no trace
//! for undo: a row of a snapshot, or one that came back when another audience was left, may hold the value or the id that
//! an older row needs again. It is displaced then, as by a patch, and returns when its place is free. Nothing older that is
//! still to be undone is about such a row where it is now: it has no undo, since its audience came whole, or it was
//! displaced at that time too, and what is older begins with that.

use rusqlite::{OptionalExtension, ffi};

use super::SqliteTxn;
use super::capture::{DISPLACED, Mode};
use super::codec::{Image, unpack};
use super::place::is;
use crate::model::{ActionId, AudienceKey, AudienceRow, Effect, Operation, RowId, RowKey, TableName};
use crate::store::StoreError;

/// One row of `local_undo`.
pub(super) struct Captured {
    pub(super) row: AudienceRow,
    pub(super) operation: Operation,
    pub(super) image: Image,
}

impl Captured {
    /// The effect that takes this one back.
    fn inverse(&self) -> Effect {
        let before = || self.image.0.clone();
        match self.operation {
            Operation::Insert => Effect::Delete,
            Operation::Update => Effect::Update(before()),
            Operation::Delete => Effect::Insert(before()),
            Operation::Nothing => Effect::Nothing,
        }
    }
}

impl SqliteTxn<'_> {
    pub(super) fn captured_where(&self, sql: &str, key: impl rusqlite::Params) -> Result<Vec<Captured>, StoreError> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows = statement.query(key)?;
        let mut captured = Vec::new();
        while let Some(row) = rows.next()? {
            let damaged = |what| StoreError::Damaged { what };
            let operation = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
            let key = RowKey {
                table: TableName::new(row.get::<_, String>(0)?).map_err(|_| damaged("local_undo.table_name"))?,
                row_id: RowId::new(row.get::<_, String>(1)?).map_err(|_| damaged("local_undo.row_id"))?,
            };
            let audience_key =
                AudienceKey::new(row.get::<_, String>(2)?).map_err(|_| damaged("local_undo.audience_key"))?;
            captured.push(Captured {
                row: AudienceRow { row: key, audience_key },
                operation: Operation::parse(operation).ok_or_else(|| damaged("local_undo.operation"))?,
                image: unpack(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?, "local_undo.image")?,
            });
        }
        Ok(captured)
    }

    pub(super) fn action_of(&self, sql: &str) -> Result<Option<ActionId>, StoreError> {
        let id: Option<[u8; 16]> = self.transaction.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        Ok(id.map(|id| ActionId::from_uuid(uuid::Uuid::from_bytes(id))))
    }

    /// Takes back everything from the first effect of `action` on; returns the rows that this touched.
    pub(super) fn undo_from(&self, action: ActionId) -> Result<Vec<RowKey>, StoreError> {
        let first: Option<i64> = self
            .transaction
            .prepare_cached("SELECT min(seq) FROM local_undo WHERE action_id = ?")?
            .query_row([action.as_uuid().as_bytes()], |row| row.get(0))?;
        let Some(first) = first else { return Ok(Vec::new()) };
        let newest_first = self.captured_where(
            "SELECT table_name, row_id, audience_key, operation, image FROM local_undo WHERE seq >= ? ORDER BY seq DESC",
            [first],
        )?;
        self.enforce_foreign_keys(false)?;
        let displaced: Result<Vec<_>, StoreError> =
            newest_first.iter().map(|captured| self.undo(captured, action)).collect();
        self.capture.close();
        self.displaced.set(None);
        let displaced = displaced?.into_iter().flatten().map(|row| row.row);
        self.transaction.prepare_cached("DELETE FROM local_undo WHERE seq >= ?")?.execute([first])?;
        let undone = newest_first.into_iter().map(|captured| captured.row.row);
        Ok(undone.filter(|row| row.table.as_str() != DISPLACED).chain(displaced).collect())
    }

    /// Takes one effect back; returns the rows that are displaced by it. To see them go, it captures that as effects of
    /// `action`, which end with the others.
    fn undo(&self, captured: &Captured, action: ActionId) -> Result<Vec<AudienceRow>, StoreError> {
        let (row, inverse) = (&captured.row, captured.inverse());
        self.capture.set(Mode::Rewind);
        match self.apply(row, &inverse) {
            Err(StoreError::Sql(error)) if is(&error, ffi::SQLITE_CONSTRAINT_UNIQUE) => {
                self.capture.set(Mode::Patch(action));
                self.displace(row, &inverse)
            }
            undone => undone.map(|()| Vec::new()),
        }
    }
}
