//! `GET /v1/openapi.json`: what the server says of itself, made of the table of routes and of the wire's own types.
//!
//! OpenAPI 3.1 takes JSON Schema as it is.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use synchrotron_core::wire::{Fault, Reply, StreamEnd};
use synchrotron_http::routes;

use super::table::{Kind, ROUTES, Route};
use super::{Api, etag};

pub(super) async fn openapi(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let document = document_bytes(&api);
    let tag = etag::tag_of(&document.as_ref());
    let mut response = if etag::names(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static(routes::JSON))], document).into_response()
    };
    response.headers_mut().insert(ETAG, tag);
    response
}

fn document_bytes(api: &Api) -> Bytes {
    let made = || serde_json::to_vec(&document()).expect("BUG: a document is plain data").into();
    api.openapi.get_or_init(made).clone()
}

/// The OpenAPI document.
fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in &ROUTES {
        let (method, operation) = operation(route, &mut generator);
        paths.insert(route.path.to_owned(), json!({ method: operation }));
    }
    let fault = generator.subschema_for::<Reply<()>>();
    let _documented = (generator.subschema_for::<Fault>(), generator.subschema_for::<StreamEnd>());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Synchrotron",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT", "identifier": "MIT" },
            "description": "The messages of offline-first sync over HTTP. Every message is also spoken as MessagePack \
                (application/vnd.msgpack), in an envelope {v, body}; here it is JSON. Bodies may be compressed by zstd or gzip.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "responses": {
                "Fault": {
                    "description": "Not served; the fault says why.",
                    "headers": {
                        "Retry-After": {
                            "description": "When to come back, in seconds; with 429 and 503.",
                            "schema": { "type": "integer" },
                        },
                    },
                    "content": { routes::JSON: { "schema": fault } },
                },
            },
        },
    })
}

/// The method of a route, and what an OpenAPI document says of it.
fn operation(route: &Route, generator: &mut SchemaGenerator) -> (&'static str, Value) {
    let fault = json!({ "$ref": "#/components/responses/Fault" });
    let secured = json!([{ "token": [] }]);
    let said =
        |responses: Value| json!({ "operationId": route.name, "summary": route.summary, "responses": responses });
    match &route.kind {
        Kind::Call { asked, answered, conditional } => {
            let (asked, answered) = (asked(generator), answered(generator));
            let answered = json!({
                "description": "The answer; an upload has its outcome whatever the status.",
                "content": { routes::JSON: { "schema": answered } },
            });
            let mut responses = json!({ "200": answered, "default": fault });
            if route.path == routes::UPLOAD {
                responses["default"] = answered;
                responses["401"] = fault;
            }
            let mut operation = said(responses);
            operation["security"] = secured;
            operation["requestBody"] = json!({ "required": true, "content": { routes::JSON: { "schema": asked } } });
            if *conditional {
                operation["responses"]["304"] = json!({ "description": "The answer is still the one that was named." });
                operation["parameters"] = json!([header("If-None-Match", "The ETag of an answer that is at hand.")]);
            }
            ("post", operation)
        }
        Kind::Events => {
            let stream = json!({
                "description": "Events `wakeup` with a Wakeup, and last `end` with a StreamEnd.",
                "content": { routes::EVENT_STREAM: { "schema": { "type": "string" } } },
            });
            let mut operation = said(json!({ "200": stream, "default": fault }));
            operation["security"] = secured;
            operation["parameters"] = json!([header("Last-Event-ID", "The id of the newest event that was read.")]);
            ("get", operation)
        }
        Kind::Poll { answered } => {
            let content = json!({ routes::JSON: { "schema": answered(generator) } });
            let answered = json!({ "description": "What is new, if anything is.", "content": content });
            let mut operation = said(json!({ "200": answered, "default": fault }));
            operation["security"] = secured;
            let query = |name, schema: Value, description| json!({ "name": name, "in": "query", "required": false, "schema": schema, "description": description });
            operation["parameters"] = json!([
                query(routes::POLL_SEEN, json!({ "type": "string", "format": "uuid" }), "The newest `seen`."),
                query(routes::POLL_WAIT, json!({ "type": "integer", "minimum": 0 }), "For how many seconds to wait."),
            ]);
            ("get", operation)
        }
        Kind::Open { content_type } => {
            let mut served = json!({ "description": "As it says." });
            if let Some(content_type) = content_type {
                let schema = if *content_type == routes::JSON {
                    json!({ "type": "object" })
                } else {
                    json!({ "type": "string" })
                };
                served["content"] = json!({ *content_type: { "schema": schema } });
            }
            let mut responses = json!({ "200": served });
            if route.path == routes::READYZ {
                responses["503"] = json!({ "description": "Not now." });
            }
            ("get", said(responses))
        }
    }
}

fn header(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "header", "required": false, "schema": { "type": "string" }, "description": description })
}
