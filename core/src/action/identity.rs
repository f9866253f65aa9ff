//! Tracked tables, and row ids that are the same on every replay.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::ActionError;
use crate::model::{ActionId, RowId, Value};

/// A table that the app wants synced.
///
/// # What it must be
/// Opening the database refuses others, and says what to write instead.
/// - It has a primary key `id` and a column `audience_key`, plain or generated, both of type TEXT, which no collation but
///   `BINARY` compares. Other columns may have any collation.
/// - Foreign keys from it or to it hold at each statement: not `INITIALLY DEFERRED`, which fails at the commit, after the action.
/// - Neither it nor a trigger on it says `ROLLBACK`.
///
/// # Triggers
/// A trigger that writes a tracked table, itself or through others, or that says `RAISE`, is a rule of the app's actions: it
/// fires while an action runs, and what it does is in the action's patch. It does not fire again when that patch is applied on
/// another device, taken back, or loaded with a snapshot. To that end the library adds a condition to its definition.
///
/// Every other trigger, such as one that keeps a full-text index or another local table, fires at each change of a row,
/// whoever makes it. It must not fail: nothing of the server's would go past it. `TEMP` triggers may be of this kind only.
///
/// ```
/// use synchrotron_core::action::Table;
/// let notes = Table::new("notes").identity(["owner", "title"]);
/// assert_eq!(notes.name(), "notes");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    name: String,
    identity: Option<Identity>,
}

/// Where the primary keys of a table's new rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// UUIDv5 of the action's id, the table and these columns of the row.
    Columns(Vec<String>),
    /// The app's actions give ids themselves.
    Given,
}

impl Table {
    /// Names a table. It must then be given an identity.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), identity: None }
    }

    /// New rows take their id from these columns: two rows that an action inserts differ in at least one of them.
    #[must_use]
    pub fn identity<C: Into<String>>(self, columns: impl IntoIterator<Item = C>) -> Self {
        Self { identity: Some(Identity::Columns(columns.into_iter().map(Into::into).collect())), ..self }
    }

    /// Actions give the ids of new rows, for example natural keys.
    #[must_use]
    pub fn given_ids(self) -> Self {
        Self { identity: Some(Identity::Given), ..self }
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where row ids come from, once that was said.
    #[must_use]
    pub fn row_identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// The identities of all tracked tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables(BTreeMap<String, Identity>);

impl Tables {
    pub(crate) fn new(tables: impl IntoIterator<Item = (String, Identity)>) -> Self {
        Self(tables.into_iter().collect())
    }

    fn identity_columns(&self, table: &str) -> Result<&[String], ActionError> {
        match self.0.get(table) {
            Some(Identity::Columns(columns)) => Ok(columns),
            Some(Identity::Given) => Ok(&[]),
            None => Err(ActionError::UntrackedTable { table: table.to_owned() }),
        }
    }

    /// The id of the row that `action` inserts into `table` with these values: the given `id`, or the derived one.
    pub(crate) fn row_id(&self, action: ActionId, table: &str, row: &[(&str, Value)]) -> Result<RowId, ActionError> {
        let identity = self.identity_columns(table)?;
        if identity.is_empty() {
            return given_id(table, row);
        }
        let mut name = canonical_text(table);
        for column in identity {
            let (_, value) = row.iter().find(|(given, _)| given == column).ok_or_else(|| {
                ActionError::IdentityColumnMissing { table: table.to_owned(), column: column.clone() }
            })?;
            name.extend(canonical_text(column));
            name.extend(canonical_value(value));
        }
        let id = Uuid::new_v5(action.as_uuid(), &name);
        Ok(RowId::new(id.to_string()).expect("BUG: a UUID's text is a row id"))
    }
}

fn given_id(table: &str, row: &[(&str, Value)]) -> Result<RowId, ActionError> {
    let missing = || ActionError::IdentityColumnMissing { table: table.to_owned(), column: "id".to_owned() };
    let (_, value) = row.iter().find(|(column, _)| *column == "id").ok_or_else(missing)?;
    match value {
        Value::Text(id) => RowId::new(id.clone()).map_err(|_| missing()),
        _ => Err(missing()),
    }
}

/// Length-prefixed, so that no two different lists of columns have one encoding.
fn canonical_text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_be_bytes()[..], text.as_bytes()].concat()
}

/// MessagePack of the value: every value has exactly one form.
fn canonical_value(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("BUG: every value has a MessagePack form")
}

/// The rows that one action has inserted through its context so far.
#[derive(Debug, Default)]
pub(crate) struct Inserted(BTreeSet<(String, RowId)>);

impl Inserted {
    /// Notes an insert; a second one with the same identity is the app's mistake.
    pub(crate) fn note(&mut self, tables: &Tables, table: &str, id: &RowId) -> Result<(), ActionError> {
        if self.0.insert((table.to_owned(), id.clone())) {
            return Ok(());
        }
        let columns = match tables.identity_columns(table)? {
            [] => vec!["id".to_owned()],
            columns => columns.to_vec(),
        };
        Err(ActionError::IdentityCollision { table: table.to_owned(), columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        Tables::new([
            ("notes".to_owned(), Identity::Columns(vec!["owner".to_owned(), "title".to_owned()])),
            ("seats".to_owned(), Identity::Given),
        ])
    }

    fn action(n: u128) -> ActionId {
        ActionId::from_uuid(Uuid::from_u128(n))
    }

    fn note(owner: &str, title: &str) -> Vec<(&'static str, Value)> {
        vec![("title", title.into()), ("owner", owner.into()), ("body", "whatever".into())]
    }

    #[test]
    fn the_same_identity_in_the_same_action_gives_the_same_id() {
        let id = |action, row: &[(&str, Value)]| tables().row_id(action, "notes", row).expect("ids");
        let first = id(action(1), &note("a", "t"));
        assert_eq!(first, id(action(1), &note("a", "t")));
        assert_ne!(first, id(action(2), &note("a", "t")));
        assert_ne!(first, id(action(1), &note("a", "u")));
        assert_ne!(id(action(1), &note("ab", "c")), id(action(1), &note("a", "bc")));
    }

    #[test]
    fn a_missing_identity_column_is_named() {
        let error = tables().row_id(action(1), "notes", &[("owner", "a".into())]).expect_err("lacks title");
        assert_eq!(error, ActionError::IdentityColumnMissing { table: "notes".into(), column: "title".into() });
    }

    #[test]
    fn an_untracked_table_is_named() {
        let error = tables().row_id(action(1), "other", &[]).expect_err("unknown");
        assert_eq!(error, ActionError::UntrackedTable { table: "other".into() });
    }

    #[test]
    fn a_second_insert_of_one_identity_names_the_columns() {
        let mut inserted = Inserted::default();
        let id = RowId::new("x").expect("ok");
        inserted.note(&tables(), "notes", &id).expect("first");
        let error = inserted.note(&tables(), "notes", &id).expect_err("second");
        let columns = vec!["owner".to_owned(), "title".to_owned()];
        assert_eq!(error, ActionError::IdentityCollision { table: "notes".into(), columns });
    }
}
