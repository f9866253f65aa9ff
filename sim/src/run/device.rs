//! One device: a process on its file, with a clock of its own, and what it was promised.

use std::collections::{BTreeMap, BTreeSet};

use synchrotron_core::engine::{EngineError, ExecuteError, ExecuteInput};
use synchrotron_core::model::{ActionId, AudienceKey, BatchId, Patch, UserId};
use synchrotron_core::network::memory::MemoryServer;
use uuid::Uuid;

use super::home::Home;
use super::link::Link;
use super::now_running_on;
use crate::failure::{Failure, FailureKind};
use crate::fleet::{Fleet, Member};
use crate::intent::{DeviceEngine, Intent, IntentError};
use crate::plan::Birth;

/// A wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall {
    pub(crate) skew_ms: i64,
    pub(crate) frozen_at: Option<i64>,
}

impl Wall {
    pub(crate) fn read(self, now_ms: i64) -> i64 {
        self.frozen_at.unwrap_or(now_ms + self.skew_ms)
    }
}

/// What a call of the engine came to.
pub(crate) enum Did<T> {
    Done(T),
    /// It failed, and the plan explains why.
    Refused(EngineError),
}

pub(crate) struct Device {
    pub(crate) number: usize,
    pub(crate) user: UserId,
    pub(crate) wall: Wall,
    pub(crate) version: u32,
    pub(crate) is_destroyed: bool,
    /// The audiences that the newest session or page named; `None` before the first session.
    pub(crate) told: Option<BTreeSet<AudienceKey>>,
    /// Every action that `execute` returned Ok for, with what it did then.
    pub(crate) executed: BTreeMap<ActionId, Vec<Patch>>,
    pub(crate) home: Home,
    pub(crate) link: Link,
    /// A fault that kills the process when it strikes.
    pub(crate) fault_kills: bool,
    /// Through which commit it was held to its promises, and what it showed.
    pub(crate) checked: (i64, String),
    engine: Option<DeviceEngine>,
    made: u128,
}

impl Device {
    pub(crate) fn new(fleet: &Fleet, server: &MemoryServer, number: usize, birth: &Birth, power_fails: bool) -> Self {
        let member: &Member = &fleet.members[birth.member % fleet.members.len()];
        let (home, engine) = Home::new(fleet, number, member, birth.version, power_fails);
        Self {
            number,
            user: member.user.clone(),
            wall: Wall { skew_ms: birth.skew_ms, frozen_at: None },
            version: birth.version,
            is_destroyed: false,
            told: None,
            executed: BTreeMap::new(),
            home,
            link: Link::new(server.connect(member.user.clone())),
            fault_kills: false,
            checked: (-1, String::new()),
            engine: Some(engine),
            made: 0,
        }
    }

    /// A fresh id: the same in every run of one plan.
    pub(crate) fn fresh(&mut self) -> Uuid {
        self.made += 1;
        Uuid::from_u128(((self.number as u128 + 1) << 64) | self.made)
    }

    pub(crate) fn fresh_batch_id(&mut self) -> BatchId {
        BatchId::from_uuid(self.fresh())
    }

    /// Ends the process and starts another on the same file.
    pub(crate) fn restart(&mut self, fleet: &Fleet) {
        self.engine = None;
        self.home.switch.disarm();
        self.fault_kills = false;
        self.link.process_died();
        self.engine = Some(self.home.open(fleet, self.version));
    }

    /// Ends the process, takes from its file what a power cut may take, and starts another.
    pub(crate) fn cut_power(&mut self, fleet: &Fleet) -> &'static str {
        self.engine = None;
        let lost = self.home.lose_unsynced();
        self.restart(fleet);
        // The file counts its commits anew.
        self.checked.0 = -1;
        if lost { "the newest commits are lost" } else { "" }
    }

    /// A session of which the device may or may not know.
    pub(crate) fn told_either(&mut self, audiences: Vec<AudienceKey>) {
        if let Some(told) = &mut self.told {
            told.extend(audiences);
        }
    }

    /// Ends the process.
    pub(crate) fn stop(&mut self) {
        self.engine = None;
    }

    /// Executes an intent; says what came of it.
    pub(crate) fn execute(&mut self, fleet: &Fleet, intent: &Intent, now_ms: i64) -> Result<String, Failure> {
        let Some(known) = fleet.actions.get(intent.tag.as_str()) else { return Ok("no such action".to_owned()) };
        now_running_on(self.number);
        let action_id = ActionId::from_uuid(self.fresh());
        let input = ExecuteInput::new(action_id, self.wall.read(now_ms));
        self.home.before_call();
        let engine = self.engine.as_mut().expect("BUG: only a stopped device has no engine");
        let result = (known.execute)(engine, &intent.args, input);
        let struck = self.after_call(fleet);
        match result {
            Ok(committed) => {
                let rows = self.home.state().records.remove(&action_id).map(|record| record.rows);
                self.executed.insert(action_id, rows.unwrap_or_default());
                Ok(format!("ok, {} rows", committed.rows.len()))
            }
            Err(IntentError::Arguments { detail }) => Ok(format!("bad arguments: {detail}")),
            Err(IntentError::Execute(error)) => match &error {
                ExecuteError::Action(_) | ExecuteError::ForeignAudience { .. } => Ok(format!("no: {error}")),
                ExecuteError::Unregistered { .. } if known.since > self.version => Ok(format!("no: {error}")),
                ExecuteError::Store(_) if struck => Ok(format!("struck: {error}")),
                _ => Err(Failure::new(FailureKind::Alarm, self.number, format!("execute {intent}: {error}"))),
            },
        }
    }

    /// Calls the engine. An error must be one that the plan explains: an injected fault, or one that `explained` knows.
    pub(crate) fn call<T>(
        &mut self,
        fleet: &Fleet,
        what: &str,
        explained: impl Fn(&EngineError) -> bool,
        call: impl FnOnce(&mut DeviceEngine) -> Result<T, EngineError>,
    ) -> Result<Did<T>, Failure> {
        now_running_on(self.number);
        self.home.before_call();
        let result = call(self.engine.as_mut().expect("BUG: only a stopped device has no engine"));
        let struck = self.after_call(fleet);
        match result {
            Ok(done) => Ok(Did::Done(done)),
            Err(error) if struck || explained(&error) => Ok(Did::Refused(error)),
            Err(error) => Err(Failure::new(FailureKind::Alarm, self.number, format!("{what}: {error}"))),
        }
    }

    /// After a fault the process is dead, or the disk works again.
    fn after_call(&mut self, fleet: &Fleet) -> bool {
        self.home.after_call();
        let struck = self.home.switch.has_fired();
        if struck && self.fault_kills {
            self.restart(fleet);
        } else if struck {
            self.home.switch.disarm();
        }
        struck
    }
}
