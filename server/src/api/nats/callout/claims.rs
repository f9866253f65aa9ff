//! What NATS asks and is answered: JSON Web Tokens of its own kind, signed by nkeys.
//!
//! Only what is read or said here is named; NATS adds to its questions with each version.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use synchrotron_nats::subjects::Rights;
use uuid::Uuid;

use crate::clock;

/// A question about a connection. It comes in an account where nobody but NATS itself can ask.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    nats: Asked,
}

#[derive(Debug, Deserialize)]
struct Asked {
    /// Which server asks.
    server_id: ServerId,
    /// A key of this question: the user of the answer must have it.
    user_nkey: String,
    connect_opts: ConnectOpts,
}

#[derive(Debug, Deserialize)]
struct ServerId {
    id: String,
}

#[derive(Deserialize)]
struct ConnectOpts {
    auth_token: Option<String>,
}

impl std::fmt::Debug for ConnectOpts {
    /// A token is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectOpts(…)")
    }
}

impl Request {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let claims = std::str::from_utf8(payload).ok()?.split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.nats.connect_opts.auth_token.as_deref().filter(|token| !token.is_empty())
    }
}

/// Bounds of a user are not kept by a NATS whose accounts are in its configuration; that bounds every connection itself.
const UNBOUNDED: i8 = -1;

/// A user to let in.
pub(super) struct User<'a> {
    pub(super) name: String,
    pub(super) account: &'a str,
    pub(super) expires_at: Option<i64>,
    pub(super) rights: Rights,
}

impl User<'_> {
    pub(super) fn signed(&self, issuer: &KeyPair, request: &Request) -> String {
        let Rights { publish, subscribe } = &self.rights;
        let allow =
            |subjects: &[async_nats::Subject]| Allow { allow: subjects.iter().map(ToString::to_string).collect() };
        let rights = UserClaims {
            publish: allow(publish),
            subscribe: allow(subscribe),
            subs: UNBOUNDED,
            data: UNBOUNDED,
            payload: UNBOUNDED,
            kind: "user",
            version: 2,
        };
        let mut claims = Claims::new(issuer, &request.nats.user_nkey, self.account, rights);
        claims.name = Some(&self.name);
        claims.expires_at = self.expires_at;
        claims.signed(issuer)
    }
}

/// What NATS is told: a user, or an error.
pub(super) struct Response<'a> {
    pub(super) user: &'a str,
    pub(super) error: String,
}

impl Response<'_> {
    pub(super) fn signed(&self, issuer: &KeyPair, request: &Request) -> String {
        let nats = ResponseClaims { jwt: self.user, error: &self.error, kind: "authorization_response", version: 2 };
        let Asked { server_id, user_nkey, .. } = &request.nats;
        Claims::new(issuer, user_nkey, &server_id.id, nats).signed(issuer)
    }
}

#[derive(Serialize)]
struct Claims<'a, N> {
    jti: String,
    #[serde(rename = "iat")]
    issued_at: u64,
    #[serde(rename = "exp", skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "sub")]
    subject: &'a str,
    #[serde(rename = "aud")]
    audience: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    nats: N,
}

impl<'a, N: Serialize> Claims<'a, N> {
    fn new(issuer: &KeyPair, subject: &'a str, audience: &'a str, nats: N) -> Self {
        let (jti, issuer) = (Uuid::new_v4().simple().to_string(), issuer.public_key());
        Self {
            jti,
            issued_at: clock::since_1970().as_secs(),
            expires_at: None,
            issuer,
            subject,
            audience,
            name: None,
            nats,
        }
    }

    fn signed(&self, issuer: &KeyPair) -> String {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let claims = serde_json::to_vec(self).expect("BUG: claims are plain data");
        let signed = format!("{}.{}", encoded(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#), encoded(&claims));
        let signature = issuer.sign(signed.as_bytes()).expect("BUG: the issuer's pair has its seed");
        format!("{signed}.{}", encoded(&signature))
    }
}

#[derive(Serialize)]
struct Allow {
    allow: Vec<String>,
}

#[derive(Serialize)]
struct UserClaims {
    #[serde(rename = "pub")]
    publish: Allow,
    #[serde(rename = "sub")]
    subscribe: Allow,
    subs: i8,
    data: i8,
    payload: i8,
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
}

#[derive(Serialize)]
struct ResponseClaims<'a> {
    jwt: &'a str,
    error: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    version: u8,
}
