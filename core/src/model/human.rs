//! How people and JavaScript read what JSON cannot say: 64-bit numbers as decimal text, bytes as base64.
//!
//! Place in the journey: beneath the wire's JSON form. Formats for machines keep the native form.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;

/// The greatest integer that every double, and so JavaScript, holds exactly.
pub(super) const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// For people, a 64-bit number is decimal text; a plain JSON integer is read too.
pub(super) mod decimal {
    use super::{Decimal, Deserializer, Serializer, de};

    pub(in super::super) fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(number) } else { serializer.serialize_i64(*number) }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Decimal)
        } else {
            <i64 as de::Deserialize>::deserialize(deserializer)
        }
    }
}

struct Decimal;

impl Visitor<'_> for Decimal {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a 64-bit integer, as decimal text")
    }

    fn visit_i64<E>(self, number: i64) -> Result<i64, E> {
        Ok(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
        i64::try_from(number).map_err(|_| E::custom("integer above 2^63-1"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i64, E> {
        text.parse().map_err(|_| E::custom("not a 64-bit integer in decimal digits"))
    }
}

/// For people, bytes are base64 with padding.
pub(super) mod bytes {
    use super::{Base64, Deserializer, Serializer, to_base64};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&to_base64(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Base64)
        } else {
            serde_bytes::deserialize(deserializer)
        }
    }
}

struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes, as base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        from_base64(text).ok_or_else(|| E::custom("not base64"))
    }
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// A double as text that gives back its every bit: the shortest decimal, or the bits of a NaN that is not the usual one.
pub(super) fn real_to_text(real: f64) -> String {
    if real.is_nan() && real.to_bits() != f64::NAN.to_bits() {
        return format!("NaN:{:016x}", real.to_bits());
    }
    format!("{real:?}")
}

pub(super) fn real_from_text(text: &str) -> Option<f64> {
    match text.strip_prefix("NaN:") {
        Some(bits) => u64::from_str_radix(bits, 16).ok().map(f64::from_bits).filter(|real| real.is_nan()),
        None => text.parse().ok(),
    }
}
