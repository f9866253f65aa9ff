//! A user's share that is held until the answer is sent: whoever asks and does not read has no more of it.
//!
//! Place in the journey: last hop of a call. An answer's bytes are kept in memory until the peer takes them, and it is those
//! bytes that hold the share.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use crate::limits::Share;

/// The same answer, which holds a share until its last byte is written.
pub(super) fn held_until_sent(response: Response, share: Share) -> Response {
    let share = Arc::new(share);
    response.map(|body| Body::new(HeldBody { body, share }))
}

struct HeldBody {
    body: Body,
    share: Arc<Share>,
}

struct HeldBytes {
    bytes: Bytes,
    _share: Arc<Share>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let share = Arc::clone(&self.share);
        let held = |bytes| Bytes::from_owner(HeldBytes { bytes, _share: share });
        Pin::new(&mut self.body).poll_frame(cx).map_ok(|frame| frame.map_data(held))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
