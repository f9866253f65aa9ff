//! What each step does. Each says in a few words what it led to.

use rand::SeedableRng;
use rand::rngs::StdRng;
use synchrotron_core::model::{AudienceKey, ClientId, Cursor, Epoch};
use synchrotron_core::store::FaultKind;
use uuid::Uuid;

use super::device::Did;
use super::{Device, World};
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::intent::Intent;
use crate::plan::Step;
use crate::rows::View;

impl Step {
    /// The device that it happens on.
    pub(crate) fn device(&self) -> Option<usize> {
        match self {
            Self::Draw { device, .. }
            | Self::Execute { device, .. }
            | Self::Sync { device }
            | Self::Session { device }
            | Self::Ask { device }
            | Self::Take { device, .. }
            | Self::Send { device }
            | Self::Arrive { device, .. }
            | Self::Conclude { device, .. }
            | Self::Slice { device, .. }
            | Self::AskChunk { device }
            | Self::TakeChunk { device, .. }
            | Self::Member { device, .. }
            | Self::Rebase { device }
            | Self::HardResync { device }
            | Self::Copied { device }
            | Self::Lose { device, .. }
            | Self::BreakOff { device, .. }
            | Self::Crash { device }
            | Self::PowerCut { device }
            | Self::CrashInside { device, .. }
            | Self::CrashAfterCommit { device, .. }
            | Self::DiskFails { device, .. }
            | Self::Jump { device, .. }
            | Self::Freeze { device, .. }
            | Self::Cut { device, .. }
            | Self::Token { device, .. }
            | Self::Upgrade { device }
            | Self::Destroy { device } => Some(*device),
            Self::Pass { .. } | Self::Trouble { .. } | Self::Compact { .. } | Self::Expire | Self::Restore { .. } => {
                None
            }
        }
    }
}

impl Device {
    /// What the workload does next here.
    pub(crate) fn draw(&self, fleet: &Fleet, draw: u64, now_ms: i64) -> Option<Intent> {
        let rows = self.home.rows();
        let none = std::collections::BTreeSet::new();
        let view = View {
            device: self.number,
            user: &self.user,
            audiences: self.told.as_ref().unwrap_or(&none),
            rows: &rows,
            now_ms: self.wall.read(now_ms),
        };
        (fleet.workload)(&mut StdRng::seed_from_u64(draw), &view)
    }
}

