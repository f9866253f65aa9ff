//! The theatre: an app on Synchrotron, and the demo that plays it on real services.
//!
//! [`theatre`] is all that an app's author writes; [`stage`] is what an operator sets up; [`story`] is what happens;
//! [`audit`] looks at both databases from outside.

pub mod audit;
pub mod report;
pub mod stage;
pub mod story;
pub mod theatre;

/// The README's app, compiled and tested.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
