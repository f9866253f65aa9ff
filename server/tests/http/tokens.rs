//! Every way in which a token can be right, or wrong.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, get_current_timestamp};
use serde_json::{Value, json};
use synchrotron_core::model::UserId;
use synchrotron_core::wire::FaultCode;
use synchrotron_server::auth::{MintError, TokenVerifier, mint, mint_for};
use synchrotron_server::settings::{Algorithm as Allowed, JwtSettings, Secret};

use crate::api::SECRET;
use crate::issuer::{Answer, KeyServer, SigningKey, claims_of, quick};

const NONE: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";

fn verifier(settings: &JwtSettings) -> TokenVerifier {
    TokenVerifier::new(settings).expect("verifies")
}

fn strict() -> JwtSettings {
    JwtSettings { leeway_seconds: 5, ..JwtSettings::with_secret(SECRET) }
}

fn signed(header: &Header, secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).expect("signs")
}

fn hs256(claims: &Value) -> String {
    signed(&Header::default(), SECRET, claims)
}

/// Claims of alice, with these instead.
fn with(changes: Value) -> Value {
    let mut claims = claims_of("alice");
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims_of("alice");
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

async fn refusal(verifier: &TokenVerifier, token: &str) -> String {
    let fault = verifier.verify(token).await.expect_err("refused");
    assert_eq!(fault.code, FaultCode::Unauthenticated, "{}", fault.message);
    assert!(!fault.message.contains("eyJ"), "{}", fault.message);
    fault.message
}

#[tokio::test]
async fn auth_01_a_good_token_proves_its_user() {
    let expires = get_current_timestamp() + 60;
    let claims = json!({ "sub": "userA", "exp": expires, "aud": "authenticated" });
    let settings = JwtSettings { audience: Some("authenticated".into()), ..strict() };
    let proven = verifier(&settings).verify(&hs256(&claims)).await.expect("valid");
    assert_eq!((proven.user_id.as_str(), proven.expires_at), ("userA", i64::try_from(expires).ok()));
    assert!(!format!("{:?}", verifier(&settings)).contains("secret of"));
}

#[tokio::test]
async fn auth_04_u12_a_bad_token_is_named_for_what_it_is() {
    let now = get_current_timestamp();
    let good = claims_of("alice");
    let header = |extra: fn(&mut Header)| {
        let mut header = Header::default();
        extra(&mut header);
        signed(&header, SECRET, &good)
    };
    let cases = [
        (hs256(&with(json!({ "exp": now - 3600 }))), "expired"),
        (hs256(&with(json!({ "exp": now - 10 }))), "expired"),
        (signed(&Header::default(), b"another secret", &good), "bad signature"),
        (signed(&Header::new(Algorithm::HS512), SECRET, &good), "algorithm is not allowed: HS256 may be used"),
        (NONE.to_owned(), "algorithm is not allowed"),
        (SigningKey::ed25519("1").token(), "algorithm is not allowed"),
        (header(|header| header.crit = Some(vec!["b64".into()])), "crit"),
        (header(|header| header.crit = Some(vec![])), "crit"),
        (hs256(&without("sub")), "no sub"),
        (hs256(&without("exp")), "no exp"),
        (hs256(&with(json!({ "exp": "tomorrow" }))), "no exp"),
        (hs256(&with(json!({ "exp": -1 }))), "no exp"),
        (hs256(&with(json!({ "sub": "" }))), "sub is no user id"),
        (hs256(&with(json!({ "sub": "_server" }))), "sub is the server's own name"),
        (hs256(&with(json!({ "sub": "a\0lice" }))), "sub is no user id"),
        (hs256(&with(json!({ "sub": "x".repeat(UserId::MAX_BYTES + 1) }))), "sub is no user id"),
        (hs256(&with(json!({ "sub": 7 }))), "malformed"),
        (hs256(&with(json!({ "sub": ["alice"] }))), "malformed"),
        (hs256(&with(json!({ "nbf": now + 60 }))), "not valid yet"),
        (hs256(&with(json!({ "nbf": "later" }))), "nbf is malformed"),
        (hs256(&with(json!({ "much": "x".repeat(20_000) }))), "at most 16384 are read"),
        (hs256(&json!("no claims")), "malformed"),
        (format!("{}.", hs256(&good)), "malformed"),
        (hs256(&good).replace('.', ""), "malformed"),
        ("no token at all".to_owned(), "malformed"),
        ("..".to_owned(), "malformed"),
        (String::new(), "malformed"),
    ];
    let verifier = verifier(&strict());
    for (token, fact) in cases {
        let message = refusal(&verifier, &token).await;
        assert!(message.contains(fact), "{fact}: {message}");
    }
    verifier.verify(&hs256(&with(json!({ "exp": now - 3, "nbf": now + 3 })))).await.expect("within the leeway");
}

#[tokio::test]
async fn u12_issuer_and_audience_are_checked_when_asked_for() {
    let (issuer, audience) = (Some("us".to_owned()), Some("sync".to_owned()));
    let verifier = verifier(&JwtSettings { issuer, audience, ..strict() });
    let claims = |iss: &str, aud: Value| hs256(&with(json!({ "iss": iss, "aud": aud })));
    verifier.verify(&claims("us", json!("sync"))).await.expect("ours");
    verifier.verify(&claims("us", json!(["mail", "sync"]))).await.expect("ours, too");
    let cases = [
        (claims("them", json!("sync")), "another issuer"),
        (claims("us", json!("mail")), "another audience"),
        (claims("us", json!([])), "another audience"),
        (hs256(&with(json!({ "aud": "sync" }))), "no iss"),
        (hs256(&with(json!({ "iss": "us" }))), "no aud"),
    ];
    for (token, fact) in cases {
        let message = refusal(&verifier, &token).await;
        assert!(message.contains(fact), "{fact}: {message}");
    }
}

#[tokio::test]
async fn the_user_may_be_named_by_another_claim() {
    let claims = with(json!({ "app_metadata": { "user": "bob" }, "https://a.b/user": "carol" }));
    for (user_claim, user) in [("app_metadata.user", "bob"), ("https://a.b/user", "carol"), ("sub", "alice")] {
        let verifier = verifier(&JwtSettings { user_claim: user_claim.into(), ..strict() });
        assert_eq!(verifier.verify(&hs256(&claims)).await.expect("valid").user_id.as_str(), user);
    }
    for missing in ["app_metadata.id", "sub.user", "app_metadata.user.id", "app_metadata"] {
        let verifier = verifier(&JwtSettings { user_claim: missing.into(), ..strict() });
        assert!(refusal(&verifier, &hs256(&claims)).await.contains(missing));
    }
}

#[tokio::test]
async fn auth_03_each_algorithm_verifies_with_the_key_that_the_token_names() {
    let rsa = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]
        .into_iter()
        .chain([Algorithm::PS256, Algorithm::PS384, Algorithm::PS512])
        .map(|algorithm| SigningKey::rsa(&format!("{algorithm:?}"), algorithm));
    let others = [SigningKey::p256("p256"), SigningKey::p384("p384"), SigningKey::ed25519("ed")];
    let keys: Vec<_> = rsa.chain(others).collect();
    let server = KeyServer::publishing(&keys.iter().collect::<Vec<_>>()).await;
    let names = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA".split(' ');
    let algorithms: Vec<Allowed> = names.map(|name| name.parse().expect("known")).collect();
    let all = verifier(&JwtSettings { algorithms, ..JwtSettings::with_jwks(server.url.clone()) });
    let default = verifier(&JwtSettings::with_jwks(server.url.clone()));
    for key in &keys {
        assert_eq!(all.verify(&key.token()).await.expect("valid").user_id.as_str(), "alice", "{:?}", key.algorithm);
        let by_default = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].contains(&key.algorithm);
        assert_eq!(default.verify(&key.token()).await.is_ok(), by_default, "{:?}", key.algorithm);
    }
}

