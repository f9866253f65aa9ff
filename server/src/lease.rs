//! Leases in Postgres: which process does which part of some work that one alone should do.
//!
//! Place in the journey: beside it; the readers of uploads share their partitions by it. Every process that takes part
//! says so at each round. The parts are dealt out evenly, by the order of the holders' ids, so that each process computes
//! the same shares; who holds more than its share gives the rest back, and who holds less takes what is free.
//!
//! # Invariants
//! - Time is Postgres's. A holder counts its own from before it asked, so that it stops believing before Postgres does.
//! - A part has one holder at a time, as far as its holder stops in time. Who does not, works twice: work under a lease is
//!   idempotent.
//! - A holder that ends without a word loses its parts when they expire; one that leaves gives them back at once.
//!
//! Tests: below, over a real Postgres.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::types::PgInterval;
use sqlx_postgres::{PgConnection, PgPool};
use uuid::Uuid;

use crate::pg::{query, unreadable};

/// One of the parts of some work, counted from 0.
pub(crate) type Part = u16;

/// This process's part in sharing some work.
#[derive(Debug)]
pub(crate) struct Leases {
    pool: PgPool,
    work: String,
    parts: u16,
    holder: Uuid,
    lasting: PgInterval,
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    /// The parts that this process holds.
    pub(crate) held: BTreeSet<Part>,
    /// How many it should hold.
    pub(crate) share: usize,
}

impl Leases {
    /// Leases on the parts of `work`, each for as long as `lasting` after it was renewed.
    pub(crate) fn new(pool: PgPool, work: String, parts: u16, lasting: Duration) -> Self {
        let microseconds = i64::try_from(lasting.as_micros()).unwrap_or(i64::MAX);
        let lasting = PgInterval { months: 0, days: 0, microseconds };
        Self { pool, work, parts, holder: Uuid::new_v4(), lasting }
    }

    /// Takes part: renews what is held, and takes what is free of this process's share.
    pub(crate) async fn round(&self) -> Result<Round, sqlx_core::Error> {
        let mut conn = self.pool.acquire().await?;
        let share = self.attend(&mut conn).await?;
        let renewed = query(RENEW).bind(&self.work).bind(self.holder).bind(self.lasting).fetch_all(&mut *conn).await?;
        let mut held = renewed.iter().map(part_of).collect::<Result<BTreeSet<_>, _>>()?;
        if held.len() < share {
            let missing = i64::try_from(share - held.len()).unwrap_or(i64::MAX);
            let take = query(TAKE)
                .bind(&self.work)
                .bind(self.holder)
                .bind(self.lasting)
                .bind(i32::from(self.parts))
                .bind(missing);
            for row in take.fetch_all(&mut *conn).await? {
                held.insert(part_of(&row)?);
            }
        }
        Ok(Round { held, share })
    }

    /// Says that this process takes part; its share.
    async fn attend(&self, conn: &mut PgConnection) -> Result<usize, sqlx_core::Error> {
        query(ATTEND).bind(&self.work).bind(self.holder).bind(self.lasting).execute(&mut *conn).await?;
        let row = query(OTHERS).bind(&self.work).bind(self.holder).fetch_one(conn).await?;
        let (others, before): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (holders, parts) = (others + 1, i64::from(self.parts));
        let share = parts / holders + i64::from(before < parts % holders);
        Ok(usize::try_from(share).unwrap_or(0))
    }

    /// Lets others have these parts.
    pub(crate) async fn give_back(&self, parts: &BTreeSet<Part>) -> Result<(), sqlx_core::Error> {
        let parts: Vec<i32> = parts.iter().map(|part| i32::from(*part)).collect();
        query(GIVE_BACK).bind(&self.work).bind(self.holder).bind(parts).execute(&self.pool).await.map(drop)
    }

    /// Takes no more part; others may have all that was held.
    pub(crate) async fn leave(&self) -> Result<(), sqlx_core::Error> {
        let all: BTreeSet<Part> = (0..self.parts).collect();
        self.give_back(&all).await?;
        query(LEAVE).bind(&self.work).bind(self.holder).execute(&self.pool).await.map(drop)
    }
}

fn part_of(row: &sqlx_postgres::PgRow) -> Result<Part, sqlx_core::Error> {
    let part: i32 = row.try_get(0)?;
    Part::try_from(part).map_err(unreadable)
}

const ATTEND: &str = "/* lease.attend */ INSERT INTO synchrotron.lease_holders AS h (work, holder, expires_at) \
    VALUES ($1, $2, clock_timestamp() + $3) \
    ON CONFLICT (work, holder) DO UPDATE SET expires_at = excluded.expires_at";

/// Who ended without a word is forgotten by the way.
const OTHERS: &str = "/* lease.others */ WITH gone AS (DELETE FROM synchrotron.lease_holders \
        WHERE work = $1 AND holder <> $2 AND expires_at < clock_timestamp()) \
    SELECT count(*), count(*) FILTER (WHERE holder < $2) FROM synchrotron.lease_holders \
    WHERE work = $1 AND holder <> $2 AND expires_at >= clock_timestamp()";

/// Also what has expired, as long as nobody else has taken it.
const RENEW: &str = "/* lease.renew */ UPDATE synchrotron.leases SET expires_at = clock_timestamp() + $3 \
    WHERE work = $1 AND holder = $2 AND expires_at > '-infinity' RETURNING part";

