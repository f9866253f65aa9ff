//! What is simulated: an app's schema, actions, users, workload and rules; and which faults it meets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rand::rngs::StdRng;
use synchrotron_core::action::{Action, Registry, Table};
use synchrotron_core::model::{AudienceKey, UserId};

use crate::check::AtRest;
use crate::intent::{Intent, KnownAction};
use crate::plan::Mix;
use crate::rows::{Rows, View};

type Workload = dyn Fn(&mut StdRng, &View<'_>) -> Option<Intent> + Send + Sync;
type RowsRule = dyn Fn(&Rows) -> Result<(), String> + Send + Sync;
type RestRule = dyn Fn(&AtRest<'_>) -> Result<(), String> + Send + Sync;

/// A user, and the audiences that it is in when the run begins.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) user: UserId,
    pub(crate) audiences: BTreeSet<AudienceKey>,
}

/// Names what must hold, for the message when it does not.
pub(crate) struct Rule<R: ?Sized> {
    pub(crate) name: String,
    pub(crate) holds: Box<R>,
}

/// An app and its users, ready to be simulated.
pub struct Fleet {
    pub(crate) name: String,
    pub(crate) schema: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) actions: BTreeMap<&'static str, KnownAction>,
    pub(crate) members: Vec<Member>,
    pub(crate) workload: Box<Workload>,
    pub(crate) rules: Vec<Rule<RowsRule>>,
    pub(crate) rest_rules: Vec<Rule<RestRule>>,
    pub(crate) mix: Mix,
}

impl Fleet {
    /// Begins to describe a fleet.
    #[must_use]
    pub fn builder(name: impl Into<String>) -> FleetBuilder {
        FleetBuilder {
            fleet: Self {
                name: name.into(),
                schema: String::new(),
                tables: Vec::new(),
                actions: BTreeMap::new(),
                members: Vec::new(),
                workload: Box::new(|_, _| None),
                rules: Vec::new(),
                rest_rules: Vec::new(),
                mix: Mix::default(),
            },
        }
    }

    /// The same fleet with other faults.
    #[must_use]
    pub fn with_mix(mut self, change: impl FnOnce(Mix) -> Mix) -> Self {
        self.mix = change(self.mix);
        self
    }

    /// The newest version of the app.
    pub(crate) fn newest_version(&self) -> u32 {
        self.actions.values().map(|action| action.since).max().unwrap_or(1)
    }

    /// What one version of the app knows.
    pub(crate) fn registry(&self, version: u32) -> Registry {
        let mut registry = Registry::default();
        for action in self.actions.values().filter(|action| action.since <= version) {
            (action.register)(&mut registry).expect("BUG: tags differ, the builder saw to it");
        }
        registry
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("name", &self.name)
            .field("actions", &self.actions.keys())
            .field("members", &self.members)
            .field("mix", &self.mix)
            .finish_non_exhaustive()
    }
}

/// Describes a [`Fleet`].
#[derive(Debug)]
pub struct FleetBuilder {
    fleet: Fleet,
}

impl FleetBuilder {
    /// The app's schema on devices, safe to run at every start.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.fleet.schema = schema.into();
        self
    }

    /// A table to sync.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.fleet.tables.push(table);
        self
    }

    /// An action that every version of the app knows.
    #[must_use]
    pub fn action<A: Action>(self) -> Self {
        self.action_since::<A>(1)
    }

    /// An action that the app knows from this version on. Devices may start with an older one, and be upgraded later.
    ///
    /// # Panics
    /// If the tag is taken.
    #[must_use]
    pub fn action_since<A: Action>(mut self, version: u32) -> Self {
        let taken = self.fleet.actions.insert(A::TAG, KnownAction::of::<A>(version));
        assert!(taken.is_none(), "two actions have the tag {}", A::TAG);
        self
    }

    /// A user and the audiences that it is in. A plan gives each user one device or more, or none.
    ///
    /// # Panics
    /// If a name cannot be a user's or an audience's.
    #[must_use]
    pub fn member<'n>(mut self, user: &str, audiences: impl IntoIterator<Item = &'n str>) -> Self {
        let audience = |name: &str| AudienceKey::new(name).expect("the name of an audience");
        let user = UserId::new(user).expect("the name of a user");
        self.fleet.members.push(Member { user, audiences: audiences.into_iter().map(audience).collect() });
        self
    }

    /// What the app does next on a device, if it does anything. It may look at nothing but its two arguments.
    #[must_use]
    pub fn workload(mut self, draw: impl Fn(&mut StdRng, &View<'_>) -> Option<Intent> + Send + Sync + 'static) -> Self {
        self.fleet.workload = Box::new(draw);
        self
    }

    /// A rule on the rows: it must hold at rest, on the server and on every device.
    #[must_use]
    pub fn rule(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&Rows) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.fleet.rules.push(Rule { name: name.into(), holds: Box::new(holds) });
        self
    }

    /// A rule on the whole run at rest: on the server's rows and the log that they came from.
    #[must_use]
    pub fn at_rest(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&AtRest<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.fleet.rest_rules.push(Rule { name: name.into(), holds: Box::new(holds) });
        self
    }

    /// Which faults the fleet meets, and how often.
    #[must_use]
    pub fn mix(mut self, mix: Mix) -> Self {
        self.fleet.mix = mix;
        self
    }

    /// The fleet.
    ///
    /// # Panics
    /// If there is no user: nobody could act.
    #[must_use]
    pub fn build(self) -> Fleet {
        assert!(!self.fleet.members.is_empty(), "a fleet needs a member");
        self.fleet
    }
}
