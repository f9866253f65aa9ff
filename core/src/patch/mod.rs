//! The algebra of row effects: how they fold into rows, and how replayed effects compare with shared ones.
//!
//! Place in the journey: used by the client's engine and by the server's materializer alike, so that both sides mean the
//! same by "the rows are the fold of effective patches in replay-key order". Pure functions, no I/O.

mod effective;
mod fold;
mod net;

pub use effective::{Amendment, effective_patch};
pub use fold::fold;
pub use net::{NetEffects, net_effects};