const TAKE: &str = "/* lease.take */ INSERT INTO synchrotron.leases AS l (work, part, holder, expires_at) \
    SELECT $1, p, $2, clock_timestamp() + $3 FROM generate_series(0, $4 - 1) AS p \
    WHERE NOT EXISTS (SELECT FROM synchrotron.leases t \
        WHERE t.work = $1 AND t.part = p AND t.expires_at >= clock_timestamp()) \
    ORDER BY p LIMIT $5 \
    ON CONFLICT (work, part) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at, term = l.term + 1 \
        WHERE l.expires_at < clock_timestamp() \
    RETURNING part";

const GIVE_BACK: &str = "/* lease.give_back */ UPDATE synchrotron.leases SET expires_at = '-infinity' \
    WHERE work = $1 AND holder = $2 AND part = ANY($3)";

const LEAVE: &str = "/* lease.leave */ DELETE FROM synchrotron.lease_holders WHERE work = $1 AND holder = $2";

#[cfg(test)]
mod tests {
    use sqlx_core::executor::Executor;
    use sqlx_core::pool::PoolOptions;
    use sqlx_core::sql_str::AssertSqlSafe;
    use sqlx_postgres::Postgres;
    use synchrotron_testkit::wait_for;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(600);

    async fn pool() -> PgPool {
        let postgres = synchrotron_testkit::postgres().await.expect("postgres");
        let url = postgres.create_database("leases").await.expect("a database");
        let pool = PoolOptions::<Postgres>::new().max_connections(4).connect(&url).await.expect("connects");
        pool.execute("CREATE SCHEMA synchrotron").await.expect("a schema");
        pool.execute(include_str!("../migrations/0011_leases.sql")).await.expect("the tables");
        pool
    }

    fn leases(pool: &PgPool, parts: u16, lasting: Duration) -> Leases {
        Leases::new(pool.clone(), "test".to_owned(), parts, lasting)
    }

    /// Rounds of all, each giving back what is too much, until nothing changes hands.
    async fn settled(all: &[&Leases]) -> Vec<BTreeSet<Part>> {
        for _ in 0..4 {
            for one in all {
                let Round { held, share } = one.round().await.expect("a round");
                let surplus: BTreeSet<Part> = held.into_iter().skip(share).collect();
                one.give_back(&surplus).await.expect("gives back");
            }
        }
        let mut held = Vec::new();
        for one in all {
            held.push(one.round().await.expect("a round").held);
        }
        held
    }

    #[tokio::test]
    async fn parts_are_dealt_out_evenly_and_each_has_one_holder() {
        let pool = pool().await;
        for parts in [1, 2, 5, 8] {
            pool.execute("TRUNCATE synchrotron.leases, synchrotron.lease_holders").await.expect("empties");
            let (a, b, c) = (leases(&pool, parts, LONG), leases(&pool, parts, LONG), leases(&pool, parts, LONG));
            for all in [&[&a][..], &[&a, &b], &[&a, &b, &c]] {
                let held = settled(all).await;
                let everything: BTreeSet<Part> = held.iter().flatten().copied().collect();
                assert_eq!(everything.len(), usize::from(parts), "none is left: {held:?}");
                assert_eq!(
                    held.iter().map(BTreeSet::len).sum::<usize>(),
                    usize::from(parts),
                    "none is shared: {held:?}"
                );
                let lengths = held.iter().map(BTreeSet::len);
                let (least, most) = (lengths.clone().min(), lengths.max());
                assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{held:?}");
            }
            a.leave().await.expect("leaves");
            let held = settled(&[&b, &c]).await;
            assert_eq!(held.iter().map(BTreeSet::len).sum::<usize>(), usize::from(parts), "at once: {held:?}");
        }
    }

    #[tokio::test]
    async fn what_a_killed_holder_had_is_taken_when_it_expires_and_not_before() {
        let pool = pool().await;
        let killed = leases(&pool, 3, Duration::from_millis(700));
        assert_eq!(killed.round().await.expect("a round").held.len(), 3);
        let heir = leases(&pool, 3, LONG);
        let first = heir.round().await.expect("a round");
        assert!(first.held.is_empty() && first.share < 3, "{first:?}");
        let taken = wait_for("all parts", PATIENCE, async || {
            let round = heir.round().await.expect("a round");
            (round.held.len() == 3).then_some(())
        });
        taken.await.expect("taken over");
        // It comes back to life, and is no holder any more.
        assert_eq!(killed.round().await.expect("a round").held.len(), 0);
        let terms = "SELECT DISTINCT term FROM synchrotron.leases";
        let terms = pool.fetch_all(AssertSqlSafe(terms.to_owned())).await.expect("reads");
        assert_eq!(terms.iter().map(|row| row.get::<i64, _>(0)).collect::<Vec<_>>(), [2]);
    }

    #[tokio::test]
    async fn many_that_begin_at_once_share_without_overlap() {
        let pool = pool().await;
        let all: Vec<Leases> = (0..4).map(|_| leases(&pool, 8, LONG)).collect();
        let rounds = futures::future::join_all(all.iter().map(Leases::round)).await;
        let held: Vec<Part> = rounds.into_iter().flat_map(|round| round.expect("a round").held).collect();
        assert_eq!(held.len(), held.iter().collect::<BTreeSet<_>>().len(), "{held:?}");
        let refs: Vec<&Leases> = all.iter().collect();
        assert!(settled(&refs).await.iter().all(|held| held.len() == 2));
    }
}
