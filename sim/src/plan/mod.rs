//! What happens in a run, as plain data.
//!
//! Every step can be done in every state, or does nothing: so any part of a plan is a plan, and a failing one can be
//! shrunk. Numbers of devices and of messages count modulo how many there are.

mod generate;
mod mix;

use std::fmt::Write;

use serde::{Deserialize, Serialize};

pub use self::mix::Mix;
use crate::intent::Intent;

/// A device when the run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Whose it is: the number of a member of the fleet.
    pub member: usize,
    /// How far its wall clock is off, in milliseconds.
    pub skew_ms: i64,
    /// Its version of the app.
    pub version: u32,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The app on a device does what its workload draws from this number.
    Draw {
        /// Where.
        device: usize,
        /// The seed of the workload's random numbers.
        draw: u64,
    },
    /// The app on a device does just this.
    Execute {
        /// Where.
        device: usize,
        /// What.
        intent: Intent,
    },
    /// A whole sync, nothing lost on the way.
    Sync {
        /// Which device.
        device: usize,
    },
    /// A new session, as after a reconnect: live slices flow from here on.
    Session {
        /// Which device.
        device: usize,
    },
    /// A device asks for what is new; the answer is under way from now on.
    Ask {
        /// Which device.
        device: usize,
    },
    /// An answer arrives.
    Take {
        /// Where.
        device: usize,
        /// Which of those under way.
        nth: usize,
        /// Whether it arrives another time later.
        again: bool,
    },
    /// A device sends its next batch.
    Send {
        /// Which device.
        device: usize,
    },
    /// A batch arrives at the server and is decided there; the outcome is under way from now on.
    Arrive {
        /// Whose.
        device: usize,
        /// Which of those under way.
        nth: usize,
        /// Whether it arrives another time later.
        again: bool,
    },
    /// An outcome arrives at the device.
    Conclude {
        /// Where.
        device: usize,
        /// Which of those under way.
        nth: usize,
        /// Whether it arrives another time later.
        again: bool,
    },
    /// A live slice arrives.
    Slice {
        /// Where.
        device: usize,
        /// Which of those under way.
        nth: usize,
        /// Whether it arrives another time later.
        again: bool,
    },
    /// A device asks for the next chunk of a snapshot, if it needs one; the chunk is under way from now on.
    AskChunk {
        /// Which device.
        device: usize,
    },
    /// A chunk arrives.
    TakeChunk {
        /// Where.
        device: usize,
        /// Which of those under way.
        nth: usize,
        /// Whether it arrives another time later.
        again: bool,
    },
    /// A message of any kind is lost: an answer, a batch that was acknowledged and never handled, an outcome, a slice.
    Lose {
        /// Whose.
        device: usize,
        /// Which of all that is under way to or from it.
        nth: usize,
    },
    /// A message of any kind breaks off in the middle: what arrives of it is no message.
    BreakOff {
        /// Whose.
        device: usize,
        /// Which of all that is under way to or from it.
        nth: usize,
        /// After how many bytes, modulo how many it has.
        at: usize,
    },
    /// The process dies between two steps and is started again.
    Crash {
        /// Which device.
        device: usize,
    },
    /// The power goes: the process dies, and with it what its newest commits did without waiting for the disk.
    PowerCut {
        /// Which device.
        device: usize,
    },
    /// The process dies inside a later step, at this call to its database, and is started again.
    CrashInside {
        /// Which device.
        device: usize,
        /// How many calls pass before.
        calls: u32,
    },
    /// The process dies after one of its next commits, before it learns of it, and is started again.
    CrashAfterCommit {
        /// Which device.
        device: usize,
        /// How many commits pass before.
        commits: u32,
    },
    /// The disk fails once, at this call to the database. The process lives on.
    DiskFails {
        /// Which device.
        device: usize,
        /// How many calls pass before.
        calls: u32,
    },
    /// The wall clock of a device jumps.
    Jump {
        /// Which device.
        device: usize,
        /// How far, in milliseconds; negative for back.
        by_ms: i64,
    },
    /// The wall clock of a device stands still, or goes on.
    Freeze {
        /// Which device.
        device: usize,
        /// Whether it stands still.
        on: bool,
    },
    /// Time passes for everybody.
    Pass {
        /// How much, in milliseconds.
        ms: i64,
    },
    /// A device is cut off, or connected again.
    Cut {
        /// Which device.
        device: usize,
        /// Whether it is cut off.
        on: bool,
    },
    /// A device's token is expired, or renewed.
    Token {
        /// Which device.
        device: usize,
        /// Whether the server takes it.
        valid: bool,
    },
    /// The server answers uploads by "later", or works again.
    Trouble {
        /// Whether it is in trouble.
        on: bool,
    },
    /// The user of a device comes into an audience, or leaves it.
    Member {
        /// The device whose user it is.
        device: usize,
        /// Which of all audiences of the fleet.
        nth: usize,
        /// Whether the user is in it from now on.
        on: bool,
    },
    /// The server forgets its oldest records.
    Compact {
        /// How many of the newest stay.
        keep: usize,
    },
    /// The server forgets the snapshots that are being taken.
    Expire,
    /// The server comes back from a backup, as another history: its newest records are lost.
    Restore {
        /// How many are lost.
        lost: usize,
    },
    /// A device takes all its rows anew and keeps what is pending.
    Rebase {
        /// Which device.
        device: usize,
    },
    /// A device takes all its rows anew; what is pending goes to quarantine.
    HardResync {
        /// Which device.
        device: usize,
    },
    /// A device finds that its database is a copy, and becomes another device.
    Copied {
        /// Which device.
        device: usize,
    },
    /// A device gets the newest version of the app.
    Upgrade {
        /// Which device.
        device: usize,
    },
    /// A device is lost for ever, with all that it had not uploaded.
    Destroy {
        /// Which device.
        device: usize,
    },
}

/// A run as data: the fleet's name, its devices, what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The fleet that it is for.
    pub fleet: String,
    /// The seed that it was made from.
    pub seed: u64,
    /// The devices.
    pub devices: Vec<Birth>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A text is not a plan.
#[derive(Debug, thiserror::Error)]
#[error("not a plan: {detail}")]
pub struct PlanError {
    detail: String,
}

impl Plan {
    /// The plan as text: JSON with one step on each line.
    #[must_use]
    pub fn to_text(&self) -> String {
        fn json<T: Serialize>(value: &T) -> String {
            serde_json::to_string(value).expect("BUG: plans have a JSON form")
        }
        let lines: Vec<String> = self.steps.iter().map(|step| format!("    {}", json(step))).collect();
        let mut text = String::new();
        write!(
            text,
            "{{\n  \"fleet\": {},\n  \"seed\": {},\n  \"devices\": {},\n  \"steps\": [\n{}\n  ]\n}}\n",
            json(&self.fleet),
            self.seed,
            json(&self.devices),
            lines.join(",\n")
        )
        .expect("BUG: a string takes all");
        text
    }

    /// Reads [`Self::to_text`]'s form.
    ///
    /// # Errors
    /// [`PlanError`] says where it is not one.
    pub fn from_text(text: &str) -> Result<Self, PlanError> {
        serde_json::from_str(text).map_err(|error| PlanError { detail: error.to_string() })
    }
}
