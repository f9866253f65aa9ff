//! What the client of NATS told of its connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{ClientError, ConnectErrorKind, Event, ServerError};
use synchrotron_core::network::{Carrier, NetworkError};
use tokio::sync::{broadcast, watch};

use super::ConnectionInfo;

/// What is known of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Whether it is up: NATS has answered on it.
    pub connected: bool,
    /// How often it came up.
    pub connects: u64,
    /// How often a message was dropped because nobody read it.
    pub overflows: u64,
}

/// NATS did not let this connection do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What it wanted to do.
    pub action: DeniedAction,
    /// Where.
    pub subject: String,
}

/// What a connection wanted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeniedAction {
    /// To send.
    Publish,
    /// To hear.
    Subscribe,
}

impl Denial {
    /// Reads `Permissions Violation for Subscription to "subject"`.
    fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("Permissions Violation for ")?;
        let (action, rest) = match rest.strip_prefix("Subscription to \"") {
            Some(rest) => (DeniedAction::Subscribe, rest),
            None => (DeniedAction::Publish, rest.strip_prefix("Publish to \"")?),
        };
        let (subject, _queue) = rest.split_once('"')?;
        Some(Self { action, subject: subject.to_owned() })
    }
}

/// Waits for a denial that `concerns` the caller.
pub(crate) async fn denied(denials: &mut broadcast::Receiver<Denial>, concerns: impl Fn(&Denial) -> bool) -> Denial {
    loop {
        match denials.recv().await {
            Ok(denial) if concerns(&denial) => return denial,
            // Too many at once: these were among them, or will be asked for again.
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// More denials than these at once are as good as these.
const DENIALS_WAITING_MAX: usize = 128;

/// A connection that the client says it has, or has lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) up: bool,
    /// How often it said that it had one.
    times: u64,
}

/// The link's account of the connection.
#[derive(Debug)]
pub(super) struct Told {
    /// What the client says. It is proved before it counts.
    pub(super) reported: watch::Sender<Reported>,
    pub(super) state: watch::Sender<LinkState>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) denials: broadcast::Sender<Denial>,
    refusal: Mutex<Option<NetworkError>>,
    info: Mutex<Arc<ConnectionInfo>>,
}

impl Told {
    pub(super) fn new() -> Self {
        let denials = broadcast::Sender::new(DENIALS_WAITING_MAX);
        Self {
            reported: watch::Sender::new(Reported::default()),
            state: watch::Sender::new(LinkState::default()),
            connected: watch::Sender::new(false),
            denials,
            refusal: Mutex::default(),
            info: Mutex::default(),
        }
    }

    /// Why there is no connection, if it is not that NATS is away.
    pub(super) fn refusal(&self) -> Option<NetworkError> {
        self.locked().clone()
    }

    pub(super) fn refused(&self, why: NetworkError) {
        *self.locked() = Some(why);
    }

    /// What NATS said of the connection that came up last.
    pub(super) fn info(&self) -> Arc<ConnectionInfo> {
        Arc::clone(&self.info.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// NATS has answered on this connection.
    pub(super) fn proved(&self, connection: Reported, info: ConnectionInfo) {
        // Held until the state says so: a loss that is reported meanwhile comes after it.
        let reported = self.reported.borrow();
        if *reported != connection {
            return;
        }
        *self.locked() = None;
        *self.info.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(info);
        self.state.send_modify(|state| {
            state.connected = true;
            state.connects += 1;
        });
        self.connected.send_replace(true);
    }

    fn locked(&self) -> MutexGuard<'_, Option<NetworkError>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, event: &Event) {
        match event {
            Event::Connected => self.report(true),
            Event::Disconnected | Event::Closed => self.report(false),
            Event::SlowConsumer(_) => self.state.send_modify(|state| state.overflows += 1),
            Event::ServerError(error) => self.take_error(error),
            Event::ClientError(ClientError::Other(error))
                if *error == ConnectErrorKind::AuthorizationViolation.to_string() =>
            {
                self.refuse_login();
            }
            Event::ClientError(error) => tracing::debug!(%error, "NATS client"),
            Event::LameDuckMode | Event::Draining => {}
        }
    }

    fn refuse_login(&self) {
        self.refused(NetworkError::Unauthenticated { carrier: Carrier::Nats });
        tracing::warn!("NATS refuses the connection");
    }

    fn take_error(&self, error: &ServerError) {
        let denial = match error {
            ServerError::AuthorizationViolation if !self.state.borrow().connected => return self.refuse_login(),
            ServerError::Other(text) => Denial::read(text),
            ServerError::AuthorizationViolation | ServerError::SlowConsumer(_) => None,
        };
        match denial {
            Some(denial) => {
                tracing::debug!(action = ?denial.action, subject = denial.subject, "NATS does not permit it");
                let _nobody_asked = self.denials.send(denial);
            }
            None => tracing::warn!(%error, "NATS refused something"),
        }
    }

    /// The client has another connection than before, or none.
    fn report(&self, up: bool) {
        self.reported.send_modify(|reported| {
            reported.up = up;
            reported.times += u64::from(up);
        });
        self.state.send_if_modified(|state| std::mem::take(&mut state.connected));
        self.connected.send_if_modified(std::mem::take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_read_from_what_the_server_says() {
        let denial = |action, subject: &str| Some(Denial { action, subject: subject.to_owned() });
        let read = Denial::read;
        assert_eq!(read(r#"Permissions Violation for Publish to "a.b""#), denial(DeniedAction::Publish, "a.b"));
        let queued = r#"Permissions Violation for Subscription to "a" using queue "q""#;
        assert_eq!(read(queued), denial(DeniedAction::Subscribe, "a"));
        for other in ["", "User Authentication Expired", "Permissions Violation for Publish to a.b"] {
            assert_eq!(read(other), None);
        }
    }
}
