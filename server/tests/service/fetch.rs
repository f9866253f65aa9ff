//! What a device gets, and in how many pieces.

use synchrotron_core::model::{Cursor, Effect, Value};

use crate::fixture::{Theatre, accepted, audience, columns, hold, note, patch, seat};

#[tokio::test]
async fn a_record_comes_with_all_rows_that_the_user_may_see_and_no_other() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let record = alice.action(10, vec![seat("A1"), note("n", "alice"), hold("A1", Some("alice"))]);
    let number = alice.sync(vec![record.clone()]).await[&record.id];
    let mine = alice.catch_up().await;
    assert_eq!(mine[0].rows, record.rows);
    assert_eq!(mine[0].record.body, record.body);
    let theirs = bob.catch_up().await;
    assert_eq!(theirs.len(), 1);
    assert_eq!(theirs[0].rows, [record.rows[0].clone(), record.rows[2].clone()]);
    assert_eq!((theirs[0].row_count, theirs[0].slices.len()), (3, 2));
    assert_eq!(theirs[0].slices, mine[0].slices);
    let keys: Vec<&str> = bob.cursors.keys().map(synchrotron_core::model::AudienceKey::as_str).collect();
    assert_eq!(keys, ["project:p", "project:q", "user:bob"]);
    assert_eq!(bob.cursors[&audience("project:p")], Cursor::through(number));
    assert_eq!(bob.cursors[&audience("project:q")], Cursor::START);
}

#[tokio::test]
async fn small_pages_reach_everything_once() {
    let theatre = Theatre::open_with("", &[], |settings| settings.page_bytes_max = 1_000).await;
    let (alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let mut sent = Vec::new();
    for turn in 0..12 {
        let big = Value::Text("x".repeat(if turn == 5 { 20_000 } else { 100 }));
        let row = patch("seats", &format!("s{turn}"), "project:p", Effect::Insert(columns([("label", big)])));
        let records =
            vec![alice.action(10 + turn, vec![row]), alice.action(10 + turn, vec![note(&format!("n{turn}"), "alice")])];
        sent.push(records[0].id);
        accepted(alice.upload(records).await);
    }
    let mut pages = 0;
    let mut got = Vec::new();
    loop {
        let page = bob.page().await;
        assert!(!page.records.is_empty() || !page.more);
        assert!(page.cursors.iter().all(|(key, cursor)| *cursor >= bob.cursors.get(key).copied().unwrap_or_default()));
        pages += 1;
        got.extend(page.records.iter().map(|record| record.record.id));
        bob.cursors = page.cursors;
        if !page.more {
            break;
        }
    }
    assert_eq!(got, sent);
    assert!(pages > 3, "{pages} pages");
    assert!(bob.page().await.records.is_empty());
}

#[tokio::test]
async fn an_audience_that_is_new_to_the_device_starts_from_the_beginning() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let in_q = |row: &str| patch("seats", row, "project:q", Effect::Insert(columns([("label", "x".into())])));
    bob.sync(vec![bob.action(10, vec![in_q("Q1")]), bob.action(20, vec![seat("A1")])]).await;
    assert_eq!(alice.catch_up().await.len(), 1);
    theatre.execute("INSERT INTO project_members VALUES ('q', 'alice')").await;
    let gained = alice.catch_up().await;
    assert_eq!(gained.len(), 1);
    assert_eq!(gained[0].rows[0].row_id.as_str(), "Q1");
}
