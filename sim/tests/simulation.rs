//! The simulator itself, and a few seeds of every fleet. Many more: `cargo run --release -p synchrotron-sim`.

mod regressions;

use synchrotron_sim::{Fleet, Plan, Step, profiles};

/// Tested first: nothing else counts if a seed does not say what happens.
#[test]
fn one_seed_twice_gives_the_same_bytes() {
    for name in profiles::NAMES {
        let fleet = profiles::by_name(name).expect("a fleet").with_mix(|mix| synchrotron_sim::Mix { steps: 50, ..mix });
        let plan = fleet.plan(7);
        assert_eq!(plan, fleet.plan(7), "{name}: one plan for one seed");
        let (first, second) = (fleet.run(&plan), fleet.run(&plan));
        assert_eq!(first.log, second.log, "{name}: one log for one plan");
        assert!(!first.log.is_empty());
    }
}

#[test]
fn a_plan_survives_its_text_and_its_draws_being_written_down() {
    let fleet = profiles::by_name("chaos").expect("a fleet");
    let run = fleet.run(&fleet.plan(3));
    assert!(run.concrete.steps.iter().any(|step| matches!(step, Step::Execute { .. })));
    let read = Plan::from_text(&run.concrete.to_text()).expect("its own text");
    assert_eq!(read, run.concrete);
    let again = fleet.run(&read);
    assert_eq!((again.executed, again.logged), (run.executed, run.logged));
}

/// Any part of a plan is a plan.
#[test]
fn every_step_can_be_left_out() {
    let fleet = profiles::by_name("crashes").expect("a fleet");
    let plan = fleet.plan(11);
    for every in 2..5 {
        let steps = plan.steps.iter().enumerate().filter(|(index, _)| index % every == 0);
        let part = Plan { steps: steps.map(|(_, step)| step.clone()).collect(), ..plan.clone() };
        assert_eq!(fleet.run(&part).failure, None);
    }
}

/// Runs a few seeds of each fleet; a failure prints the shrunk plan and the command.
fn quick(name: &str, seeds: u64) {
    let fleet: Fleet = profiles::by_name(name).expect("a fleet");
    let tally = fleet.check(0..seeds);
    assert!(tally.executed > 0 && tally.logged > 0, "{name} did something");
}

#[test]
fn calm_fleets_converge() {
    quick("calm", 6);
}

#[test]
fn chaotic_fleets_converge() {
    quick("chaos", 6);
}

#[test]
fn live_slices_converge() {
    quick("slices", 4);
}

#[test]
fn crashing_fleets_converge() {
    quick("crashes", 6);
}

/// What others did may be taken by a power cut, if nothing was pending: the server gives it again.
#[test]
fn fleets_converge_after_power_cuts() {
    quick("power_cuts", 6);
    quick("bookings_power_cuts", 4);
    let fleet = profiles::by_name("power_cuts").expect("a fleet");
    let lost = (0..6).filter(|seed| fleet.run(&fleet.plan(*seed)).log.contains("the newest commits are lost"));
    assert!(lost.count() > 2, "power cuts take something");
}

#[test]
fn clocks_that_jump_converge() {
    quick("clocks", 4);
    // Seed 1 once gave new clocks for ever: an unsent correction lay beneath what got them.
    quick("far_clocks", 3);
}

#[test]
fn memberships_come_and_go() {
    quick("membership", 6);
}

#[test]
fn fleets_recover() {
    quick("recovery", 5);
    quick("epochs", 4);
}

#[test]
fn everything_at_once_converges() {
    quick("everything", 4);
}

#[test]
fn booking_rules_hold() {
    quick("bookings", 4);
    quick("bookings_versions", 3);
    quick("bookings_chaos", 4);
}

#[test]
fn booking_rules_hold_after_crashes_and_recovery() {
    quick("bookings_crashes", 4);
    quick("bookings_recovery", 4);
}

#[test]
fn rows_that_move_between_audiences_converge() {
    quick("moves", 6);
}

#[test]
fn constraints_and_cascades_converge() {
    quick("family", 4);
}
