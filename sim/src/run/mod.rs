//! Does the steps of a plan, and holds the fleet to its promises after each.

mod device;
mod home;
mod image;
mod link;
mod parcel;
mod rest;
mod steps;
mod sync;
mod upload;
mod world;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use self::device::Device;
pub(crate) use self::home::{LocalRecord, LocalState};
pub(crate) use self::world::{Seen, ServerLog, World};
use crate::failure::{Failure, FailureKind};
use crate::fleet::Fleet;
use crate::plan::Plan;

thread_local! {
    static RUNNING_ON: Cell<usize> = const { Cell::new(0) };
}

/// The device whose engine runs now: what an impure action may wrongly look at.
#[must_use]
pub fn running_on() -> usize {
    RUNNING_ON.get()
}

fn now_running_on(device: usize) {
    RUNNING_ON.set(device);
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Every step with what it led to; the same bytes whenever the same plan runs.
    pub log: String,
    /// The plan with each draw replaced by what was drawn, up to where the run ended.
    pub concrete: Plan,
    /// How many actions were executed.
    pub executed: usize,
    /// How many records the server's log has in the end.
    pub logged: usize,
    /// The promise that was broken, if one was.
    pub failure: Option<Failure>,
}

impl Fleet {
    /// Runs a plan.
    #[must_use]
    pub fn run(&self, plan: &Plan) -> Run {
        let mut world = World::new(self, plan);
        let failure = match catch_unwind(AssertUnwindSafe(|| world.run(plan))) {
            Ok(result) => result.err(),
            Err(panic) => Some(Failure::new(FailureKind::Panic, None, words(&*panic))),
        };
        world.into_run(plan, failure)
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}
