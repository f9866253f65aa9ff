//! Shrinks a failing plan: leaves out steps as long as the same promise is still broken (delta debugging).

use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::plan::{Plan, Step};

/// A shrunk plan still fails; after this many tries it is short enough.
const TRIES_MAX: usize = 1_500;

/// A failing plan, as short as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// How it fails.
    pub failure: Failure,
    /// How many plans were run to find it.
    pub tries: usize,
}

impl Fleet {
    /// Shrinks a plan that fails; `None` if it does not.
    #[must_use]
    pub fn shrink(&self, plan: &Plan) -> Option<Shrunk> {
        let first = self.run(plan);
        let failure = first.failure?;
        // Drawn intents are written down, so that leaving out one step does not change what the others do.
        let (plan, failure) = match self.run(&first.concrete).failure {
            Some(again) if again.kind == failure.kind => (first.concrete, again),
            _ => (plan.clone(), failure),
        };
        let mut shrinking = Shrinking { fleet: self, best: Shrunk { plan, failure, tries: 2 } };
        shrinking.leave_out_steps();
        shrinking.leave_out_devices();
        shrinking.leave_out_steps();
        Some(shrinking.best)
    }
}

struct Shrinking<'f> {
    fleet: &'f Fleet,
    best: Shrunk,
}

impl Shrinking<'_> {
    /// Whether this plan breaks the same promise; if so it is the best one now.
    fn takes(&mut self, plan: Plan) -> bool {
        if self.best.tries >= TRIES_MAX {
            return false;
        }
        self.best.tries += 1;
        match self.fleet.run(&plan).failure {
            Some(failure) if failure.kind == self.best.failure.kind => {
                self.best.plan = plan;
                self.best.failure = failure;
                true
            }
            _ => false,
        }
    }

    fn leave_out_steps(&mut self) {
        let mut size = self.best.plan.steps.len().div_ceil(2).max(1);
        loop {
            let mut left_out = false;
            let mut from = 0;
            while from < self.best.plan.steps.len() {
                let to = (from + size).min(self.best.plan.steps.len());
                let mut plan = self.best.plan.clone();
                plan.steps.drain(from..to);
                if self.takes(plan) {
                    left_out = true;
                } else {
                    from = to;
                }
            }
            if size == 1 && !left_out {
                return;
            }
            size = size.div_ceil(2).max(1);
            if self.best.tries >= TRIES_MAX {
                return;
            }
        }
    }

    /// The last device goes if nothing happens on it and the failure stays.
    fn leave_out_devices(&mut self) {
        while self.best.plan.devices.len() > 1 {
            let count = self.best.plan.devices.len();
            let used = |step: &Step| step.device().is_some_and(|device| device % count == count - 1);
            if self.best.plan.steps.iter().any(used) {
                return;
            }
            let mut plan = self.best.plan.clone();
            plan.devices.pop();
            if !self.takes(plan) {
                return;
            }
        }
    }
}
