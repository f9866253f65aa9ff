//! Random users, audiences and memberships, and a tap on everything that each connection receives: no row of it is one that
//! Row Level Security hides from its user, and none that it shows is missing.
//!
//! `SEED=7 cargo test -p synchrotron-server --test nats leak` plays the same game again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions};
use futures::StreamExt;
use futures::future::join_all;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sqlx_core::connection::Connection;
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::model::Cursors;
use synchrotron_core::network::Network;
use synchrotron_core::wire::{FetchRequest, SessionRequest};
use synchrotron_nats::subjects::{UserToken, inbox_prefix};
use synchrotron_testkit::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::stack::{Device, PATIENCE, Stack, token, user_id};

const USERS: usize = 5;
const AUDIENCES: usize = 6;
const ROUNDS: usize = 5;
const ROWS: usize = 12;

/// What a connection received, byte for byte.
type Received = Arc<Mutex<Vec<u8>>>;

/// One user: a device that writes, and a client that asks for everything, whose every byte is kept.
struct User {
    name: String,
    device: Device,
    client: Client,
    received: Received,
}

/// Passes on what each of the connections to it sends and receives, and keeps the latter.
async fn tap(nats_port: u16) -> (u16, Received) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let (port, received) = (listener.local_addr().expect("an address").port(), Received::default());
    let kept = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(("127.0.0.1", nats_port)).await else { continue };
            tokio::spawn(pass_on(client, server, Arc::clone(&kept)));
        }
    });
    (port, received)
}

async fn pass_on(client: TcpStream, server: TcpStream, kept: Received) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async move {
        let _ended = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ended = to_server.shutdown().await;
    };
    let down = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            kept.lock().expect("nobody panics").extend_from_slice(&buffer[..count]);
            if to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        let _ended = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}

impl User {
    async fn join(stack: &Stack, name: String) -> Self {
        let device = stack.device(&name, &[]).await;
        let nats = stack.nats.as_ref().expect("a NATS of its own");
        let (port, received) = tap(nats.port().expect("ours")).await;
        let prefix = format!("{}.tap", inbox_prefix(&UserToken::of(&user_id(&name))));
        let options = ConnectOptions::with_token(token(&name, 3_600)).custom_inbox_prefix(prefix);
        let client = options.connect(format!("127.0.0.1:{port}")).await.expect("connects");
        for audience in 0..AUDIENCES {
            for kind in ["live", "log"] {
                let subject = format!("{}.{kind}.a-{audience}", stack.subjects.prefix());
                ask_for(&client, subject).await;
            }
        }
        for subject in [">", "test.sync.>", "test.sync.live.*", "test.sync.outcome.>", "test.sync.up.>", "_INBOX.>"] {
            ask_for(&client, subject.to_owned()).await;
        }
        Self { name, device, client, received }
    }

    /// Everything that was sent to it before is here.
    async fn settle(&self, stack: &Stack) {
        stack.settle(&self.client, &self.device).await;
    }

    /// Whether this text is among what its connection received.
    fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.received.lock().expect("nobody panics")).contains(text)
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

/// Subscribes for as long as the client lives.
async fn ask_for(client: &Client, subject: String) {
    let mut messages = client.subscribe(subject).await.expect("sends");
    tokio::spawn(async move { while messages.next().await.is_some() {} });
}

/// The rows that the policies show to a user.
async fn visible(stack: &Stack, user: &str) -> BTreeSet<String> {
    let mut connection = PgConnection::connect(&stack.database).await.expect("connects");
    let mut tx = connection.begin().await.expect("begins");
    query("SELECT set_config('synchrotron.user_id', $1, true), set_config('role', 'synchrotron_user', true)")
        .bind(user)
        .execute(&mut *tx)
        .await
        .expect("becomes the user");
    let ids: Vec<String> =
        query_scalar::<Postgres, _>("SELECT id FROM seats").fetch_all(&mut *tx).await.expect("reads");
    ids.into_iter().collect()
}

