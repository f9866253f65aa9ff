//! What names a sender: subjects of NATS, and bearer tokens.

use std::sync::LazyLock;

use futures::FutureExt;
use synchrotron_core::model::ClientId;
use synchrotron_nats::subjects::{SubjectPrefix, Subjects};
use synchrotron_server::auth::TokenVerifier;
use synchrotron_server::settings::JwtSettings;

use crate::{TOKEN_SECRET, TOKEN_USER};

/// Each id has one spelling, so a subject that is taken is the one that its ids have: what NATS was told to allow.
pub(crate) fn subject(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let subjects = Subjects::new(SubjectPrefix::default());
    let up = subjects.parse_up(&text).ok();
    if let Some(up) = &up {
        // One that was hashed cannot be spelled again.
        let audience = up.audience.audience_key();
        if audience.is_some() || text.contains("=none") {
            assert_eq!(subjects.up(audience.as_ref(), &up.user.user_id(), up.client_id).as_str(), text);
        }
        assert_eq!(subjects.outcome(&up.user, up.client_id).split('.').count(), 4);
    }
    let rpc = subjects.parse_rpc(&text).ok();
    if let Some(rpc) = &rpc {
        assert_eq!(subjects.rpc(&rpc.user.user_id(), rpc.client_id, rpc.method).as_str(), text);
    }
    let held = subjects.parse_held(&text).ok();
    let client_of: Vec<ClientId> = [
        up.as_ref().map(|up| up.client_id),
        rpc.as_ref().map(|rpc| rpc.client_id),
        held.as_ref().map(|held| held.client_id),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(client_of.len() <= 1, "one subject of several kinds");
    assert!(client_of.iter().all(|client_id| text.contains(&client_id.to_string())));
    !client_of.is_empty()
}

/// Nobody is admitted but the one user whose token was signed, whatever else a token says.
pub(crate) fn token(bytes: &[u8]) -> bool {
    static VERIFIER: LazyLock<TokenVerifier> = LazyLock::new(|| {
        TokenVerifier::new(&JwtSettings::with_secret(TOKEN_SECRET)).expect("BUG: a secret needs no certificates")
    });
    let text = String::from_utf8_lossy(bytes);
    match VERIFIER.verify(&text).now_or_never().expect("BUG: the secret is at hand") {
        Ok(principal) => {
            assert_eq!(principal.user_id.as_str(), TOKEN_USER, "a token that nobody signed");
            true
        }
        Err(fault) => {
            assert!(fault.message.len() < 200, "{} bytes of fault", fault.message.len());
            false
        }
    }
}
