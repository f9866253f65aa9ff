//! Arguments and environment, as settings.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use synchrotron_nats::subjects::SubjectPrefix;
use synchrotron_server::ServerSettings;
use synchrotron_server::api::nats::NatsApiSettings;
use synchrotron_server::settings::{HeadGate, Settings};

use synchrotron_core::model::TableName;

/// Anything that is wrong with the arguments or keeps the server from starting.
pub(crate) type MainError = Box<dyn std::error::Error>;

/// Synchrotron's server: offline-first sync for Postgres, live over NATS and by polling over HTTP.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Postgres; its role owns the sync tables.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    /// NATS, several servers separated by commas; without it, clients poll over HTTP.
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    nats_url: Option<String>,
    /// What every NATS subject begins with.
    #[arg(long, env = "SYNCHROTRON_NATS_PREFIX", default_value = "sync", value_parser = parse_prefix)]
    nats_prefix: SubjectPrefix,
    /// How many NATS servers keep each stream.
    #[arg(long, env = "SYNCHROTRON_NATS_REPLICAS", default_value_t = 1)]
    nats_replicas: usize,
    /// Where HTTP listens.
    #[arg(long, env = "SYNCHROTRON_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The tracked tables, separated by commas.
    #[arg(long, env = "SYNCHROTRON_TABLES", value_delimiter = ',', required = true, value_parser = parse_table)]
    tables: Vec<TableName>,
    /// The secret that tokens are signed with (HS256).
    #[arg(long, env = "SYNCHROTRON_JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    jwt_secret: String,
    /// The only issuer whose tokens are believed.
    #[arg(long, env = "SYNCHROTRON_JWT_ISSUER")]
    jwt_issuer: Option<String>,
    /// The only audience that tokens may be made for.
    #[arg(long, env = "SYNCHROTRON_JWT_AUDIENCE")]
    jwt_audience: Option<String>,
    /// The Postgres role that users act as.
    #[arg(long, env = "SYNCHROTRON_APP_ROLE")]
    app_role: Option<String>,
    /// Of which audiences an uploading device must have seen everything.
    #[arg(long, env = "SYNCHROTRON_HEAD_GATE", value_enum, default_value_t = Gate::Visible)]
    head_gate: Gate,
    /// The largest upload, in bytes.
    #[arg(long, env = "SYNCHROTRON_MAX_UPLOAD_BYTES")]
    max_upload_bytes: Option<usize>,
    /// The most connections to Postgres, beside those of snapshots.
    #[arg(long, env = "SYNCHROTRON_POOL_CONNECTIONS")]
    pool_connections: Option<u32>,
    /// How many devices may take a snapshot at once; each holds a connection to Postgres meanwhile.
    #[arg(long, env = "SYNCHROTRON_SNAPSHOTS")]
    snapshots: Option<u32>,
    /// How many days records stay in the log; 0 keeps them for ever. A device that was away for longer takes a snapshot.
    #[arg(long, env = "SYNCHROTRON_RETENTION_DAYS")]
    retention_days: Option<u32>,
    /// How often to look for records that are older, in seconds.
    #[arg(long, env = "SYNCHROTRON_COMPACTION_SECONDS")]
    compaction_seconds: Option<u32>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Gate {
    /// Of every audience that its user sees.
    Visible,
    /// Of those that the upload writes to.
    Touched,
}

impl Args {
    /// The settings that they ask for.
    pub(crate) fn into_settings(self) -> Result<ServerSettings, MainError> {
        let mut core = Settings::new(self.database_url, self.tables, self.jwt_secret);
        core.jwt.issuer = self.jwt_issuer;
        core.jwt.audience = self.jwt_audience;
        core.head_gate = match self.head_gate {
            Gate::Visible => HeadGate::Visible,
            Gate::Touched => HeadGate::Touched,
        };
        core.app_role = self.app_role.unwrap_or(core.app_role);
        core.max_upload_bytes = self.max_upload_bytes.unwrap_or(core.max_upload_bytes);
        core.pool_connections_max = self.pool_connections.unwrap_or(core.pool_connections_max);
        core.snapshots.open_max = self.snapshots.unwrap_or(core.snapshots.open_max);
        if let Some(days) = self.retention_days {
            core.compaction.keep_for_days(days);
        }
        if let Some(seconds) = self.compaction_seconds {
            core.compaction.every = Duration::from_secs(seconds.into());
        }
        let nats = match &self.nats_url {
            Some(url) => {
                let mut nats = NatsApiSettings::new(url)?.with_prefix(self.nats_prefix);
                nats.replicas = self.nats_replicas;
                nats.upload_bytes_max = core.max_upload_bytes;
                Some(nats)
            }
            None => None,
        };
        Ok(ServerSettings { core, http_listen: self.listen, nats })
    }
}

fn parse_table(name: &str) -> Result<TableName, String> {
    TableName::new(name.trim()).map_err(|error| error.to_string())
}

fn parse_prefix(prefix: &str) -> Result<SubjectPrefix, String> {
    SubjectPrefix::new(prefix).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_become_settings() {
        let args = [
            "synchrotron-server",
            "--database-url=postgres://h/d",
            "--nats-url=nats://a,nats://b",
            "--nats-prefix=app.sync",
            "--tables=seats, notes",
            "--jwt-secret=0123456789abcdef",
            "--head-gate=touched",
            "--max-upload-bytes=5000000",
            "--snapshots=3",
            "--retention-days=30",
            "--compaction-seconds=60",
        ];
        let settings = Args::try_parse_from(args).expect("parses").into_settings().expect("sound");
        settings.core.validate().expect("valid");
        assert_eq!(settings.core.tables.len(), 2);
        assert_eq!((settings.core.head_gate, settings.core.snapshots.open_max), (HeadGate::Touched, 3));
        let compaction = settings.core.compaction;
        assert_eq!(compaction.retention(), Some(Duration::from_secs(30 * 24 * 60 * 60)));
        assert_eq!(compaction.every, Duration::from_secs(60));
        let nats = settings.nats.expect("asked for");
        assert_eq!((nats.servers.addresses().len(), nats.upload_bytes_max), (2, 5_000_000));
    }
}
