//! Looks now and then at what nobody counts as it happens: the outbox, connections, open snapshots.
//!
//! Place in the journey: beside it. One look costs one short query, however long the outbox is.

use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::metrics::{METRICS, OUTBOX_COUNTED_MAX};
use crate::pg::{query, words};

/// How often to look. Whoever watches asks less often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long Postgres may take to answer.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// Looks until `now` says that the server is gone: it gives the pool, and how many snapshots are open.
pub(crate) async fn observe(now: impl Fn() -> Option<(PgPool, usize)>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some((pool, snapshots_open)) = now() else { return };
        let idle = pool.num_idle();
        METRICS.pool_idle.set(as_value(idle));
        METRICS.pool_in_use.set((f64::from(pool.size()) - as_value(idle)).max(0.0));
        METRICS.snapshots_open.set(as_value(snapshots_open));
        match timeout(LOOK_WITHIN, outbox(&pool)).await {
            Ok(Ok((slices, oldest_seconds))) => {
                METRICS.outbox_slices.set(as_value(usize::try_from(slices).unwrap_or(0)));
                METRICS.outbox_oldest_seconds.set(oldest_seconds);
            }
            Ok(Err(error)) => tracing::debug!(error = words(&error), "cannot look at the outbox"),
            Err(_) => tracing::debug!(within = ?LOOK_WITHIN, "cannot look at the outbox in time"),
        }
        METRICS.tidy();
    }
}

fn as_value(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// How many slices wait, and for how many seconds the oldest has.
async fn outbox(pool: &PgPool) -> Result<(i64, f64), sqlx_core::Error> {
    let row = query(OUTBOX).bind(OUTBOX_COUNTED_MAX).fetch_one(pool).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The oldest slices, as far as they are counted.
pub(crate) const OUTBOX: &str = "/* observe.outbox */ \
    SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 \
    FROM (SELECT created_at FROM synchrotron.outbox ORDER BY id LIMIT $1) o";

#[cfg(test)]
mod tests {
    use sqlx_core::executor::Executor;

    use super::*;
    use crate::fixture;

    #[tokio::test]
    async fn the_outbox_is_counted_up_to_a_bound_and_its_oldest_slice_is_told() {
        let (pool, _) = fixture::database("observe").await;
        assert_eq!(outbox(&pool).await.expect("looks"), (0, 0.0));

        let fill = "INSERT INTO synchrotron.outbox (audience_key, prev, through, created_at)
            SELECT 'p', n, n + 1, now() - interval '1 hour' FROM generate_series(1, 10001) n";
        pool.execute(fill).await.expect("fills");
        let (slices, oldest_seconds) = outbox(&pool).await.expect("looks");
        assert_eq!(slices, OUTBOX_COUNTED_MAX);
        assert!((3_600.0..3_660.0).contains(&oldest_seconds), "{oldest_seconds}");
    }
}