impl World<'_> {
    pub(crate) fn step(&mut self, step: &Step) -> Result<String, Failure> {
        let Some(number) = step.device().map(|number| number % self.devices.len()) else {
            self.elsewhere(step);
            return Ok(String::new());
        };
        if self.devices[number].is_destroyed {
            return Ok("the device is gone".to_owned());
        }
        match step {
            Step::Draw { .. } => Ok("not drawn".to_owned()),
            Step::Execute { intent, .. } => self.devices[number].execute(self.fleet, intent, self.now_ms),
            Step::Sync { .. } => self.sync(number),
            Step::Session { .. } => self.session(number),
            Step::Ask { .. } => self.ask(number),
            Step::Take { nth, again, .. } => self.take_page(number, *nth, *again),
            Step::Send { .. } => self.send(number),
            Step::Arrive { nth, again, .. } => self.arrive(number, *nth, *again),
            Step::Conclude { nth, again, .. } => self.conclude_nth(number, *nth, *again),
            Step::Slice { nth, again, .. } => self.live(number, *nth, *again),
            Step::AskChunk { .. } => self.ask_chunk(number),
            Step::TakeChunk { nth, again, .. } => self.take_chunk_nth(number, *nth, *again),
            Step::Rebase { .. } | Step::HardResync { .. } | Step::Copied { .. } => self.recover(number, step),
            other => Ok(self.mishap(number, other)),
        }
    }

    /// Steps that only change what later ones meet.
    fn mishap(&mut self, number: usize, step: &Step) -> String {
        let fleet = self.fleet;
        let now_ms = self.now_ms;
        let device = &mut self.devices[number];
        match step {
            Step::BreakOff { nth, at, .. } => {
                self.seen.broken = true;
                return format!("{} breaks off", device.link.under_way.break_off(*nth, *at));
            }
            Step::Lose { nth, .. } => return format!("{} is lost", device.link.under_way.lose(*nth)),
            Step::Crash { .. } => device.restart(fleet),
            Step::PowerCut { .. } => return device.cut_power(fleet).to_owned(),
            Step::CrashInside { calls, .. } => device.arm(*calls, FaultKind::Lasting),
            Step::CrashAfterCommit { commits, .. } => device.arm(*commits, FaultKind::AfterCommit),
            Step::DiskFails { calls, .. } => device.arm(*calls, FaultKind::Once),
            Step::Jump { by_ms, .. } => device.wall.skew_ms += by_ms,
            Step::Freeze { on, .. } => device.wall.frozen_at = on.then(|| device.wall.read(now_ms)),
            Step::Member { nth, on, .. } => return self.change_membership(number, *nth, *on),
            Step::Cut { on, .. } => device.link.is_cut = *on,
            Step::Token { valid, .. } => device.link.token_is_valid = *valid,
            Step::Upgrade { .. } => {
                device.version = fleet.newest_version();
                device.restart(fleet);
            }
            Step::Destroy { .. } => {
                device.is_destroyed = true;
                device.stop();
            }
            _ => {}
        }
        String::new()
    }

    /// Steps on the server and on time.
    fn elsewhere(&mut self, step: &Step) {
        let log = self.server_log.records.len();
        let number = |count: usize| Cursor::new(i64::try_from(count).unwrap_or(i64::MAX));
        match step {
            Step::Pass { ms } => self.pass(*ms),
            Step::Trouble { on } => self.server_in_trouble = *on,
            Step::Compact { keep } => {
                self.seen.compacted = true;
                self.server.compact(number(log.saturating_sub(*keep)));
            }
            Step::Expire => self.server.expire_snapshots(),
            Step::Restore { lost } => {
                let left = log.saturating_sub(*lost);
                self.seen.restored += 1;
                self.server.restore(Epoch::from_uuid(Uuid::from_u128(1 + self.seen.restored)), number(left));
                self.server_log.records.truncate(left);
            }
            _ => {}
        }
    }

    fn change_membership(&mut self, number: usize, nth: usize, on: bool) -> String {
        let all: Vec<AudienceKey> = self.audiences();
        let Some(audience) = all.get(nth % all.len().max(1)) else { return String::new() };
        let user = &self.devices[number].user;
        if on {
            self.server.allow(user, audience);
        } else {
            self.seen.revoked = true;
            self.server.revoke(user, audience);
        }
        format!("{user} {} {audience}", if on { "enters" } else { "leaves" })
    }

    fn audiences(&self) -> Vec<AudienceKey> {
        let all: std::collections::BTreeSet<_> =
            self.fleet.members.iter().flat_map(|member| member.audiences.iter().cloned()).collect();
        all.into_iter().collect()
    }

    fn recover(&mut self, number: usize, step: &Step) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        let did = match step {
            Step::Rebase { .. } => device.call(self.fleet, "rebase", |_| false, |engine| engine.rebase())?,
            Step::HardResync { .. } => {
                self.seen.resynced = true;
                device.call(self.fleet, "hard_resync", |_| false, |engine| engine.hard_resync().map(drop))?
            }
            _ => {
                let client_id = ClientId::from_uuid(device.fresh());
                device.home.client_ids.insert(client_id);
                let did =
                    device.call(self.fleet, "become_device", |_| false, |engine| engine.become_device(client_id))?;
                device.home.client_id = device.home.client_id_on_disk();
                did
            }
        };
        Ok(match did {
            Did::Done(()) => "done".to_owned(),
            Did::Refused(error) => format!("refused: {error}"),
        })
    }
}

impl Device {
    fn arm(&mut self, calls: u32, kind: FaultKind) {
        self.fault_kills = kind != FaultKind::Once;
        self.home.switch.arm(calls, kind);
    }
}
