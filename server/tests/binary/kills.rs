//! Servers and Postgres are killed at random moments under load: nothing is lost, nothing is doubled, no answer changes,
//! and a reader misses nothing.
//!
//! `SEED=7 cargo test -p synchrotron-server --test binary kills` kills the same ones in the same order; what they were doing
//! is up to the machine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Epoch, Hlc, Patch,
    RecordBody, RowId, ServerIngestId, TableName,
};
use synchrotron_core::network::Network;
use synchrotron_core::wire::{FetchRequest, Outcome, SessionRequest, UploadBatch, UploadRecord};
use synchrotron_http::HttpNetwork;
use synchrotron_testkit::{Postgres, free_port};
use uuid::Uuid;

use crate::database::Database;
use crate::memory::network;
use crate::process::{Running, SECRET};

const UPLOADERS: usize = 4;
const KILLS: u32 = 8;
/// How long everything goes on before the next kill, at most.
const BETWEEN_MAX_MS: u64 = 900;
const PATIENCE: Duration = Duration::from_secs(60);

type Answers = BTreeMap<ActionId, ServerIngestId>;

/// Two servers beside one Postgres, and the two ways to them.
struct Fleet {
    postgres: Postgres,
    database: String,
    addresses: [String; 2],
    servers: Vec<Running>,
}

impl Fleet {
    /// `None` where the only Postgres is not ours to kill.
    async fn start() -> Option<Self> {
        let postgres = Postgres::start().await.expect("postgres");
        let mut database = Database::create_on(&postgres).await;
        let members: Vec<String> =
            (0..UPLOADERS).flat_map(|n| [format!("('u{n}', '{n}')"), format!("('reader', '{n}')")]).collect();
        database.execute(&format!("INSERT INTO members VALUES {}", members.join(", "))).await;
        if std::env::var_os("DATABASE_URL").is_some() {
            return None;
        }
        let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut fleet = Self { postgres, database: database.url.clone(), addresses, servers: Vec::new() };
        for number in 0..2 {
            let server = fleet.launch(number);
            server.ready(&fleet.addresses[number]).await;
            fleet.servers.push(server);
        }
        Some(fleet)
    }

    fn launch(&self, number: usize) -> Running {
        let environment = [
            ("DATABASE_URL", self.database.as_str()),
            ("SYNCHROTRON_LISTEN", &self.addresses[number]),
            ("SYNCHROTRON_TABLES", "notes"),
            ("SYNCHROTRON_JWT_SECRET", SECRET),
            ("RUST_LOG", "error"),
        ];
        Running::start(&["serve"], &environment)
    }

    /// Kills one of three without warning, and starts it again.
    async fn kill_one(&mut self, rng: &mut ChaCha8Rng) {
        match rng.random_range(0..3) {
            2 => self.postgres.restart().await.expect("Postgres comes back with what was committed"),
            number => {
                self.servers[number].kill();
                let server = self.launch(number);
                server.ready(&self.addresses[number]).await;
                self.servers[number] = server;
            }
        }
    }
}

/// Asks one server after the other until one answers.
async fn insist<T>(networks: &[HttpNetwork; 2], ask: impl AsyncFn(&HttpNetwork) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut turn = 0;
    loop {
        if let Some(answer) = ask(&networks[turn % 2]).await {
            return answer;
        }
        assert!(Instant::now() < deadline, "nobody answers");
        turn += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn open_session(networks: &[HttpNetwork; 2], client_id: ClientId) -> Epoch {
    insist(networks, async |network| network.session(&SessionRequest { client_id }).await.ok()).await.epoch
}

/// Uploads batch after batch until told to stop, each until it is accepted, and now and then once more.
async fn upload(addresses: [String; 2], number: usize, seed: u64, stop: &AtomicBool) -> Answers {
    let networks = addresses.map(|address| network(&address, &format!("u{number}")));
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let epoch = open_session(&networks, client_id).await;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ number as u64);
    let mut answers = Answers::new();
    let mut clock = Hlc::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let records = (0..rng.random_range(1..=5)).map(|_| {
            clock = clock.tick(0);
            note(number, clock)
        });
        let batch = UploadBatch {
            batch_id: BatchId::from_uuid(Uuid::new_v4()),
            client_id,
            epoch,
            basis: Cursors::new(),
            records: records.collect(),
        };
        let ids = accepted(&networks, &batch).await;
        if rng.random_ratio(1, 4) {
            assert_eq!(accepted(&networks, &batch).await, ids, "another answer");
        }
        answers.extend(ids);
    }
    answers
}

