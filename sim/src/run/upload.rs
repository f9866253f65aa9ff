//! A device's work on its way to the server, and the outcome on its way back; live slices.

use synchrotron_core::engine::{Concluded, EngineError, Received, SentBatch};
use synchrotron_core::wire::{FaultCode, Outcome, OutcomeMessage, RejectionKind};

use super::World;
use super::device::{Device, Did};
use super::link::{Downlink, Pushed, Uplink, take};
use super::parcel::Parcel;
use super::sync::no_session;
use super::world::{Seen, ServerLog};
use crate::failure::{Failure, FailureKind};

impl World<'_> {
    pub(crate) fn send(&mut self, number: usize) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        if device.link.is_cut {
            return Ok("cut off".to_owned());
        }
        let batch_id = device.fresh_batch_id();
        let next = device.call(self.fleet, "next_batch", no_session, |engine| engine.next_batch(batch_id))?;
        Ok(match next {
            Did::Done(Some(sent)) => {
                let said = format!("sent {} records", sent.batch.records.len());
                let uplink = Uplink { batch: Parcel::of(&sent.batch), sent: Some(sent) };
                device.link.under_way.uplinks.push(uplink);
                said
            }
            Did::Done(None) => "nothing pending".to_owned(),
            Did::Refused(error) => format!("refused: {error}"),
        })
    }

    pub(crate) fn arrive(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        let Some(uplink) = take(&mut self.devices[number].link.under_way.uplinks, nth, again) else {
            return Ok("nothing".to_owned());
        };
        Ok(match self.decide(number, uplink)? {
            Some(decided) => {
                let said = decided.outcome.read().map_or_else(|error| error.to_string(), |told| short(&told.outcome));
                self.devices[number].link.under_way.outcomes.push(decided);
                said
            }
            None => "nobody waits for the outcome".to_owned(),
        })
    }

    /// The server decides a batch; nothing is left to conclude if the process that sent it is gone.
    pub(crate) fn decide(&mut self, number: usize, uplink: Uplink) -> Result<Option<Downlink>, Failure> {
        let device = &mut self.devices[number];
        let outcome = match device.link.upload(&uplink.batch, self.server_in_trouble) {
            Ok(outcome) => outcome,
            Err(error) => return device.explain(error, &self.seen).map(|_| None),
        };
        self.server_log.follow(&self.server);
        Ok(uplink.sent.map(|sent| Downlink { sent, outcome }))
    }

    pub(crate) fn conclude_nth(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        match take(&mut self.devices[number].link.under_way.outcomes, nth, again) {
            Some(told) => self.conclude(number, told),
            None => Ok("nothing".to_owned()),
        }
    }

    pub(crate) fn conclude(&mut self, number: usize, Downlink { sent, outcome }: Downlink) -> Result<String, Failure> {
        // An outcome that nobody can read tells nothing; the batch is sent again.
        let outcome = match outcome.read() {
            Ok(OutcomeMessage { batch_id, outcome }) if batch_id.is_none_or(|id| id == sent.batch.batch_id) => outcome,
            Ok(_) => return Ok("the outcome of another batch".to_owned()),
            Err(error) => return Ok(format!("unreadable: {error}")),
        };
        let device = &mut self.devices[number];
        device.check_outcome(&sent, &outcome, &self.seen, &self.server_log)?;
        let said = short(&outcome);
        let wall_ms = device.wall.read(self.now_ms);
        let restored = self.seen.restored > 0;
        let another = |error: &EngineError| restored && matches!(error, EngineError::EpochChanged { .. });
        let did = device.call(self.fleet, "conclude", another, |engine| engine.conclude(&sent, &outcome, wall_ms))?;
        Ok(match did {
            Did::Done(Concluded::Settled(_)) => "settled".to_owned(),
            Did::Done(Concluded::Restamped(_)) => "restamped".to_owned(),
            Did::Done(Concluded::Snapshot) => format!("{said}: snapshot"),
            Did::Done(Concluded::Fetch) => format!("{said}: fetch"),
            Did::Done(Concluded::Later) => format!("{said}: later"),
            Did::Refused(error) => format!("refused: {error}"),
        })
    }

    pub(crate) fn live(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        let slice = match take(&mut device.link.under_way.live, nth, again) {
            None => return Ok("nothing".to_owned()),
            Some(Pushed::Wakeup) => return Ok("a wakeup".to_owned()),
            Some(Pushed::Slice(slice)) => match slice.read() {
                Ok(slice) => slice,
                Err(error) => return Ok(format!("a wakeup, unreadable: {error}")),
            },
        };
        let restored = self.seen.restored > 0;
        let explained =
            |error: &EngineError| no_session(error) || restored && matches!(error, EngineError::EpochChanged { .. });
        let did = device.call(self.fleet, "receive", explained, |engine| engine.receive(slice))?;
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
    /// Outcomes that the plan explains.
    fn check_outcome(&self, sent: &SentBatch, outcome: &Outcome, seen: &Seen, log: &ServerLog) -> Result<(), Failure> {
        let explained = match outcome {
            Outcome::Accepted { .. }
            | Outcome::BehindHead { .. }
            | Outcome::ClockAhead { .. }
            | Outcome::Unauthenticated { .. }
            | Outcome::Retry { .. } => true,
            Outcome::Rejected { action, kind, .. } => match kind {
                // A batch whose answer was lost, and which runs differently by now.
                RejectionKind::DuplicateId => true,
                RejectionKind::Denied => seen.revoked,
                RejectionKind::Malformed => seen.restored > 0,
                // Others moved its row, or have that id elsewhere.
                RejectionKind::AudienceMismatch => {
                    let refused = sent.batch.records.iter().filter(|record| record.id == *action);
                    refused.flat_map(|record| &record.rows).any(|row| log.has_elsewhere(row))
                }
                _ => false,
            },
            Outcome::TooOld { .. } => seen.compacted,
            Outcome::EpochChanged { .. } => seen.restored > 0,
            Outcome::Refused(fault) => fault.code == FaultCode::Malformed && seen.broken,
        };
        if explained {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Alarm, self.number, format!("the server answers {outcome:?}")))
    }
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { ids } => format!("accepted {}", ids.len()),
        other => format!("{other:?}"),
    }
}
