//! JSON Schema of what is not written as it is declared: ids, numbers beyond doubles, bytes, values.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Cursor, Epoch, Hlc, RowId, RowsDigest,
    ServerIngestId, SliceTag, SnapshotId, TableName, TraceParent, UserId, Value, WakeupId,
};

macro_rules! schema {
    ($($name:ident: $schema:tt),* $(,)?) => {
        $(impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

schema! {
    ActionId: { "type": "string", "format": "uuid", "description": "One execution of an action, or one correction." },
    ClientId: { "type": "string", "format": "uuid", "description": "One device." },
    BatchId: { "type": "string", "format": "uuid", "description": "One upload's content." },
    Epoch: { "type": "string", "format": "uuid", "description": "The server's history." },
    SnapshotId: { "type": "string", "format": "uuid", "description": "One snapshot that the server holds." },
    WakeupId: { "type": "string", "format": "uuid", "description": "What a device was told of its audiences." },
    SliceTag: { "type": "string", "format": "uuid", "description": "One audience of an action, without naming it." },
    UserId: { "type": "string", "minLength": 1, "maxLength": (UserId::MAX_BYTES), "description": "A user." },
    AudienceKey: {
        "type": "string", "minLength": 1, "maxLength": (AudienceKey::MAX_BYTES),
        "description": "Who may see a row, such as project:123.",
    },
    TableName: { "type": "string", "minLength": 1, "maxLength": (TableName::MAX_BYTES), "description": "A tracked table." },
    RowId: { "type": "string", "minLength": 1, "maxLength": (RowId::MAX_BYTES), "description": "A row's primary key." },
    ActionTag: {
        "type": "string", "minLength": 1, "maxLength": (ActionTag::MAX_BYTES),
        "description": "An action's versioned name, such as book_seat_v1.",
    },
    Cursor: {
        "type": "integer", "minimum": 0,
        "description": "Through which server_ingest_id everything is had. The server counts from 1: it fits a double.",
    },
    ServerIngestId: {
        "type": "integer", "minimum": 1,
        "description": "The server's number of an accepted record. The server counts from 1: it fits a double.",
    },
    Hlc: {
        "type": "string", "pattern": "^-?[0-9]{1,19}$",
        "description": "A hybrid logical clock, 48 bits of milliseconds and 16 bits of counter: a 64-bit number as text, \
            because a double cannot hold it.",
    },
    ActionArgs: {
        "type": "string", "contentEncoding": "base64",
        "description": "An action's arguments: one MessagePack map.",
    },
    RowsDigest: { "type": "string", "pattern": "^[0-9a-f]{32}$", "description": "A digest of rows." },
    TraceParent: {
        "type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        "description": "A W3C traceparent.",
    },
    Value: {
        "description": "A column's value. What JSON cannot say is tagged.",
        "oneOf": [
            { "type": ["null", "boolean", "string"] },
            {
                "type": "integer", "minimum": (-9_007_199_254_740_991_i64), "maximum": 9_007_199_254_740_991_i64,
                "description": "An integer that a double holds.",
            },
            {
                "type": "object", "required": ["integer"], "additionalProperties": false,
                "properties": { "integer": { "type": "string", "pattern": "^-?[0-9]{1,19}$" } },
                "description": "Any 64-bit integer, as decimal text.",
            },
            {
                "type": "object", "required": ["real"], "additionalProperties": false,
                "properties": { "real": { "type": "string", "examples": ["1.5", "-0.0", "NaN", "inf"] } },
                "description": "A double, as decimal text.",
            },
            {
                "type": "object", "required": ["bytes"], "additionalProperties": false,
                "properties": { "bytes": { "type": "string", "contentEncoding": "base64" } },
                "description": "Bytes.",
            },
            {
                "type": "object", "required": ["json"], "additionalProperties": false,
                "properties": { "json": { "type": "string", "contentMediaType": "application/json" } },
                "description": "A JSON document, as text.",
            },
        ],
    },
}
