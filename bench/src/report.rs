//! Figures for people and for programs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::BenchError;

/// One figure beside its floor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Entry {
    /// What was measured.
    pub(crate) name: String,
    /// Under which circumstances.
    pub(crate) params: BTreeMap<&'static str, Value>,
    /// What it costs.
    pub(crate) value: f64,
    /// In what.
    pub(crate) unit: &'static str,
    /// What the floor costs, or, for a flatness, the same figure without history.
    pub(crate) floor: f64,
    /// How many times the floor's cost that is.
    pub(crate) ratio: f64,
}

/// Builds the entries of one benchmark: same circumstances, same unit.
#[derive(Debug, Clone)]
pub(crate) struct Circumstances {
    params: BTreeMap<&'static str, Value>,
    unit: &'static str,
}

impl Circumstances {
    pub(crate) fn new(unit: &'static str) -> Self {
        Self { params: BTreeMap::new(), unit }
    }

    #[must_use]
    pub(crate) fn with(mut self, param: &'static str, value: impl Into<Value>) -> Self {
        self.params.insert(param, value.into());
        self
    }

    pub(crate) fn entry(&self, name: impl Into<String>, value: f64, floor: f64) -> Entry {
        Entry { name: name.into(), params: self.params.clone(), value, unit: self.unit, floor, ratio: value / floor }
    }
}

/// Prints the figures as a table.
pub(crate) fn print(entries: &[Entry]) -> Result<(), BenchError> {
    let rows = entries.iter().map(|entry| {
        let params: Vec<String> = entry.params.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        [
            entry.name.clone(),
            params.join(" "),
            format!("{:.1}", entry.value),
            format!("{:.1}", entry.floor),
            entry.unit.to_owned(),
            format!("{:.2}", entry.ratio),
        ]
    });
    let head = ["name", "params", "value", "floor", "unit", "ratio"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [name, params, value, floor, unit, ratio] = std::array::from_fn(width);
    let mut out = std::io::stdout().lock();
    for [a, b, c, d, e, f] in &rows {
        writeln!(out, "{a:name$}  {b:params$}  {c:>value$}  {d:>floor$}  {e:unit$}  {f:>ratio$}")?;
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Writes the figures as a JSON array.
pub(crate) fn write_json(path: &Path, entries: &[Entry]) -> Result<(), BenchError> {
    let file = File::create(path)?;
    serde_json::to_writer_pretty(file, entries).map_err(|source| BenchError::Report { path: path.to_owned(), source })
}
