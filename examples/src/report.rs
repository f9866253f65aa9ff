//! What the demo tells: a story for people, or one JSON object for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Collects checks and figures, and tells the story as it goes unless it is to be silent.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    checks: BTreeMap<&'static str, bool>,
    figures: BTreeMap<&'static str, f64>,
    #[serde(skip)]
    silent: bool,
}

impl Report {
    /// A report for people, or, if `silent`, for machines.
    #[must_use]
    pub fn new(silent: bool) -> Self {
        Self { silent, ..Self::default() }
    }

    /// Begins a scene.
    pub fn heading(&self, title: &str) {
        self.print(&format!("\n{title}\n{}", "─".repeat(title.chars().count())));
    }

    /// Tells one thing that happened.
    pub fn tell(&self, line: &str) {
        self.print(&format!("  {line}"));
    }

    /// Notes a check, and tells it.
    pub fn check(&mut self, name: &'static str, claim: &str, holds: bool) {
        self.print(&format!("  {} {claim}", if holds { "✓" } else { "✗ NOT SO:" }));
        self.checks.insert(name, holds);
    }

    /// Notes a duration as a figure in milliseconds, and returns it as text.
    pub fn figure_ms(&mut self, name: &'static str, duration: Duration) -> String {
        let ms = duration.as_secs_f64() * 1_000.0;
        self.figures.insert(name, (ms * 100.0).round() / 100.0);
        format!("{ms:.1} ms")
    }

    /// Whether every check holds.
    #[must_use]
    pub fn all_hold(&self) -> bool {
        !self.checks.is_empty() && self.checks.values().all(|holds| *holds)
    }

    /// The end: a verdict for people, the whole as JSON for machines.
    #[expect(clippy::print_stdout, reason = "the demo's product is what it prints")]
    pub fn finish(&self) {
        if self.silent {
            println!("{}", serde_json::to_string_pretty(self).expect("BUG: maps of text to bools and numbers"));
            return;
        }
        let held = self.checks.values().filter(|holds| **holds).count();
        println!("\n{held} of {} checks hold.", self.checks.len());
    }

    #[expect(clippy::print_stdout, reason = "the demo's product is what it prints")]
    fn print(&self, text: &str) {
        if !self.silent {
            println!("{text}");
        }
    }
}
