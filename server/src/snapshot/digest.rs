//! The rows of audiences in a few bytes each: the same rows, in the same form, as a snapshot would bring.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx_postgres::PgPool;
use synchrotron_core::model::{RowKey, RowsDigest, UserId};
use synchrotron_core::wire::{AudienceDigest, DigestReply, DigestRequest};

use super::header;
use super::rows::Rows;
use crate::materialize::{Catalogue, FORMS};
use crate::pg::{Acting, Actor, query};
use crate::read::{self, ReadError};
use crate::settings::Settings;

/// Digests in one consistent read. A few rows at a time are here, however many there are.
pub(super) async fn digest(
    pool: &PgPool,
    settings: &Settings,
    catalogue: &Arc<Catalogue>,
    user_id: &UserId,
    request: &DigestRequest,
) -> Result<DigestReply, ReadError> {
    let mut tx = read::begin(pool).await?;
    let epoch = read::admit(&mut tx, user_id, request.client_id, request.epoch).await?;
    let found = header::audiences(&mut tx, user_id, &request.audiences).await?;
    Actor::introduce(&mut tx, user_id, &settings.app_role).act_as(Acting::User).await?;
    query(FORMS).execute(&mut *tx).await?;
    let mut rows = Rows::new(Arc::clone(catalogue), found.iter().map(|audience| &audience.audience_key));
    let empty = |head| AudienceDigest { head, rows: 0, digest: RowsDigest::default() };
    let mut audiences: BTreeMap<_, _> =
        found.into_iter().map(|audience| (audience.audience_key, empty(audience.cursor))).collect();
    loop {
        let page = rows.next(&mut tx).await?;
        if page.is_empty() {
            break;
        }
        for (row, _) in page {
            let audience = audiences.get_mut(&row.audience_key).expect("BUG: only these audiences were asked for");
            audience.rows += 1;
            audience.digest.add(&RowKey { table: row.table, row_id: row.row_id }, &row.columns);
        }
    }
    tx.commit().await?;
    Ok(DigestReply { epoch, audiences })
}
