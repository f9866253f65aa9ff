//! Nothing stays behind, however a program ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use synchrotron_testkit::wait_for;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// A program that holds both services, with a temp folder of its own.
struct Holder {
    child: Child,
    temp: tempfile::TempDir,
}

impl Holder {
    async fn start() -> Self {
        // Postgres' user must be able to reach it.
        let temp = tempfile::Builder::new()
            .prefix("clean-up-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("a folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_services"))
            .env("TMPDIR", temp.path())
            .env_remove("DATABASE_URL")
            .env_remove("NATS_URL")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let urls = [lines.next_line().await.expect("readable"), lines.next_line().await.expect("readable")];
        assert!(urls.iter().all(Option::is_some), "the services did not start");
        let holder = Self { child, temp };
        assert_eq!(holder.folders().len(), 2);
        assert!(!holder.processes().is_empty());
        holder
    }

    fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.temp.path()).expect("readable");
        entries.map(|entry| entry.expect("readable").path()).collect()
    }

    /// Processes that live in our temp folder or mention it: servers, their children and the watchdogs.
    fn processes(&self) -> Vec<String> {
        processes_about(self.temp.path())
    }

    async fn assert_nothing_stays(self) {
        let gone = wait_for("services and folders to go", ENDS_WITHIN, async || {
            (self.folders().is_empty() && self.processes().is_empty()).then_some(())
        });
        let waited = gone.await;
        assert!(waited.is_ok(), "{waited:?}: {:?} {:?}", self.folders(), self.processes());
    }
}

fn processes_about(folder: &Path) -> Vec<String> {
    let listed = std::process::Command::new("ps").args(["-ww", "-eo", "pid,command"]).output().expect("ps");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let wanted = folder.to_str().expect("UTF-8");
    let by_command = text.lines().filter(|line| line.contains(wanted)).map(str::to_owned);
    let by_folder = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let process = entry.ok()?.path();
        let current = std::fs::read_link(process.join("cwd")).ok()?;
        current.starts_with(folder).then(|| format!("{} in {}", process.display(), current.display()))
    });
    by_command.chain(by_folder).collect()
}

#[tokio::test]
async fn after_sigkill() {
    let mut holder = Holder::start().await;
    holder.child.kill().await.expect("killed");
    holder.assert_nothing_stays().await;
}

#[tokio::test]
async fn after_ctrl_c_and_sigterm() {
    for signal in ["INT", "TERM"] {
        let mut holder = Holder::start().await;
        let pid = holder.child.id().expect("runs").to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid]).status().await;
        assert!(sent.expect("sh").success());
        holder.child.wait().await.expect("ended");
        holder.assert_nothing_stays().await;
    }
}
