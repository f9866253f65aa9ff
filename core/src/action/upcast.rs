//! Upcasters: arguments of a retired tag become those of the tag that took its place.
//!
//! A record keeps its tag and its arguments for ever; only what runs changes. So row ids, which derive from the action's
//! id, stay the same, and every replica sends what it received.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{ActionArgs, ActionTag};

type Map = dyn Fn(&ActionArgs) -> Option<ActionArgs> + Send + Sync;

/// One step from an old tag to a newer one.
#[derive(Clone)]
pub(super) struct Upcast {
    pub(super) to: ActionTag,
    map: Arc<Map>,
}

impl Upcast {
    pub(super) fn new<Old, New>(to: ActionTag, map: fn(Old) -> New) -> Self
    where
        Old: DeserializeOwned + 'static,
        New: Serialize + 'static,
    {
        let map = move |args: &ActionArgs| {
            let old: Old = rmp_serde::from_slice(args.as_bytes()).ok()?;
            let new = rmp_serde::to_vec_named(&map(old)).ok()?;
            ActionArgs::from_encoded(new)
        };
        Self { to, map: Arc::new(map) }
    }

    /// The newer tag's arguments; `None` if these do not read as the old tag's, or the app's code panics on them.
    pub(super) fn map(&self, args: &ActionArgs) -> Option<ActionArgs> {
        catch_unwind(AssertUnwindSafe(|| (self.map)(args))).ok().flatten()
    }
}

impl fmt::Debug for Upcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upcast").field("to", &self.to).finish_non_exhaustive()
    }
}
