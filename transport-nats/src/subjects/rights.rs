//! What accounts and users may do, as lists of subjects.

use async_nats::Subject;

/// What the account of devices has of the account of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports {
    /// Subjects that devices publish to.
    pub services: Vec<Subject>,
    /// Subjects that devices hear.
    pub streams: Vec<Subject>,
}

/// What one user may do; nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Subjects that it may publish to.
    pub publish: Vec<Subject>,
    /// Subjects that it may subscribe to.
    pub subscribe: Vec<Subject>,
}
