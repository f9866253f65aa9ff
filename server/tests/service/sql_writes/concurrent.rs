//! Writers, devices and servers at once, on the same few rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgPool;
use synchrotron_core::model::Effect;
use synchrotron_core::wire::Outcome;
use synchrotron_server::service::Service;
use uuid::Uuid;

use super::now_ms;
use crate::fixture::{Device, Theatre, columns, patch};

const ROUNDS: u64 = 25;
const ROWS: u64 = 4;
/// Between two looks of a server that found nothing.
const PAUSE: Duration = Duration::from_millis(5);

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    /// A number below `sides` (SplitMix64).
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// Statements of one to three rows, some of them in transactions that stay open meanwhile.
async fn write(pool: PgPool, mut dice: Dice) {
    for round in 0..ROUNDS {
        let row = dice.roll(ROWS);
        let statement = match dice.roll(5) {
            0 => {
                format!("INSERT INTO seats VALUES ('S{row}', 'job {round}', NULL, 'project:p') ON CONFLICT DO NOTHING")
            }
            1 => format!("DELETE FROM seats WHERE id = 'S{row}'"),
            2 => format!("UPDATE seats SET label = 'job {round}' WHERE id = 'S{row}'"),
            _ => format!("UPDATE seats SET holder = 'job {round}' WHERE id = 'S{row}'"),
        };
        let stays_open = dice.roll(3) == 0;
        let pause = if stays_open { "SELECT pg_sleep(0.02);" } else { "" };
        // It may find itself in a deadlock with an upload; then it has not happened.
        pool.execute(AssertSqlSafe(format!("BEGIN; {statement}; {pause} COMMIT"))).await.ok();
    }
}

async fn upload(mut device: Device, mut dice: Dice) -> usize {
    let mut accepted = 0;
    for round in 0..ROUNDS {
        device.catch_up().await;
        let row = format!("S{}", dice.roll(ROWS));
        let name = if dice.roll(2) == 0 { "label" } else { "holder" };
        let value = columns([(name, format!("{} {round}", device.principal.user_id).into())]);
        let whole = columns([("label", format!("made {round}").into()), ("holder", None::<String>.into())]);
        let effect = match dice.roll(5) {
            0 => Effect::Insert(whole),
            1 => Effect::Delete,
            _ => Effect::Update(value),
        };
        let at = now_ms() + i64::try_from(dice.roll(20_000)).expect("small") - 10_000;
        let outcome = device.upload(vec![device.action(at, vec![patch("seats", &row, "project:p", effect)])]).await;
        accepted += usize::from(matches!(outcome, Outcome::Accepted { .. }));
    }
    accepted
}

async fn pick_up_until(server: Service, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        if server.pick_up_sql_writes().await.expect("picks up") == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn log_and_tables_agree_after_any_interleaving() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
    eprintln!(
        "SEED={seed} cargo test -p synchrotron-server --test service log_and_tables_agree_after_any_interleaving"
    );
    let theatre = Theatre::open_with("", &[], |settings| settings.sql_writes.batch_rows_max = 3).await;
    let second = Service::connect(theatre.service.settings()).await.expect("starts");
    let done = Arc::new(AtomicBool::new(false));
    let servers: Vec<_> = [theatre.service.clone(), second]
        .into_iter()
        .map(|server| tokio::spawn(pick_up_until(server, Arc::clone(&done))))
        .collect();
    let writers = (1..3).map(|number| tokio::spawn(write(theatre.pool.clone(), Dice(seed ^ number))));
    let devices = ["alice", "bob"].map(|user| theatre.device(user)).into_iter().zip(3..);
    let devices = devices.map(|(device, number)| tokio::spawn(upload(device, Dice(seed ^ number))));
    let (writers, devices): (Vec<_>, Vec<_>) = (writers.collect(), devices.collect());
    futures::future::join_all(writers).await.into_iter().for_each(|writer| writer.expect("no panic"));
    let accepted = futures::future::join_all(devices).await.into_iter().map(|device| device.expect("no panic"));
    assert!(accepted.sum::<usize>() > 0, "no upload found its turn");
    done.store(true, Ordering::Relaxed);
    futures::future::join_all(servers).await.into_iter().for_each(|server| server.expect("no panic"));
    theatre.pick_up().await;
    assert_eq!(theatre.count("synchrotron.staged_writes").await, 0);
    theatre.assert_in_step(&["alice", "bob"]).await;
}
