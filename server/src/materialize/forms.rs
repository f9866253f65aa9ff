//! Values on their way out of a Postgres column: the reverse of [`values`](super::values).
//!
//! Place in the journey: snapshots and digests read rows by these forms; patches carry what a device wrote. The two are
//! equal where devices write a type in its one form, and keep it in a SQLite column that does not bend it: `docs/apps.md`
//! lists both per type.
//!
//! Invariant: reading a form's value back into its column changes nothing.

use sqlx_core::row::Row;
use sqlx_postgres::PgRow;
use sqlx_postgres::types::Oid;
use synchrotron_core::model::Value;

use crate::pg::unreadable;

/// What a column's type is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A bool.
    Bool,
    /// An integer.
    Integer,
    /// A double.
    Real,
    /// A float of four bytes.
    Single,
    /// Bytes.
    Bytes,
    /// JSON.
    Json,
    /// `timestamp` or `timestamptz`.
    Time,
    /// `inet`, whose cast adds what its text leaves out.
    Address,
    /// Its text.
    Text,
}

/// What Postgres calls what is not a number.
const NAN: &str = "NaN";

/// Settings of the transaction that reads: Postgres writes many types as its session wants them.
pub(crate) const FORMS: &str = "/* forms */ SELECT set_config('TimeZone', 'UTC', true), \
    set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true), \
    set_config('extra_float_digits', '1', true), set_config('lc_monetary', 'C', true), \
    set_config('bytea_output', 'hex', true)";

impl Form {
    /// The form of a type that is no domain.
    pub(crate) const fn of_type(oid: Oid) -> Self {
        match oid.0 {
            16 => Self::Bool,
            17 => Self::Bytes,
            20 | 21 | 23 | 26 => Self::Integer,
            114 | 3802 => Self::Json,
            700 => Self::Single,
            701 => Self::Real,
            869 => Self::Address,
            1114 | 1184 => Self::Time,
            _ => Self::Text,
        }
    }

    /// The expression that selects a column in this form.
    pub(crate) fn select(self, quoted: &str) -> String {
        let cast = match self {
            Self::Bool => "boolean",
            Self::Integer => "bigint",
            Self::Real => "double precision",
            Self::Bytes => "bytea",
            Self::Address => return format!("CASE WHEN {quoted} IS NOT NULL THEN format('%s', {quoted}) END"),
            Self::Single | Self::Json | Self::Time | Self::Text => "text",
        };
        format!("{quoted}::{cast}")
    }

    /// The value that [`Self::select`] put there.
    pub(crate) fn read(self, row: &PgRow, index: usize) -> Result<Value, sqlx_core::Error> {
        let text = || row.try_get::<Option<String>, _>(index);
        Ok(match self {
            Self::Bool => row.try_get::<Option<bool>, _>(index)?.into(),
            Self::Integer => row.try_get::<Option<i64>, _>(index)?.into(),
            Self::Real => row.try_get::<Option<f64>, _>(index)?.map_or(Value::Null, real),
            Self::Bytes => row.try_get::<Option<Vec<u8>>, _>(index)?.into(),
            Self::Json => text()?.map_or(Value::Null, Value::Json),
            Self::Time => text()?.map(|text| time(&text)).into(),
            Self::Address | Self::Text => text()?.into(),
            Self::Single => match text()? {
                Some(digits) => real(digits.parse().map_err(unreadable)?),
                None => Value::Null,
            },
        })
    }
}

/// SQLite has no NaN: there, and on its way there, it is a text, which Postgres reads as the number again.
fn real(number: f64) -> Value {
    if number.is_nan() { Value::Text(NAN.to_owned()) } else { Value::Real(number) }
}

/// `2026-01-31 23:59:59.5+00` → `2026-01-31T23:59:59.5Z`. What is no moment (`infinity`) stays, and so does `BC`.
fn time(text: &str) -> String {
    let (moment, era) = match text.strip_suffix(" BC") {
        Some(moment) => (moment, " BC"),
        None => (text, ""),
    };
    let Some((date, time)) = moment.split_once(' ') else { return text.to_owned() };
    match time.strip_suffix("+00") {
        Some(time) => format!("{date}T{time}Z{era}"),
        None => format!("{date}T{time}{era}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_one_form() {
        for (postgres, ours) in [
            ("2026-01-31 23:59:59.5+00", "2026-01-31T23:59:59.5Z"),
            ("2026-01-31 23:59:59", "2026-01-31T23:59:59"),
            ("0044-03-15 00:00:00+00 BC", "0044-03-15T00:00:00Z BC"),
            ("-infinity", "-infinity"),
        ] {
            assert_eq!(time(postgres), ours);
        }
    }
}
