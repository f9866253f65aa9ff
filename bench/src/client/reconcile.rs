//! Reconcile: a device that was offline meets what others did meanwhile.
//!
//! Pending and remote actions rename the same notes, their clocks evenly mixed. The remote ones come in pages as the server
//! makes them; the driver integrates up to 16 in one step, and each step takes back and runs again what lies after its first
//! action. The floor takes everything back once and merges both lists, in one transaction. Targets: flat in history (within 1.2 times the
//! figure without); 1,000 pending against 10,000 remote in under a second.

use synchrotron_core::model::Cursor;
use synchrotron_core::store::Durability;
use synchrotron_core::wire::FetchPage;

use super::{Bench, millis};
use crate::app::{self, Kind, Step};
use crate::device::Device;
use crate::error::BenchError;
use crate::floor::Floor;
use crate::history::MEASURE_MS;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians, timed};

/// Far from the numbers of any history, and from each other.
const FIRST_REMOTE: u32 = 1_000_000;
const FIRST_PENDING: u32 = 2_000_000;
/// Milliseconds from one remote action to the next.
const REMOTE_EVERY: i64 = 10;

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let sizes = &bench.sizes;
    let mut entries = reconcile(bench, &sizes.histories, sizes.reconciled)?;
    entries.extend(reconcile(bench, &[0], sizes.reconciled_many)?);
    Ok(entries)
}

fn reconcile(bench: &Bench, histories: &[u32], (pending, remote): (u32, u32)) -> Result<Vec<Entry>, BenchError> {
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for history in histories {
        runners.push(Box::new(move || {
            let database = bench.histories.copy(*history)?;
            let mut device = Device::open(&database.path(), Durability::Normal)?;
            own(pending, remote).try_for_each(|step| device.execute(step))?;
            let pages = others(remote, device.cursor()?);
            timed(|| device.integrate(pages))
        }));
        runners.push(Box::new(move || {
            let database = bench.histories.copy(*history)?;
            let cursor = Device::open(&database.path(), Durability::Normal)?.cursor()?;
            let mut floor = Floor::open(&database.path(), Durability::Normal)?;
            let pending: Vec<Step> = own(pending, remote).collect();
            pending.iter().try_for_each(|step| floor.execute(step))?;
            let pages = others(remote, cursor);
            timed(|| floor.reconcile(&pending, &pages))
        }));
    }
    let figures: Vec<f64> = medians(bench.rounds, 1, &mut runners)?.into_iter().map(millis).collect();
    let of = |history: u32| {
        Circumstances::new("ms").with("history", history).with("pending", pending).with("remote", remote)
    };
    let pairs = || histories.iter().zip(figures.chunks_exact(2));
    let costs = pairs().map(|(history, pair)| of(*history).entry("reconcile", pair[0], pair[1]));
    let flat = pairs().skip(1).map(|(history, pair)| of(*history).entry("reconcile_flatness", pair[0], figures[0]));
    Ok(costs.chain(flat).collect())
}

/// This device's renames, evenly among the others'.
pub(super) fn own(pending: u32, remote: u32) -> impl Iterator<Item = Step> {
    let every = REMOTE_EVERY * i64::from(remote) / i64::from(pending);
    (0..pending).map(move |number| {
        let now_ms = MEASURE_MS + REMOTE_EVERY / 2 + i64::from(number) * every;
        Step::new(Kind::Rename, FIRST_PENDING + number, now_ms)
    })
}

/// The others' renames, as pages.
pub(super) fn others(remote: u32, cursor: Cursor) -> Vec<FetchPage> {
    let steps = (0..remote)
        .map(|number| Step::new(Kind::Rename, FIRST_REMOTE + number, MEASURE_MS + i64::from(number) * REMOTE_EVERY));
    app::pages(steps, cursor).collect()
}