/// Who knows a public key can make none of these tokens count.
#[tokio::test]
async fn u12_a_public_key_is_no_secret_and_a_secret_no_public_key() {
    let key = SigningKey::rsa("1", Algorithm::RS256);
    let published = key.published();
    let shared = json!({ "kty": "oct", "kid": "1", "k": "c2VjcmV0IG9mIHRoZXNlIHRlc3Rz" });
    let server = KeyServer::start(Answer::Body(json!({ "keys": [published, shared] }).to_string())).await;
    let by_keys = JwtSettings::with_jwks(server.url.clone());
    let by_both = JwtSettings { secret: strict().secret, ..by_keys.clone() };
    let header = Header { kid: Some("1".into()), ..Header::default() };
    let modulus = published["n"].as_str().expect("a modulus");
    for public in [modulus, &published.to_string(), "secret of these tests"] {
        let confused = signed(&header, public.as_bytes(), &claims_of("mallory"));
        assert!(refusal(&verifier(&by_keys), &confused).await.contains("algorithm is not allowed"));
        assert!(refusal(&verifier(&by_both), &confused).await.contains("bad signature"));
    }
    let both = verifier(&by_both);
    both.verify(&key.token()).await.expect("signed with the private key");
    both.verify(&hs256(&claims_of("alice"))).await.expect("signed with the secret");
    assert!(refusal(&verifier(&strict()), &key.token()).await.contains("algorithm is not allowed"));
    assert!(refusal(&both, NONE).await.contains("algorithm is not allowed"));
}

