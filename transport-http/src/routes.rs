//! Paths, headers and content types that client and server share.
//!
//! Every body, both ways, is one message of [`synchrotron_core::wire`], in one of the forms of
//! [`Media`](crate::media::Media). The calls answer with a [`Reply`](synchrotron_core::wire::Reply), whatever the status
//! says; the status is for proxies and people. Long answers in MessagePack are compressed in their envelope, as NATS carries
//! them; those in JSON by HTTP, as far as `Accept-Encoding` takes it.

/// `POST`: a [`SessionRequest`](synchrotron_core::wire::SessionRequest), answered by a
/// [`Session`](synchrotron_core::wire::Session).
pub const SESSION: &str = "/v1/session";
/// `POST`: a [`FetchRequest`](synchrotron_core::wire::FetchRequest), answered by a
/// [`FetchPage`](synchrotron_core::wire::FetchPage).
pub const FETCH: &str = "/v1/fetch";
/// `POST`: an [`UploadBatch`](synchrotron_core::wire::UploadBatch), answered by an
/// [`Outcome`](synchrotron_core::wire::Outcome).
pub const UPLOAD: &str = "/v1/upload";
/// `POST`: a [`SnapshotRequest`](synchrotron_core::wire::SnapshotRequest), answered by a
/// [`SnapshotChunk`](synchrotron_core::wire::SnapshotChunk).
pub const SNAPSHOT: &str = "/v1/snapshot";
/// `POST`: a [`DigestRequest`](synchrotron_core::wire::DigestRequest), answered by a
/// [`DigestReply`](synchrotron_core::wire::DigestReply).
pub const DIGEST: &str = "/v1/digest";
/// `GET`: a stream of server-sent events: [`EVENT_WAKEUP`] with a [`Wakeup`](synchrotron_core::wire::Wakeup), and last
/// [`EVENT_END`] with a [`StreamEnd`](synchrotron_core::wire::StreamEnd), both as JSON.
pub const EVENTS: &str = "/v1/events";
/// `GET`: the same as one answer, for those whose proxies hold streams back: a
/// [`Wakeup`](synchrotron_core::wire::Wakeup) as soon as there is news after [`POLL_SEEN`], or an empty one after
/// [`POLL_WAIT`].
pub const POLL: &str = "/v1/poll";
/// `GET`: what all of this is, as an OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET`: 200 while the process lives.
pub const HEALTHZ: &str = "/healthz";
/// `GET`: 200 while the server can serve, 503 while it cannot, and from when it begins to stop.
pub const READYZ: &str = "/readyz";
/// `GET`: what the server counts, in the text format of Prometheus.
pub const METRICS: &str = "/metrics";

/// The content type of messages between programs.
pub const MESSAGEPACK: &str = "application/vnd.msgpack";
/// The content type of messages for people and browsers.
pub const JSON: &str = "application/json";
/// The content type of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The event that says where there is something to fetch; its id goes into `Last-Event-ID` or [`POLL_SEEN`].
pub const EVENT_WAKEUP: &str = "wakeup";
/// The event that says why the stream ends.
pub const EVENT_END: &str = "end";
/// The header with which a stream of events goes on where it was.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// The parameter of [`POLL`] that names the newest [`Wakeup::seen`](synchrotron_core::wire::Wakeup::seen).
pub const POLL_SEEN: &str = "seen";
/// The parameter of [`POLL`] that says for how many seconds to wait; the server's own bound, if it is longer or not given.
pub const POLL_WAIT: &str = "wait";
/// The server's wall clock in milliseconds since 1970, in an answer to [`SESSION`] that is `304 Not Modified`.
pub const SERVER_TIME_MS: &str = "synchrotron-server-time-ms";

/// Stands before the token in the `Authorization` header.
pub const BEARER: &str = "Bearer ";
