//! The one closed value type of rows.
//!
//! [`super::encoding`] has its form on the wire and for people.

/// One column's value.
///
/// Equality is exact: floats compare by their bits, so NaN equals itself and `-0.0` differs from `0.0`; JSON compares as
/// text.
#[derive(Debug, Clone)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A column declared BOOLEAN.
    Bool(bool),
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A column declared JSON, as text.
    Json(String),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) | (Self::Json(a), Self::Json(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Value {
    /// The kind's name, for errors that must not hold the value.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Integer(_) => "integer",
            Self::Real(_) => "real",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Json(_) => "json",
        }
    }
}

macro_rules! value_from {
    ($($type:ty => $make:expr),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                ($make)(value)
            }
        })*
    };
}

value_from! {
    bool => Value::Bool,
    i64 => Value::Integer,
    i32 => |n: i32| Value::Integer(n.into()),
    u32 => |n: u32| Value::Integer(n.into()),
    f64 => Value::Real,
    String => Value::Text,
    &str => |text: &str| Value::Text(text.to_owned()),
    &String => |text: &String| Value::Text(text.clone()),
    Vec<u8> => Value::Bytes,
    super::RowId => |id: super::RowId| Value::Text(id.into()),
    &super::RowId => |id: &super::RowId| Value::Text(id.as_str().to_owned()),
    &super::UserId => |id: &super::UserId| Value::Text(id.as_str().to_owned()),
    &super::AudienceKey => |key: &super::AudienceKey| Value::Text(key.as_str().to_owned()),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A value was not of the kind that the caller asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {actual}")]
pub struct ValueError {
    /// What was asked for.
    pub expected: &'static str,
    /// What is there.
    pub actual: &'static str,
}

/// Reads a Rust type out of a [`Value`].
pub trait FromValue: Sized {
    /// The conversion.
    ///
    /// # Errors
    /// [`ValueError`] if the value is of another kind.
    fn from_value(value: Value) -> Result<Self, ValueError>;
}

macro_rules! from_value {
    ($($type:ty, $expected:literal, $($pattern:pat => $read:expr),+);* $(;)?) => {
        $(impl FromValue for $type {
            fn from_value(value: Value) -> Result<Self, ValueError> {
                match value {
                    $($pattern => Ok($read),)+
                    other => Err(ValueError { expected: $expected, actual: other.kind() }),
                }
            }
        })*
    };
}

from_value! {
    bool, "bool", Value::Bool(b) => b, Value::Integer(0) => false, Value::Integer(1) => true;
    i64, "integer", Value::Integer(n) => n;
    f64, "real", Value::Real(r) => r;
    String, "text", Value::Text(text) | Value::Json(text) => text;
    Vec<u8>, "bytes", Value::Bytes(bytes) => bytes;
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self, ValueError> {
        Ok(value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, ValueError> {
        match value {
            Value::Null => Ok(None),
            other => T::from_value(other).map(Some),
        }
    }
}
