//! `execute`: one-row actions, one transaction each, while a history lies beneath them.
//!
//! All histories and their floors take turns in the same rounds, so that the figures of one history compare with those of
//! another too. Targets: within 2.0 times the floor; flat in history (within 1.1 times the figure without).

use synchrotron_core::store::Durability;

use super::{Bench, micros_each};
use crate::app::{Kind, Step};
use crate::device::Device;
use crate::error::BenchError;
use crate::floor::Floor;
use crate::history::MEASURE_MS;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians, timed};

/// Far from the numbers of any history.
const FIRST: u32 = 1_000_000;

/// Actions that insert one row.
pub(super) fn insert(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    both_durabilities(bench, "execute_insert", Kind::Add)
}

/// Actions that update one column of one row.
pub(super) fn update(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    both_durabilities(bench, "execute_update", Kind::Rename)
}

fn both_durabilities(bench: &Bench, name: &str, kind: Kind) -> Result<Vec<Entry>, BenchError> {
    let normal = execute(bench, name, kind, Durability::Normal)?;
    let full = execute(bench, name, kind, Durability::Full)?;
    Ok([normal, full].concat())
}

fn execute(bench: &Bench, name: &str, kind: Kind, durability: Durability) -> Result<Vec<Entry>, BenchError> {
    let sizes = &bench.sizes;
    let databases: Vec<_> = sizes
        .histories
        .iter()
        .map(|history| Ok((bench.histories.copy(*history)?, bench.histories.copy(*history)?)))
        .collect::<Result<_, BenchError>>()?;
    let mut runners: Vec<Runner<'_>> = Vec::new();
    for (ours, floors) in &databases {
        let mut device = Device::open(&ours.path(), durability)?;
        let mut floor = Floor::open(&floors.path(), durability)?;
        runners.push(runner(kind, sizes.executes, move |step| device.execute(step)));
        runners.push(runner(kind, sizes.executes, move |step| floor.execute(&step)));
    }
    let times = medians(bench.rounds, sizes.turns, &mut runners)?;
    let figures: Vec<f64> = times.into_iter().map(|time| micros_each(time, sizes.executes * sizes.turns)).collect();
    let synchronous = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    let of = |history: u32| Circumstances::new("us").with("history", history).with("synchronous", synchronous);
    let pairs = || sizes.histories.iter().zip(figures.chunks_exact(2));
    let costs = pairs().map(|(history, pair)| of(*history).entry(name, pair[0], pair[1]));
    let flat =
        pairs().skip(1).map(|(history, pair)| of(*history).entry(format!("{name}_flatness"), pair[0], figures[0]));
    Ok(costs.chain(flat).collect())
}

/// Runs so many steps at a turn.
fn runner<'a>(kind: Kind, count: u32, mut execute: impl FnMut(Step) -> Result<(), BenchError> + 'a) -> Runner<'a> {
    let mut next = 0;
    Box::new(move || {
        let numbers = next..next + count;
        next += count;
        let steps: Vec<Step> =
            numbers.map(|number| Step::new(kind, FIRST + number, MEASURE_MS + i64::from(number))).collect();
        timed(|| steps.into_iter().try_for_each(&mut execute))
    })
}
