//! One server process with its folder, its log and its watchdog.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::account::Account;
use crate::error::{Service, ServiceError};
use crate::watchdog::Watchdog;

/// A folder that a server process lives in. Dropping it ends the process and removes the folder.
#[derive(Debug)]
pub(crate) struct Process {
    service: Service,
    folder: PathBuf,
    account: Option<Account>,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    watchdog: Watchdog,
    child: Option<Child>,
}

impl Process {
    /// Makes the folder, and sets its watchdog on it.
    pub(crate) fn prepare(service: Service, account: Option<Account>) -> Result<Self, ServiceError> {
        let (prefix, signal) = match service {
            // Immediate shutdown: as a crash would end it, but its shared memory is given back.
            Service::Postgres => ("synchrotron-postgres-", "QUIT"),
            Service::Nats => ("synchrotron-nats-", "KILL"),
        };
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .map_err(ServiceError::io("make a folder in", std::env::temp_dir()))?
            .keep();
        let watchdog = Watchdog::start(&folder, signal)?;
        let process = Self { service, folder, account, running: Mutex::new(Running { watchdog, child: None }) };
        if let Some(account) = account {
            account.own(&process.folder)?;
        }
        Ok(process)
    }

    /// The folder, removed in the end.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command in this folder, as this service's user, that neither inherits our input nor hears our Ctrl-C.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).process_group(0).stdin(Stdio::null());
        if let Some(account) = self.account {
            account.run(&mut command);
        }
        command
    }

    /// Starts the server; its output goes to the log.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<(), ServiceError> {
        let path = self.log_path();
        let log = File::options().create(true).append(true).open(&path).map_err(ServiceError::io("open", &path))?;
        let errors = log.try_clone().map_err(ServiceError::io("open", &path))?;
        let mut running = self.running();
        let child = command
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(ServiceError::io("run", Path::new(command.get_program())))?;
        let watched = running.watchdog.watch(child.id());
        running.child = Some(child);
        watched
    }

    /// Fails if the server has ended.
    pub(crate) fn check_alive(&self) -> Result<(), ServiceError> {
        let mut running = self.running();
        let ended = match running.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => return Ok(()),
            Some(Ok(Some(status))) => format!("it ended with {status}"),
            Some(Err(error)) => error.to_string(),
            None => "it is stopped".to_owned(),
        };
        Err(self.start_error(ended))
    }

    /// The server's process id, unless it is stopped.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running().child.as_ref().map(Child::id)
    }

    /// A failure to start, with the end of the log.
    pub(crate) fn start_error(&self, detail: String) -> ServiceError {
        ServiceError::Start { service: self.service, detail, log_tail: self.log_tail() }
    }

    /// Ends the server without warning; does nothing if it has ended.
    pub(crate) fn kill(&self) -> Result<(), ServiceError> {
        let mut running = self.running();
        let Some(mut child) = running.child.take() else { return Ok(()) };
        let killed = match self.service {
            Service::Postgres => quit(&child),
            Service::Nats => child.kill().map_err(ServiceError::io("kill", "nats-server")),
        };
        child.wait().map_err(ServiceError::io("wait for", "the server"))?;
        running.watchdog.forget()?;
        killed
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The end of what the server wrote.
    fn log_tail(&self) -> String {
        const TAIL_BYTES: u64 = 2_000;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut tail = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(tail)
        };
        read().map_or_else(|error| error.to_string(), |tail| String::from_utf8_lossy(&tail).into_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        running.watchdog.let_go();
        if let Some(child) = &mut running.child
            && let Err(error) = child.wait()
        {
            tracing::warn!(service = %self.service, %error, "lost sight of the server");
        }
        running.watchdog.wait();
    }
}

/// The signal that Postgres takes as "stop at once": SIGKILL would leave its shared memory behind.
fn quit(child: &Child) -> Result<(), ServiceError> {
    let kill = Command::new("sh").args(["-c", "kill -s QUIT \"$1\"", "sh", &child.id().to_string()]).status();
    kill.map(drop).map_err(ServiceError::io("run", "sh"))
}