async fn accepted(networks: &[HttpNetwork; 2], batch: &UploadBatch) -> Answers {
    insist(networks, async |network| match network.upload(batch).await {
        Ok(Outcome::Accepted { ids }) => Some(ids),
        Ok(Outcome::Retry { .. }) | Err(_) => None,
        Ok(other) => panic!("{other:?}"),
    })
    .await
}

fn note(number: usize, clock: Hlc) -> UploadRecord {
    let id = Uuid::now_v7();
    UploadRecord {
        id: ActionId::from_uuid(id),
        clock,
        trace_parent: None,
        body: RecordBody::Action {
            tag: ActionTag::new("write_note_v1").expect("a tag"),
            args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
        },
        rows: vec![Patch {
            sequence: 0,
            table: TableName::new("notes").expect("a table"),
            row_id: RowId::new(id.to_string()).expect("an id"),
            audience_key: AudienceKey::new(format!("project:{number}")).expect("a key"),
            effect: Effect::Insert(Columns::from([("body".to_owned(), "b".into())])),
        }],
    }
}

/// Fetches whatever comes until told to stop, and then to the end.
async fn read(addresses: [String; 2], stop: &AtomicBool) -> Answers {
    let networks = addresses.map(|address| network(&address, "reader"));
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let epoch = open_session(&networks, client_id).await;
    let (mut cursors, mut seen) = (Cursors::new(), Answers::new());
    loop {
        let last = stop.load(Ordering::Relaxed);
        let request = FetchRequest { client_id, epoch, cursors };
        let page = insist(&networks, async |network| network.fetch(&request).await.ok()).await;
        for record in page.records {
            let number = record.record.server_ingest_id.expect("numbered");
            assert_eq!(seen.insert(record.record.id, number), None, "a record came twice");
        }
        cursors = page.cursors;
        if last && !page.more {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_u06_under_load_lose_nothing_and_double_nothing() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
    eprintln!("SEED={seed} cargo test -p synchrotron-server --test binary kills");
    let Some(mut fleet) = Fleet::start().await else { return };
    let (stop, all_told) = (AtomicBool::new(false), AtomicBool::new(false));
    let addresses = fleet.addresses.clone();
    let uploading = join_all((0..UPLOADERS).map(|number| upload(addresses.clone(), number, seed, &stop)));
    let reading = read(addresses.clone(), &all_told);
    let killing = async {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _kill in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..BETWEEN_MAX_MS))).await;
            fleet.kill_one(&mut rng).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let working = async {
        let (answers, ()) = tokio::join!(uploading, killing);
        all_told.store(true, Ordering::Relaxed);
        answers.into_iter().flatten().collect::<Answers>()
    };
    let (told, seen) = tokio::join!(working, reading);
    assert!(told.len() > 100, "only {} records under load", told.len());
    assert_eq!(seen, told, "the reader has seen other records than the devices were told of");

    let mut connection = PgConnection::connect(&fleet.database).await.expect("connects");
    let logged =
        connection.fetch_all("SELECT id, server_ingest_id FROM synchrotron.action_records").await.expect("reads");
    let logged: Answers =
        logged.iter().map(|row| (ActionId::from_uuid(row.get(0)), ServerIngestId::new(row.get(1)))).collect();
    assert_eq!(logged, told, "the log has other records than the devices were told of");
    let count = "SELECT count(*) FROM notes WHERE id IN (SELECT id::text FROM synchrotron.action_records)";
    let rows: i64 = connection.fetch_one(count).await.expect("counts").get(0);
    assert_eq!(usize::try_from(rows).expect("fits"), told.len(), "rows");
}
