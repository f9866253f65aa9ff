//! File, environment and flags → settings.
//!
//! Place in the journey: before everything; the binary's commands ask for it once. A flag beats the environment, that the
//! file, and that the default.
//!
//! # Invariants
//! - A key of the file that no setting has is an error that names it: a misspelt bound must not be a default.
//! - An error names the key and where its value came from, and never a value that may be secret.
//!
//! Tests: below; the sample `deploy/synchrotron.toml` beside the list of keys.

mod error;
mod keys;

use std::path::PathBuf;

use config::{Config, File, FileFormat, Map, Source, Value};
use serde::Deserialize;

pub use error::ConfigError;
pub use keys::{Key, keys, mistaken, variable_of};

use crate::ServerSettings;
use crate::api::nats::NatsApiSettings;
use crate::settings::Settings;

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// The environment, as far as its names are those of settings; an empty value is none.
    pub variables: Vec<Given>,
    /// What the command line says.
    pub flags: Vec<Given>,
}

/// One setting as text.
#[derive(Clone)]
pub struct Given {
    /// Its key, such as `snapshots.open_max`.
    pub key: String,
    /// Who says so, for errors: a variable or a flag.
    pub origin: String,
    /// What it is to be; several values are separated by commas.
    pub text: String,
}

impl std::fmt::Debug for Given {
    /// The text may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("key", &self.key).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Sources {
    /// This process's environment.
    ///
    /// # Errors
    /// [`ConfigError::NotUnicode`].
    pub fn with_environment(mut self) -> Result<Self, ConfigError> {
        for key in keys() {
            let Some(text) = std::env::var_os(&key.variable) else { continue };
            let text = text.into_string().map_err(|_| ConfigError::NotUnicode { variable: key.variable.clone() })?;
            if !text.is_empty() {
                self.variables.push(Given { key: key.path, origin: key.variable, text });
            }
        }
        Ok(self)
    }

    /// The settings that they say. Whether they are enough for what is to be done is asked of
    /// [`Settings::validate`] and its parts.
    ///
    /// # Errors
    /// [`ConfigError`]: a file that cannot be read, a key that no setting has, a value of the wrong kind.
    pub fn load(self) -> Result<ServerSettings, ConfigError> {
        let mut layers = Config::builder();
        if let Some(path) = self.file {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            let file = File::from_str(&text, FileFormat::Toml);
            let read = file.collect().map_err(|error| ConfigError::no_toml(&path, &error))?;
            error::refuse_unknown(&read, &path)?;
            layers = layers.add_source(file);
        }
        let layers = layers.add_source(Layer(self.variables)).add_source(Layer(self.flags));
        let merged = layers.build().map_err(ConfigError::value)?;
        let listen = Listen::deserialize(merged.clone()).map_err(ConfigError::value)?.listen;
        let core = Settings::deserialize(merged.clone()).map_err(ConfigError::value)?;
        let nats = match merged.get_string("nats.url") {
            Ok(_) => {
                let Nats { mut nats } = Nats::deserialize(merged).map_err(ConfigError::value)?;
                nats.upload_bytes_max = core.max_upload_bytes;
                Some(nats)
            }
            Err(config::ConfigError::NotFound(_)) => None,
            Err(error) => return Err(ConfigError::value(error)),
        };
        Ok(ServerSettings { core, http_listen: listen, nats })
    }
}

/// The one key that is the whole server's, not the service's.
#[derive(serde::Serialize, Deserialize)]
#[serde(default)]
struct Listen {
    listen: std::net::SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self { listen: std::net::SocketAddr::from(([127, 0, 0, 1], 8080)) }
    }
}

#[derive(Default, serde::Serialize, Deserialize)]
struct Nats {
    nats: NatsApiSettings,
}

/// Settings as text, in one layer.
#[derive(Debug, Clone)]
struct Layer(Vec<Given>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let value = |given: &Given| {
            let origin = Some(&given.origin);
            if keys::is_list(&given.key) {
                let items = given.text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::new(origin, items.map(|item| Value::new(origin, item)).collect::<Vec<_>>())
            } else {
                Value::new(origin, given.text.as_str())
            }
        };
        Ok(self.0.iter().map(|given| (given.key.clone(), value(given))).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::settings::HeadGate;

    fn given(key: &str, text: &str) -> Given {
        Given { key: key.to_owned(), origin: variable_of(key), text: text.to_owned() }
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, Sources) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("writes");
        let path = file.path().to_owned();
        (file, Sources { file: Some(path), ..Sources::default() })
    }

    #[test]
    fn a_flag_beats_the_environment_that_the_file_and_that_the_default() {
        let (_file, mut sources) = file(
            "max_upload_bytes = 5\nmax_record_bytes = 6\npage_bytes_max = 7\ntables = ['seats']\n\
             [snapshots]\nopen_max = 3\nidle_seconds_max = 9",
        );
        sources.variables = vec![given("max_record_bytes", "60"), given("page_bytes_max", "70")];
        sources.flags = vec![given("page_bytes_max", "700"), given("tables", "seats, notes")];
        let settings = sources.load().expect("loads").core;
        assert_eq!((settings.max_upload_bytes, settings.max_record_bytes, settings.page_bytes_max), (5, 60, 700));
        assert_eq!((settings.tables.len(), settings.pool_connections_max), (2, 10));
        assert_eq!((settings.snapshots.open_max, settings.snapshots.idle_max.as_secs()), (3, 9));
    }

    #[test]
    fn text_becomes_what_its_setting_needs() {
        let flags = vec![
            given("head_gate", "touched"),
            given("jwt.secret", "0123456789012345"),
            given("nats.url", "nats://a,nats://b"),
            given("nats.prefix", "app.sync"),
            given("nats.replicas", "3"),
            given("max_upload_bytes", "5000000"),
            given("migrate", "false"),
        ];
        let settings = Sources { flags, ..Sources::default() }.load().expect("loads");
        assert_eq!((settings.core.head_gate, settings.core.migrate), (HeadGate::Touched, false));
        let nats = settings.nats.expect("asked for");
        assert_eq!((nats.servers.addresses().len(), nats.replicas, nats.upload_bytes_max), (2, 3, 5_000_000));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_shown() {
        let (_file, sources) = file("[snapshots]\nopen_mx = 3");
        let error = sources.load().expect_err("misspelt");
        assert!(matches!(&error, ConfigError::UnknownKey { key, .. } if key == "snapshots.open_mx"), "{error}");
        assert!(error.to_string().contains("snapshots.open_max"), "{error}");

        let flags = vec![given("snapshots.open_max", "many")];
        let error = Sources { flags, ..Sources::default() }.load().expect_err("no number").to_string();
        assert!(error.contains("snapshots.open_max") && error.contains("SYNCHROTRON_SNAPSHOTS"), "{error}");

        for text in ["database_url = \"hunter2\n", "jwt = { secret = ['hunter2'] }", "nats.url = 'nats://:hunter2@:::'"]
        {
            let (_file, sources) = file(text);
            let error = sources.load().expect_err(text).to_string();
            assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
        }
    }
}
