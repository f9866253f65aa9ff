//! Integrate: other users' one-row actions, in pages as the server makes them, on a device with nothing pending.
//!
//! The engine takes a transaction for each page; the floor takes one for all of them. Target: within 2.5 times the floor.

use synchrotron_core::model::Cursor;
use synchrotron_core::store::Durability;
use synchrotron_core::wire::FetchPage;

use super::{Bench, micros_each};
use crate::app::{self, Kind, Step};
use crate::device::Device;
use crate::error::BenchError;
use crate::floor::Floor;
use crate::history::MEASURE_MS;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians, timed};

/// Far from the numbers of any history.
const FIRST: u32 = 1_000_000;

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    Ok(vec![integrate(bench, "integrate_insert", Kind::Add)?, integrate(bench, "integrate_update", Kind::Rename)?])
}

fn integrate(bench: &Bench, name: &str, kind: Kind) -> Result<Entry, BenchError> {
    let count = bench.sizes.integrates;
    let ours: Runner<'_> = Box::new(|| {
        let database = bench.histories.copy(0)?;
        let mut device = Device::open(&database.path(), Durability::Normal)?;
        let pages = pages(kind, count, device.cursor()?);
        timed(|| device.integrate(pages))
    });
    let floor: Runner<'_> = Box::new(|| {
        let database = bench.histories.copy(0)?;
        let cursor = Device::open(&database.path(), Durability::Normal)?.cursor()?;
        let mut floor = Floor::open(&database.path(), Durability::Normal)?;
        let pages = pages(kind, count, cursor);
        timed(|| floor.integrate(&pages))
    });
    let times = medians(bench.rounds, 1, &mut [ours, floor])?;
    let of = Circumstances::new("us").with("actions", count).with("page", app::PAGE);
    Ok(of.entry(name, micros_each(times[0], count), micros_each(times[1], count)))
}

fn pages(kind: Kind, count: u32, cursor: Cursor) -> Vec<FetchPage> {
    let steps = (0..count).map(|number| Step::new(kind, FIRST + number, MEASURE_MS + i64::from(number)));
    app::pages(steps, cursor).collect()
}
