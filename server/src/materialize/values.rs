//! Values on their way into a Postgres column: as text, which the column's type then reads.
//!
//! # Invariants
//! - A value is stored as what it is, or refused: nothing is bent to fit (no bytes as text, no bool as a word).
//! - A real that is not a number is refused, as no device could take it: it travels as the text `NaN`.
//! - A refusal names the kinds, never the value.

use synchrotron_core::model::Value;

use super::catalogue::Class;

/// A value of a kind that the column does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of type {column_type} takes no {kind}")]
pub(crate) struct KindMismatch {
    /// The column.
    pub(crate) column: String,
    /// Its type.
    pub(crate) column_type: String,
    /// The value's kind.
    pub(crate) kind: &'static str,
}

/// Whether a column of this class takes the value at all; its type still has to like the content.
pub(crate) const fn takes(class: Class, value: &Value) -> bool {
    match (class, value) {
        (_, Value::Real(r)) if r.is_nan() => false,
        (_, Value::Null)
        | (Class::Bool, Value::Bool(_) | Value::Integer(0 | 1))
        | (Class::Text, Value::Text(_) | Value::Json(_))
        | (Class::Bytes, Value::Bytes(_))
        | (Class::Other, Value::Integer(_) | Value::Real(_) | Value::Text(_) | Value::Json(_)) => true,
        (Class::Bool | Class::Text | Class::Bytes | Class::Other, _) => false,
    }
}

/// The text form that the column's type reads, `None` for NULL.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(b) => b.to_string(),
        Value::Integer(n) => n.to_string(),
        // The shortest form that reads back as the same bits; also "NaN", "inf" and "-0.0".
        Value::Real(r) => format!("{r:?}"),
        Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Bytes(bytes) => hex(bytes),
    })
}

/// The hexadecimal input form of `bytea`.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_awkward_values_have_forms_that_postgres_reads() {
        let cases = [
            (Value::Real(-0.0), "-0.0"),
            (Value::Real(f64::NAN), "NaN"),
            (Value::Real(f64::NEG_INFINITY), "-inf"),
            (Value::Real(1e300), "1e300"),
            (Value::Real(0.1 + 0.2), "0.30000000000000004"),
            (Value::Integer(i64::MIN), "-9223372036854775808"),
            (Value::Bytes(vec![0, 255]), "\\x00ff"),
            (Value::Text(String::new()), ""),
        ];
        for (value, text) in cases {
            assert_eq!(text_of(&value).as_deref(), Some(text));
        }
        assert_eq!(text_of(&Value::Null), None);
    }

    #[test]
    fn nothing_is_bent_to_fit() {
        assert!(!takes(Class::Text, &Value::Bytes(vec![1])));
        assert!(!takes(Class::Text, &Value::Bool(true)));
        assert!(!takes(Class::Bytes, &Value::Text("x".into())));
        assert!(!takes(Class::Bool, &Value::Integer(2)));
        assert!(!takes(Class::Other, &Value::Real(f64::NAN)) && takes(Class::Other, &Value::Real(f64::INFINITY)));
        assert!(takes(Class::Bool, &Value::Integer(1)));
        assert!(takes(Class::Text, &Value::Null));
    }
}
