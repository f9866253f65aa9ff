//! Which installation a database file belongs to, kept beside it: a copy of the file is another device.
//!
//! Place in the journey: before the first step. Two devices with one id would each believe that the other's actions are
//! its own. So the device's id is kept in the database and in `<database>.device`, with the file's own number there; a
//! file that was copied, or restored from a backup, is another file, or has no such file beside it.
//!
//! # Invariants
//! - Of all that open one database, one at a time looks and writes: the file beside it is locked meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::model::ClientId;

/// The file beside the database, locked until this is dropped.
#[derive(Debug)]
pub(super) struct Installation {
    file: File,
    /// Whether the database was not there yet.
    fresh: bool,
}

impl Installation {
    /// To be called before the database is opened.
    pub(super) fn lock(database: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(beside(database))?;
        file.lock()?;
        Ok(Self { file, fresh: !database.try_exists()? })
    }

    /// Whether the database, whose device is `client_id`, is a copy of one that belongs elsewhere.
    pub(super) fn is_copy(&mut self, database: &Path, client_id: ClientId) -> io::Result<bool> {
        let mut noted = String::new();
        self.file.read_to_string(&mut noted)?;
        Ok(!self.fresh && noted != note(database, client_id)?)
    }

    /// Notes that the database is here, as this device.
    pub(super) fn settle(&mut self, database: &Path, client_id: ClientId) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.set_len(0)?;
        self.file.write_all(note(database, client_id)?.as_bytes())?;
        self.file.sync_all()
    }
}

/// Where it is.
pub(super) fn beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".device");
    path.into()
}

fn note(database: &Path, client_id: ClientId) -> io::Result<String> {
    Ok(format!("{client_id} {}\n", file_number(database)?))
}

/// The number that the file system gave the file; a copy has another.
#[cfg(unix)]
fn file_number(database: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(database.metadata()?.ino())
}

/// Without file numbers, only a file that came without its companion is known to be a copy.
#[cfg(not(unix))]
fn file_number(_: &Path) -> io::Result<u64> {
    Ok(0)
}

/// A new device's id.
pub(super) fn new_client_id() -> ClientId {
    ClientId::from_uuid(Uuid::new_v4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_file_is_known_as_one_until_it_is_settled() {
        let folder = tempfile::tempdir().expect("a folder");
        let (original, copy) = (folder.path().join("app.db"), folder.path().join("copy.db"));
        let device = new_client_id();
        {
            let mut installation = Installation::lock(&original).expect("locks");
            std::fs::write(&original, "rows").expect("writes");
            assert!(!installation.is_copy(&original, device).expect("reads"), "it is new");
            installation.settle(&original, device).expect("writes");
        }
        let is_copy = |path: &Path| Installation::lock(path).expect("locks").is_copy(path, device).expect("reads");
        assert!(!is_copy(&original));
        std::fs::copy(&original, &copy).expect("copies");
        assert!(is_copy(&copy), "it came alone");
        std::fs::copy(folder.path().join("app.db.device"), folder.path().join("copy.db.device")).expect("copies");
        assert_eq!(is_copy(&copy), cfg!(unix), "it is another file");
        let another = new_client_id();
        assert!(Installation::lock(&original).expect("locks").is_copy(&original, another).expect("reads"));
    }
}
