//! The whole world of a run: virtual time, the server, the devices, the event log.

use std::collections::BTreeSet;

use synchrotron_core::model::{ActionId, Epoch, Patch};
use synchrotron_core::network::memory::{MemoryServer, PageBounds};
use synchrotron_core::wire::LogRecord;
use uuid::Uuid;

use super::{Device, Run};
use crate::check;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::log::{EventLog, fingerprint};
use crate::plan::{Plan, Step};

/// When a run begins, in milliseconds: any time will do, as long as it is always the same.
const BEGIN_MS: i64 = 1_000_000_000;
/// What a step takes.
const STEP_MS: i64 = 7;

/// The server's log as the simulator remembers it, also where the server itself forgets.
#[derive(Debug, Default)]
pub(crate) struct ServerLog {
    /// In order of arrival.
    pub(crate) records: Vec<LogRecord>,
    /// Every record that was ever accepted.
    pub(crate) accepted: BTreeSet<ActionId>,
}

impl ServerLog {
    pub(crate) fn follow(&mut self, server: &MemoryServer) {
        let known = self.records.last().and_then(|record| record.record.server_ingest_id);
        let new = server.log().into_iter().filter(|record| record.record.server_ingest_id > known);
        for record in new {
            self.accepted.insert(record.record.id);
            self.records.push(record);
        }
    }

    /// Whether the id of this row ever was in another audience.
    pub(crate) fn has_elsewhere(&self, row: &Patch) -> bool {
        let is_it = |logged: &Patch| logged.row_key() == row.row_key() && logged.audience_key != row.audience_key;
        self.records.iter().any(|record| record.rows.iter().any(is_it))
    }
}

/// What has happened that explains what else would be an alarm.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// The server compacted its log.
    pub(crate) compacted: bool,
    /// How often the server came back from a backup.
    pub(crate) restored: u128,
    /// A message broke off in the middle.
    pub(crate) broken: bool,
    /// Somebody left an audience.
    pub(crate) revoked: bool,
    /// Somebody dropped all that was pending.
    pub(crate) resynced: bool,
}

pub(crate) struct World<'f> {
    pub(crate) fleet: &'f Fleet,
    pub(crate) server: MemoryServer,
    pub(crate) now_ms: i64,
    pub(crate) devices: Vec<Device>,
    pub(crate) server_log: ServerLog,
    pub(crate) server_in_trouble: bool,
    pub(crate) seen: Seen,
    log: EventLog,
    concrete: Vec<Step>,
}

impl<'f> World<'f> {
    pub(crate) fn new(fleet: &'f Fleet, plan: &Plan) -> Self {
        let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), BEGIN_MS);
        // Small, so that there is something between two of them.
        server.set_snapshot_rows_max(2);
        server.set_page_bounds(PageBounds { records_max: 5, ..PageBounds::default() });
        for member in &fleet.members {
            member.audiences.iter().for_each(|audience| server.allow(&member.user, audience));
        }
        let births = plan.devices.iter().enumerate();
        let power_fails = plan.steps.iter().any(|step| matches!(step, Step::PowerCut { .. }));
        let device = |(number, birth)| Device::new(fleet, &server, number, birth, power_fails);
        let devices = births.map(device).collect();
        Self {
            fleet,
            server,
            now_ms: BEGIN_MS,
            devices,
            server_log: ServerLog::default(),
            server_in_trouble: false,
            seen: Seen::default(),
            log: EventLog::default(),
            concrete: Vec::new(),
        }
    }

    /// Does every step, then lets the fleet come to rest.
    pub(crate) fn run(&mut self, plan: &Plan) -> Result<(), Failure> {
        if self.devices.is_empty() {
            return Ok(());
        }
        for (index, step) in plan.steps.iter().enumerate() {
            let at_step = |failure: Failure| Failure { step: Some(index), ..failure };
            self.pass(STEP_MS);
            self.take(step).map_err(at_step)?;
        }
        self.come_to_rest()
    }

    fn take(&mut self, step: &Step) -> Result<(), Failure> {
        let Some(step) = self.drawn(step) else { return Ok(()) };
        self.concrete.push(step.clone());
        let what = self.step(&step)?;
        self.server_log.follow(&self.server);
        self.devices.iter_mut().for_each(|device| device.link.hear());
        let shown = match step.device() {
            Some(number) => self.check_device(number % self.devices.len())?,
            None => String::new(),
        };
        self.note(&format!("{step:?} -> {what}{shown}"));
        Ok(())
    }

    /// A draw becomes what the workload draws; nothing, if it draws nothing.
    fn drawn(&self, step: &Step) -> Option<Step> {
        let Step::Draw { device, draw } = step else { return Some(step.clone()) };
        let number = device % self.devices.len();
        let intent = self.devices[number].draw(self.fleet, *draw, self.now_ms)?;
        Some(Step::Execute { device: number, intent })
    }

    /// Holds a device to its promises; says what it shows.
    pub(crate) fn check_device(&mut self, number: usize) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        if device.is_destroyed {
            return Ok(String::new());
        }
        let commits = device.home.commits();
        if device.checked.0 != commits {
            let rows = check::device(device, &self.server, &self.server_log)?;
            device.checked = (commits, fingerprint(&rows));
        }
        Ok(format!("; d{number} shows {}", device.checked.1))
    }

    pub(crate) fn note(&mut self, what: &str) {
        self.log.line(self.now_ms - BEGIN_MS, what);
    }

    pub(crate) fn pass(&mut self, ms: i64) {
        self.now_ms += ms.max(0);
        self.server.set_now_ms(self.now_ms);
    }

    pub(crate) fn into_run(self, plan: &Plan, failure: Option<Failure>) -> Run {
        let mut log = self.log;
        if let Some(failure) = &failure {
            log.line(self.now_ms - BEGIN_MS, &failure.to_string());
        }
        Run {
            log: log.into_text(),
            concrete: Plan { steps: self.concrete, ..plan.clone() },
            executed: self.devices.iter().map(|device| device.executed.len()).sum(),
            logged: self.server_log.records.len(),
            failure,
        }
    }
}
