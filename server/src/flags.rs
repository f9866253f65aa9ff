//! The settings that have a flag; all others are set by file or environment.

use std::path::PathBuf;

use clap::Args;
use synchrotron_server::ServerSettings;
use synchrotron_server::config::{Given, Sources};

use crate::commands::CommandError;

/// Where a command's settings come from.
#[derive(Args)]
pub(crate) struct SettingsFlags {
    /// A TOML file of settings; flags and the environment go before it.
    #[arg(long, env = "SYNCHROTRON_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Postgres; its role owns the sync tables.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// NATS, several servers separated by commas; without it, clients poll over HTTP.
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    nats_url: Option<String>,
    /// What the keys are made of that NATS and the server share; at least 32 bytes.
    #[arg(long, env = "SYNCHROTRON_NATS_SECRET", hide_env_values = true, value_name = "SECRET")]
    nats_secret: Option<String>,
    /// What every NATS subject begins with.
    #[arg(long, env = "SYNCHROTRON_NATS_PREFIX")]
    nats_prefix: Option<String>,
    /// How many NATS servers keep each stream.
    #[arg(long, env = "SYNCHROTRON_NATS_REPLICAS")]
    nats_replicas: Option<String>,
    /// Where HTTP listens.
    #[arg(long, env = "SYNCHROTRON_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// The tracked tables, separated by commas.
    #[arg(long, env = "SYNCHROTRON_TABLES")]
    tables: Option<String>,
    /// The secret that tokens are signed with (HS256).
    #[arg(long, env = "SYNCHROTRON_JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    jwt_secret: Option<String>,
    /// The only issuer whose tokens are believed.
    #[arg(long, env = "SYNCHROTRON_JWT_ISSUER")]
    jwt_issuer: Option<String>,
    /// The only audience that tokens may be made for.
    #[arg(long, env = "SYNCHROTRON_JWT_AUDIENCE")]
    jwt_audience: Option<String>,
    /// The Postgres role that users act as.
    #[arg(long, env = "SYNCHROTRON_APP_ROLE")]
    app_role: Option<String>,
    /// Of which audiences an uploading device must have seen everything: visible or touched.
    #[arg(long, env = "SYNCHROTRON_HEAD_GATE")]
    head_gate: Option<String>,
    /// The largest upload, in bytes.
    #[arg(long, env = "SYNCHROTRON_MAX_UPLOAD_BYTES")]
    max_upload_bytes: Option<String>,
    /// The most connections to Postgres, beside those of snapshots.
    #[arg(long, env = "SYNCHROTRON_POOL_CONNECTIONS")]
    pool_connections: Option<String>,
    /// How many devices may take a snapshot at once; each holds a connection to Postgres meanwhile.
    #[arg(long, env = "SYNCHROTRON_SNAPSHOTS")]
    snapshots: Option<String>,
}

impl SettingsFlags {
    /// The settings that flags, environment and file ask for.
    pub(crate) fn load(self) -> Result<ServerSettings, CommandError> {
        self.load_with(Vec::new())
    }

    /// The same, with what a command says beside. Where none of them names whose tokens are believed, the variables of a
    /// Supabase project may.
    pub(crate) fn load_with(self, more: Vec<Given>) -> Result<ServerSettings, CommandError> {
        let file = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        let mut flags = self.given();
        flags.extend(more);
        let mut settings = Sources { file, flags, ..Sources::default() }.with_environment()?.load()?;
        settings.core.jwt = settings.core.jwt.or_supabase(|name| std::env::var(name).ok())?;
        Ok(settings)
    }

    /// Flags, or the variables that stand in for them; an empty one is none.
    fn given(self) -> Vec<Given> {
        let flags = [
            ("database_url", "--database-url", self.database_url),
            ("nats.url", "--nats-url", self.nats_url),
            ("nats.secret", "--nats-secret", self.nats_secret),
            ("nats.prefix", "--nats-prefix", self.nats_prefix),
            ("nats.replicas", "--nats-replicas", self.nats_replicas),
            ("listen", "--listen", self.listen),
            ("tables", "--tables", self.tables),
            ("jwt.secret", "--jwt-secret", self.jwt_secret),
            ("jwt.issuer", "--jwt-issuer", self.jwt_issuer),
            ("jwt.audience", "--jwt-audience", self.jwt_audience),
            ("app_role", "--app-role", self.app_role),
            ("head_gate", "--head-gate", self.head_gate),
            ("max_upload_bytes", "--max-upload-bytes", self.max_upload_bytes),
            ("pool_connections", "--pool-connections", self.pool_connections),
            ("snapshots.open_max", "--snapshots", self.snapshots),
        ];
        let given = flags.into_iter().filter_map(|(key, flag, text)| {
            let text = text.filter(|text| !text.is_empty())?;
            let origin = format!("{flag} or {}", synchrotron_server::config::variable_of(key));
            Some(Given { key: key.to_owned(), origin, text })
        });
        given.collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use synchrotron_server::config::{keys, variable_of};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingsFlags,
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
        ];
        let settings = Line::try_parse_from(args).expect("parses").settings.load().expect("sound");
        settings.core.validate().expect("valid");
        assert_eq!((settings.core.tables.len(), settings.core.snapshots.open_max), (2, 3));
        let nats = settings.nats.expect("asked for");
        assert_eq!((nats.servers.addresses().len(), nats.upload_bytes_max), (2, 5_000_000));
    }

    /// Otherwise the environment would be read twice, under two names.
    #[test]
    fn a_flag_reads_the_variable_of_its_setting() {
        let command = <Line as clap::CommandFactory>::command();
        let variables: Vec<String> = command
            .get_arguments()
            .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
            .filter(|variable| variable != "SYNCHROTRON_CONFIG")
            .collect();
        let line =
            ["synchrotron-server".to_owned()].into_iter().chain(command.get_arguments().filter_map(|argument| {
                let name = argument.get_long().filter(|name| !matches!(*name, "config" | "help" | "version"))?;
                Some(format!("--{name}=given"))
            }));
        let given = Line::try_parse_from(line).expect("parses").settings.given();
        let of_keys: Vec<String> = given.iter().map(|given| variable_of(&given.key)).collect();
        assert_eq!(of_keys, variables);
        assert!(given.iter().all(|given| keys().iter().any(|key| key.path == given.key)));
    }
}
