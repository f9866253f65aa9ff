//! Homebrew: needs no root and has fresh versions of both.

use std::process::Command;

use super::{answers, run};
use crate::error::{Service, ServiceError};

/// `None` where there is no Homebrew.
pub(super) fn install(service: Service) -> Option<Result<(), ServiceError>> {
    let formula = match service {
        Service::Postgres => "postgresql@17",
        Service::Nats => "nats-server",
    };
    answers("brew").then(|| run(Command::new("brew").args(["install", "--quiet", formula])))
}
