//! Messages as NATS brings them, a subject with a payload, to whoever listens there; and subjects as ids make them.

use std::collections::BTreeSet;

use synchrotron_core::model::{AudienceKey, ClientId, UserId};
use synchrotron_core::wire::{
    self, DigestRequest, FetchRequest, OutcomeMessage, SessionRequest, Slice, SnapshotRequest, UploadBatch,
};
use synchrotron_nats::subjects::{ProcessToken, RpcMethod, SubjectPrefix, Subjects, UserToken};
use uuid::Uuid;

/// The largest payload of these targets.
const BYTES_MAX: usize = 1 << 20;

/// A subject, a line's end, and a payload: read as the server or a device does that listens there. It is taken if its payload
/// is the message that belongs there, of the device that the subject names.
pub(crate) fn routed(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return false };
    let (subject, payload) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
    let subjects = Subjects::new(SubjectPrefix::default());
    if let Ok(up) = subjects.parse_up(&subject) {
        return wire::decode::<UploadBatch>(payload, BYTES_MAX).is_ok_and(|batch| batch.client_id == up.client_id);
    }
    if let Ok(rpc) = subjects.parse_rpc(&subject) {
        return asks(rpc.method.as_str(), payload, rpc.client_id);
    }
    if let Ok(held) = subjects.parse_held(&subject) {
        return asks(held.method.as_str(), payload, held.client_id);
    }
    heard(&subjects, &subject, payload)
}

/// Requests of a device that the subject names.
fn asks(method: &str, payload: &[u8], client_id: ClientId) -> bool {
    let asked = match method {
        "session" => wire::decode::<SessionRequest>(payload, BYTES_MAX).ok().map(|request| request.client_id),
        "fetch" => wire::decode::<FetchRequest>(payload, BYTES_MAX).ok().map(|request| request.client_id),
        "snapshot" => wire::decode::<SnapshotRequest>(payload, BYTES_MAX).ok().map(|request| request.client_id),
        "digest" => wire::decode::<DigestRequest>(payload, BYTES_MAX).ok().map(|request| request.client_id),
        _ => None,
    };
    asked == Some(client_id)
}

/// What devices hear: a slice on the subject of its own audience, an outcome on that of a device.
fn heard(subjects: &Subjects, subject: &str, payload: &[u8]) -> bool {
    let slice = wire::decode::<Slice>(payload, BYTES_MAX);
    let is_at_home = |slice: &Slice| {
        let (live, log) = (subjects.live(&slice.audience_key), subjects.log(&slice.audience_key));
        assert_ne!(live, log, "what is stored would be heard twice");
        live.as_str() == subject || log.as_str() == subject
    };
    let outcome = || subject.starts_with("sync.outcome.") && wire::decode::<OutcomeMessage>(payload, BYTES_MAX).is_ok();
    slice.as_ref().is_ok_and(is_at_home) || outcome()
}

/// Any bytes as an audience and a user, apart at the first line's end: every subject of theirs is one that NATS takes
/// literally, names nobody else, and is read back as what it is.
pub(crate) fn named(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((audience, user)) = text.split_once('\n') else { return false };
    let (Ok(audience), Ok(user_id)) = (AudienceKey::new(audience), UserId::new(user)) else { return false };
    let subjects = Subjects::new(SubjectPrefix::default());
    let (user, client_id) = (UserToken::of(&user_id), ClientId::from_uuid(Uuid::from_u128(7)));
    let up = subjects.up(Some(&audience), &user_id, client_id);
    let held = subjects.held(ProcessToken::new(7), &user, client_id);
    let mut made = vec![
        (up.clone(), 5),
        (subjects.up(None, &user_id, client_id), 5),
        (subjects.outcome(&user, client_id), 4),
        (subjects.log(&audience), 3),
        (subjects.live(&audience), 3),
        (subjects.ctl(&user), 3),
        (held.clone(), 5),
    ];
    for method in RpcMethod::ALL {
        let rpc = subjects.rpc(&user_id, client_id, method);
        let parsed = subjects.parse_rpc(&rpc).expect("BUG: it is ours");
        assert_eq!((parsed.user, parsed.client_id, parsed.method), (user.clone(), client_id, method));
        made.push((rpc, 5));
    }
    for (subject, tokens) in &made {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
        assert_eq!(subject.split('.').count(), *tokens, "{subject}");
        assert!(subject.split('.').all(|token| !token.is_empty() && token.bytes().all(is_plain)), "{subject}");
        assert!(subject.len() < 4_096, "{} bytes of subject", subject.len());
    }
    let different: BTreeSet<&str> = made.iter().map(|(subject, _)| subject.as_str()).collect();
    assert_eq!(different.len(), made.len(), "two uses share a subject");
    let parsed = subjects.parse_up(&up).expect("BUG: it is ours");
    assert_eq!((parsed.user, parsed.client_id), (user.clone(), client_id));
    assert!(parsed.audience.audience_key().is_none_or(|read| read == audience), "another audience is read");
    assert_eq!(subjects.parse_held(&held).expect("BUG: it is ours").user, user);
    true
}
