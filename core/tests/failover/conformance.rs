//! What every network owes a device, with a preferred carrier that is away, or loses what it was told.

use std::sync::Arc;

use async_trait::async_trait;
use synchrotron_core::model::{AudienceKey, ClientId, Columns, RowKey, UserId};
use synchrotron_core::network::memory::MemoryServer;
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Failover, Network, NetworkError};

use crate::scene::{PAUSES, server};

/// Connects every device twice; the preferred carrier is away, or loses each device's first outcome.
struct Fixture {
    server: MemoryServer,
    preferred_away: bool,
}

#[async_trait]
impl NetworkFixture for Fixture {
    async fn connect(&self, user: &UserId, _client_id: ClientId) -> Result<Arc<dyn Network>, NetworkError> {
        let (first, second) = (self.server.connect(user.clone()), self.server.connect(user.clone()));
        first.set_online(!self.preferred_away);
        first.lose_next_outcome();
        Ok(Arc::new(Failover::with_pauses(vec![Arc::new(first), Arc::new(second)], PAUSES)))
    }

    async fn allow(&self, user: &UserId, audience: &AudienceKey) {
        self.server.allow(user, audience);
    }

    async fn server_row(&self, row: &RowKey) -> Option<Columns> {
        self.server.rows(&row.table).remove(&row.row_id).map(|row| row.columns)
    }
}

mod preferred_carrier_loses_an_outcome {
    use super::*;
    synchrotron_core::network_suite!(Fixture { server: server(), preferred_away: false });
}

mod preferred_carrier_is_away {
    use super::*;
    synchrotron_core::network_suite!(Fixture { server: server(), preferred_away: true });
}
