//! One run of the binary.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) use synchrotron_testkit::wait_for;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough to sign with.
pub(crate) const SECRET: &str = "the secret of these tests";

/// The binary with these arguments and nothing of this process's settings.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synchrotron-server"));
    let is_setting = |name: &String| {
        name.starts_with("SYNCHROTRON_")
            || name.starts_with("SUPABASE_")
            || matches!(name.as_str(), "DATABASE_URL" | "NATS_URL" | "OTEL_EXPORTER_OTLP_ENDPOINT" | "RUST_LOG")
    };
    for (name, _) in std::env::vars().filter(|(name, _)| is_setting(name)) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

/// What a run said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let output = command(args).envs(environment.iter().copied()).output().expect("runs");
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: status.code().expect("ended by itself"), stdout: text(stdout), stderr: text(stderr) }
}

impl Ran {
    /// Its answer in JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// That it failed so, and said why in one line that has all of these.
    pub(crate) fn assert_complains(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{self:?}");
        let said: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("synchrotron-server: ")).collect();
        let [line] = said[..] else { panic!("not one line: {self:?}") };
        for part in parts {
            assert!(line.contains(part), "{part}: {self:?}");
        }
    }
}

/// A run that goes on; it ends with the test, whatever the test does.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command(args);
        Self(command.envs(environment.iter().copied()).stdout(Stdio::null()).spawn().expect("starts"))
    }

    /// Waits until it says over HTTP that it is ready.
    pub(crate) async fn ready(&self, address: &str) {
        // The HTTP client wants one even where it speaks no TLS; whoever comes second finds it installed.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let url = format!("http://{address}/readyz");
        let is_ready = async || reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()).then_some(());
        wait_for("the server to be ready", PATIENCE, is_ready).await.expect("ready");
    }

    /// Ends it without warning, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }

    /// Tells it to stop, as a supervisor does, and returns its exit code.
    pub(crate) async fn stop(mut self) -> Option<i32> {
        let told = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().expect("runs");
        assert!(told.success());
        let ended = wait_for("the server to end", PATIENCE, async || self.0.try_wait().expect("waits")).await;
        ended.expect("ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let (_, _) = (self.0.kill(), self.0.wait());
    }
}
