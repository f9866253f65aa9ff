//! Records of the server itself: what no device uploaded takes its place in the log like any upload.
//!
//! Place in the journey: beneath [`capture`](crate::capture), which has the heads locked here, makes records of what it
//! finds, and has them appended in the same transaction.
//!
//! # Invariants
//! - No gate and no policy: the rows are in their tables already.
//! - Their device belongs to nobody, so to every device they are somebody else's.

use std::collections::BTreeSet;

use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, ClientId, Patch, RowKey, UserId};
use synchrotron_core::wire::UploadRecord;
use uuid::Uuid;

use super::append;
use super::gate::LockedHeads;
use super::new_rows::Author;
use super::validate::{Measured, measure_record};
use crate::materialize::{Catalogue, keep_older, newest_positions};

/// The device that the server's own records name; the migrations reserve it.
const OWN_CLIENT: ClientId = ClientId::from_uuid(Uuid::nil());

/// The user that they name. No token can.
pub(crate) const OWN_USER: &str = "_server";

/// Locks the heads of audiences that are about to be written by so many records at most, until the transaction ends.
pub(crate) async fn lock_audiences(
    conn: &mut PgConnection,
    touched: &BTreeSet<&AudienceKey>,
    records_max: usize,
) -> Result<LockedHeads, sqlx_core::Error> {
    LockedHeads::lock(conn, touched, records_max).await
}

/// Appends records to audiences that are locked. What of their rows is older than the log is kept first.
pub(crate) async fn append_own(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    records: &[UploadRecord],
    heads: &LockedHeads,
) -> Result<(), sqlx_core::Error> {
    let user_id = UserId::new(OWN_USER).expect("BUG: the server's own name is a user id");
    let author = Author { client_id: OWN_CLIENT, user_id: &user_id };
    let measured: Vec<Measured<'_>> = records.iter().map(|record| measure_record(OWN_CLIENT, record)).collect();
    let rows: BTreeSet<RowKey> = records.iter().flat_map(|record| &record.rows).map(Patch::row_key).collect();
    let newest = newest_positions(conn, &Vec::from_iter(rows)).await?;
    keep_older(conn, catalogue, &newest, records.iter()).await?;
    let all: Vec<_> = measured.iter().map(|record| (author, record)).collect();
    append::append(conn, &all, heads).await.map(drop)
}
