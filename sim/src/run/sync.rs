//! A device and the server: sessions, pages, snapshots, batches, outcomes, slices.

use synchrotron_core::engine::{EngineError, Progress};
use synchrotron_core::network::NetworkError;
use synchrotron_core::wire::{FaultCode, FetchPage, SessionRequest, SnapshotChunk};

use super::device::Did;
use super::link::take;
use super::world::Seen;
use super::{Device, World};
use crate::failure::{Failure, FailureKind};

/// A sync stops after this many rounds: a device that always has another one does not come to rest.
const ROUNDS_MAX: usize = 100;

impl World<'_> {
    /// Session, snapshots, fetch, upload, fetch, as long as nothing stands in the way.
    pub(crate) fn sync(&mut self, number: usize) -> Result<String, Failure> {
        if let Some(problem) = self.catch_up(number)? {
            return Ok(problem);
        }
        for batches in 0..ROUNDS_MAX {
            let sent = self.send(number)?;
            let Some(uplink) = self.devices[number].link.under_way.uplinks.pop().filter(|_| sent.starts_with("sent"))
            else {
                let problem = self.catch_up(number)?;
                return Ok(problem.unwrap_or_else(|| format!("{batches} batches, done")));
            };
            let Some(told) = self.decide(number, uplink)? else { return Ok("refused".to_owned()) };
            let concluded = self.conclude(number, told)?;
            if concluded.ends_with("snapshot") {
                if let Some(problem) = self.catch_up(number)? {
                    return Ok(problem);
                }
            } else if concluded != "settled" && concluded != "restamped" {
                return Ok(format!("{batches} batches, {concluded}"));
            }
        }
        Err(Failure::new(FailureKind::FixedPoint, number, "uploading does not come to an end"))
    }

    /// Opens a session, takes snapshots and fetches to the end; says what stood in the way, if anything did.
    fn catch_up(&mut self, number: usize) -> Result<Option<String>, Failure> {
        for _round in 0..ROUNDS_MAX {
            let session = self.session(number)?;
            if session != "session" {
                return Ok(Some(session));
            }
            match self.take_snapshots(number)?.map_or_else(|| self.fetch_all(number), |problem| Ok(Some(problem)))? {
                // The server moved on meanwhile: a new session tells.
                Some(problem) if problem.contains("again") => {}
                Some(problem) => return Ok(Some(problem)),
                None if !self.needs_snapshot(number) => return Ok(None),
                None => {}
            }
        }
        Err(Failure::new(FailureKind::FixedPoint, number, "catching up does not come to an end"))
    }

    fn needs_snapshot(&self, number: usize) -> bool {
        !self.devices[number].home.state().stale.is_empty()
    }

    pub(crate) fn session(&mut self, number: usize) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        if device.link.is_cut {
            return Ok("cut off".to_owned());
        }
        let request = SessionRequest { client_id: device.home.client_id };
        let session = match device.link.session(&request) {
            Ok(session) => session,
            Err(error) => return device.explain(error, &self.seen),
        };
        let wall_ms = device.wall.read(self.now_ms);
        let began =
            device.call(self.fleet, "begin_session", |_| false, |engine| engine.begin_session(&session, wall_ms))?;
        let audiences: Vec<_> = session.audiences.into_iter().map(|head| head.audience_key).collect();
        if let Did::Refused(error) = began {
            // It may have been kept, and only its answer lost.
            device.told_either(audiences);
            return Ok(format!("refused: {error}"));
        }
        device.link.listen(&audiences);
        device.told = Some(audiences.into_iter().collect());
        Ok("session".to_owned())
    }

    pub(crate) fn ask(&mut self, number: usize) -> Result<String, Failure> {
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
                let records = page.open().map_or(0, |page| page.records.len());
                let said = format!("{records} records under way");
                device.link.under_way.pages.push(page);
                Ok(said)
            }
            Err(error) => device.explain(error, &self.seen),
        }
    }

    pub(crate) fn take_page(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        match take(&mut self.devices[number].link.under_way.pages, nth, again).map(|page| page.open()) {
            Some(Ok(page)) => self.integrate(number, page),
            Some(Err(error)) => Ok(format!("unreadable: {error}")),
            None => Ok("nothing".to_owned()),
        }
    }

    fn integrate(&mut self, number: usize, page: FetchPage) -> Result<String, Failure> {
        let restored = self.seen.restored > 0;
        let explained =
            |error: &EngineError| no_session(error) || restored && matches!(error, EngineError::EpochChanged { .. });
        let device = &mut self.devices[number];
        let did = device.call(self.fleet, "integrate_page", explained, |engine| engine.integrate_page(page))?;
        Ok(match did {
            Did::Done(committed) => format!("{} rows", committed.rows.len()),
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
            let page = page.open().expect("BUG: nothing broke it between asking and taking");
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

    pub(crate) fn ask_chunk(&mut self, number: usize) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        if device.link.is_cut {
            return Ok("cut off".to_owned());
        }
        let asked = device.call(self.fleet, "snapshot_request", no_session, |engine| engine.snapshot_request())?;
        let request = match asked {
            Did::Done(Some(request)) => request,
            Did::Done(None) => return Ok("nothing is stale".to_owned()),
            Did::Refused(error) => return Ok(format!("refused: {error}")),
        };
        match device.link.snapshot(&request) {
            Ok(chunk) => {
                let position = chunk.open().map_or(0, |chunk| chunk.position.chunk);
                let said = format!("chunk {position} under way");
                device.link.under_way.chunks.push(chunk);
                Ok(said)
            }
            Err(NetworkError::Fault(fault)) if fault.code == FaultCode::SnapshotGone => {
                device.call(self.fleet, "abandon_snapshot", |_| false, |engine| engine.abandon_snapshot())?;
                Ok("the snapshot is gone, again".to_owned())
            }
            Err(error) => device.explain(error, &self.seen),
        }
    }

    pub(crate) fn take_chunk_nth(&mut self, number: usize, nth: usize, again: bool) -> Result<String, Failure> {
        match take(&mut self.devices[number].link.under_way.chunks, nth, again).map(|chunk| chunk.open()) {
            Some(Ok(chunk)) => self.take_chunk(number, &chunk),
            Some(Err(error)) => Ok(format!("unreadable: {error}")),
            None => Ok("nothing".to_owned()),
        }
    }

    fn take_chunk(&mut self, number: usize, chunk: &SnapshotChunk) -> Result<String, Failure> {
        let device = &mut self.devices[number];
        Ok(match device.call(self.fleet, "take_chunk", |_| false, |engine| engine.take_chunk(chunk))? {
            Did::Done(Progress::Loading { rows_done, rows_total }) => format!("{rows_done} of {rows_total} rows"),
            Did::Done(Progress::Done(_)) => "swapped".to_owned(),
            Did::Refused(error) => format!("refused: {error}"),
        })
    }

    /// Takes snapshots until nothing is stale; says what stood in the way, if anything did.
    fn take_snapshots(&mut self, number: usize) -> Result<Option<String>, Failure> {
        for _round in 0..ROUNDS_MAX {
            let asked = self.ask_chunk(number)?;
            if asked == "nothing is stale" {
                return Ok(None);
            }
            let Some(chunk) = self.devices[number].link.under_way.chunks.pop().filter(|_| asked.ends_with("under way"))
            else {
                return Ok(Some(asked));
            };
            let chunk = chunk.open().expect("BUG: nothing broke it between asking and taking");
            let taken = self.take_chunk(number, &chunk)?;
            if taken.starts_with("refused") {
                return Ok(Some(taken));
            }
        }
        Ok(Some("a snapshot that does not end, again".to_owned()))
    }
}

impl Device {
    /// A network error that the plan explains, in words. Those that a new session mends say "again".
    pub(super) fn explain(&self, error: NetworkError, seen: &Seen) -> Result<String, Failure> {
        let words = error.to_string();
        let fail = || Err(Failure::new(FailureKind::Alarm, self.number, words.clone()));
        let NetworkError::Fault(fault) = error else { return fail() };
        match fault.code {
            FaultCode::Unauthenticated if !self.link.token_is_valid => Ok(words),
            FaultCode::Compacted if seen.compacted => Ok(format!("{words}, again")),
            FaultCode::EpochChanged if seen.restored > 0 => Ok(format!("{words}, again")),
            _ => fail(),
        }
    }
}

/// Before the first session, a device can only be asked to wait.
pub(super) fn no_session(error: &EngineError) -> bool {
    matches!(error, EngineError::NoSession)
}
