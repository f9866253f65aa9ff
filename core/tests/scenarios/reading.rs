//! What a story reads from a device: as an app does, on a connection of its own.

use std::collections::BTreeMap;

use synchrotron_core::model::{Columns, RowId, RowKey, TableName, Value};
use synchrotron_core::store::{Reader, Row};

use crate::device::{Device, TRACKED};

impl Device {
    pub(crate) fn rows(&self, sql: &str) -> Vec<Columns> {
        let reader = Reader::open(self.path()).expect("opens");
        reader.query(sql, &[]).expect("a good query").iter().map(Row::columns).collect()
    }

    /// The first value of a query's answer.
    pub(crate) fn value(&self, sql: &str) -> Option<Value> {
        self.rows(sql).into_iter().next().and_then(|columns| columns.into_values().next())
    }

    pub(crate) fn count(&self, table: &str) -> i64 {
        match self.value(&format!("SELECT count(*) FROM {table}")) {
            Some(Value::Integer(count)) => count,
            other => unreachable!("count(*) is an integer, not {other:?}"),
        }
    }

    /// How many corrections this device's log holds.
    pub(crate) fn corrections(&self) -> i64 {
        self.count("action_records WHERE tag IS NULL")
    }

    /// A column of a note; "none" if there is no such note.
    fn of_note(&self, note: &str, column: &str) -> String {
        match self.value(&format!("SELECT {column} FROM notes WHERE id = '{note}'")) {
            Some(Value::Text(text) | Value::Json(text)) => text,
            None => "none".to_owned(),
            other => unreachable!("{column} is text, not {other:?}"),
        }
    }

    pub(crate) fn title(&self, note: &str) -> String {
        self.of_note(note, "title")
    }

    pub(crate) fn content(&self, note: &str) -> String {
        self.of_note(note, "content")
    }

    pub(crate) fn tags(&self, note: &str) -> String {
        self.of_note(note, "tags")
    }

    /// Every row of every tracked table, as the server tells them.
    pub(crate) fn all_rows(&self) -> BTreeMap<RowKey, Columns> {
        let of_table = |table: &'static str| {
            self.rows(&format!("SELECT * FROM {table}")).into_iter().map(move |mut columns| {
                columns.remove("audience_key");
                let Some(Value::Text(id)) = columns.remove("id") else { unreachable!("id is text") };
                let (table, row_id) = (TableName::new(table).expect("a name"), RowId::new(id).expect("not empty"));
                (RowKey { table, row_id }, columns)
            })
        };
        TRACKED.into_iter().flat_map(of_table).collect()
    }

    /// Through where this device has an audience; -1 if it is not in it.
    pub(crate) fn cursor(&self, audience: &str) -> i64 {
        match self.value(&format!("SELECT cursor FROM client_audiences WHERE audience_key = '{audience}'")) {
            Some(Value::Integer(cursor)) => cursor,
            _ => -1,
        }
    }
}
