//! `token` makes what a server with the same settings takes.

use synchrotron_server::auth::TokenVerifier;
use synchrotron_server::settings::JwtSettings;

use crate::process::{SECRET, run};

#[tokio::test]
async fn a_server_with_the_same_settings_takes_it() {
    let mut settings = JwtSettings::with_secret(SECRET);
    settings.issuer = Some("us".to_owned());
    settings.audience = Some("them".to_owned());
    let environment =
        [("SYNCHROTRON_JWT_SECRET", SECRET), ("SYNCHROTRON_JWT_ISSUER", "us"), ("SYNCHROTRON_JWT_AUDIENCE", "them")];
    let ran = run(&["token", "--user", "alice", "--ttl", "90s"], &environment);
    assert_eq!(ran.code, 0, "{ran:?}");
    let verifier = TokenVerifier::new(&settings).expect("a secret verifies");
    let principal = verifier.verify(ran.stdout.trim()).await.expect("is taken");
    assert_eq!(principal.user_id.as_str(), "alice");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let left = principal.expires_at.expect("expires") - i64::try_from(now).expect("in range");
    assert!((30..=90).contains(&left), "{left}");
    settings.audience = Some("others".to_owned());
    let other = TokenVerifier::new(&settings).expect("a secret verifies");
    other.verify(ran.stdout.trim()).await.expect_err("is for another audience");
}

#[test]
fn without_a_secret_there_is_none() {
    run(&["token", "--user", "alice"], &[]).assert_complains(2, &["neither a secret nor"]);
    let supabase = [("SUPABASE_JWT_SECRET", "a secret of a project at Supabase")];
    assert_eq!(run(&["token", "--user", "alice"], &supabase).code, 0);
    for args in [&["token"][..], &["token", "--user", ""], &["token", "--user", "alice", "--ttl", "soon"]] {
        assert_eq!(run(args, &supabase).code, 2, "{args:?}");
    }
}
