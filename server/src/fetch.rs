//! Cursors → the records after them, under the user's Row Level Security, in one consistent read.
//!
//! Place in the journey: `fetch` of a device, also how it repairs a gap in its live stream.
//!
//! # Invariants
//! - A page holds records in order of number; what its cursors cover is complete for their audiences.
//! - Its cursors are exactly the user's audiences, and never behind the request's.
//! - It holds only rows of the user's audiences, by the query and once more by policy.
//!
//! Cost: what the page holds, whatever the log's size.

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgPool};
use synchrotron_core::model::{AudienceKey, ClientId, Cursor, Cursors, UserId};
use synchrotron_core::wire::{AudienceHead, Fault, FaultCode, FetchPage, FetchRequest};

use crate::audiences::named;
use crate::metrics::METRICS;
use crate::pg::{Acting, Actor, query, read_log};
use crate::read::{self, ReadError};
use crate::settings::Settings;

/// The most records of one page, however small they are.
const PAGE_RECORDS_MAX: usize = 1_000;

/// One page of what the user's device has not seen.
pub(crate) async fn fetch(
    pool: &PgPool,
    settings: &Settings,
    user_id: &UserId,
    request: &FetchRequest,
) -> Result<FetchPage, ReadError> {
    let mut tx = read::begin(pool).await?;
    let epoch = read::admit(&mut tx, user_id, request.client_id, request.epoch).await?;
    let heads = audience_heads(&mut tx, user_id, request.client_id).await?;
    check_retained(&heads, &request.cursors)?;
    if heads.iter().any(|head| request.cursors.get(&head.audience_key).is_some_and(|cursor| *cursor > head.head)) {
        let client = request.client_id;
        tracing::warn!(%client, "a device knows of records that are not here: was a backup restored without a new epoch?");
    }
    let mut actor = Actor::introduce(&mut tx, user_id, &settings.app_role);
    actor.act_as(Acting::User).await?;
    let page = choose(actor.conn, &heads, &request.cursors, settings.page_bytes_max).await?;
    let audiences: Vec<String> = heads.iter().map(|head| head.audience_key.to_string()).collect();
    let records = read_log(actor.conn, &page.numbers, &audiences).await?;
    tx.commit().await?;
    METRICS.fetched_bytes.increment(page.bytes as u64);

    let cursors = heads.into_iter().map(|AudienceHead { audience_key, head, .. }| {
        let had = request.cursors.get(&audience_key).copied().unwrap_or_default().min(head);
        let reached = if page.more { head.min(Cursor::new(page.last())).max(had) } else { head };
        (audience_key, reached)
    });
    Ok(FetchPage { epoch, records, cursors: cursors.collect(), more: page.more })
}

/// A user's audiences with their heads and what a device may lack of them, in byte order; read as the server.
pub(crate) async fn audience_heads(
    conn: &mut PgConnection,
    user_id: &UserId,
    client_id: ClientId,
) -> Result<Vec<AudienceHead>, sqlx_core::Error> {
    let rows = query(
        "/* heads */ SELECT a.audience_key, coalesce(h.head, 0), coalesce(synchrotron.retained_for(h, $2), 0) \
         FROM synchrotron.audiences_of($1) AS a(audience_key) \
         LEFT JOIN synchrotron.audience_heads h ON h.audience_key = a.audience_key \
         WHERE a.audience_key IS NOT NULL ORDER BY a.audience_key COLLATE \"C\"",
    )
    .bind(user_id.as_str())
    .bind(*client_id.as_uuid())
    .fetch_all(conn)
    .await?;
    let mut heads = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(audience_key) = named(row.try_get(0)?) else { continue };
        let (head, retained) = (Cursor::new(row.try_get(1)?), Cursor::new(row.try_get(2)?));
        heads.push(AudienceHead { audience_key, head, retained });
    }
    Ok(heads)
}

/// What is compacted away cannot be fetched: a device that may lack it takes a snapshot.
fn check_retained(heads: &[AudienceHead], cursors: &Cursors) -> Result<(), Fault> {
    let cursor = |head: &AudienceHead| cursors.get(&head.audience_key).copied().unwrap_or_default();
    match heads.iter().find(|head| cursor(head) < head.retained) {
        Some(head) => {
            let (audience_key, retained, cursor) = (&head.audience_key, head.retained, cursor(head));
            let fact =
                format!("records of {audience_key} through {retained} are compacted away, the cursor is {cursor}");
            Err(Fault::new(FaultCode::Compacted, fact))
        }
        None => Ok(()),
    }
}

/// Which records a page holds.
struct Choice {
    numbers: Vec<i64>,
    /// The encoded size of their records.
    bytes: usize,
    more: bool,
}

impl Choice {
    fn last(&self) -> i64 {
        self.numbers.last().copied().unwrap_or(0)
    }
}

async fn choose(
    conn: &mut PgConnection,
    heads: &[AudienceHead],
    cursors: &Cursors,
    bytes_max: usize,
) -> Result<Choice, sqlx_core::Error> {
    let had = |key: &AudienceKey| cursors.get(key).copied().unwrap_or_default();
    let behind: Vec<&AudienceHead> = heads.iter().filter(|head| head.head > had(&head.audience_key)).collect();
    let limit = i64::try_from(PAGE_RECORDS_MAX + 1).expect("BUG: the bound is small");
    let rows = query(PAGE)
        .bind(behind.iter().map(|head| head.audience_key.as_str()).collect::<Vec<_>>())
        .bind(behind.iter().map(|head| had(&head.audience_key).get()).collect::<Vec<_>>())
        .bind(limit)
        .fetch_all(conn)
        .await?;
    let mut choice = Choice { numbers: Vec::new(), bytes: 0, more: false };
    for row in &rows {
        let bytes = choice.bytes + usize::try_from(row.try_get::<i32, _>(1)?).unwrap_or(0);
        let full = choice.numbers.len() == PAGE_RECORDS_MAX || bytes > bytes_max;
        if full && !choice.numbers.is_empty() {
            choice.more = true;
            break;
        }
        choice.bytes = bytes;
        choice.numbers.push(row.try_get(0)?);
    }
    Ok(choice)
}

/// The next records of these audiences, with their sizes.
pub(crate) const PAGE: &str = "/* fetch.page */ SELECT DISTINCT r.server_ingest_id, r.byte_count \
    FROM unnest($1::text[], $2::bigint[]) AS c(audience_key, cursor) \
    CROSS JOIN LATERAL (SELECT a.server_ingest_id FROM synchrotron.action_audiences a \
        WHERE a.audience_key = c.audience_key AND a.server_ingest_id > c.cursor \
        ORDER BY a.server_ingest_id LIMIT $3) p \
    JOIN synchrotron.action_records r ON r.server_ingest_id = p.server_ingest_id \
    ORDER BY r.server_ingest_id LIMIT $3";
