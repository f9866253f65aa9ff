//! What each step does. Each says in a few words what it led to.

use rand::SeedableRng;
use rand::rngs::StdRng;
use synchrotron_core::engine::{Concluded, EngineError, Received};
use synchrotron_core::network::{Ingress, NetworkError};
use synchrotron_core::store::FaultKind;
use synchrotron_core::wire::{FetchPage, Outcome, SessionRequest};

use super::device::Did;
use super::link::{Uplink, take};
use super::{Device, World};
use crate::failure::{Failure, FailureKind};
use crate::fleet::Fleet;
use crate::intent::Intent;
use crate::plan::Step;
use crate::rows::View;

/// A sync stops after this many batches: a device that always has another one does not come to rest.
const BATCHES_MAX: usize = 100;

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
            | Self::Lose { device, .. }
            | Self::Crash { device }
            | Self::CrashInside { device, .. }
            | Self::CrashAfterCommit { device, .. }
            | Self::DiskFails { device, .. }
            | Self::Jump { device, .. }
            | Self::Freeze { device, .. }
            | Self::Cut { device, .. }
            | Self::Token { device, .. }
            | Self::Upgrade { device }
            | Self::Destroy { device } => Some(*device),
            Self::Pass { .. } | Self::Trouble { .. } => None,
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
        match step {
            Step::Pass { ms } => {
                self.pass(*ms);
                return Ok(String::new());
            }
            Step::Trouble { on } => {
                self.server_in_trouble = *on;
                return Ok(String::new());
            }
            _ => {}
        }
        let number = step.device().unwrap_or_default() % self.devices.len();
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
            other => Ok(self.mishap(number, other)),
        }
    }

    /// Steps that only change what later ones meet.
    fn mishap(&mut self, number: usize, step: &Step) -> String {
        let fleet = self.fleet;
        let now_ms = self.now_ms;
        let device = &mut self.devices[number];
        match step {
            Step::Lose { nth, .. } => return format!("{} is lost", device.link.under_way.lose(*nth)),
            Step::Crash { .. } => device.restart(fleet),
            Step::CrashInside { calls, .. } => device.arm(*calls, FaultKind::Lasting),
            Step::CrashAfterCommit { commits, .. } => device.arm(*commits, FaultKind::AfterCommit),
            Step::DiskFails { calls, .. } => device.arm(*calls, FaultKind::Once),
            Step::Jump { by_ms, .. } => device.wall.skew_ms += by_ms,
            Step::Freeze { on, .. } => device.wall.frozen_at = on.then(|| device.wall.read(now_ms)),
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

    /// Session, fetch, upload, fetch, as long as nothing stands in the way.
    pub(crate) fn sync(&mut self, number: usize) -> Result<String, Failure> {
        let before = self.session(number)?;
        if before != "session" {
            return Ok(before);
        }
        if let Some(problem) = self.fetch_all(number)? {
            return Ok(problem);
        }
        let mut batches = 0;
        while batches < BATCHES_MAX {
            let sent = self.send(number)?;
            let Some(uplink) = self.devices[number].link.under_way.uplinks.pop().filter(|_| sent.starts_with("sent"))
            else {
                break;
            };
            batches += 1;
            let Some((sent, outcome)) = self.decide(number, uplink)? else { break };
            let concluded = self.conclude(number, sent, outcome)?;
            if concluded != "settled" {
                return Ok(format!("{batches} batches, {concluded}"));
            }
        }
        self.server_log.follow(&self.server);
        let end = self.fetch_all(number)?;
        Ok(end.unwrap_or_else(|| format!("{batches} batches, done")))
    }

    pub(crate) fn session(&mut self, number: usize) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        if device.link.is_cut {
            return Ok("cut off".to_owned());
        }
        let request = SessionRequest { client_id: device.home.client_id };
        let session = match device.link.session(&request) {
            Ok(session) => session,
            Err(error) => return device.explain(error),
        };
        let began = device.call(self.fleet, "begin_session", |_| false, |engine| engine.begin_session(&session))?;
        if let Did::Refused(error) = began {
            return Ok(format!("refused: {error}"));
        }
        let audiences: Vec<_> = session.audiences.into_iter().map(|head| head.audience_key).collect();
        device.link.listen(&audiences);
        device.told = Some(audiences.into_iter().collect());
        Ok("session".to_owned())
    }

    fn ask(&mut self, number: usize) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        if device.link.is_cut {
            return Ok("cut off".to_owned());
        }
        let request = match device.call(self.fleet, "fetch_request", no_session, |engine| engine.fetch_request())? {
            Did::Done(request) => request,
            Did::Refused(error) => return Ok(format!("refused: {error}")),
        };
        match device.link.fetch(&request) {
            Ok(page) => {
                let said = format!("{} records under way", page.records.len());
                device.link.under_way.pages.push(page);
                Ok(said)
            }
            Err(error) => device.explain(error),
        }
    }

    fn take_page(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        let Some(page) = take(&mut self.devices[number].link.under_way.pages, nth, again) else {
            return Ok("nothing".to_owned());
        };
        self.integrate(number, page)
    }

    fn integrate(&mut self, number: usize, page: FetchPage) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        let named: Vec<_> = page.cursors.keys().cloned().collect();
        let did = device.call(self.fleet, "integrate_page", no_session, |engine| engine.integrate_page(page))?;
        Ok(match did {
            Did::Done(committed) => {
                device.told.get_or_insert_default().extend(named);
                format!("{} rows", committed.rows.len())
            }
            Did::Refused(error) => format!("refused: {error}"),
        })
    }

    /// Fetches to the end; says what stood in the way, if anything did.
    fn fetch_all(&mut self, number: usize) -> Result<Option<String>, Failure> {
        loop {
            let asked = self.ask(number)?;
            let Some(page) = self.devices[number].link.under_way.pages.pop().filter(|_| asked.ends_with("under way"))
            else {
                return Ok(Some(asked));
            };
            let more = page.more;
            let integrated = self.integrate(number, page)?;
            if integrated.starts_with("refused") {
                return Ok(Some(integrated));
            }
            if !more {
                return Ok(None);
            }
        }
    }

    fn send(&mut self, number: usize) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        if device.link.is_cut {
            return Ok("cut off".to_owned());
        }
        let batch_id = device.fresh_batch_id();
        let next = device.call(self.fleet, "next_batch", no_session, |engine| engine.next_batch(batch_id))?;
        Ok(match next {
            Did::Done(Some(sent)) => {
                let said = format!("sent {} records", sent.batch.records.len());
                let uplink = Uplink { batch: sent.batch.clone(), sent: Some(sent) };
                device.link.under_way.uplinks.push(uplink);
                said
            }
            Did::Done(None) => "nothing pending".to_owned(),
            Did::Refused(error) => format!("refused: {error}"),
        })
    }

    fn arrive(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        let Some(uplink) = take(&mut self.devices[number].link.under_way.uplinks, nth, again) else {
            return Ok("nothing".to_owned());
        };
        Ok(match self.decide(number, uplink)? {
            Some(decided) => {
                let said = short(&decided.1);
                self.devices[number].link.under_way.outcomes.push(decided);
                said
            }
            None => "nobody waits for the outcome".to_owned(),
        })
    }

    /// The server decides a batch; nothing is left to conclude if the process that sent it is gone.
    fn decide(
        &mut self,
        number: usize,
        uplink: Uplink,
    ) -> Result<Option<(synchrotron_core::engine::SentBatch, Outcome)>, Failure> {
        let device = &mut self.devices[number];
        let outcome = match device.link.upload(&uplink.batch, self.server_in_trouble) {
            Ok(outcome) => outcome,
            Err(error) => return device.explain(error).map(|_| None),
        };
        self.server_log.follow(&self.server);
        Ok(uplink.sent.map(|sent| (sent, outcome)))
    }

    fn conclude_nth(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        match take(&mut self.devices[number].link.under_way.outcomes, nth, again) {
            Some((sent, outcome)) => self.conclude(number, sent, outcome),
            None => Ok("nothing".to_owned()),
        }
    }

    fn conclude(
        &mut self,
        number: usize,
        sent: synchrotron_core::engine::SentBatch,
        outcome: Outcome,
    ) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        device.check_outcome(&outcome)?;
        let said = short(&outcome);
        let did = device.call(self.fleet, "conclude", |_| false, |engine| engine.conclude(&sent, &outcome))?;
        Ok(match did {
            Did::Done(Concluded::Settled(_)) => "settled".to_owned(),
            Did::Done(Concluded::Fetch) => format!("{said}: fetch"),
            Did::Done(Concluded::Later) => format!("{said}: later"),
            Did::Refused(error) => format!("refused: {error}"),
        })
    }

    fn live(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        let slice = match take(&mut device.link.under_way.live, nth, again) {
            None => return Ok("nothing".to_owned()),
            Some(Ingress::Wakeup) => return Ok("a wakeup".to_owned()),
            Some(Ingress::Slice(slice)) => slice,
        };
        let did = device.call(self.fleet, "receive", no_session, |engine| engine.receive(slice))?;
        Ok(match did {
            Did::Done(Received::Integrated(committed)) => format!("{} rows", committed.rows.len()),
            Did::Done(Received::Known) => "known".to_owned(),
            Did::Done(Received::Waiting) => "waiting".to_owned(),
            Did::Done(Received::Gap) => "a gap".to_owned(),
            Did::Refused(error) => format!("refused: {error}"),
        })
    }
}

impl Device {
    fn arm(&mut self, calls: u32, kind: FaultKind) {
        self.fault_kills = kind != FaultKind::Once;
        self.home.switch.arm(calls, kind);
    }

    /// A network error that the plan explains, in words.
    fn explain(&self, error: NetworkError) -> Result<String, Failure> {
        let is_refusal = matches!(&error, NetworkError::Fault(_)) && !self.link.token_is_valid;
        if is_refusal { Ok(error.to_string()) } else { Err(Failure::new(FailureKind::Alarm, self.number, error.to_string())) }
    }

    /// Outcomes that the plan explains.
    fn check_outcome(&self, outcome: &Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::Accepted { .. }
            | Outcome::BehindHead { .. }
            | Outcome::Unauthenticated { .. }
            | Outcome::Retry { .. } => Ok(()),
            other => Err(Failure::new(FailureKind::Alarm, self.number, format!("the server answers {other:?}"))),
        }
    }
}

/// Before the first session, a device can only be asked to wait.
fn no_session(error: &EngineError) -> bool {
    matches!(error, EngineError::NoSession)
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { ids } => format!("accepted {}", ids.len()),
        other => format!("{other:?}"),
    }
}
