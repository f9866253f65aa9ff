//! Debian and Ubuntu.
//!
//! Postgres is installed as usual, which needs root. nats-server is fetched only: a private apt configuration, made of
//! the machine's own sources with a newer suite, downloads the package, and it is unpacked in the cache folder. That
//! needs no root and changes nothing outside that folder; signatures are checked with the machine's own keys.

use std::path::Path;
use std::process::Command;

use super::{answers, run, sources};
use crate::account::Account;
use crate::cache;
use crate::error::ServiceError;

/// `None` where there is no apt, or no right to use it.
pub(super) fn install_postgres() -> Option<Result<(), ServiceError>> {
    if !answers("apt-get") || Account::if_root().is_none() {
        return None;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        run(&mut command)
    };
    let install = || apt(&["install", "-y", "--no-install-recommends", "postgresql"]);
    // Fresh images have no package lists; a failure to update may be about sources that do not matter here.
    Some(install().or_else(|_| {
        if let Err(error) = apt(&["update"]) {
            tracing::warn!(%error, "package lists are not up to date");
        }
        install()
    }))
}

/// `None` where there is no apt.
pub(super) fn fetch_nats(cache: &Path) -> Option<Result<(), ServiceError>> {
    if !answers("apt-get") || !answers("dpkg") {
        return None;
    }
    let mut last = None;
    for suite in sources::newer_suites() {
        let fetched = fetch_nats_from(suite, cache);
        if fetched.is_ok() {
            return Some(fetched);
        }
        last = Some(fetched);
    }
    last
}

fn fetch_nats_from(suite: &str, cache: &Path) -> Result<(), ServiceError> {
    // Inside the cache folder, so that the last step is a rename within one file system.
    let work = tempfile::Builder::new()
        .prefix("apt-")
        .tempdir_in(cache)
        .map_err(ServiceError::io("make a folder in", cache))?;
    let folder = |name: &str| {
        let path = work.path().join(name);
        std::fs::create_dir_all(&path).map_err(ServiceError::io("make", &path)).map(|()| path)
    };
    for name in ["lists/partial", "archives/partial", "sources", "unpacked"] {
        folder(name)?;
    }
    sources::write(suite, &folder("sources")?)?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(work.path());
        for (option, name) in [
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", ""),
            ("Dir::Cache::Archives", "archives"),
            ("Dir::Etc::SourceParts", "sources"),
        ] {
            command.arg("-o").arg(format!("{option}={}", work.path().join(name).display()));
        }
        for option in [
            "Dir::Etc::SourceList=/dev/null",
            "Acquire::Languages=none",
            "APT::Sandbox::User=root",
            "APT::Update::Error-Mode=any",
        ] {
            command.args(["-o", option]);
        }
        run(command.args(arguments))
    };
    apt(&["update"])?;
    apt(&["download", "nats-server"])?;
    unpack(work.path(), cache)
}

/// Unpacks the one package in `work` and moves its program to where the cache has it.
fn unpack(work: &Path, cache: &Path) -> Result<(), ServiceError> {
    let entries = std::fs::read_dir(work).map_err(ServiceError::io("list", work))?;
    let package = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| ServiceError::io("find the package in", work)(std::io::ErrorKind::NotFound.into()))?;
    let unpacked = work.join("unpacked");
    run(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
    let program = ["usr/bin/nats-server", "usr/sbin/nats-server"]
        .map(|path| unpacked.join(path))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| ServiceError::io("find nats-server in", &package)(std::io::ErrorKind::NotFound.into()))?;
    let place = cache::nats_server(cache);
    std::fs::rename(&program, &place).map_err(ServiceError::io("move nats-server to", place))
}
