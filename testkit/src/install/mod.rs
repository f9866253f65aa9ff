//! Installs what is missing with the machine's own package manager.

mod apt;
mod brew;
mod sources;

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Attempt, Service, ServiceError};

/// Tries every package manager that is here; returns what went wrong with each. Called with the install lock held.
pub(crate) fn install(service: Service, cache: &Path) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut attempt = |place, tried: Option<Result<(), ServiceError>>| {
        let found = match tried {
            None => "not here, or not ours to use".to_owned(),
            Some(Ok(())) => "installed it, but the program is still not found".to_owned(),
            Some(Err(error)) => error.to_string(),
        };
        attempts.push(Attempt { place, found });
    };
    match service {
        Service::Postgres => attempt("apt-get as root", apt::install_postgres()),
        Service::Nats => attempt("apt-get into the cache folder", apt::fetch_nats(cache)),
    }
    attempt("brew", brew::install(service));
    attempts
}

/// Runs a command to its end, quietly.
fn run(command: &mut Command) -> Result<(), ServiceError> {
    const TAIL_BYTES: usize = 600;
    let name = command.get_program().to_string_lossy().into_owned();
    tracing::info!(command = ?command, "installing");
    let output =
        command.stdin(Stdio::null()).output().map_err(ServiceError::io("run", Path::new(command.get_program())))?;
    if output.status.success() {
        return Ok(());
    }
    let tail = &output.stderr[output.stderr.len().saturating_sub(TAIL_BYTES)..];
    let stderr_tail = String::from_utf8_lossy(tail).trim().to_owned();
    Err(ServiceError::Command { command: name, status: output.status, stderr_tail })
}

/// Whether a program of this name answers at all.
fn answers(program: &str) -> bool {
    let mut version = Command::new(program);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
