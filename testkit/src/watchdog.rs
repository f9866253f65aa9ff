//! A process that outlives this one by a moment, to clean up after it.
//!
//! Rust never drops statics, and nothing runs after SIGKILL. The kernel, though, always closes pipes: the watchdog reads
//! from one that only this process writes to, and acts when it ends. Dropping a service takes the same way, so there
//! is one clean-up path, and it is tested by every run.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::error::ServiceError;

const SCRIPT: &str = include_str!("watchdog.sh");

/// Watches over one folder and at most one process, or over a container.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Watches over one container instead, which is removed in the end.
    pub(crate) fn over_container(id: &str) -> Result<Self, ServiceError> {
        let mut watchdog = Self::start(Path::new(""), "KILL")?;
        watchdog.say(&format!("container {id}\n"))?;
        Ok(watchdog)
    }

    /// Starts to watch over `folder`; `signal` is what will end the process at once (`QUIT`, `KILL`).
    pub(crate) fn start(folder: &Path, signal: &'static str) -> Result<Self, ServiceError> {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg("synchrotron-testkit-watchdog")
            .arg(folder)
            .arg(signal)
            .current_dir("/")
            // A group of its own, so that Ctrl-C at the terminal does not reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(ServiceError::io("run", "sh"))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// From now on this process is ended too.
    pub(crate) fn watch(&mut self, pid: u32) -> Result<(), ServiceError> {
        self.say(&format!("watch {pid}\n"))
    }

    /// The watched process has ended and its number may be another's.
    pub(crate) fn forget(&mut self) -> Result<(), ServiceError> {
        self.say("forget\n")
    }

    fn say(&mut self, line: &str) -> Result<(), ServiceError> {
        let pipe = self.pipe.as_mut().expect("BUG: the pipe is open until `let_go`");
        pipe.write_all(line.as_bytes()).map_err(ServiceError::io("write to", "the watchdog"))
    }

    /// Has it clean up now. The caller reaps its own process, then calls [`Self::wait`].
    pub(crate) fn let_go(&mut self) {
        self.pipe = None;
    }

    /// Waits until it has cleaned up.
    pub(crate) fn wait(&mut self) {
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "lost sight of the watchdog");
        }
    }
}
