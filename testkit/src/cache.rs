//! The folder where programs that we fetched stay between runs.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::ServiceError;

/// The folder, made if need be.
pub(crate) fn folder() -> Result<PathBuf, ServiceError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let folder = base.unwrap_or_else(std::env::temp_dir).join("synchrotron");
    std::fs::create_dir_all(&folder).map_err(ServiceError::io("make", &folder))?;
    Ok(folder)
}

/// Where a fetched nats-server is, whether or not it is there yet.
pub(crate) fn nats_server(folder: &Path) -> PathBuf {
    folder.join("nats-server")
}

/// Held while one program installs; the others wait. Unlocks when dropped, also when the program dies.
#[derive(Debug)]
pub(crate) struct InstallLock(#[expect(dead_code, reason = "holding the file holds the lock")] File);

impl InstallLock {
    pub(crate) fn hold(folder: &Path) -> Result<Self, ServiceError> {
        let path = folder.join("install.lock");
        let file = File::create(&path).map_err(ServiceError::io("open", &path))?;
        file.lock().map_err(ServiceError::io("lock", &path))?;
        Ok(Self(file))
    }
}
