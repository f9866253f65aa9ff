//! Every target on its corpus and on thousands of inputs made from it, without a fuzzer; and what it allocates.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose the inputs; `FUZZ_BLESS=1` writes the corpus anew.

mod corpus;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};

use peak_alloc::PeakAlloc;
use rand::SeedableRng;
use rand::rngs::StdRng;
use synchrotron_fuzz::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const ROUNDS: u64 = 3_000;
const SEED: u64 = 1;

/// What a target may allocate at once whatever its input: a zstd context with its windows, above all.
const BYTES_AT_LEAST: usize = 4 << 20;
/// And for each byte of it: a nil where a record is expected makes room for a record.
const BYTES_PER_BYTE: usize = 512;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Runs it; what it holds at most beside what there was.
fn run(target: &Target, input: &[u8], told: &dyn Fn() -> String) -> bool {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let held = ALLOCATOR.peak_usage().saturating_sub(before);
    let Ok(taken) = ended else { panic!("{}: input {}", told(), hex(input)) };
    let most = BYTES_AT_LEAST + BYTES_PER_BYTE * input.len();
    assert!(held <= most, "{}: {held} bytes held for {} bytes: {}", told(), input.len(), hex(input));
    taken
}

fn hex(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One test, so that what is allocated is the target's.
#[test]
fn every_decoder_keeps_its_promises_on_any_bytes() {
    if setting("FUZZ_BLESS", 0) == 1 {
        corpus::bless();
    }
    let (seed, rounds) = (setting("FUZZ_SEED", SEED), setting("FUZZ_ROUNDS", ROUNDS));
    for target in TARGETS {
        let inputs = corpus::inputs(target.name);
        for (name, input) in &inputs {
            let told = || format!("{}/{name}", target.name);
            assert!(run(target, input, &told), "{}: the corpus is not taken any more", told());
        }
        let inputs: Vec<Vec<u8>> = inputs.into_values().collect();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut taken = 0;
        for round in 0..rounds {
            let input = &inputs[usize::try_from(round).expect("BUG: rounds fit") % inputs.len()];
            let input = mutate::mutated(input, &inputs, &mut rng);
            let told = || {
                let name = target.name;
                format!(
                    "{name}, round {round}; again: FUZZ_SEED={seed} FUZZ_ROUNDS={rounds} cargo test -p synchrotron-fuzz"
                )
            };
            taken += u64::from(run(target, &input, &told));
        }
        assert!(taken < rounds, "{}: takes anything", target.name);
    }
}
