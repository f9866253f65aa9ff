//! The app's view yields texts that are no audiences: no row can be in them, and nobody is worse off for them.

use synchrotron_core::wire::SessionRequest;

use crate::fixture::{Theatre, accepted, audience, note, seat};

/// Dave is in the project, and by mistakes of the app in what has no name, one that is too long, and one that is too long
/// even for an index.
const MISTAKES: &str = "CREATE OR REPLACE VIEW synchrotron.user_audiences AS
    SELECT user_id, 'project:' || project_id AS audience_key FROM project_members
    UNION ALL SELECT DISTINCT user_id, 'user:' || user_id FROM project_members
    UNION ALL SELECT 'dave', key FROM (VALUES (''), (repeat('x', 513)),
        ((SELECT string_agg(md5(number::text), '') FROM generate_series(1, 1000) AS number))) AS mistakes(key);
    INSERT INTO project_members VALUES ('p', 'dave')";

#[tokio::test]
async fn who_is_in_what_is_no_audience_is_served_without_it() {
    let theatre = Theatre::open_with(MISTAKES, &[], |_| {}).await;
    let (mut alice, mut dave) = (theatre.device("alice"), theatre.device("dave"));
    let keys: Vec<_> = dave.session().await.audiences.into_iter().map(|head| head.audience_key).collect();
    assert_eq!(keys, [audience("project:p"), audience("user:dave")]);
    dave.sync(vec![dave.action(10, vec![seat("A1"), note("n", "dave")])]).await;
    alice.sync(vec![alice.action(20, vec![seat("A2")])]).await;
    assert_eq!(dave.catch_up().await.len(), 2);
    assert_eq!(
        theatre.count("synchrotron.audience_heads WHERE octet_length(audience_key) NOT BETWEEN 1 AND 512").await,
        0
    );
    assert_eq!(theatre.service.audiences_of(&dave.principal.user_id).await.expect("read").len(), 2);
}

/// Uploads share a transaction, so what cannot be read of one user would fail all of them.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_beside_one_of_such_a_user_are_taken() {
    let theatre = Theatre::open_with(MISTAKES, &[], |_| {}).await;
    let request = |device: &crate::fixture::Device| SessionRequest { client_id: device.client_id };
    let (alice, dave) = (theatre.device("alice"), theatre.device("dave"));
    theatre.service.session(&dave.principal, request(&dave)).await.expect("a session");
    let both = [(&alice, note("a", "alice")), (&dave, note("d", "dave"))]
        .map(|(device, row)| async move { device.upload(vec![device.action(10, vec![row])]).await });
    for outcome in futures::future::join_all(both).await {
        accepted(outcome);
    }
}
