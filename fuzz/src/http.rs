//! What every route of HTTP reads before it knows what to do: bodies by their headers, parameters, and what a client of ours
//! reads of a stream.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::wire;
use synchrotron_http::media::{self, Media};
use synchrotron_http::sse::Parser;
use synchrotron_server::api::http::{read_poll, read_request};

/// The largest body of these targets, compressed or not.
const BYTES_MAX: usize = 1 << 20;

/// A request as a POST brings it: a line of `Content-Type`, a line of `Content-Encoding`, both of which may be empty, and
/// the body. What is taken is read again from every form and compression as the same.
pub(crate) fn request<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let (Some(kind), Some(encoding), Some(body)) = (lines.next(), lines.next(), lines.next()) else { return false };
    let given = |line| Some(line).filter(|line: &&[u8]| !line.is_empty());
    let taken = match read_request::<T>(given(kind), given(encoding), body, BYTES_MAX) {
        Ok(taken) => taken,
        Err(fault) => {
            assert!(!fault.message.is_empty() && fault.message.len() < 1_000, "{} bytes of fault", fault.message.len());
            return false;
        }
    };
    for media in [Media::MessagePack, Media::Json] {
        let written = media.encode(&taken);
        let frame = zstd::bulk::compress(&written, 1).expect("BUG: the buffer is as large as a frame can be");
        for (encoding, body) in [(None, written.as_slice()), (Some(&b"zstd"[..]), frame.as_slice())] {
            let max = BYTES_MAX.max(written.len());
            let again = read_request::<T>(Some(media.content_type().as_bytes()), encoding, body, max);
            assert_eq!(
                again.expect("BUG: what was written can be read"),
                taken,
                "another request is read than was written"
            );
        }
    }
    true
}

/// The parameters of a poll.
pub(crate) fn poll(bytes: &[u8]) -> bool {
    match read_poll(&String::from_utf8_lossy(bytes)) {
        Ok(()) => true,
        Err(fault) => {
            assert!(fault.message.len() < 200, "{} bytes of fault", fault.message.len());
            false
        }
    }
}

/// A stream of events: however it is cut, the same messages come out, and none is longer than the stream.
pub(crate) fn events(bytes: &[u8]) -> bool {
    let read = |size: usize| {
        let mut parser = Parser::new(4_096);
        bytes.chunks(size).map(|chunk| parser.read(chunk)).collect::<Result<Vec<_>, _>>().map(|parts| parts.concat())
    };
    let (whole, bytewise) = (read(bytes.len().max(1)), read(1));
    assert_eq!(whole.is_ok(), bytewise.is_ok());
    let (Ok(whole), Ok(bytewise)) = (whole, bytewise) else { return false };
    assert_eq!(whole, bytewise, "a stream means something else when it is cut");
    // A byte that is no UTF-8 becomes three.
    assert!(whole.iter().all(|message| message.data.len() <= 3 * bytes.len()));
    let wakeups = whole.iter().filter(|message| message.event == synchrotron_http::routes::EVENT_WAKEUP);
    wakeups.filter(|message| wire::decode_json::<wire::Wakeup>(message.data.as_bytes(), BYTES_MAX).is_ok()).count() > 0
}

/// What an `Accept` header wants.
pub(crate) fn accept(bytes: &[u8]) -> bool {
    let header = String::from_utf8_lossy(bytes);
    let _events = media::accepts_events(Some(&header));
    let _body = Media::of_content_type(&header);
    let chosen = Media::accepted(Some(&header), Media::Json);
    assert_eq!(chosen, Media::accepted(Some(&header), Media::Json));
    chosen == Some(Media::MessagePack)
}
