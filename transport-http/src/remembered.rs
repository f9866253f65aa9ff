//! Answers that the server need not send again: the last one of each kind, and the request that it answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::header::HeaderValue;

/// The newest answer with a tag, by path.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    answers: Mutex<BTreeMap<&'static str, Arc<Answer>>>,
}

/// An answer as it came.
pub(crate) struct Answer {
    request: Vec<u8>,
    pub(crate) tag: HeaderValue,
    pub(crate) bytes: Vec<u8>,
}

/// Answers that are longer are not kept.
const BYTES_MAX: usize = 1 << 20;

impl Remembered {
    /// The answer to exactly this request.
    pub(crate) fn answer(&self, path: &'static str, request: &[u8]) -> Option<Arc<Answer>> {
        self.answers().get(path).filter(|answer| answer.request == request).cloned()
    }

    /// Keeps an answer in the place of the one before.
    pub(crate) fn keep(&self, path: &'static str, request: &[u8], tag: HeaderValue, bytes: &[u8]) {
        if request.len() + bytes.len() <= BYTES_MAX {
            let answer = Answer { request: request.to_vec(), tag, bytes: bytes.to_vec() };
            self.answers().insert(path, Arc::new(answer));
        }
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Answer>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Answer {
    /// Answers are app data: only their size is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({} bytes)", self.bytes.len())
    }
}