/// A key of the set counts only for what it is published for.
#[tokio::test]
async fn u12_a_key_verifies_only_what_it_is_published_for() {
    let key = SigningKey::p256("1");
    let changes = [
        json!({ "use": "enc" }),
        json!({ "key_ops": ["sign"] }),
        json!({ "alg": "ES384" }),
        json!({ "alg": "ECDH-ES" }),
        json!({ "crv": "P-384" }),
        json!({ "kid": "2" }),
        json!({ "x": "" }),
    ];
    for change in changes {
        let mut published = key.published();
        for (name, value) in change.as_object().expect("an object") {
            published[name] = value.clone();
        }
        let server = KeyServer::start(Answer::Body(json!({ "keys": [published] }).to_string())).await;
        let message = refusal(&server.verifier(quick()), &key.token()).await;
        assert!(message.contains("not among its issuer's") || message.contains("bad signature"), "{change}: {message}");
    }
    let short = SigningKey::short_rsa("1");
    let server = KeyServer::publishing(&[&short]).await;
    assert!(refusal(&server.verifier(quick()), &short.token()).await.contains("not among its issuer's"));
}

#[tokio::test]
async fn a_token_that_names_no_key_needs_the_only_one_that_suits() {
    let nameless = SigningKey { id: None, ..SigningKey::p256("") };
    let (other, third) = (SigningKey::ed25519("ed"), SigningKey::p256("p256"));
    let server = KeyServer::publishing(&[&nameless, &other]).await;
    server.verifier(quick()).verify(&nameless.token()).await.expect("the only one");
    let server = KeyServer::publishing(&[&nameless, &other, &third]).await;
    let verifier = server.verifier(quick());
    assert!(refusal(&verifier, &nameless.token()).await.contains("2 of its issuer's could have signed it"));
    verifier.verify(&third.token()).await.expect("names its key");
}

#[tokio::test]
async fn minted_tokens_are_taken_by_the_server_whose_settings_they_are_made_for() {
    let alice = UserId::new("alice").expect("ok");
    let ttl = Duration::from_secs(60);
    let token = mint(&Secret::new(SECRET), &alice, ttl);
    assert_eq!(verifier(&strict()).verify(&token).await.expect("valid").user_id, alice);
    let settings = JwtSettings {
        issuer: Some("us".into()),
        audience: Some("sync".into()),
        user_claim: "app_metadata.user".into(),
        ..strict()
    };
    let token = mint_for(&settings, &alice, ttl).expect("a secret");
    assert_eq!(verifier(&settings).verify(&token).await.expect("valid").user_id, alice);
    let expired = mint_for(&JwtSettings { leeway_seconds: 0, ..strict() }, &alice, Duration::ZERO).expect("a secret");
    let proven = verifier(&strict()).verify(&expired).await.expect("within the leeway");
    assert!(proven.expires_at.expect("expires") <= i64::try_from(get_current_timestamp()).expect("before the end"));
    let public = JwtSettings::with_jwks("https://h/keys".parse().expect("a URL"));
    assert_eq!(mint_for(&public, &alice, ttl), Err(MintError::NoSecret));
}
