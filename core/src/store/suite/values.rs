//! The values that are easily lost on the way, by the column of `things` that holds them.

use crate::model::Value;

/// Kinds and their awkward values. NULL is one of each kind.
pub(super) fn awkward() -> Vec<(&'static str, Vec<Value>)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let json = |text: &str| Value::Json(text.to_owned());
    vec![
        ("number", vec![Value::Null, 0.into(), i64::MAX.into(), i64::MIN.into(), ((1_i64 << 53) + 1).into()]),
        (
            "ratio",
            [0.0, 1.0, 0.1 + 0.2, f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, f64::NEG_INFINITY, -1e300]
                .into_iter()
                .map(Value::Real)
                .chain([Value::Null])
                .collect(),
        ),
        (
            "label",
            vec![
                Value::Null,
                text(""),
                text("null"),
                text("0"),
                text("a'b\"c\\d\n\t🎭"),
                text("e\u{301}"), // not the same as é
                text("é"),
                text(&"x".repeat(1 << 20)),
            ],
        ),
        ("flag", vec![Value::Null, false.into(), true.into()]),
        (
            "document",
            vec![
                Value::Null,
                json("null"),
                json("\"\""),
                json("{}"),
                json("[]"),
                json(r#"{"b":1,"a":{"c":[1,[2,[3,[null]]]]}}"#),
                json(r#"{ "b" : 1.0, "a" : 9007199254740993 }"#), // text is kept: spaces, order, digits
            ],
        ),
        (
            "data",
            vec![
                Value::Null,
                Value::Bytes(vec![]),
                Value::Bytes(vec![0]),
                Value::Bytes((0..=255).collect()),
                Value::Bytes(b"text".to_vec()),
                Value::Bytes(vec![0xff; 70_000]),
            ],
        ),
    ]
}
