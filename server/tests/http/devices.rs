//! Whole devices over HTTP: they hear of each other by wakeups, not by asking.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Client, Connection, Timing};
use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::network::StaticToken;
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::params;
use synchrotron_core::store::Fate;
use synchrotron_http::HttpNetwork;
use tokio::time::timeout;

use crate::api::{Api, token};

const PATIENCE: Duration = Duration::from_secs(60);
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS seats (id TEXT PRIMARY KEY, label TEXT NOT NULL, holder TEXT, audience_key TEXT NOT NULL)";

#[derive(Serialize, Deserialize)]
struct OpenSeat {
    label: String,
}

impl Action for OpenSeat {
    const TAG: &'static str = "open_seat_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        ctx.insert("seats", &[("label", (&self.label).into()), ("audience_key", "project:1".into())]).map(drop)
    }
}

/// A device that asks once an hour by itself.
async fn device(api: &Api, user: &str, path: &Path) -> Client {
    let client = open(user, path).await;
    client.go_online(Arc::new(api.network(user)));
    client
}

async fn open(user: &str, path: &Path) -> Client {
    let hour = Duration::from_secs(60 * 60);
    let timing = Timing { poll: hour, head_check: hour, ..Timing::default() };
    let builder = Client::builder().database(path).user(user).schema(SCHEMA).timing(timing);
    let builder = builder.table(Table::new("seats").identity(["label"])).action::<OpenSeat>();
    builder.open().await.expect("opens")
}

#[tokio::test]
async fn devices_hear_of_each_other_by_wakeups() {
    let api = Api::start().await;
    let other = Api::on(api.database.clone(), |_| {}).await;
    for name in ["alice", "bob"] {
        api.allow(&UserId::new(name).expect("ok"), &AudienceKey::new("project:1").expect("ok")).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let alice = device(&api, "alice", &folder.path().join("alice.db")).await;
    let bob = device(&other, "bob", &folder.path().join("bob.db")).await;
    let mut seats = std::pin::pin!(bob.live_query("SELECT label FROM seats ORDER BY label", params![]));
    for count in 1..=3 {
        alice.execute(OpenSeat { label: format!("A{count}") }).await.expect("executes");
        let shown = async { while seats.next().await.expect("goes on").expect("rows").len() < count {} };
        timeout(PATIENCE, shown).await.expect("bob hears of it");
    }
}

#[tokio::test]
async fn u12_a_device_whose_token_is_refused_says_so_and_its_work_waits_for_another() {
    let api = Api::start().await;
    api.allow(&UserId::new("alice").expect("ok"), &AudienceKey::new("project:1").expect("ok")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let alice = open("alice", &folder.path().join("alice.db")).await;
    let mut execution = alice.execute(OpenSeat { label: "A1".to_owned() }).await.expect("executes");
    let expired = HttpNetwork::new(&api.url, Arc::new(StaticToken::new(token("alice", -3_600)))).expect("a URL");
    alice.go_online(Arc::new(expired));
    let mut statuses = alice.status();
    let failed = statuses.wait_for(|status| matches!(status.connection, Connection::Failed { .. }));
    let status = timeout(PATIENCE, failed).await.expect("in time").expect("the client lives").clone();
    assert!(status.last_error.is_some_and(|failed| failed.error.is_unauthenticated()));
    assert_eq!((status.pending, status.quarantined), (1, 0));
    alice.go_offline();
    alice.go_online(Arc::new(api.network("alice")));
    let fate = timeout(PATIENCE, execution.confirmed()).await.expect("in time").expect("reads");
    assert_eq!(fate, Fate::Confirmed);
}
