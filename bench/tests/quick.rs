//! The benchmarks run, and say what they measured in the form that programs read.

use std::process::Command;

use serde_json::Value;

/// Runs benchmarks of small sizes: the figures as programs read them, and the table for people.
fn quick(command: &str) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("out.json");
    let ran = Command::new(env!("CARGO_BIN_EXE_synchrotron-bench"))
        .args([command, "--quick", "--rounds", "5", "--json"])
        .arg(&json)
        .output()
        .expect("starts");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let written = std::fs::read_to_string(&json).expect("the figures are written");
    (serde_json::from_str(&written).expect("a JSON array"), String::from_utf8_lossy(&ran.stdout).into_owned())
}

fn assert_has(names: &[&str], entries: &[Value], table: &str) {
    for entry in entries {
        let number = |field: &str| entry[field].as_f64().unwrap_or_else(|| panic!("{field} of {entry}"));
        assert!(number("value") > 0.0 && number("floor") > 0.0, "{entry}");
        assert!((number("ratio") - number("value") / number("floor")).abs() < 1e-9, "{entry}");
        assert!(entry["params"].is_object() && entry["unit"].is_string(), "{entry}");
    }
    for name in names {
        assert!(entries.iter().any(|entry| entry["name"] == *name), "no {name}");
        assert!(table.contains(name), "{name} is not in the table:\n{table}");
    }
}

#[test]
fn a_quick_run_of_the_client_gives_every_figure_with_its_floor() {
    let memory: &[&str] = if cfg!(target_os = "linux") {
        &["memory_execute", "memory_integrate", "memory_reconcile", "memory_reconcile_flatness"]
    } else {
        &[]
    };
    let names = [
        "execute_insert",
        "execute_insert_flatness",
        "execute_update",
        "execute_update_flatness",
        "integrate_insert",
        "integrate_update",
        "reconcile",
        "reconcile_flatness",
    ];
    let (entries, table) = quick("client");
    assert_has(&names, &entries, &table);
    assert_has(memory, &entries, &table);
}

#[test]
fn a_quick_run_of_the_server_gives_every_figure_with_its_floor() {
    let (entries, table) = quick("server");
    assert_has(&["ingest", "ingest_grouped", "late_arrival_flatness", "fetch", "snapshot"], &entries, &table);
}

#[test]
fn a_quick_run_end_to_end_gives_every_figure_with_its_floor() {
    let of_processes: &[&str] = if cfg!(target_os = "linux") {
        &["idle_nats", "idle_server", "backlog", "backlog_longest_gap", "backlog_memory"]
    } else {
        &[]
    };
    let (entries, table) = quick("e2e");
    assert_has(&["e2e_latency", "e2e_fan_out", "wire_bytes", "storm", "storm_peak", "storm_calls"], &entries, &table);
    assert_has(of_processes, &entries, &table);
}

#[test]
fn too_few_rounds_are_refused() {
    let ran = Command::new(env!("CARGO_BIN_EXE_synchrotron-bench"))
        .args(["client", "--quick", "--rounds", "4"])
        .output()
        .expect("starts");
    assert!(!ran.status.success());
    assert!(String::from_utf8_lossy(&ran.stderr).contains("at least 5 rounds"));
}
