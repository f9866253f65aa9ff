//! Looks for server programs, and decides where a server comes from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::cache::{self, InstallLock};
use crate::docker;
use crate::error::{Attempt, Service, ServiceError};
use crate::install;

/// The oldest nats-server that will do.
const NATS_VERSION_MIN: (u32, u32) = (2, 12);

/// Where a server that we start ourselves comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// The program: for Postgres the folder of its programs.
    Program(PathBuf),
    /// Docker, whose daemon answers.
    Docker,
}

/// The URL from the environment, if there is one.
pub(crate) fn url_from_environment(service: Service) -> Option<String> {
    std::env::var(service.variable()).ok().filter(|url| !url.is_empty())
}

/// Finds or installs the service; asked once per process, since a second search would find the same.
pub(crate) async fn find(service: Service) -> Result<Source, ServiceError> {
    static POSTGRES: OnceLock<Result<Source, Vec<Attempt>>> = OnceLock::new();
    static NATS: OnceLock<Result<Source, Vec<Attempt>>> = OnceLock::new();
    let found = match service {
        Service::Postgres => &POSTGRES,
        Service::Nats => &NATS,
    };
    let searched = tokio::task::spawn_blocking(move || found.get_or_init(|| search(service)).clone()).await;
    let searched = searched.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    searched.map_err(|attempts| ServiceError::Absent { service, attempts })
}

fn search(service: Service) -> Result<Source, Vec<Attempt>> {
    let look = || match service {
        Service::Postgres => postgres_programs(),
        Service::Nats => nats_program(),
    };
    let mut attempts = Vec::new();
    match look() {
        Ok(program) => return Ok(Source::Program(program)),
        Err(attempt) => attempts.push(attempt),
    }
    match docker::find_daemon() {
        Ok(()) => return Ok(Source::Docker),
        Err(attempt) => attempts.push(attempt),
    }
    // While another test program installs, wait for it; then look again.
    let installed = cache::folder().and_then(|folder| {
        let lock = InstallLock::hold(&folder)?;
        Ok((folder, lock))
    });
    match installed {
        Err(error) => attempts.push(Attempt { place: "the cache folder", found: error.to_string() }),
        Ok((folder, _lock)) => {
            if let Ok(program) = look() {
                return Ok(Source::Program(program));
            }
            attempts.extend(install::install(service, &folder));
            if let Ok(program) = look() {
                return Ok(Source::Program(program));
            }
        }
    }
    Err(attempts)
}

/// The folder that holds `postgres` and `initdb`.
fn postgres_programs() -> Result<PathBuf, Attempt> {
    let complete = |bin: &PathBuf| bin.join("postgres").is_file() && bin.join("initdb").is_file();
    let mut versioned: Vec<PathBuf> = Vec::new();
    for (parent, tail) in [
        ("/usr/lib/postgresql", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "bin"),
    ] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
        versioned.extend(entries.map(|entry| entry.path().join(tail)).filter(complete));
    }
    versioned.sort_by_key(|bin| std::cmp::Reverse(version_in(bin)));
    path_folders()
        .chain(versioned)
        .find(complete)
        .ok_or_else(|| Attempt { place: "PATH and the usual folders", found: "no postgres and initdb".to_owned() })
}

/// The number in `…/postgresql/15/bin` or `…/postgresql@17/bin`.
fn version_in(bin: &Path) -> u32 {
    let name = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit('@').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A nats-server that is new enough.
fn nats_program() -> Result<PathBuf, Attempt> {
    let usual = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin"];
    let programs = path_folders().chain(usual.map(PathBuf::from)).map(|folder| folder.join("nats-server"));
    let cached = cache::folder().ok().map(|folder| cache::nats_server(&folder));
    let mut too_old = None;
    for program in programs.chain(cached).filter(|program| program.is_file()) {
        match nats_version(&program) {
            Some(version) if version >= NATS_VERSION_MIN => return Ok(program),
            Some((major, minor)) => too_old = Some(format!("{} is {major}.{minor}, too old", program.display())),
            None => too_old = Some(format!("{} does not run", program.display())),
        }
    }
    let found = too_old.unwrap_or_else(|| "no nats-server".to_owned());
    Err(Attempt { place: "PATH, the usual folders and the cache folder", found })
}

fn nats_version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse_nats_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `nats-server: v2.15.1`.
fn parse_nats_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit('v').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse_nats_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(parse_nats_version("nats-server version 2.9.10"), None);
        assert_eq!(parse_nats_version(""), None);
        assert_eq!(version_in(Path::new("/usr/lib/postgresql/15/bin")), 15);
        assert_eq!(version_in(Path::new("/opt/homebrew/opt/postgresql@17/bin")), 17);
        assert_eq!(version_in(Path::new("/opt/homebrew/opt/postgresql/bin")), 0);
    }
}
