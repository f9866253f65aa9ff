//! Rest: everything is mended, everybody syncs until nothing moves; then the whole is held to its promises.

use synchrotron_core::wire::DigestRequest;

use super::World;
use super::device::Did;
use crate::check::{self, AtRest};
use crate::failure::{Failure, FailureKind};

/// A fleet that still moves after this many rounds never comes to rest.
const ROUNDS_MAX: usize = 30;

impl World<'_> {
    pub(crate) fn come_to_rest(&mut self) -> Result<(), Failure> {
        self.mend();
        self.settle()?;
        let resting = self.server_log.records.len();
        self.check_rest()?;
        self.settle()?;
        let moved = self.server_log.records.len() - resting;
        if moved > 0 {
            return Err(Failure::new(FailureKind::FixedPoint, None, format!("{moved} more records without cause")));
        }
        for number in self.living() {
            let device = &mut self.devices[number];
            device.stop();
            check::undo(device, &self.server_log)?;
        }
        self.note("rests");
        Ok(())
    }

    fn living(&self) -> Vec<usize> {
        (0..self.devices.len()).filter(|number| !self.devices[*number].is_destroyed).collect()
    }

    /// Faults are over. What was under way is lost.
    fn mend(&mut self) {
        self.server_in_trouble = false;
        for number in self.living() {
            let device = &mut self.devices[number];
            device.home.switch.disarm();
            device.wall.frozen_at = None;
            device.link.is_cut = false;
            device.link.token_is_valid = true;
            device.link.under_way = super::link::UnderWay::default();
        }
        self.note("is mended");
    }

    fn settle(&mut self) -> Result<(), Failure> {
        for _round in 0..ROUNDS_MAX {
            self.pass(1_000);
            let before = self.server_log.records.len();
            let mut done = true;
            for number in self.living() {
                let said = self.sync(number)?;
                done &= said.ends_with("done");
                let shown = self.check_device(number)?;
                self.note(&format!("d{number} syncs: {said}{shown}"));
            }
            if done && self.server_log.records.len() == before {
                return Ok(());
            }
        }
        Err(Failure::new(FailureKind::FixedPoint, None, format!("still moving after {ROUNDS_MAX} rounds")))
    }

    fn check_rest(&mut self) -> Result<(), Failure> {
        let rows = check::server(&self.server, &self.server_log)?;
        for number in self.living() {
            let fates = self.fates(number)?;
            self.ask_doctor(number)?;
            let device = &self.devices[number];
            check::at_rest(device, &self.server, &self.server_log, &fates, self.seen)?;
            check::rules(self.fleet, Some(number), &device.home.rows())?;
        }
        check::rules(self.fleet, None, &rows)?;
        let rest = AtRest { rows: &rows, log: &self.server_log.records };
        check::rest_rules(self.fleet, &rest)
    }

    /// The doctor is silent, and its digests are the server's.
    fn ask_doctor(&mut self, number: usize) -> Result<(), Failure> {
        let fleet = self.fleet;
        let device = &mut self.devices[number];
        let fail = |what: String| Err(Failure::new(FailureKind::Doctor, number, what));
        let report = match device.call(fleet, "check", |_| false, |engine| engine.check())? {
            Did::Done(report) => report,
            Did::Refused(error) => return fail(error.to_string()),
        };
        if let Some(finding) = report.findings.first() {
            return fail(finding.to_string());
        }
        let audiences = report.digests.keys().cloned().collect();
        let request = DigestRequest { client_id: device.home.client_id, epoch: self.server.epoch(), audiences };
        let reply = match device.link.digest(&request) {
            Ok(reply) => reply,
            Err(error) => return fail(error.to_string()),
        };
        for (audience, digest) in reply.audiences {
            if report.digests.get(&audience) != Some(&(digest.rows, digest.digest)) {
                return fail(format!("the digest of {audience} is not the server's"));
            }
        }
        Ok(())
    }

    fn fates(&mut self, number: usize) -> Result<check::Fates, Failure> {
        let fleet = self.fleet;
        let device = &mut self.devices[number];
        let ids: Vec<_> = device.executed.keys().copied().collect();
        let mut fates = check::Fates::new();
        for id in ids {
            match device.call(fleet, "fate", |_| false, |engine| engine.fate(id))? {
                Did::Done(fate) => fates.insert(id, fate),
                Did::Refused(error) => {
                    return Err(Failure::new(FailureKind::Alarm, number, format!("fate: {error}")));
                }
            };
        }
        Ok(fates)
    }
}
