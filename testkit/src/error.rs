//! Why a service could not be had.

use std::fmt;
use std::path::PathBuf;

use crate::wait::TimedOut;

/// A service that this crate provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// PostgreSQL.
    Postgres,
    /// nats-server with JetStream.
    Nats,
}

impl Service {
    /// The environment variable that names a running one.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "DATABASE_URL",
            Self::Nats => "NATS_URL",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Postgres => {
                "install PostgreSQL 15 or newer (Debian, Ubuntu: apt-get install postgresql; macOS: brew install \
                 postgresql@17), or start Docker, or set DATABASE_URL to a superuser's URL of a running one"
            }
            Self::Nats => {
                "install nats-server 2.12 or newer and put it on PATH (macOS: brew install nats-server), or start \
                 Docker, or set NATS_URL to the URL of a running one with JetStream"
            }
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Nats => "nats-server",
        })
    }
}

/// One place that was tried, and why it did not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where a server was looked for.
    pub place: &'static str,
    /// What was found instead.
    pub found: String,
}

/// Why a service could not be had, or does not do as asked.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Found nowhere, and could not be installed.
    #[error("no {service} for the tests: {}{}", .service.advice(), listed(.attempts))]
    Absent {
        /// Which.
        service: Service,
        /// Everything that was tried.
        attempts: Vec<Attempt>,
    },
    /// The program is there, but ended before it was ready.
    #[error("{service} did not start ({detail}); its log ends with:\n{log_tail}")]
    Start {
        /// Which.
        service: Service,
        /// What was seen of it.
        detail: String,
        /// The last lines that it wrote.
        log_tail: String,
    },
    /// Asked to stop or start a server that was given by URL.
    #[error("cannot {call} the {service} of {}: it was given by URL, so it is not ours to stop", .service.variable())]
    NotOurs {
        /// Which.
        service: Service,
        /// What was asked.
        call: &'static str,
    },
    /// Something did not come in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The database refused a statement of ours.
    #[error("postgres refused to {call}: {source}")]
    Database {
        /// What was asked of it.
        call: &'static str,
        /// Its answer.
        source: sqlx_core::Error,
    },
    /// The variable holds no URL.
    #[error("{} is not a URL: {source}", .service.variable())]
    Url {
        /// Whose URL.
        service: Service,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// Docker's daemon answers, but does not do as asked.
    #[error("docker refused to {call}: {source}")]
    Docker {
        /// What was asked of it.
        call: &'static str,
        /// Its answer.
        source: testcontainers::TestcontainersError,
    },
    /// A command failed.
    #[error("`{command}` failed with {status}: {stderr_tail}")]
    Command {
        /// The program.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines of its complaint.
        stderr_tail: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
}

impl fmt::Debug for ServiceError {
    /// The same as for display: a test that ends with `?` or `expect` prints this, and it is to be read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ServiceError {
    /// For `map_err`: an I/O error with what was being done to which path.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

fn listed(attempts: &[Attempt]) -> String {
    attempts.iter().map(|attempt| format!("\n  - {}: {}", attempt.place, attempt.found)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_to_install_what_to_set_and_what_was_tried() {
        let attempts = vec![Attempt { place: "PATH", found: "nats-server 2.9.10, too old".into() }];
        let message = format!("{:?}", ServiceError::Absent { service: Service::Nats, attempts });
        for part in ["nats-server 2.12", "brew install", "NATS_URL", "PATH: nats-server 2.9.10, too old"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
