//! From a tag on the wire to the code that runs it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::upcast::Upcast;
use super::{Action, ActionError, Context};
use crate::model::{ActionArgs, ActionTag, IdError};

/// Runs one action from its encoded arguments, for its effects; `None` if they do not read as its arguments.
type Runnable = fn(&ActionArgs, &mut Context<'_>) -> Option<Result<(), ActionError>>;

/// The actions that this version of the app knows. An unknown tag is no error: its patch is applied instead. The same
/// goes for arguments that do not read as those of their tag.
///
/// # New versions
/// A change of meaning, or of the shape of arguments, is a new tag. Records of the old one live on: on other devices, in
/// the server's log, pending on this one. An upcaster says what they are in the new version's words.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use synchrotron_core::action::{Action, ActionError, Context, Registry};
/// # use synchrotron_core::params;
///
/// /// What `book_seat_v1` was called with. It is no action any more.
/// #[derive(Deserialize)]
/// struct BookSeatV1 { seat: String }
///
/// #[derive(Serialize, Deserialize)]
/// struct BookSeat { seat: String, guests: u32 }
///
/// impl Action for BookSeat {
///     const TAG: &'static str = "book_seat_v2";
///     type Output = ();
///     fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
///         # ctx.execute("UPDATE seats SET guests = ? WHERE id = ?", params![i64::from(self.guests), &self.seat])?;
///         Ok(())
///     }
/// }
///
/// let mut registry = Registry::default();
/// registry.register::<BookSeat>()?;
/// registry.upcast("book_seat_v1", "book_seat_v2", |old: BookSeatV1| BookSeat { seat: old.seat, guests: 1 })?;
/// registry.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default, Clone)]
pub struct Registry {
    actions: BTreeMap<ActionTag, Runnable>,
    upcasts: BTreeMap<ActionTag, Upcast>,
}

/// An action or an upcaster cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A tag has two actions, two upcasters, or one of each.
    #[error("tag {tag} is registered already")]
    Duplicate {
        /// The tag.
        tag: ActionTag,
    },
    /// The tag is not a tag.
    #[error("bad tag: {0}")]
    Tag(#[from] IdError),
    /// Tags that begin with `_` are the engine's and the server's own.
    #[error("tag {tag} is reserved: it begins with _")]
    Reserved {
        /// The tag.
        tag: ActionTag,
    },
    /// Upcasters lead from a tag back to itself.
    #[error("upcasters lead from {tag} back to it")]
    Cycle {
        /// The tag.
        tag: ActionTag,
    },
    /// An upcaster leads to a tag that has neither an action nor an upcaster.
    #[error("the upcaster of {from} leads to {to}, which is no action and has no upcaster")]
    Dangling {
        /// The old tag.
        from: ActionTag,
        /// The missing one.
        to: ActionTag,
    },
}

impl Registry {
    /// Adds an action.
    ///
    /// # Errors
    /// [`RegistryError`] if its tag is taken, reserved, empty or too long.
    pub fn register<A: Action>(&mut self) -> Result<(), RegistryError> {
        let tag = self.free(A::TAG)?;
        self.actions.insert(tag, run_encoded::<A>);
        Ok(())
    }

    /// Adds an upcaster: an action tagged `from` runs as one tagged `to`, with the arguments that `map` makes of its own.
    /// Upcasters chain, so each version needs one step only. Actions and upcasters may be added in any order; see
    /// [`Self::check`].
    ///
    /// # Errors
    /// [`RegistryError`] if `from` is taken or reserved, a tag is empty or too long, or the chain would have no end.
    pub fn upcast<Old, New>(&mut self, from: &str, to: &str, map: fn(Old) -> New) -> Result<(), RegistryError>
    where
        Old: DeserializeOwned + 'static,
        New: Serialize + 'static,
    {
        let (from, to) = (self.free(from)?, ActionTag::new(to)?);
        if self.chain(&to).chain(std::iter::once(&to)).any(|tag| *tag == from) {
            return Err(RegistryError::Cycle { tag: from });
        }
        self.upcasts.insert(from, Upcast::new(to, map));
        Ok(())
    }

    /// Whether every upcaster leads to an action. To be asked once all are added; until then, and where it says no, a tag
    /// that leads nowhere counts as unknown.
    ///
    /// # Errors
    /// [`RegistryError::Dangling`] names the first upcaster that leads nowhere.
    pub fn check(&self) -> Result<(), RegistryError> {
        let leads_nowhere = |to: &ActionTag| !self.actions.contains_key(to) && !self.upcasts.contains_key(to);
        match self.upcasts.iter().find(|(_, upcast)| leads_nowhere(&upcast.to)) {
            Some((from, upcast)) => Err(RegistryError::Dangling { from: from.clone(), to: upcast.to.clone() }),
            None => Ok(()),
        }
    }

    /// Whether this version of the app can run the tag, by itself or by upcasters.
    #[must_use]
    pub fn knows(&self, tag: &ActionTag) -> bool {
        self.actions.contains_key(self.chain(tag).last().unwrap_or(tag))
    }

    /// Whether the tag is that of an action, not only of an upcaster.
    pub(crate) fn is_action(&self, tag: &ActionTag) -> bool {
        self.actions.contains_key(tag)
    }

    /// Runs a stored action; `None` if this version of the app cannot: it does not know the tag, or the arguments do not
    /// read as those of the tag. That is no verdict on the action: whoever executed it could.
    pub(crate) fn run(
        &self,
        tag: &ActionTag,
        args: &ActionArgs,
        ctx: &mut Context<'_>,
    ) -> Option<Result<(), ActionError>> {
        let mut tag = tag;
        let mut args = Cow::Borrowed(args);
        while let Some(upcast) = self.upcasts.get(tag) {
            args = Cow::Owned(upcast.map(&args)?);
            tag = &upcast.to;
        }
        self.actions.get(tag)?(&args, ctx)
    }

    fn free(&self, tag: &str) -> Result<ActionTag, RegistryError> {
        let tag = ActionTag::new(tag)?;
        if tag.as_str().starts_with('_') {
            return Err(RegistryError::Reserved { tag });
        }
        if self.actions.contains_key(&tag) || self.upcasts.contains_key(&tag) {
            return Err(RegistryError::Duplicate { tag });
        }
        Ok(tag)
    }

    /// The tags that upcasters lead to from this one. It ends, since no upcaster is added that closes a circle.
    fn chain<'r>(&'r self, tag: &ActionTag) -> impl Iterator<Item = &'r ActionTag> {
        let next = |tag: &ActionTag| self.upcasts.get(tag).map(|upcast| &upcast.to);
        std::iter::successors(next(tag), move |tag| next(tag))
    }
}

