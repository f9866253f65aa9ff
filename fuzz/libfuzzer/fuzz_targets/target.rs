//! Whatever target `FUZZ_TARGET` names: one program to build, however many there are.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use synchrotron_fuzz::{TARGETS, Target, target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}; there are {}", names.join(", ")))
});

fuzz_target!(|bytes: &[u8]| {
    let _taken = (TARGET.run)(bytes);
});
