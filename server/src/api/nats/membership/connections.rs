//! Who is connected, and with which rights, as NATS tells it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use synchrotron_core::model::UserId;

use crate::api::nats::callout::user_of_grant;

/// One connection, of any server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Connection {
    /// The NATS server that has it.
    pub(super) server: String,
    /// Its number there.
    pub(super) id: u64,
}

/// What a connection was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(super) user_id: UserId,
    /// Says the user, and the rights.
    pub(super) name: String,
}

/// All connections of devices.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    held: Mutex<BTreeMap<Connection, Granted>>,
}

impl Connections {
    /// A connection was made with rights of this name.
    pub(super) fn made(&self, connection: Connection, name: String) {
        match user_of_grant(&name) {
            Some(user_id) => drop(self.held().insert(connection, Granted { user_id, name })),
            None => tracing::warn!(name, "a connection in the account of devices that no server of ours let in"),
        }
    }

    pub(super) fn ended(&self, connection: &Connection) {
        self.held().remove(connection);
    }

    /// NATS listed those of one server; others of it are no more.
    pub(super) fn listed(&self, server: &str, listed: BTreeMap<u64, String>) {
        self.held().retain(|connection, _| connection.server != server || listed.contains_key(&connection.id));
        for (id, name) in listed {
            self.made(Connection { server: server.to_owned(), id }, name);
        }
    }

    pub(super) fn all(&self) -> BTreeMap<Connection, Granted> {
        self.held().clone()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Connection, Granted>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
