//! Which settings there are: their keys in the file, and their names in the environment.
//!
//! Invariant: the list is that of the settings' own fields, so that no setting can lack a key.

use std::sync::LazyLock;

use serde_json::Value;

use super::{Listen, Nats};
use crate::likeness;
use crate::settings::Settings;

/// One setting's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// In the file, sections separated by dots: `snapshots.open_max`.
    pub path: String,
    /// In the environment: `SYNCHROTRON_SNAPSHOTS_IDLE_SECONDS_MAX`.
    pub variable: String,
    /// What it is by default, secrets left out.
    pub default: Value,
}

/// What the names of all others begin with.
const OURS: &str = "SYNCHROTRON_";

/// Names that other programs use too, and one that is older than its key.
const OTHER_VARIABLES: [(&str, &str); 4] = [
    ("database_url", "DATABASE_URL"),
    ("nats.url", "NATS_URL"),
    ("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("snapshots.open_max", "SYNCHROTRON_SNAPSHOTS"),
];

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    for settings in [
        serde_json::to_value(Listen::default()),
        serde_json::to_value(Settings::default()),
        serde_json::to_value(Nats::default()),
    ] {
        collect("", &settings.expect("BUG: settings are plain data"), &mut keys);
    }
    keys
});

/// All settings.
#[must_use]
pub fn keys() -> Vec<Key> {
    KEYS.clone()
}

/// The name in the environment of the setting with this key.
#[must_use]
pub fn variable_of(path: &str) -> String {
    match OTHER_VARIABLES.iter().find(|(key, _)| *key == path) {
        Some((_, variable)) => (*variable).to_owned(),
        None => format!("{OURS}{}", path.replace('.', "_").to_ascii_uppercase()),
    }
}

/// Whether the setting is a list of values.
pub(super) fn is_list(path: &str) -> bool {
    KEYS.iter().any(|key| key.path == path && key.default.is_array())
}

/// Whether a setting has this key.
pub(super) fn is_known(path: &str) -> bool {
    KEYS.iter().any(|key| key.path == path)
}

/// Whether settings are grouped beneath this key.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The key that someone who wrote `path` most likely meant.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    likeness::nearest(path, KEYS.iter().map(|key| key.path.as_str()))
}

/// Which of these variables look like settings and are none, each with the variable that was most likely meant. Others than
/// those may be there for other programs: some platforms name the address of a service after it.
pub fn mistaken(variables: impl IntoIterator<Item = String>) -> Vec<(String, &'static str)> {
    let meant = |variable: &str| {
        let rest = variable.strip_prefix(OURS)?;
        if variable == "SYNCHROTRON_CONFIG" || KEYS.iter().any(|key| key.variable == variable) {
            return None;
        }
        let all = KEYS.iter().filter_map(|key| Some((key.variable.strip_prefix(OURS)?, key.variable.as_str())));
        let nearest = likeness::nearest(rest, all.clone().map(|(rest, _)| rest))?;
        all.into_iter().find(|(rest, _)| *rest == nearest).map(|(_, variable)| variable)
    };
    variables.into_iter().filter_map(|variable| meant(&variable).map(|meant| (variable, meant))).collect()
}

fn collect(prefix: &str, value: &Value, keys: &mut Vec<Key>) {
    let Value::Object(fields) = value else {
        let (path, variable) = (prefix.to_owned(), variable_of(prefix));
        return keys.push(Key { path, variable, default: value.clone() });
    };
    for (name, value) in fields {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        collect(&path, value, keys);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use config::{Config, File, FileFormat};

    use super::*;

    const SAMPLE: &str = include_str!("../../../deploy/synchrotron.toml");

    fn keys_in(toml: &str) -> Vec<Key> {
        let file = Config::builder().add_source(File::from_str(toml, FileFormat::Toml)).build().expect("TOML");
        let mut keys = Vec::new();
        collect("", &file.try_deserialize().expect("plain data"), &mut keys);
        keys
    }

    #[test]
    fn the_sample_file_has_every_key_at_its_default() {
        let all = keys();
        let default_of = |path: &str| all.iter().find(|key| key.path == path).map(|key| &key.default);
        for key in keys_in(SAMPLE) {
            assert_eq!(default_of(&key.path), Some(&key.default), "{}", key.path);
        }
        let is_setting = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let uncommented = |line: &'static str| line.strip_prefix("# ").filter(is_setting).unwrap_or(line);
        let whole: String = SAMPLE.lines().flat_map(|line| [uncommented(line), "\n"]).collect();
        let paths = |keys: Vec<Key>| keys.into_iter().map(|key| key.path).collect::<BTreeSet<_>>();
        assert_eq!(paths(keys_in(&whole)), paths(all.clone()));
    }

    #[test]
    fn the_documentation_has_every_key_with_its_variable() {
        let documentation = include_str!("../../../docs/operations.md");
        for Key { path, variable, .. } in keys() {
            assert!(documentation.contains(&format!("| `{path}` | `{variable}` |")), "{path}");
        }
    }

    #[test]
    fn a_mistaken_variable_is_known_from_a_platforms_own() {
        let ours = ["SYNCHROTRON_SQL_WRITES_ENABLED", "SYNCHROTRON_CONFIG", "SYNCHROTRON_SNAPSHOTS"];
        let platforms = ["SYNCHROTRON_PORT", "SYNCHROTRON_SERVICE_HOST", "SYNCHROTRON_PORT_8080_TCP_ADDR", "PATH"];
        let wrong = ["SYNCHROTRON_SQL_WRITES", "SYNCHROTRON_TABLE", "SYNCHROTRON_SNAPSHOTS_OPEN_MAX"];
        let found = mistaken(ours.into_iter().chain(platforms).chain(wrong).map(str::to_owned));
        let meant: Vec<&str> = found.iter().map(|(_, meant)| *meant).collect();
        assert_eq!(meant[..2], ["SYNCHROTRON_SQL_WRITES_ENABLED", "SYNCHROTRON_TABLES"], "{found:?}");
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn no_two_settings_share_a_variable_and_old_names_stay() {
        let variables: BTreeSet<String> = keys().into_iter().map(|key| key.variable).collect();
        assert_eq!(variables.len(), keys().len());
        for variable in [
            "DATABASE_URL",
            "NATS_URL",
            "SYNCHROTRON_APP_ROLE",
            "SYNCHROTRON_HEAD_GATE",
            "SYNCHROTRON_JWT_AUDIENCE",
            "SYNCHROTRON_JWT_ISSUER",
            "SYNCHROTRON_JWT_SECRET",
            "SYNCHROTRON_LISTEN",
            "SYNCHROTRON_MAX_UPLOAD_BYTES",
            "SYNCHROTRON_NATS_PREFIX",
            "SYNCHROTRON_NATS_REPLICAS",
            "SYNCHROTRON_POOL_CONNECTIONS",
            "SYNCHROTRON_SNAPSHOTS",
            "SYNCHROTRON_TABLES",
        ] {
            assert!(variables.contains(variable), "{variable}");
        }
    }
}
