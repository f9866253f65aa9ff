//! The binary: arguments in, a server out, and a tidy end.

mod args;

use std::process::ExitCode;

use clap::Parser;
use synchrotron_server::{RunningServer, Server, telemetry};

#[tokio::main]
async fn main() -> ExitCode {
    let args = args::Args::parse();
    let _telemetry = match telemetry::init(args.otlp_endpoint.as_deref()) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("the server does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = match args.into_settings() {
        Ok(settings) => Server::start(settings).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    match started {
        Ok(server) => serve(server).await,
        Err(error) => {
            tracing::error!(%error, "the server does not start");
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is told to stop, or cannot go on.
async fn serve(mut server: RunningServer) -> ExitCode {
    tokio::select! {
        () = told_to_stop() => {
            tracing::info!("stops");
            server.shutdown().await;
            ExitCode::SUCCESS
        }
        task = server.failed() => {
            tracing::error!(?task, "a task has ended that should not");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or what a supervisor sends.
async fn told_to_stop() {
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C is not heard");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM is not heard");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
