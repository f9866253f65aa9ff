//! Digests of rows: equal rows have equal digests, on SQLite as on Postgres, whatever order they are read in.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use serde_bytes::ByteArray;
use sha2::{Digest, Sha256};

use super::{Columns, RowKey, Value};

/// A digest of a set of rows: the sum, modulo 2^128, of a hash of each row.
///
/// A sum does not depend on the order of its parts, and one changed row changes it by one difference (AdHash, Bellare and
/// Micciancio 1997). It finds damage and bugs; it is no defence against somebody who may choose rows.
///
/// ```
/// use synchrotron_core::model::{Columns, RowId, RowKey, RowsDigest, TableName};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let row = |id: &str| -> Result<RowKey, Box<dyn std::error::Error>> {
///     Ok(RowKey { table: TableName::new("seats")?, row_id: RowId::new(id)? })
/// };
/// let (mut one, mut other) = (RowsDigest::default(), RowsDigest::default());
/// one.add(&row("a")?, &Columns::new());
/// one.add(&row("b")?, &Columns::new());
/// other.add(&row("b")?, &Columns::new());
/// other.add(&row("a")?, &Columns::new());
/// assert_eq!(one, other);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RowsDigest(u128);

impl RowsDigest {
    /// Adds a row.
    pub fn add(&mut self, key: &RowKey, columns: &Columns) {
        self.0 = self.0.wrapping_add(hash(key, columns));
    }
}

/// For people, 32 hexadecimal digits.
impl Serialize for RowsDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            ByteArray::new(self.0.to_be_bytes()).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for RowsDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
            let is_digest = text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            let digits = u128::from_str_radix(&text, 16).ok().filter(|_| is_digest);
            digits.map(Self).ok_or_else(|| de::Error::custom("not a digest: 32 hexadecimal digits"))
        } else {
            let bytes = ByteArray::<16>::deserialize(deserializer)?;
            Ok(Self(u128::from_be_bytes(bytes.into_array())))
        }
    }
}

impl fmt::Display for RowsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RowsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowsDigest({self})")
    }
}

/// The first half of SHA-256 over the row's canonical MessagePack form.
fn hash(key: &RowKey, columns: &Columns) -> u128 {
    let columns: Vec<(&String, Value)> = columns.iter().map(|(name, value)| (name, canonical(value))).collect();
    let encoded = rmp_serde::to_vec(&(key.table.as_str(), key.row_id.as_str(), columns))
        .expect("BUG: every row has a MessagePack form");
    let hash = Sha256::digest(&encoded);
    let half: [u8; 16] = hash[..16].try_into().expect("BUG: half of 32 bytes");
    u128::from_be_bytes(half)
}

/// JSON is compared by what it says: jsonb keeps neither spaces nor the order of keys. A negative zero is zero: SQLite
/// keeps no other.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Json(text) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(parsed) => Value::Json(parsed.to_string()),
            Err(_) => value.clone(),
        },
        Value::Real(zero) if *zero == 0.0 => Value::Real(0.0),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RowId, TableName};

    fn row(id: &str, value: Value) -> (RowKey, Columns) {
        let key = RowKey { table: TableName::new("t").expect("ok"), row_id: RowId::new(id).expect("ok") };
        (key, Columns::from([("x".to_owned(), value)]))
    }

    fn digest(rows: &[(RowKey, Columns)]) -> RowsDigest {
        let mut digest = RowsDigest::default();
        rows.iter().for_each(|(key, columns)| digest.add(key, columns));
        digest
    }

    #[test]
    fn order_does_not_count_and_content_does() {
        let (a, b) = (row("a", Value::Integer(1)), row("b", Value::Integer(2)));
        assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]));
        assert_ne!(digest(std::slice::from_ref(&a)), digest(&[a, b]));
        let kinds = [Value::Null, Value::Text(String::new()), Value::Integer(1), Value::Real(1.0), Value::Bool(true)];
        for (index, one) in kinds.iter().enumerate() {
            for other in &kinds[index + 1..] {
                assert_ne!(digest(&[row("a", one.clone())]), digest(&[row("a", other.clone())]), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_zero_is_a_zero() {
        assert_eq!(digest(&[row("a", Value::Real(-0.0))]), digest(&[row("a", Value::Real(0.0))]));
        assert_ne!(digest(&[row("a", Value::Real(0.0))]), digest(&[row("a", Value::Integer(0))]));
    }

    #[test]
    fn json_is_compared_by_what_it_says() {
        let json = |text: &str| digest(&[row("a", Value::Json(text.to_owned()))]);
        assert_eq!(json(r#"{"b": 1, "a": [1,2]}"#), json(r#"{"a":[1, 2],"b":1}"#));
        assert_ne!(json(r#"{"a":[1,2]}"#), json(r#"{"a":[2,1]}"#));
    }

    #[test]
    fn two_changes_do_not_cancel_out() {
        let before = [row("a", Value::Integer(1)), row("b", Value::Integer(2))];
        let swapped = [row("a", Value::Integer(2)), row("b", Value::Integer(1))];
        assert_ne!(digest(&before), digest(&swapped));
    }
}
