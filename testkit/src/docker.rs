//! Services in containers, where Docker's daemon answers.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testcontainers::core::{ContainerPort, IntoContainerPort};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt, TestcontainersError};

use crate::error::{Attempt, ServiceError};
use crate::watchdog::Watchdog;

/// Where nats-server listens inside its container.
pub(crate) const NATS_PORT: u16 = 4222;
const POSTGRES_PORT: u16 = 5432;
/// The newest 2.x: any since 2.12 will do.
const NATS_IMAGE: (&str, &str) = ("nats", "2");
const POSTGRES_IMAGE: (&str, &str) = ("postgres", "17");
const NATS_CONFIG: &str = "/synchrotron.conf";
/// A daemon on this machine answers at once; a dead one must not hold up every test run.
const DAEMON_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";

/// A container, removed when dropped and when the program ends.
#[derive(Debug)]
pub(crate) struct Container {
    container: ContainerAsync<GenericImage>,
    host: String,
    port: u16,
    watchdog: Mutex<Watchdog>,
}

impl Container {
    /// The machine that its port is published on.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Its published port, the same after a restart.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Ends its server at once; what it wrote stays.
    pub(crate) async fn kill(&self) -> Result<(), ServiceError> {
        self.container.stop_with_timeout(Some(0)).await.map_err(refused("stop a container"))
    }

    /// Starts its server again.
    pub(crate) async fn restart(&self) -> Result<(), ServiceError> {
        self.kill().await?;
        self.container.start().await.map_err(refused("start a container"))
    }

    async fn start(request: ContainerRequest<GenericImage>, port: u16) -> Result<Self, ServiceError> {
        let container = request.start().await.map_err(refused("run a container"))?;
        let watchdog = Mutex::new(Watchdog::over_container(container.id())?);
        let host = container.get_host().await.map_err(refused("tell its host"))?.to_string();
        Ok(Self { container, host, port, watchdog })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let watchdog = self.watchdog.get_mut().unwrap_or_else(PoisonError::into_inner);
        watchdog.let_go();
        watchdog.wait();
    }
}

/// Runs nats-server with this configuration.
pub(crate) async fn start_nats(port: u16, config: String) -> Result<Container, ServiceError> {
    let request = image(NATS_IMAGE, port, NATS_PORT.tcp())
        .with_copy_to(NATS_CONFIG, config.into_bytes())
        .with_cmd(["--config", NATS_CONFIG]);
    Container::start(request, port).await
}

/// Runs Postgres with these settings.
pub(crate) async fn start_postgres(port: u16, settings: &[&str]) -> Result<Container, ServiceError> {
    let arguments = settings.iter().flat_map(|setting| ["-c", setting]);
    let request = image(POSTGRES_IMAGE, port, POSTGRES_PORT.tcp())
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
        .with_cmd(std::iter::once("postgres").chain(arguments));
    Container::start(request, port).await
}

fn image((name, tag): (&str, &str), port: u16, inside: ContainerPort) -> ContainerRequest<GenericImage> {
    GenericImage::new(name, tag).with_mapped_port(port, inside)
}

fn refused(call: &'static str) -> impl FnOnce(TestcontainersError) -> ServiceError {
    move |source| ServiceError::Docker { call, source }
}

/// Whether a daemon answers a ping.
pub(crate) fn find_daemon() -> Result<(), Attempt> {
    let place = "Docker";
    let absent = |found: String| Attempt { place, found };
    let address = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let pong = match address.split_once("://") {
        Some(("unix", path)) => ping_socket(&PathBuf::from(path)),
        Some((_, host)) => ping_host(host),
        None => return Err(absent(format!("DOCKER_HOST is no URL: {address}"))),
    };
    match pong {
        Ok(true) => Ok(()),
        Ok(false) => Err(absent(format!("what listens at {address} is no Docker"))),
        Err(error) => Err(absent(format!("no daemon at {address}: {error}"))),
    }
}

fn ping_socket(path: &std::path::Path) -> std::io::Result<bool> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(DAEMON_ANSWERS_WITHIN))?;
    ping(stream)
}

fn ping_host(host: &str) -> std::io::Result<bool> {
    let address = host.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&address, DAEMON_ANSWERS_WITHIN)?;
    stream.set_read_timeout(Some(DAEMON_ANSWERS_WITHIN))?;
    ping(stream)
}

fn ping(mut stream: impl Read + Write) -> std::io::Result<bool> {
    stream.write_all(PING)?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_daemon_is_a_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docker.sock");
        assert!(ping_socket(&path).is_err());
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        let daemon = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 200 OK\r\n\r\nOK", "HTTP/1.1 404 Not Found\r\n\r\n"] {
                let (mut stream, _) = listener.accept().expect("accepts");
                let mut request = [0; PING.len()];
                stream.read_exact(&mut request).expect("reads");
                stream.write_all(answer.as_bytes()).expect("writes");
            }
        });
        assert!(ping_socket(&path).expect("answers"));
        assert!(!ping_socket(&path).expect("answers"));
        daemon.join().expect("ends");
    }
}
