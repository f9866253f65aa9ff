//! What a late arrival costs after so many later actions on other rows of its audience: as much as after none.

use std::sync::Mutex;
use std::time::Duration;

use synchrotron_core::model::{Columns, Effect};
use uuid::Uuid;

use super::stage::Device;
use super::{Bench, micros_each};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians, timed};

/// Rows that late arrivals change.
const ROWS: u32 = 20;

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let histories = &bench.sizes.histories;
    let mut devices = Vec::new();
    for later in histories {
        devices.push(Mutex::new(prepare(bench, *later)?));
    }
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for device in &devices {
        runners.push(Box::new(|| arrive(bench, &mut device.lock().expect("BUG: nobody panics with it"))));
    }
    let times = medians(bench.rounds, 1, &mut runners)?;
    let each: Vec<f64> = times.into_iter().map(|time| micros_each(time, ROWS)).collect();
    let entry = |(later, value): (&u32, &f64)| {
        Circumstances::new("us/action").with("later", *later).entry("late_arrival_flatness", *value, each[0])
    };
    Ok(histories.iter().zip(&each).map(entry).collect())
}

/// Rows, each with an effect at a late time, beneath so many later actions on other rows.
fn prepare(bench: &Bench, later: u32) -> Result<Device, BenchError> {
    bench.runtime.block_on(async {
        let mut device = bench.stage.device(&format!("late{later}")).await?;
        let rows = (0..ROWS).map(|row| {
            let columns = Columns::from([("title".to_owned(), "t".into()), ("count".to_owned(), 0_i64.into())]);
            device.action(Uuid::now_v7(), 1, &row_id(later, row), Effect::Insert(columns))
        });
        let rows = rows.collect();
        device.upload(rows).await?;
        let newest = (0..ROWS).map(|row| update(&device, later, row, 900_000_000, 1)).collect();
        device.upload(newest).await?;
        let mut left = later;
        while left > 0 {
            let some = left.min(500);
            let records = (0..some).map(|n| device.insert(1_000_000 + i64::from(later - left + n))).collect();
            device.upload(records).await?;
            left -= some;
        }
        Ok(device)
    })
}

/// One upload for each row: beneath its newest effect, and beneath all later actions.
fn arrive(bench: &Bench, device: &mut Device) -> Result<Duration, BenchError> {
    let later: u32 = device.principal.user_id.as_str()["late".len()..].parse().expect("BUG: our own name");
    let at = i64::from(Uuid::now_v7().as_fields().2) % 1_000 + 10;
    timed(|| {
        bench.runtime.block_on(async {
            for row in 0..ROWS {
                let record = update(device, later, row, at, 2);
                device.upload(vec![record]).await?;
            }
            Ok(())
        })
    })
}

fn update(device: &Device, later: u32, row: u32, at_ms: i64, count: i64) -> synchrotron_core::wire::UploadRecord {
    let columns = Columns::from([("count".to_owned(), count.into())]);
    device.action(Uuid::now_v7(), at_ms, &row_id(later, row), Effect::Update(columns))
}

fn row_id(later: u32, row: u32) -> String {
    format!("late-{later}-{row}")
}
