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

/// Whoever is silent in so many lists in a row is no more: a server that was killed does not say so.
const SILENT_MAX: u32 = 5;

/// All connections of devices.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    held: BTreeMap<Connection, Granted>,
    /// In how many lists in a row a server that has some did not answer.
    silent: BTreeMap<String, u32>,
}

impl Connections {
    /// A connection was made with rights of this name.
    pub(super) fn made(&self, connection: Connection, name: String) {
        self.known().made(connection, name);
    }

    pub(super) fn ended(&self, connection: &Connection) {
        self.known().held.remove(connection);
    }

    /// These servers listed their connections; others of theirs are no more. Whether one that has some is silent.
    pub(super) fn listed(&self, listed: BTreeMap<String, BTreeMap<u64, String>>) -> bool {
        let mut known = self.known();
        known.count_silent(&listed);
        for (server, connections) in listed {
            known.held.retain(|held, _| held.server != server || connections.contains_key(&held.id));
            for (id, name) in connections {
                known.made(Connection { server: server.clone(), id }, name);
            }
        }
        !known.silent.is_empty()
    }

    pub(super) fn all(&self) -> BTreeMap<Connection, Granted> {
        self.known().held.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn made(&mut self, connection: Connection, name: String) {
        match user_of_grant(&name) {
            Some(user_id) => drop(self.held.insert(connection, Granted { user_id, name })),
            None => tracing::warn!(name, "a connection in the account of devices that no server of ours let in"),
        }
    }

    /// Counts lists without a server that has connections, and forgets one that was silent for too long.
    fn count_silent(&mut self, listed: &BTreeMap<String, BTreeMap<u64, String>>) {
        let missing =
            self.held.keys().map(|connection| &connection.server).filter(|server| !listed.contains_key(*server));
        let lists = |server: &String| self.silent.get(server).copied().unwrap_or(0) + 1;
        let mut silent: BTreeMap<String, u32> = missing.map(|server| (server.clone(), lists(server))).collect();
        self.held.retain(|connection, _| silent.get(&connection.server).is_none_or(|lists| *lists < SILENT_MAX));
        silent.retain(|_, lists| *lists < SILENT_MAX);
        self.silent = silent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(servers: &[(&str, &[u64])]) -> BTreeMap<String, BTreeMap<u64, String>> {
        let named = |ids: &[u64]| ids.iter().map(|id| (*id, "alice rights".to_owned())).collect();
        servers.iter().map(|(server, ids)| ((*server).to_owned(), named(ids))).collect()
    }

    fn held(connections: &Connections) -> Vec<(String, u64)> {
        connections.all().into_keys().map(|Connection { server, id }| (server, id)).collect()
    }

    #[test]
    fn a_list_is_all_that_a_server_has() {
        let connections = Connections::default();
        assert!(!connections.listed(listed(&[("A", &[1, 2]), ("B", &[1])])));
        assert!(!connections.listed(listed(&[("A", &[2, 3]), ("B", &[])])));
        assert_eq!(held(&connections), [("A".to_owned(), 2), ("A".to_owned(), 3)]);
    }

    #[test]
    fn a_server_that_stays_silent_is_no_more() {
        let connections = Connections::default();
        connections.listed(listed(&[("A", &[1]), ("B", &[7])]));
        for _ in 1..SILENT_MAX {
            assert!(connections.listed(listed(&[("B", &[7])])));
        }
        // One answer, and it is there.
        assert!(!connections.listed(listed(&[("A", &[1]), ("B", &[7])])));
        for _ in 1..SILENT_MAX {
            assert!(connections.listed(listed(&[("B", &[7])])));
            assert_eq!(held(&connections).len(), 2);
        }
        assert!(!connections.listed(listed(&[("B", &[7])])));
        assert_eq!(held(&connections), [("B".to_owned(), 7)]);
    }
}
