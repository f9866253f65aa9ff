//! Every route, as a table: the router is made of it, and so is the document that the server gives of itself.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Reply, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch, Wakeup,
};
use synchrotron_http::routes;

use super::{Api, calls, events, openapi, poll, probes};

/// The schema of a message.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A route, and what it says of itself.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) kind: Kind,
    pub(super) handler: fn() -> MethodRouter<Arc<Api>>,
}

/// How a route is spoken to.
pub(super) enum Kind {
    /// `POST`, with a token: a message in, a reply out. Whether it may be answered by 304.
    Call { asked: SchemaOf, answered: SchemaOf, conditional: bool },
    /// `GET`, with a token.
    Events,
    /// `GET`, with a token.
    Poll { answered: SchemaOf },
    /// `GET`, for whoever asks.
    Open { content_type: Option<&'static str> },
}

const fn call<Q: JsonSchema, A: JsonSchema>(conditional: bool) -> Kind {
    Kind::Call {
        asked: SchemaGenerator::subschema_for::<Q>,
        answered: SchemaGenerator::subschema_for::<Reply<A>>,
        conditional,
    }
}

const fn route(
    path: &'static str,
    name: &'static str,
    summary: &'static str,
    kind: Kind,
    handler: fn() -> MethodRouter<Arc<Api>>,
) -> Route {
    Route { path, name, summary, kind, handler }
}

/// All of them.
pub(super) const ROUTES: [Route; 11] = [
    route(
        routes::SESSION,
        "session",
        "Who the token's user is, and the audiences that it sees. Binds the device to the user.",
        call::<SessionRequest, Session>(true),
        || post(calls::session),
    ),
    route(
        routes::FETCH,
        "fetch",
        "A page of the records after some cursors, in order of server_ingest_id.",
        call::<FetchRequest, FetchPage>(true),
        || post(calls::fetch),
    ),
    route(
        routes::UPLOAD,
        "upload",
        "Offers pending records. Sent again, a batch has no further effect and the same outcome.",
        call::<UploadBatch, Outcome>(false),
        || post(calls::upload),
    ),
    route(
        routes::SNAPSHOT,
        "snapshot",
        "A chunk of the rows of whole audiences: the first, the next, or the same again.",
        call::<SnapshotRequest, SnapshotChunk>(false),
        || post(calls::snapshot),
    ),
    route(
        routes::DIGEST,
        "digest",
        "The digests of the rows of some audiences, to compare without sending them.",
        call::<DigestRequest, DigestReply>(true),
        || post(calls::digest),
    ),
    route(routes::EVENTS, "events", "Server-sent events: where there is something to fetch.", Kind::Events, || {
        get(events::events)
    }),
    route(
        routes::POLL,
        "poll",
        "The same as one answer, which waits until there is one.",
        Kind::Poll { answered: SchemaGenerator::subschema_for::<Reply<Wakeup>> },
        || get(poll::poll),
    ),
    route(routes::OPENAPI, "openapi", "This document.", Kind::Open { content_type: Some(routes::JSON) }, || {
        get(openapi::openapi)
    }),
    route(routes::HEALTHZ, "healthz", "200 while the process lives.", Kind::Open { content_type: None }, || {
        get(async || StatusCode::OK)
    }),
    route(
        routes::READYZ,
        "readyz",
        "200 while the server can serve; 503 while it cannot, and from when it begins to stop.",
        Kind::Open { content_type: None },
        || get(probes::readyz),
    ),
    route(
        routes::METRICS,
        "metrics",
        "What the server counts, for Prometheus.",
        Kind::Open { content_type: Some("text/plain") },
        || get(probes::metrics),
    ),
];
