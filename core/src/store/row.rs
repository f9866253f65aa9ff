//! A row of a query's answer.

use std::sync::Arc;

use crate::action::ActionError;
use crate::model::{Columns, FromValue, Value};

/// One row of a query, its values by column name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(crate) fn new(names: Arc<[String]>, values: Vec<Value>) -> Self {
        Self { names, values }
    }

    /// The value of a column as a Rust type.
    ///
    /// # Errors
    /// [`ActionError::NoColumn`] or [`ActionError::Column`].
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, ActionError> {
        let index = self
            .names
            .iter()
            .position(|name| name == column)
            .ok_or_else(|| ActionError::NoColumn { column: column.to_owned() })?;
        T::from_value(self.values[index].clone())
            .map_err(|source| ActionError::Column { column: column.to_owned(), source })
    }

    /// All columns by name.
    #[must_use]
    pub fn columns(&self) -> Columns {
        self.names.iter().cloned().zip(self.values.iter().cloned()).collect()
    }
}
