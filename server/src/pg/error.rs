//! What an error of Postgres says about an upload: the record is at fault, or the server is.
//!
//! Invariant: of an error only SQLSTATE and the names of table, constraint and column are passed on. Messages and details
//! of Postgres quote row values.

use sqlx_postgres::PgDatabaseError;
use synchrotron_core::wire::RejectionKind;

/// The record is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// In which way.
    pub(crate) kind: RejectionKind,
    /// The fact, without row values.
    pub(crate) reason: String,
    /// Whether Postgres had asked its policies before it found this.
    pub(crate) after_policies: bool,
}

/// The complaint about a record, or the error itself if it is the server's trouble.
pub(crate) fn classify(error: sqlx_core::Error) -> Result<Complaint, sqlx_core::Error> {
    let sqlx_core::Error::Database(database) = &error else { return Err(error) };
    let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() else { return Err(error) };
    let Some(kind) = kind_of(postgres) else { return Err(error) };
    let mut reason = format!("SQLSTATE {}", postgres.code());
    for (what, name) in
        [("table", postgres.table()), ("constraint", postgres.constraint()), ("column", postgres.column())]
    {
        if let Some(name) = name {
            reason.push_str(&format!(", {what} {name}"));
        }
    }
    Ok(Complaint { kind, reason, after_policies: is_after_policies(postgres) })
}

/// Constraints of tables are checked after policies. Values are cast, domains checked and triggers run before.
fn is_after_policies(error: &PgDatabaseError) -> bool {
    let of_a_table = error.table().is_some() && error.constraint().is_some();
    error.code().starts_with("23") && of_a_table && !is_raised(error)
}

/// Whether a function of the app says so, in any class it likes.
fn is_raised(error: &PgDatabaseError) -> bool {
    error.routine() == Some("exec_stmt_raise")
}

/// `None` is the server's trouble.
fn kind_of(error: &PgDatabaseError) -> Option<RejectionKind> {
    let of_a_value = || error.position().is_none() && NOT_READ.contains(&error.code());
    let of_the_app = || is_raised(error) && !is_trouble(error.code());
    kind_of_code(error.code()).or_else(|| (of_a_value() || of_the_app()).then_some(RejectionKind::Constraint))
}

/// Kinds by SQLSTATE.
fn kind_of_code(code: &str) -> Option<RejectionKind> {
    match (code, code.get(..2)?) {
        // insufficient_privilege: also what a violated row-level policy is reported as
        ("42501", _) => Some(RejectionKind::Denied),
        // data exceptions, integrity constraints, WITH CHECK OPTION, limits (such as an index entry's size), RAISE of a
        // trigger
        (_, "22" | "23" | "44" | "54" | "P0") => Some(RejectionKind::Constraint),
        _ => None,
    }
}

/// What types say of a text that they cannot read, or that names nothing: `jsonpath`, `tsquery`, `ltree`, `regclass`. Of a
/// statement of ours Postgres would say where in it the fault is.
const NOT_READ: [&str; 6] = ["42601", "42602", "42704", "42883", "42P01", "3F000"];

/// Transaction rollback, resources, the state of things, an operator, the system, connections, Postgres itself: it may go
/// well another time, whoever says so.
fn is_trouble(code: &str) -> bool {
    ["08", "40", "53", "55", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_trouble_is_never_the_records_fault() {
        // serialization, deadlock, lock timeout, shutdown, disk full, out of memory, connection lost, read only
        for code in ["40001", "40P01", "55P03", "57P01", "53100", "53200", "08006", "25006"] {
            assert_eq!(kind_of_code(code), None, "{code}");
            assert!(is_trouble(code) || code == "25006", "{code}");
        }
        assert_eq!(kind_of_code("42501"), Some(RejectionKind::Denied));
        assert_eq!(kind_of_code("23505"), Some(RejectionKind::Constraint));
    }
}
