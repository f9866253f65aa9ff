//! Which steps a plan is made of, and how often each comes.

/// Weights of steps, and bounds. A weight of 0 never comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// How many steps a plan has.
    pub steps: usize,
    /// How many devices at most.
    pub devices_max: usize,
    /// The app does something.
    pub act: u32,
    /// A whole sync.
    pub sync: u32,
    /// Single messages: asked, sent, arrived, taken, concluded, live; delayed and reordered, since each is a step.
    pub messages: u32,
    /// A message is lost.
    pub lose: u32,
    /// A message breaks off in the middle.
    pub break_off: u32,
    /// Of a hundred messages that arrive, how many arrive again later.
    pub doubled_percent: u32,
    /// A process dies between two steps, or inside one.
    pub crash: u32,
    /// The power of a device goes.
    pub power: u32,
    /// A disk fails once.
    pub disk: u32,
    /// A wall clock jumps, stands still, or goes on.
    pub clock: u32,
    /// How far clocks are off and jump, in milliseconds.
    pub skew_max_ms: i64,
    /// A device is cut off, or connected again.
    pub cut: u32,
    /// A token expires, or is renewed; the server is in trouble, or works again.
    pub refuse: u32,
    /// A user comes into an audience, or leaves one.
    pub member: u32,
    /// The server compacts its log, or forgets a snapshot; a device rebases, resyncs or finds itself copied.
    pub recover: u32,
    /// The server comes back from a backup.
    pub restore: u32,
    /// A device gets the newest version of the app.
    pub upgrade: u32,
    /// A device is lost for ever.
    pub destroy: u32,
}

impl Default for Mix {
    /// A bit of everything.
    fn default() -> Self {
        Self {
            steps: 120,
            devices_max: 4,
            act: 40,
            sync: 18,
            messages: 60,
            lose: 4,
            break_off: 2,
            doubled_percent: 15,
            crash: 3,
            power: 0,
            disk: 1,
            clock: 2,
            skew_max_ms: 20_000,
            cut: 2,
            refuse: 1,
            member: 0,
            recover: 0,
            restore: 0,
            upgrade: 1,
            destroy: 0,
        }
    }
}

impl Mix {
    /// Nothing goes wrong but that devices are offline between their syncs.
    #[must_use]
    pub fn calm() -> Self {
        Self { messages: 0, lose: 0, break_off: 0, crash: 0, disk: 0, clock: 0, cut: 0, refuse: 0, ..Self::default() }
    }
}