fn run_encoded<A: Action>(args: &ActionArgs, ctx: &mut Context<'_>) -> Option<Result<(), ActionError>> {
    let action: A = rmp_serde::from_slice(args.as_bytes()).ok()?;
    Some(run_caught(&action, ctx).map(drop))
}

/// Runs an action; its panic is an error like any other.
pub(crate) fn run_caught<A: Action>(action: &A, ctx: &mut Context<'_>) -> Result<A::Output, ActionError> {
    catch_unwind(AssertUnwindSafe(|| action.run(ctx)))
        .unwrap_or_else(|_| Err(ActionError::Panicked { tag: A::TAG.to_owned() }))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Nothing {}

    impl Action for Nothing {
        const TAG: &'static str = "nothing_v3";
        type Output = ();
        fn run(&self, _: &mut Context<'_>) -> Result<(), ActionError> {
            Ok(())
        }
    }

    fn tag(text: &str) -> ActionTag {
        ActionTag::new(text).expect("ok")
    }

    fn upcast(registry: &mut Registry, from: &str, to: &str) -> Result<(), RegistryError> {
        registry.upcast(from, to, |Nothing {}| Nothing {})
    }

    #[test]
    fn tags_are_known_once() {
        let mut registry = Registry::default();
        assert!(!registry.knows(&tag("nothing_v3")));
        registry.register::<Nothing>().expect("new");
        assert!(registry.knows(&tag("nothing_v3")));
        let taken = |tag| Err(RegistryError::Duplicate { tag });
        assert_eq!(registry.register::<Nothing>(), taken(tag("nothing_v3")));
        assert_eq!(upcast(&mut registry, "nothing_v3", "nothing_v4"), taken(tag("nothing_v3")));
        upcast(&mut registry, "nothing_v2", "nothing_v3").expect("new");
        assert_eq!(upcast(&mut registry, "nothing_v2", "nothing_v3"), taken(tag("nothing_v2")));
        let reserved = Err(RegistryError::Reserved { tag: tag("_sql_write_v1") });
        assert_eq!(upcast(&mut registry, "_sql_write_v1", "nothing_v3"), reserved);
    }

    #[test]
    fn upcasters_chain_in_any_order_of_registration() {
        let mut registry = Registry::default();
        upcast(&mut registry, "nothing_v1", "nothing_v2").expect("new");
        assert!(!registry.knows(&tag("nothing_v1")));
        let dangling = RegistryError::Dangling { from: tag("nothing_v1"), to: tag("nothing_v2") };
        assert_eq!(registry.check(), Err(dangling));
        upcast(&mut registry, "nothing_v2", "nothing_v3").expect("new");
        registry.register::<Nothing>().expect("new");
        assert_eq!(registry.check(), Ok(()));
        assert!(registry.knows(&tag("nothing_v1")) && registry.knows(&tag("nothing_v2")));
        assert!(registry.is_action(&tag("nothing_v3")) && !registry.is_action(&tag("nothing_v1")));
    }

    #[test]
    fn a_circle_of_upcasters_is_refused() {
        let mut registry = Registry::default();
        let circle = |from| Err(RegistryError::Cycle { tag: tag(from) });
        assert_eq!(upcast(&mut registry, "a", "a"), circle("a"));
        upcast(&mut registry, "a", "b").expect("new");
        upcast(&mut registry, "b", "c").expect("new");
        assert_eq!(upcast(&mut registry, "c", "a"), circle("c"));
        assert!(!registry.knows(&tag("a")), "and asking ends");
    }
}
