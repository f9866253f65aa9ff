//! Rejections: kept with what they say, for when their batches come again.
//!
//! Place in the journey: before the commit of the transaction in which they were found. That a batch was accepted, the log
//! itself tells: its records are there, with their numbers, or their ids are remembered ([`super::known`]).

use sqlx_core::error::BoxDynError;
use sqlx_postgres::PgConnection;
use sqlx_postgres::types::PgRecordEncoder;
use synchrotron_core::wire::Outcome;

use super::Upload;
use crate::pg::{Composite, composites, query};

/// Uploads with the hashes of their contents and their outcomes.
#[derive(Debug, Default)]
pub(super) struct Answers<'u>(Vec<Answer<'u>>);

/// One of them.
#[derive(Debug)]
struct Answer<'u> {
    upload: &'u Upload,
    hash: [u8; 32],
    outcome: Vec<u8>,
}

impl<'u> Answers<'u> {
    /// One more.
    pub(super) fn add(&mut self, upload: &'u Upload, hash: &[u8; 32], outcome: &Outcome) {
        let outcome = rmp_serde::to_vec_named(outcome).expect("BUG: outcomes hold nothing that MessagePack cannot say");
        self.0.push(Answer { upload, hash: *hash, outcome });
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps them, as the server.
    pub(super) async fn store(&self, conn: &mut PgConnection) -> Result<(), sqlx_core::Error> {
        let storing = query(
            "/* answers.store */ INSERT INTO synchrotron.upload_outcomes (client_id, batch_id, user_id, content_hash, \
             outcome) SELECT * FROM unnest($1::synchrotron.new_answer[]) \
             ON CONFLICT (client_id, batch_id) DO UPDATE SET content_hash = excluded.content_hash, \
             outcome = excluded.outcome, created_at = now()",
        );
        storing.bind(composites(&self.0)).execute(conn).await.map(drop)
    }
}

impl Composite for &Answer<'_> {
    const TYPE: &'static str = "synchrotron.new_answer";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        row.encode(*self.upload.batch.client_id.as_uuid())?
            .encode(*self.upload.batch.batch_id.as_uuid())?
            .encode(self.upload.user_id.as_str())?
            .encode(self.hash.as_slice())?
            .encode(self.outcome.as_slice())?;
        Ok(())
    }
}
