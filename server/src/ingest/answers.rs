//! Answers that bind: kept with what they say, for when their batches come again.
//!
//! Place in the journey: in the transaction that they tell of. What is accepted is kept by [`super::append`] with the
//! records themselves; what is rejected, before the commit.

use sqlx_core::query::Query;
use sqlx_postgres::{PgArguments, PgConnection, Postgres};
use synchrotron_core::wire::Outcome;
use uuid::Uuid;

use super::Upload;
use crate::pg::query;

/// Uploads with the hashes of their contents and their outcomes.
#[derive(Debug, Default)]
pub(super) struct Answers<'u> {
    clients: Vec<Uuid>,
    batches: Vec<Uuid>,
    users: Vec<&'u str>,
    hashes: Vec<Vec<u8>>,
    outcomes: Vec<Vec<u8>>,
}

impl<'u> Answers<'u> {
    /// One more.
    pub(super) fn add(&mut self, upload: &'u Upload, hash: &[u8; 32], outcome: &Outcome) {
        self.clients.push(*upload.batch.client_id.as_uuid());
        self.batches.push(*upload.batch.batch_id.as_uuid());
        self.users.push(upload.user_id.as_str());
        self.hashes.push(hash.to_vec());
        let encoded = rmp_serde::to_vec_named(outcome);
        self.outcomes.push(encoded.expect("BUG: outcomes hold nothing that MessagePack cannot say"));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Binds them as the next five parameters.
    pub(super) fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query.bind(&self.clients).bind(&self.batches).bind(&self.users).bind(&self.hashes).bind(&self.outcomes)
    }

    /// Keeps them, as the server.
    pub(super) async fn store(&self, conn: &mut PgConnection) -> Result<(), sqlx_core::Error> {
        let storing = query(
            "/* answers.store */ INSERT INTO synchrotron.upload_outcomes (client_id, batch_id, user_id, content_hash, \
             outcome) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::bytea[]) \
             ON CONFLICT (client_id, batch_id) DO UPDATE SET content_hash = excluded.content_hash, \
             outcome = excluded.outcome, created_at = now()",
        );
        self.bind(storing).execute(conn).await.map(drop)
    }
}
