//! The purity check: an action runs twice on the same rows, and must do the same both times.
//!
//! Place in the journey: in `execute`, for development. Impure code never breaks convergence, but every replica would
//! have to correct it. The check finds what differs within one process: counters, hash maps' order, random numbers, a
//! clock read twice. It cannot find what differs between machines only.

use std::collections::BTreeSet;
use std::fmt;

use super::ExecuteError;
use crate::action::ActionError;
use crate::model::{
    ActionRecord, AudienceRow, Columns, Effect, Operation, Patch, RecordBody, RowId, RowKey, TableName,
};
use crate::patch::{NetEffects, net_effects};
use crate::store::{StoreError, StoreTxn};

/// As many differences as help.
const DIFFERENCES_MAX: usize = 8;

/// What two runs of one action did not have in common. Names only, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Impurity {
    /// One run succeeded, the other failed, or they failed for different reasons.
    Outcome,
    /// The same effects in another order.
    Order,
    /// Effects on these rows; only the first few.
    Rows(Vec<RowDifference>),
}

/// Where two runs differ in one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDifference {
    /// The row's table.
    pub table: TableName,
    /// The row.
    pub row_id: RowId,
    /// What differs.
    pub differs: Differs,
}

/// What differs in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differs {
    /// The value that the runs gave this column, or whether they set it.
    Column(String),
    /// What the runs did to the row; `None`: nothing.
    Operation {
        /// In the first run.
        first: Option<Operation>,
        /// In the second run.
        second: Option<Operation>,
    },
    /// The audience that the runs gave the row.
    Audience,
}

impl fmt::Display for Impurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = match self {
            Self::Outcome => return f.write_str("one run failed, or both for different reasons"),
            Self::Order => return f.write_str("the same effects in another order"),
            Self::Rows(rows) => rows,
        };
        for (index, RowDifference { table, row_id, differs }) in rows.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}row {row_id} of {table}: ")?;
            let name = |operation: &Option<Operation>| operation.map_or("nothing", Operation::as_str);
            match differs {
                Differs::Column(column) => write!(f, "column {column}")?,
                Differs::Operation { first, second } => write!(f, "first {}, then {}", name(first), name(second))?,
                Differs::Audience => f.write_str("audience_key")?,
            }
        }
        Ok(())
    }
}

/// What one run came to.
pub(super) type Tried<T> = Result<(T, Vec<Patch>), ActionError>;

/// Runs an action once for show and once for good.
pub(super) fn run_twice<T>(
    txn: &dyn StoreTxn,
    record: &ActionRecord,
    run: impl Fn() -> Result<Tried<T>, StoreError>,
) -> Result<Tried<T>, ExecuteError> {
    txn.savepoint()?;
    let first = run();
    txn.rollback_to_savepoint()?;
    let (first, second) = (first?, run()?);
    let impurity = match (&first, &second) {
        (Ok((_, first)), Ok((_, second))) => between(first, second),
        (Err(first), Err(second)) if first == second => None,
        _ => Some(Impurity::Outcome),
    };
    match (impurity, &record.body) {
        (Some(difference), RecordBody::Action { tag, .. }) => {
            Err(ExecuteError::Impure { tag: tag.clone(), difference })
        }
        (None, _) | (_, RecordBody::Correction { .. }) => Ok(second),
    }
}

/// What two runs' effects do not have in common.
fn between(first: &[Patch], second: &[Patch]) -> Option<Impurity> {
    if first == second {
        return None;
    }
    let (first, second) = (net_effects(first), net_effects(second));
    if first == second {
        return Some(Impurity::Order);
    }
    let rows: BTreeSet<&AudienceRow> = first.keys().chain(second.keys()).collect();
    let rows = Vec::from_iter(rows);
    let differences = rows.chunk_by(|a, b| a.row == b.row).flat_map(|rows| {
        let RowKey { table, row_id } = &rows[0].row;
        let named = |differs| RowDifference { table: table.clone(), row_id: row_id.clone(), differs };
        of_one_id(rows, &first, &second).into_iter().map(named)
    });
    Some(Impurity::Rows(differences.take(DIFFERENCES_MAX).collect()))
}

/// Where both runs have the id, in different audiences, that is the difference; else each row has its own.
fn of_one_id(rows: &[&AudienceRow], first: &NetEffects, second: &NetEffects) -> Vec<Differs> {
    let [in_first, in_second] = [first, second].map(|run| rows.iter().filter(|row| run.contains_key(**row)).count());
    if in_first > 0 && in_second > 0 && (in_first, in_second) != (rows.len(), rows.len()) {
        return vec![Differs::Audience];
    }
    rows.iter().flat_map(|row| of_row(first.get(*row), second.get(*row))).collect()
}

fn of_row(first: Option<&Effect>, second: Option<&Effect>) -> Vec<Differs> {
    if first.map(Effect::operation) != second.map(Effect::operation) {
        let (first, second) = (first.map(Effect::operation), second.map(Effect::operation));
        return vec![Differs::Operation { first, second }];
    }
    let none = Columns::new();
    let columns = |effect: Option<&'_ Effect>| effect.and_then(Effect::columns).unwrap_or(&none).clone();
    let (first, second) = (columns(first), columns(second));
    let names: BTreeSet<_> = first.keys().chain(second.keys()).collect();
    let unlike = names.into_iter().filter(|name| first.get(*name) != second.get(*name));
    unlike.cloned().map(Differs::Column).collect()
}
