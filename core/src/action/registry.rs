//! From a tag on the wire to the code that runs it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Action, ActionError, Context};
use crate::model::{ActionArgs, ActionTag, IdError};

/// Runs one action from its encoded arguments, for its effects.
type Runnable = fn(&ActionArgs, &mut Context<'_>) -> Result<(), ActionError>;

/// The actions that this version of the app knows. An unknown tag is no error: its patch is applied instead.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    actions: BTreeMap<ActionTag, Runnable>,
}

/// An action cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Two actions have one tag.
    #[error("tag {tag} is registered already")]
    Duplicate {
        /// The tag.
        tag: ActionTag,
    },
    /// The tag is not a tag.
    #[error("bad tag: {0}")]
    Tag(#[from] IdError),
}

impl Registry {
    /// Adds an action.
    ///
    /// # Errors
    /// [`RegistryError`] if its tag is taken, empty or too long.
    pub fn register<A: Action>(&mut self) -> Result<(), RegistryError> {
        let tag = ActionTag::new(A::TAG)?;
        if self.actions.contains_key(&tag) {
            return Err(RegistryError::Duplicate { tag });
        }
        self.actions.insert(tag, run_encoded::<A>);
        Ok(())
    }

    /// Whether this version of the app knows the tag.
    #[must_use]
    pub fn knows(&self, tag: &ActionTag) -> bool {
        self.actions.contains_key(tag)
    }

    /// The code of a tag, if this version of the app has it.
    pub(crate) fn find(&self, tag: &ActionTag) -> Option<Runnable> {
        self.actions.get(tag).copied()
    }
}

fn run_encoded<A: Action>(args: &ActionArgs, ctx: &mut Context<'_>) -> Result<(), ActionError> {
    let action: A = rmp_serde::from_slice(args.as_bytes())
        .map_err(|error| ActionError::Arguments { tag: A::TAG.to_owned(), detail: error.to_string() })?;
    run_caught(&action, ctx).map(drop)
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
        const TAG: &'static str = "nothing_v1";
        type Output = ();
        fn run(&self, _: &mut Context<'_>) -> Result<(), ActionError> {
            Ok(())
        }
    }

    #[test]
    fn tags_are_known_once() {
        let tag = ActionTag::new("nothing_v1").expect("ok");
        let mut registry = Registry::default();
        assert!(!registry.knows(&tag));
        registry.register::<Nothing>().expect("new");
        assert!(registry.knows(&tag));
        assert_eq!(registry.register::<Nothing>(), Err(RegistryError::Duplicate { tag }));
    }
}
