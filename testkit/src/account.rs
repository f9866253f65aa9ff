//! Whom a service runs as: Postgres refuses to run as root.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::ServiceError;

/// A user of this machine who is not root, to run a service as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None` if this program is not root: then services run as whoever runs it.
    pub(crate) fn if_root() -> Option<Self> {
        if id(&["-u"])? != 0 {
            return None;
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some(Self { uid: id(&["-u", name])?, gid: id(&["-g", name])? }))
    }

    /// Makes the command run as this user.
    pub(crate) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives the folder to this user.
    pub(crate) fn own(self, path: &Path) -> Result<(), ServiceError> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(ServiceError::io("change owner of", path))
    }
}

fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
