//! Paths, headers and content types that client and server share.
//!
//! Every body, both ways, is one envelope of [`synchrotron_core::wire`]. The calls answer with a
//! [`Reply`](synchrotron_core::wire::Reply), whatever the status says; the status is for proxies and people.
//! Long answers are compressed in their envelope, not by HTTP: NATS carries the same bytes.

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
/// `GET`: 200 while the process lives.
pub const HEALTHZ: &str = "/healthz";
/// `GET`: 200 while the server can serve, 503 while it cannot, and from when it begins to stop.
pub const READYZ: &str = "/readyz";
/// `GET`: what the server counts, in the text format of Prometheus.
pub const METRICS: &str = "/metrics";

/// The content type of every message.
pub const MESSAGEPACK: &str = "application/vnd.msgpack";

/// Stands before the token in the `Authorization` header.
pub const BEARER: &str = "Bearer ";
