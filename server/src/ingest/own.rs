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
use synchrotron_core::model::{AudienceKey, ClientId, UserId};
use synchrotron_core::wire::UploadRecord;
use uuid::Uuid;

use super::append::{self, Author};
use super::gate::{self, LockedHeads};
use super::validate::{Measured, measure_record};
use crate::settings::HeadGate;

/// The device that the server's own records name; the migrations reserve it.
const OWN_CLIENT: ClientId = ClientId::from_uuid(Uuid::nil());

/// The user that they name.
const OWN_USER: &str = "_server";

/// Locks the heads of audiences that are about to be written, until the transaction ends.
pub(crate) async fn lock_audiences(
    conn: &mut PgConnection,
    touched: &BTreeSet<&AudienceKey>,
) -> Result<LockedHeads, sqlx_core::Error> {
    gate::lock_heads(conn, HeadGate::Touched, touched, &BTreeSet::new()).await
}

/// Appends records to audiences that are locked.
pub(crate) async fn append_own(
    conn: &mut PgConnection,
    records: &[UploadRecord],
    heads: &LockedHeads,
) -> Result<(), sqlx_core::Error> {
    let user_id = UserId::new(OWN_USER).expect("BUG: the server's own name is a user id");
    let measured: Vec<Measured<'_>> = records.iter().map(|record| measure_record(OWN_CLIENT, record)).collect();
    let author = Author { client_id: OWN_CLIENT, user_id: &user_id };
    append::append(conn, author, &Vec::from_iter(&measured), heads).await.map(drop)
}
