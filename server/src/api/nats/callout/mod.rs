//! NATS asks who connects; the answer is a user with that user's rights, or none.
//!
//! Place in the journey: before everything that a device does over NATS. Its token is verified once, here; from then on the
//! subjects of its messages prove who sends, because NATS lets nobody publish to another one's.
//!
//! # Invariants
//! - Nobody gets rights but for a token that verifies, and none that are not the user's at that moment.
//! - Rights are lists of what is allowed, and end with the token.
//! - The name of the user that NATS gets says whose connection it is and with which rights: whoever asks NATS for its
//!   connections knows what to take back, also when the process that answered is gone.

mod claims;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_nats::Message;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::wire::{Fault, FaultCode};
use synchrotron_nats::subjects::{Rights, UserToken};
use tokio::sync::Semaphore;

use self::claims::{Request, Response, User};
use super::{Api, NatsApiError, QUEUE};
use crate::auth::Principal;
use crate::metrics::{AuthRefusal, METRICS};

const ASKED: &str = "$SYS.REQ.USER.AUTH";
/// How many connections are judged at once; the others wait in line.
const JUDGED_AT_ONCE: usize = 64;
/// What an audience adds to its user's rights, at most.
const SUBJECT_BYTES_MAX: usize = 512;
/// What the claims of an answer hold beside rights, at most.
const CLAIMS_BYTES_MAX: usize = 8 << 10;

/// Answers until the connection is lost.
pub(super) async fn serve(api: &Arc<Api>, connects: u64) -> Result<(), NatsApiError> {
    let mut asked = api.logins.client().queue_subscribe(ASKED, QUEUE.to_owned()).await?;
    let room = Arc::new(Semaphore::new(JUDGED_AT_ONCE));
    api.answering.notify_one();
    tracing::info!("tells NATS who connects");
    loop {
        let request = tokio::select! {
            request = asked.next() => request.ok_or(NatsApiError::Ended)?,
            () = api.logins.lost(connects) => return Err(NatsApiError::Lost),
        };
        let permit = Arc::clone(&room).acquire_owned().await.expect("BUG: nobody closes this semaphore");
        let api = Arc::clone(api);
        tokio::spawn(async move {
            answer(&api, &request).await;
            drop(permit);
        });
    }
}

async fn answer(api: &Api, message: &Message) {
    let (Some(inbox), Some(request)) = (message.reply.clone(), Request::read(&message.payload)) else {
        tracing::warn!("NATS asked something that is no question about a connection");
        return;
    };
    let granted = grant(api, &request).await;
    let (user, error) = match &granted {
        Ok(user) => (user.as_str(), String::new()),
        Err(fault) => {
            tracing::debug!(error = %fault, "a connection is refused");
            ("", fault.to_string())
        }
    };
    let response = Response { user, error }.signed(&api.keys.issuer, &request);
    if let Err(error) = api.logins.client().publish(inbox, response.into()).await {
        tracing::debug!(%error, "NATS could not be told who connects");
    }
}

/// The user that NATS is to let in.
async fn grant(api: &Api, request: &Request) -> Result<String, Fault> {
    let token = request.token().ok_or_else(|| {
        METRICS.auth_refused(AuthRefusal::NoToken);
        Fault::new(FaultCode::Unauthenticated, "the connection has no token")
    })?;
    let Principal { user_id, expires_at } = api.verifier.verify(token).await?;
    let audiences = api.in_time(api.service.audiences_of(&user_id)).await?;
    // What the verifier lets pass after its end, NATS must, too.
    let leeway = i64::try_from(api.service.settings().jwt.leeway_seconds).unwrap_or(0);
    let expires_at = expires_at.map(|seconds| seconds.saturating_add(leeway));
    let granted = granted(api, api.logins.client().max_payload(), &user_id, &audiences);
    if granted.len() < audiences.len() {
        tracing::warn!(audiences = audiences.len(), "too many audiences to hear of live: this user's devices poll");
    }
    let user = User {
        name: grant_name(&user_id, granted),
        account: &api.settings.clients_account,
        expires_at,
        rights: api.subjects.rights(&user_id, granted),
    };
    Ok(user.signed(&api.keys.issuer, request))
}

/// The audiences that a user with these may hear: all, or none where NATS carries no answer that names all. Whoever lets
/// a connection in and whoever looks after it later must find the same.
pub(super) fn granted<'a>(
    api: &Api,
    payload_max: usize,
    user_id: &UserId,
    audiences: &'a BTreeSet<AudienceKey>,
) -> &'a BTreeSet<AudienceKey> {
    static NONE: BTreeSet<AudienceKey> = BTreeSet::new();
    let fits = || rights_bytes(&api.subjects.rights(user_id, audiences)) <= rights_bytes_max(payload_max);
    // Nearly everybody has few, and need not be counted.
    if audiences.len() * SUBJECT_BYTES_MAX <= rights_bytes_max(payload_max) || fits() { audiences } else { &NONE }
}

/// How long the lists of subjects are in JSON, which escapes nothing in them.
fn rights_bytes(Rights { publish, subscribe }: &Rights) -> usize {
    publish.iter().chain(subscribe).map(|subject| subject.len() + r#""","#.len()).sum()
}

/// The answer holds the user in base64, whose claims are in base64, and must fit a message.
const fn rights_bytes_max(payload_max: usize) -> usize {
    (payload_max / 16 * 9).saturating_sub(CLAIMS_BYTES_MAX)
}

/// Whose connection it is, and with which rights.
pub(super) fn grant_name(user_id: &UserId, audiences: &BTreeSet<AudienceKey>) -> String {
    let mut hash = Sha256::new();
    for audience in audiences {
        hash.update(audience.as_str().len().to_be_bytes());
        hash.update(audience.as_str());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let rights = URL_SAFE_NO_PAD.encode(&digest[..16]);
    format!("{} {rights}", UserToken::of(user_id))
}

/// Whose connection has this name.
pub(super) fn user_of_grant(name: &str) -> Option<UserId> {
    UserToken::from_subject(name.split_once(' ')?.0).map(|user| user.user_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_user_and_the_rights() {
        let keys = |keys: &[&str]| keys.iter().map(|key| AudienceKey::new(*key).expect("ok")).collect::<BTreeSet<_>>();
        let user = UserId::new("a b.c").expect("ok");
        let name = grant_name(&user, &keys(&["x", "y"]));
        assert_eq!(user_of_grant(&name), Some(user.clone()));
        assert_eq!(name, grant_name(&user, &keys(&["y", "x"])));
        for other in [keys(&[]), keys(&["x"]), keys(&["xy"]), keys(&["x", "z"])] {
            assert_ne!(name, grant_name(&user, &other));
        }
        assert_eq!(user_of_grant("nobody"), None);
    }
}
