//! Modified rows: what an action did to one row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AudienceKey, AudienceRow, RowId, RowKey, TableName, Value};

/// Column values by name. The primary key and `audience_key` are never among them: they travel beside.
pub type Columns = BTreeMap<String, Value>;

/// What is done to a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Effect {
    /// Sets the whole row: every column that the table had.
    Insert(Columns),
    /// Sets these columns, explicit nulls included; does nothing to an absent row.
    Update(Columns),
    /// Removes the row; does nothing to an absent one.
    Delete,
    /// Has no effect. Only in corrections, where it takes back what an action did to the row.
    Nothing,
}

/// The name of an [`Effect`]'s kind, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// See [`Effect::Insert`].
    Insert,
    /// See [`Effect::Update`].
    Update,
    /// See [`Effect::Delete`].
    Delete,
    /// See [`Effect::Nothing`].
    Nothing,
}

impl Operation {
    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Nothing => "NOTHING",
        }
    }

    /// From the stored name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Insert, Self::Update, Self::Delete, Self::Nothing]
            .into_iter()
            .find(|operation| operation.as_str() == name)
    }

    /// The effect of this kind with these columns, which kinds without columns ignore.
    #[must_use]
    pub fn with_columns(self, columns: Columns) -> Effect {
        match self {
            Self::Insert => Effect::Insert(columns),
            Self::Update => Effect::Update(columns),
            Self::Delete => Effect::Delete,
            Self::Nothing => Effect::Nothing,
        }
    }
}

impl Effect {
    /// The kind of this effect.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Insert(_) => Operation::Insert,
            Self::Update(_) => Operation::Update,
            Self::Delete => Operation::Delete,
            Self::Nothing => Operation::Nothing,
        }
    }

    /// The columns it sets, if its kind sets any.
    #[must_use]
    pub const fn columns(&self) -> Option<&Columns> {
        match self {
            Self::Insert(columns) | Self::Update(columns) => Some(columns),
            Self::Delete | Self::Nothing => None,
        }
    }
}

/// One row effect of one action (a modified row).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct Patch {
    /// Place among the action's effects, from 0.
    pub sequence: u32,
    /// The row's table.
    pub table: TableName,
    /// The row.
    pub row_id: RowId,
    /// Who may see the row; the same for the row's whole life.
    pub audience_key: AudienceKey,
    /// What is done to it.
    pub effect: Effect,
}

impl Patch {
    /// The row it is about.
    #[must_use]
    pub fn row_key(&self) -> RowKey {
        RowKey { table: self.table.clone(), row_id: self.row_id.clone() }
    }

    /// The row it is about, in its audience.
    #[must_use]
    pub fn audience_row(&self) -> AudienceRow {
        AudienceRow { row: self.row_key(), audience_key: self.audience_key.clone() }
    }
}
