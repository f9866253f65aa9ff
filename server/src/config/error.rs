//! What is wrong with the configuration, in one line that names where.

use std::io;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use super::keys;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{}: {fact}", path.display())]
    NoToml {
        /// Which file.
        path: PathBuf,
        /// Where it is wrong, and how; without the line itself, which may hold a secret.
        fact: String,
    },
    /// No setting has this key.
    #[error("{}: no setting is called {key}{}", path.display(), meant(*nearest))]
    UnknownKey {
        /// The key, with its sections.
        key: String,
        /// A key that is like it.
        nearest: Option<&'static str>,
        /// The file that has it.
        path: PathBuf,
    },
    /// A value is of the wrong kind, or not one that the setting can have.
    #[error("{key}{}: {fact}", from(origin.as_ref()))]
    Value {
        /// The setting's key.
        key: String,
        /// The variable or flag that says so; `None` for the file.
        origin: Option<String>,
        /// What is wrong with it.
        fact: String,
    },
    /// A variable of the environment is no text.
    #[error("{variable} is not UTF-8")]
    NotUnicode {
        /// Which.
        variable: String,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|key| format!("; {key} is")).unwrap_or_default()
}

fn from(origin: Option<&String>) -> String {
    origin.map(|origin| format!(" (from {origin})")).unwrap_or_default()
}

impl ConfigError {
    /// TOML's message quotes the line between its first line and its last.
    pub(super) fn no_toml(path: &Path, error: &config::ConfigError) -> Self {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (first, last) = (lines.next().unwrap_or_default(), lines.next_back());
        let fact = last.map_or_else(|| first.to_owned(), |last| format!("{first}: {last}"));
        Self::NoToml { path: path.to_owned(), fact }
    }

    /// Says the same without the value.
    pub(super) fn value(error: config::ConfigError) -> Self {
        match error {
            config::ConfigError::Type { origin, expected, key, .. } => {
                Self::Value { key: key.unwrap_or_default(), origin, fact: format!("{expected} is needed") }
            }
            config::ConfigError::At { error, origin, key } => {
                Self::Value { key: key.unwrap_or_default(), origin, fact: error.to_string() }
            }
            config::ConfigError::NotFound(key) => Self::Value { key, origin: None, fact: "is missing".to_owned() },
            other => Self::Value { key: "configuration".to_owned(), origin: None, fact: other.to_string() },
        }
    }
}

/// Refuses what no setting is called.
pub(super) fn refuse_unknown(read: &Map<String, Value>, path: &Path) -> Result<(), ConfigError> {
    match first_unknown("", read) {
        Some(key) => {
            let nearest = keys::nearest(&key);
            Err(ConfigError::UnknownKey { key, nearest, path: path.to_owned() })
        }
        None => Ok(()),
    }
}

fn first_unknown(prefix: &str, table: &Map<String, Value>) -> Option<String> {
    let mut names: Vec<&String> = table.keys().collect();
    names.sort();
    names.into_iter().find_map(|name| {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &table[name].kind {
            _ if keys::is_known(&path) => None,
            ValueKind::Table(inner) if keys::is_section(&path) => first_unknown(&path, inner),
            _ => Some(path),
        }
    })
}
