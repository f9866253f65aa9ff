//! An issuer of tokens: keys that are made for one run, and a real server that publishes them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use axum::routing::get;
use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, get_current_timestamp};
use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::rand_core::OsRng;
use serde_json::{Value, json};
use synchrotron_server::auth::{JwksLimits, TokenVerifier};
use synchrotron_server::settings::JwtSettings;
use url::Url;

/// A private key and how its tokens name it.
#[derive(Clone)]
pub(crate) struct SigningKey {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
}

impl SigningKey {
    fn new(id: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        Self { id: Some(id.to_owned()), algorithm, key }
    }

    pub(crate) fn p256(id: &str) -> Self {
        let der = p256::SecretKey::random(&mut OsRng).to_pkcs8_der().expect("encodes");
        Self::new(id, Algorithm::ES256, EncodingKey::from_ec_der(der.as_bytes()))
    }

    pub(crate) fn p384(id: &str) -> Self {
        let der = p384::SecretKey::random(&mut OsRng).to_pkcs8_der().expect("encodes");
        Self::new(id, Algorithm::ES384, EncodingKey::from_ec_der(der.as_bytes()))
    }

    pub(crate) fn ed25519(id: &str) -> Self {
        let secret_key = ed25519_dalek::SigningKey::generate(&mut OsRng).to_bytes();
        let der = KeypairBytes { secret_key, public_key: None }.to_pkcs8_der().expect("encodes");
        Self::new(id, Algorithm::EdDSA, EncodingKey::from_ed_der(der.as_bytes()))
    }

    /// The same key for every test: making one takes long.
    pub(crate) fn rsa(id: &str, algorithm: Algorithm) -> Self {
        static KEY: OnceLock<EncodingKey> = OnceLock::new();
        Self::new(id, algorithm, KEY.get_or_init(|| rsa_key(2048)).clone())
    }

    /// A key that is too short to be believed.
    pub(crate) fn short_rsa(id: &str) -> Self {
        Self::new(id, Algorithm::RS256, rsa_key(1024))
    }

    /// What the issuer publishes of it.
    pub(crate) fn published(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("has a public part");
        jwk.common.key_id.clone_from(&self.id);
        serde_json::to_value(jwk).expect("encodes")
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: self.id.clone(), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("signs")
    }

    /// A good token of alice.
    pub(crate) fn token(&self) -> String {
        self.sign(&claims_of("alice"))
    }
}

fn rsa_key(bits: usize) -> EncodingKey {
    let der = RsaPrivateKey::new(&mut OsRng, bits).expect("generates").to_pkcs1_der().expect("encodes");
    EncodingKey::from_rsa_der(der.as_bytes())
}

/// What a good token of this user says.
pub(crate) fn claims_of(user: &str) -> Value {
    json!({ "sub": user, "exp": get_current_timestamp() + 3_600 })
}

/// What a key server answers.
#[derive(Clone)]
pub(crate) enum Answer {
    Status(StatusCode),
    Body(String),
    Redirect(String),
    Never,
}

/// A server that publishes keys.
pub(crate) struct KeyServer {
    pub(crate) url: Url,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}/keys", listener.local_addr().expect("bound")).parse().expect("a URL");
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (shared, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let reply = get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
            respond(answer).await
        });
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/keys", reply)).await });
        Self { url, answer, asked }
    }

    pub(crate) async fn publishing(keys: &[&SigningKey]) -> Self {
        Self::start(key_set(keys)).await
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A verifier of the tokens that its keys sign.
    pub(crate) fn verifier(&self, limits: JwksLimits) -> TokenVerifier {
        let settings = JwtSettings { leeway_seconds: 5, ..JwtSettings::with_jwks(self.url.clone()) };
        TokenVerifier::with_limits(&settings, limits).expect("verifies")
    }
}

async fn respond(answer: Answer) -> Response<Body> {
    let response = Response::builder();
    let response = match answer {
        Answer::Status(status) => response.status(status).body(Body::empty()),
        Answer::Body(body) => response.body(Body::from(body)),
        Answer::Redirect(to) => response.status(StatusCode::FOUND).header(header::LOCATION, to).body(Body::empty()),
        Answer::Never => std::future::pending().await,
    };
    response.expect("a response")
}

/// The set of these keys.
pub(crate) fn key_set(keys: &[&SigningKey]) -> Answer {
    let keys: Vec<Value> = keys.iter().map(|key| key.published()).collect();
    Answer::Body(json!({ "keys": keys }).to_string())
}

/// Bounds that let a test see everything within a second, and a fetch only when it is wished for.
pub(crate) fn quick() -> JwksLimits {
    JwksLimits {
        fetch_within: Duration::from_millis(300),
        pause: Duration::from_millis(100),
        bytes_max: 16 << 10,
        keys_max: 8,
        ..JwksLimits::default()
    }
}