/// Changes some memberships, and waits until NATS has ended the connections of those whose they are.
async fn change_memberships(
    stack: &Stack,
    users: &[User],
    memberships: &mut BTreeSet<(usize, usize)>,
    rng: &mut ChaCha8Rng,
) {
    let mut before = BTreeMap::new();
    for _ in 0..4 {
        let (user, audience) = (rng.random_range(0..USERS), rng.random_range(0..AUDIENCES));
        // A user who is changed twice may end as before, and nobody's connection would end for that.
        if before.contains_key(&user) {
            continue;
        }
        before.insert(user, users[user].connects());
        let key = format!("a-{audience}");
        if memberships.remove(&(user, audience)) {
            stack.forbid(&users[user].name, &key).await;
        } else {
            memberships.insert((user, audience));
            stack.allow(&users[user].name, &key).await;
        }
    }
    for (user, connects) in before {
        let renewed = async || (users[user].connects() > connects).then_some(());
        wait_for("the end of rights of before", PATIENCE, renewed).await.expect("cut off");
        users[user].settle(stack).await;
    }
}

/// Writes rows as users who may.
async fn write(stack: &Stack, users: &[User], memberships: &BTreeSet<(usize, usize)>, rng: &mut ChaCha8Rng) {
    let all: Vec<&(usize, usize)> = memberships.iter().collect();
    for _ in 0..ROWS {
        let Some((user, audience)) = all.choose(rng) else { return };
        let device = &users[*user].device;
        let request = SessionRequest { client_id: device.client_id };
        let session = device.network.session(&request).await.expect("served");
        let mut batch = device.seat(&Uuid::new_v4().simple().to_string(), &format!("a-{audience}"));
        batch.basis = session.audiences.into_iter().map(|audience| (audience.audience_key, audience.head)).collect();
        device.accepted(&batch).await;
    }
    wait_for("all to be published", PATIENCE, async || (stack.unpublished().await == 0).then_some(()))
        .await
        .expect("published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_receives_what_its_user_may_not_see() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0 >> 16);
    eprintln!("SEED={seed} cargo test -p synchrotron-server --test nats leak");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let stack = Stack::start_with(|api| api.membership_every = std::time::Duration::from_millis(100)).await;
    let users = join_all((0..USERS).map(|number| User::join(&stack, format!("user-{number}")))).await;
    let mut memberships = BTreeSet::new();
    let mut written_before: BTreeSet<String> = BTreeSet::new();
    for round in 0..ROUNDS {
        change_memberships(&stack, &users, &mut memberships, &mut rng).await;
        for user in &users {
            user.received.lock().expect("nobody panics").clear();
        }
        write(&stack, &users, &memberships, &mut rng).await;
        let mut written: BTreeSet<String> = BTreeSet::new();
        for user in &users {
            written.extend(visible(&stack, &user.name).await);
        }
        written.retain(|id| !written_before.contains(id));
        for user in &users {
            let visible = visible(&stack, &user.name).await;
            let arrived = async || written.iter().all(|id| !visible.contains(id) || user.has(id)).then_some(());
            wait_for("what a user may see", PATIENCE, arrived).await.expect("a row is missing");
            user.settle(&stack).await;
            let received = String::from_utf8_lossy(&user.received.lock().expect("nobody panics")).into_owned();
            for id in &written {
                let (may, did) = (visible.contains(id), received.contains(id.as_str()));
                assert_eq!(may, did, "round {round}: {} and row {id}: may see it, has received it", user.name);
            }
            let old = written_before.iter().find(|id| received.contains(id.as_str()));
            assert_eq!(old, None, "round {round}: {} received what was written before", user.name);
            let Device { client_id, session, network, .. } = &user.device;
            let request = FetchRequest { client_id: *client_id, epoch: session.epoch, cursors: Cursors::new() };
            let page = network.fetch(&request).await.expect("served");
            let fetched: BTreeSet<String> =
                page.records.iter().flat_map(|record| &record.rows).map(|row| row.row_id.to_string()).collect();
            assert_eq!(fetched, visible, "round {round}: {}", user.name);
        }
        written_before.extend(written);
    }
}
