//! Actions: an app's business logic as deterministic functions on the local database.
//!
//! Place in the journey: first. An app writes a type that implements [`Action`]; the engine runs it on `execute`, and
//! again wherever history is replayed. Everything that an action may depend on is in its arguments and its [`Context`].

mod context;
mod error;
mod identity;
mod registry;
mod upcast;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use context::Context;
pub(crate) use context::{Executing, quoted};
pub use error::ActionError;
pub(crate) use identity::Tables;
pub use identity::{Identity, Table};
pub(crate) use registry::run_caught;
pub use registry::{Registry, RegistryError};

/// A deterministic function on the local database: the same arguments on the same rows do the same, on every device.
///
/// Rules live in `run`: return [`ActionError::reject`] when the app's rule says no. Read the time, random numbers and
/// row ids from the [`Context`] only. Impure code costs corrections, never convergence.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use synchrotron_core::action::{Action, ActionError, Context};
/// use synchrotron_core::params;
///
/// #[derive(Serialize, Deserialize)]
/// struct BookSeat { seat: String, holder: String }
///
/// impl Action for BookSeat {
///     const TAG: &'static str = "book_seat_v1";
///     type Output = ();
///
///     fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
///         let free = "UPDATE seats SET holder = ? WHERE id = ? AND holder IS NULL";
///         match ctx.execute(free, params![&self.holder, &self.seat])? {
///             0 => Err(ActionError::reject("the seat is taken")),
///             _ => Ok(()),
///         }
///     }
/// }
/// ```
pub trait Action: Serialize + DeserializeOwned + Send + 'static {
    /// The action's versioned name. A change of meaning is a new tag.
    const TAG: &'static str;
    /// What `execute` returns at once. Replays throw it away.
    type Output: Send + 'static;

    /// Does the action, in one transaction of the local database.
    ///
    /// # Errors
    /// [`ActionError`]: nothing that was done stays.
    fn run(&self, ctx: &mut Context<'_>) -> Result<Self::Output, ActionError>;
}
