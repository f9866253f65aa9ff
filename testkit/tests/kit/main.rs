//! The kit against the real things.

mod clean_up;
mod services;
