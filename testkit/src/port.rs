//! Ports that nobody listens on.

use std::net::{Ipv4Addr, TcpListener};

/// A TCP port of loopback that was free a moment ago.
///
/// Another program may take it before you do; who starts a server on it tries again with another.
///
/// # Panics
/// If the machine has no free port at all.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port of loopback")
        .port()
}
