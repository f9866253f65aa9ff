//! The form of a [`Value`] on the wire, and for people.
//!
//! MessagePack carries null, bool, integer, float, text and bytes natively; JSON is extension type 1 holding its text, so
//! it stays flat whatever it nests. JSON documents (for humans, and for JavaScript) tag what JSON cannot say: `{"json": text}`,
//! `{"bytes": base64}`, `{"real": decimal text}`, and `{"integer": decimal text}` beyond what a double holds exactly.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Value, human};

const JSON_EXTENSION: i8 = 1;
const TAG_JSON: &str = "json";
const TAG_BYTES: &str = "bytes";
const TAG_REAL: &str = "real";
const TAG_INTEGER: &str = "integer";

/// rmp-serde writes a newtype of this name as a MessagePack extension.
const EXTENSION: &str = rmp_serde::MSGPACK_EXT_STRUCT_NAME;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let human = serializer.is_human_readable();
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Integer(n) if human && n.unsigned_abs() > human::SAFE_INTEGER_MAX => {
                tagged(serializer, TAG_INTEGER, &n.to_string())
            }
            Self::Integer(n) => serializer.serialize_i64(*n),
            Self::Real(r) if human => tagged(serializer, TAG_REAL, &human::real_to_text(*r)),
            Self::Real(r) => serializer.serialize_f64(*r),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) if human => tagged(serializer, TAG_BYTES, &human::to_base64(bytes)),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Json(text) if human => tagged(serializer, TAG_JSON, text),
            Self::Json(text) => serializer
                .serialize_newtype_struct(EXTENSION, &(JSON_EXTENSION, serde_bytes::Bytes::new(text.as_bytes()))),
        }
    }
}

fn tagged<S: Serializer, T: Serialize + ?Sized>(serializer: S, tag: &str, value: &T) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(tag, value)?;
    map.end()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a bool, a 64-bit integer, a double, text, bytes or JSON text")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Integer(n))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Value, E> {
        i64::try_from(n).map(Value::Integer).map_err(|_| E::custom("integer above 2^63-1"))
    }

    fn visit_f64<E>(self, r: f64) -> Result<Value, E> {
        Ok(Value::Real(r))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_owned()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    /// A MessagePack extension.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let (kind, bytes) = <(i8, serde_bytes::ByteBuf)>::deserialize(deserializer)?;
        if kind != JSON_EXTENSION {
            return Err(de::Error::custom(format_args!("unknown value extension {kind}")));
        }
        String::from_utf8(bytes.into_vec()).map(Value::Json).map_err(|_| de::Error::custom("JSON that is not UTF-8"))
    }

    /// The tagged forms of human-readable formats.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let tag: String = map.next_key()?.ok_or_else(|| de::Error::custom("empty value object"))?;
        match tag.as_str() {
            TAG_JSON => map.next_value().map(Value::Json),
            TAG_BYTES => read(&mut map, "base64", |text| human::from_base64(text).map(Value::Bytes)),
            TAG_REAL => read(&mut map, "a double", |text| human::real_from_text(text).map(Value::Real)),
            TAG_INTEGER => read(&mut map, "a 64-bit integer", |text| text.parse().ok().map(Value::Integer)),
            other => Err(de::Error::unknown_variant(other, &[TAG_JSON, TAG_BYTES, TAG_REAL, TAG_INTEGER])),
        }
    }
}

/// A tag's text, as `parse` reads it.
fn read<'de, A: MapAccess<'de>>(
    map: &mut A,
    what: &str,
    parse: impl FnOnce(&str) -> Option<Value>,
) -> Result<Value, A::Error> {
    let text: String = map.next_value()?;
    parse(&text).ok_or_else(|| de::Error::custom(format_args!("not {what}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arb_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            any::<String>().prop_map(Value::Json),
        ]
    }

    fn through_messagepack(value: &Value) -> Value {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(value).expect("encodes")).expect("decodes")
    }

    #[test]
    fn the_awkward_values_survive() {
        let awkward = [
            Value::Real(f64::NAN),
            Value::Real(-0.0),
            Value::Real(1.0),
            Value::Integer(1),
            Value::Integer(i64::MAX),
            Value::Integer(i64::MIN),
            Value::Integer((1 << 53) + 1),
            Value::Text(String::new()),
            Value::Null,
            Value::Json(r#"{"a":[{"b":[[[1]]]}]}"#.to_owned()),
            Value::Text("x".repeat(1 << 20)),
            Value::Bytes(vec![0; 70_000]),
        ];
        for value in awkward {
            assert_eq!(through_messagepack(&value), value, "{}", value.kind());
        }
        assert_ne!(Value::Real(-0.0), Value::Real(0.0));
        assert_ne!(Value::Text(String::new()), Value::Null);
    }

    #[test]
    fn integers_beyond_i64_are_refused() {
        let bytes = rmp_serde::to_vec(&u64::MAX).expect("encodes");
        assert!(rmp_serde::from_slice::<Value>(&bytes).is_err());
    }

    /// What JavaScript reads: `JSON.parse` makes doubles of all numbers.
    #[test]
    fn json_holds_what_a_double_cannot_as_text() {
        let shown = [
            (Value::Integer((1 << 53) - 1), "9007199254740991"),
            (Value::Integer(1 << 53), r#"{"integer":"9007199254740992"}"#),
            (Value::Integer(i64::MIN), r#"{"integer":"-9223372036854775808"}"#),
            (Value::Real(1.0), r#"{"real":"1.0"}"#),
            (Value::Real(-0.0), r#"{"real":"-0.0"}"#),
            (Value::Real(f64::NAN), r#"{"real":"NaN"}"#),
            (Value::Real(f64::NEG_INFINITY), r#"{"real":"-inf"}"#),
            (Value::Bytes(vec![0, 255]), r#"{"bytes":"AP8="}"#),
        ];
        for (value, json) in shown {
            assert_eq!(serde_json::to_string(&value).expect("encodes"), json);
            assert_eq!(serde_json::from_str::<Value>(json).expect("decodes"), value);
        }
        for wrong in [r#"{"real":"wide"}"#, r#"{"bytes":"?"}"#, r#"{"integer":"9223372036854775808"}"#, "{}", "[]"] {
            assert!(serde_json::from_str::<Value>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn messagepack_round_trip(value in arb_value()) {
            prop_assert_eq!(through_messagepack(&value), value);
        }

        #[test]
        fn json_round_trip(value in arb_value()) {
            let text = serde_json::to_string(&value).expect("encodes");
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("decodes"), value);
        }
    }
}
