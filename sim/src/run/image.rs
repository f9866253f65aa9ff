//! A database file as it was: what a power cut leaves of it.

use std::path::{Path, PathBuf};

/// A database file and its write-ahead log.
#[derive(PartialEq, Eq)]
pub(crate) struct Image([Option<Vec<u8>>; 2]);

impl Image {
    const PARTS: [&'static str; 2] = ["", "-wal"];

    /// As it is now.
    pub(crate) fn of(path: &Path) -> Self {
        Self(Self::PARTS.map(|part| std::fs::read(beside(path, part)).ok()))
    }

    /// Puts it back. Nobody may have the file open.
    pub(crate) fn put(&self, path: &Path) {
        for (part, bytes) in Self::PARTS.into_iter().zip(&self.0) {
            match bytes {
                Some(bytes) => std::fs::write(beside(path, part), bytes).expect("the folder is there"),
                None => drop(std::fs::remove_file(beside(path, part))),
            }
        }
    }
}

fn beside(path: &Path, part: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(part);
    PathBuf::from(name)
}
