//! The demo is the binary of this package. This library is empty: it compiles and tests the README's app.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
