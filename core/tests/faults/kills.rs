//! U01 to U04 with real deaths: a process of its own aborts at a store call, as `kill -9` would end it, and another opens
//! what it left.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use synchrotron_core::model::ServerIngestId;
use synchrotron_core::store::FaultKind;
use synchrotron_core::wire::{FetchPage, Outcome};

use crate::replays::{Standoff, standoff};
use crate::world::{ALICE, Device, NOW, assert_closed, assert_same, book, dump, file, newest_clock};

const FOLDER: &str = "SYNCHROTRON_FAULTS_FOLDER";
const STEP: &str = "SYNCHROTRON_FAULTS_STEP";
const CALLS: &str = "SYNCHROTRON_FAULTS_CALLS";

const SIGABRT: i32 = 6;

#[derive(Debug, Clone, Copy)]
enum Step {
    Execute,
    Reconcile,
    Conclude,
}

const STEPS: [Step; 3] = [Step::Execute, Step::Reconcile, Step::Conclude];

fn run(step: Step, alice: &mut Device, arrivals: &FetchPage) {
    match step {
        Step::Execute => drop(alice.execute(50, 500, &book(16, "late"))),
        Step::Reconcile => alice.integrate(arrivals).expect("integrates"),
        Step::Conclude => {
            let sent = alice.batch().expect("pending");
            let ids = sent.batch.records.iter().map(|record| record.id).zip((20..).map(ServerIngestId::new)).collect();
            alice.engine.conclude(&sent, &Outcome::Accepted { ids }, NOW).map(drop).expect("concludes");
        }
    }
}

/// Not a test of its own: what the other tests start as a process that dies. Alone it does nothing.
#[test]
fn the_process_that_dies() {
    let (Ok(folder), Ok(step), Ok(calls)) = (std::env::var(FOLDER), std::env::var(STEP), std::env::var(CALLS)) else {
        return;
    };
    let step = STEPS.into_iter().find(|known| format!("{known:?}") == step).expect("a step");
    // The same arrivals as in the process that started this one.
    let arrivals = standoff().arrivals;
    let mut alice = Device::open(Path::new(&folder), ALICE);
    alice.switch.arm(calls.parse().expect("a number"), FaultKind::Abort);
    run(step, &mut alice, &arrivals);
    // The step is done, the process dies all the same: nothing is closed in good order.
    std::process::abort();
}

fn die(folder: &Path, step: Step, calls: u32) {
    let ended = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "kills::the_process_that_dies", "--nocapture"])
        .env(FOLDER, folder)
        .env(STEP, format!("{step:?}"))
        .env(CALLS, calls.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("starts");
    assert_eq!(ended.signal(), Some(SIGABRT), "{step:?} at call {calls}: {ended}");
}

/// Kills the step at these calls, each time on the same database.
fn kill_at(step: Step, calls: impl IntoIterator<Item = u32>) {
    let Standoff { folder, arrivals } = standoff();
    let template = std::fs::read(file(folder.path())).expect("closed, so in one file");
    let before = dump(folder.path());
    let after = {
        let smooth = standoff();
        run(step, &mut Device::open(smooth.folder.path(), ALICE), &arrivals);
        dump(smooth.folder.path())
    };
    let (mut nothing, mut whole) = (0, 0);
    for calls in calls {
        let left = tempfile::tempdir().expect("a folder");
        std::fs::write(file(left.path()), &template).expect("copies");
        die(left.path(), step, calls);
        let clock_before = newest_clock(left.path());
        let mut alice = Device::open(left.path(), ALICE);
        let found = dump(left.path());
        if found == after {
            whole += 1;
        } else {
            assert_same(&found, &before, &format!("{step:?} died at call {calls}"));
            nothing += 1;
            run(step, &mut alice, &arrivals);
            assert_same(&dump(left.path()), &after, &format!("{step:?} again after it died at call {calls}"));
        }
        alice.integrate(&arrivals).expect("the page comes, or comes again");
        alice.execute(60, 0, &book(18, "next"));
        assert!(newest_clock(left.path()) > clock_before, "the next clock is after all that were ever stored");
        drop(alice);
        assert_closed(left.path());
    }
    assert!(nothing > 0 && whole > 0, "{step:?}: {nothing} died before the commit, {whole} after");
}

/// After every commit of a step: more calls than it has.
const ALL: u32 = 100_000;

#[test]
fn u01_an_execution_is_whole_or_nothing_wherever_its_process_dies() {
    kill_at(Step::Execute, (0..=14).chain([ALL]));
}

#[test]
fn u02_u03_a_reconcile_is_whole_or_nothing_wherever_its_process_dies() {
    kill_at(Step::Reconcile, [0, 1, 7, 40, 90, 150, 220, ALL]);
}

#[test]
fn u04_an_acknowledgement_is_whole_or_nothing_wherever_its_process_dies() {
    kill_at(Step::Conclude, [0, 5, 15, 30, 45, ALL]);
}
