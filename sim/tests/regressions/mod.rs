//! Plans that failed once. Each is kept as it was shrunk, named after what was wrong.

use synchrotron_sim::{Plan, profiles};

/// Runs every plan of the folder beside this file.
#[test]
fn what_failed_once_passes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut plans: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    plans.sort();
    assert!(!plans.is_empty(), "there are regressions to run");
    for path in plans {
        let plan = Plan::from_text(&std::fs::read_to_string(&path).expect("readable")).expect("a plan");
        let fleet = profiles::by_name(&plan.fleet).expect("a fleet of this project");
        let run = fleet.run(&plan);
        let name = path.file_name().unwrap_or_default().display();
        assert_eq!(run.failure, None, "{name}; its events:\n{}", run.log);
    }
}
