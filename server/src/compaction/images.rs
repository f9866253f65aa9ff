//! What must be left of rows when some of their effects go.
//!
//! # Invariants
//! - A row of which effects stay gets a final image at the newest position of those that go. Effects beneath that position
//!   that stay are in the image too: nothing can come or change there any more.
//! - A row of which none stays needs no image while it is there: the table has it. One that is gone keeps a final image
//!   that says so, for as long as ids are kept, so that nobody makes it again beneath its end.
//! - Beneath a final image there is no other.

use std::collections::{BTreeMap, BTreeSet};

use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{ActionId, ClientId, Hlc, ReplayKey, RowId, RowKey, TableName};
use uuid::Uuid;

use crate::materialize::{Catalogue, Image, Logged, Table, fold_row, logged_of};
use crate::pg::{Positions, StoredFormError, encode_columns, position_of, query};

/// A row that loses effects.
#[derive(Debug)]
struct Cut {
    key: RowKey,
    /// The newest of those that go.
    position: ReplayKey,
    /// Whether any stay.
    stays: bool,
    /// Where its final image is so far.
    last: Option<ReplayKey>,
    /// Its newest image at or beneath the position.
    image: Option<Image>,
}

impl Cut {
    /// Whether its final image says all that there is to say.
    fn is_covered(&self) -> bool {
        self.last.is_some_and(|last| self.position <= last)
    }

    /// Through where its images are of no more use.
    fn through(&self) -> ReplayKey {
        self.last.map_or(self.position, |last| self.position.max(last))
    }
}

/// Writes and drops the images of all rows that these records have effects on; call it before they are deleted. Returns
/// how many images were written.
pub(super) async fn settle(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    records: &[Uuid],
) -> Result<u64, sqlx_core::Error> {
    let mut cuts = read_cuts(conn, records).await?;
    let present = present_rows(conn, catalogue, &cuts).await?;
    cuts.retain(|cut| !cut.is_covered() || (!cut.stays && present.contains(&cut.key)));
    let staying: Vec<&Cut> = cuts.iter().filter(|cut| cut.stays).collect();
    let mut logged = read_effects(conn, &staying).await?;
    let mut images: Vec<(&RowKey, Image)> = Vec::new();
    for cut in &cuts {
        if cut.stays {
            let base = cut.image.as_ref().and_then(|image| image.row.clone());
            let effects = logged.remove(&cut.key).unwrap_or_default();
            images.push((&cut.key, Image { position: cut.position, row: fold_row(base, &effects).row }));
        } else if !present.contains(&cut.key) {
            images.push((&cut.key, Image { position: cut.position, row: None }));
        }
    }
    forget(conn, &cuts).await?;
    write(conn, &images).await?;
    Ok(images.len() as u64)
}

async fn read_cuts(conn: &mut PgConnection, records: &[Uuid]) -> Result<Vec<Cut>, sqlx_core::Error> {
    let found = query(CUTS).bind(records).fetch_all(&mut *conn).await?;
    let mut cuts = Vec::with_capacity(found.len());
    for row in &found {
        let key = row_key(row)?;
        let last = match row.try_get::<Option<i64>, _>("final_clock")? {
            Some(clock) => Some(ReplayKey {
                clock: Hlc::from_packed(clock),
                client_id: ClientId::from_uuid(row.try_get("final_client_id")?),
                action_id: ActionId::from_uuid(row.try_get("final_action_id")?),
            }),
            None => None,
        };
        cuts.push(Cut { key, position: position_of(row)?, stays: row.try_get("stays")?, last, image: None });
    }
    let (tables, rows) = keys_of(cuts.iter().map(|cut| &cut.key));
    let at = Positions::of(cuts.iter().map(|cut| &cut.position));
    let images =
        query(IMAGES).bind(tables).bind(rows).bind(at.clocks).bind(at.clients).bind(at.actions).fetch_all(conn).await?;
    for row in &images {
        cuts[place_of(row)?].image = Some(Image::read(row)?);
    }
    Ok(cuts)
}

/// Which of the rows are there. Rows of tables that are not tracked any more count as such: nothing is taken of them.
async fn present_rows(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    cuts: &[Cut],
) -> Result<BTreeSet<RowKey>, sqlx_core::Error> {
    let mut by_table: BTreeMap<&TableName, Vec<&str>> = BTreeMap::new();
    for cut in cuts {
        by_table.entry(&cut.key.table).or_default().push(cut.key.row_id.as_str());
    }
    let mut present = BTreeSet::new();
    for (name, ids) in by_table {
        let key = |id: &str| Ok(RowKey { table: name.clone(), row_id: RowId::new(id).map_err(StoredFormError::from)? });
        let Some(table) = catalogue.table(name) else {
            present.extend(ids.iter().map(|id| key(id)).collect::<Result<Vec<_>, StoredFormError>>()?);
            continue;
        };
        // Safe: built from catalogue identifiers only.
        let found = sqlx_core::query::query(AssertSqlSafe(present_of(table))).bind(&ids).fetch_all(&mut *conn).await?;
        for row in &found {
            present.insert(key(row.try_get(0)?)?);
        }
    }
    Ok(present)
}

/// Which of some rows of a table are there.
pub(crate) fn present_of(table: &Table) -> String {
    format!(
        "/* compaction.present */ SELECT \"id\"::text FROM {} WHERE \"id\" = ANY($1::text[]::{}[])",
        table.quoted,
        table.id_type.cast()
    )
}

/// Each row's effects above its image, or from its beginning, through the cut; by position.
async fn read_effects(
    conn: &mut PgConnection,
    cuts: &[&Cut],
) -> Result<BTreeMap<RowKey, Vec<Logged>>, sqlx_core::Error> {
    let (tables, rows) = keys_of(cuts.iter().map(|cut| &cut.key));
    let above: Vec<Option<ReplayKey>> = cuts.iter().map(|cut| cut.image.as_ref().map(|image| image.position)).collect();
    let through = Positions::of(cuts.iter().map(|cut| &cut.position));
    let found = query(EFFECTS)
        .bind(tables)
        .bind(rows)
        // Beneath all clocks.
        .bind(above.iter().map(|at| at.map_or(-1, |at| at.clock.packed())).collect::<Vec<_>>())
        .bind(above.iter().map(|at| at.map_or(Uuid::nil(), |at| *at.client_id.as_uuid())).collect::<Vec<_>>())
        .bind(above.iter().map(|at| at.map_or(Uuid::nil(), |at| *at.action_id.as_uuid())).collect::<Vec<_>>())
        .bind(through.clocks)
        .bind(through.clients)
        .bind(through.actions)
        .fetch_all(conn)
        .await?;
    let mut logged: BTreeMap<RowKey, Vec<Logged>> = BTreeMap::new();
    for row in &found {
        logged.entry(cuts[place_of(row)?].key.clone()).or_default().push(logged_of(row)?);
    }
    Ok(logged)
}

async fn forget(conn: &mut PgConnection, cuts: &[Cut]) -> Result<(), sqlx_core::Error> {
    let (tables, rows) = keys_of(cuts.iter().map(|cut| &cut.key));
    let through: Vec<ReplayKey> = cuts.iter().map(Cut::through).collect();
    let at = Positions::of(&through);
    query(FORGET)
        .bind(tables)
        .bind(rows)
        .bind(at.clocks)
        .bind(at.clients)
        .bind(at.actions)
        .execute(conn)
        .await
        .map(drop)
}

async fn write(conn: &mut PgConnection, images: &[(&RowKey, Image)]) -> Result<(), sqlx_core::Error> {
    let (tables, rows) = keys_of(images.iter().map(|(key, _)| *key));
    let at = Positions::of(images.iter().map(|(_, image)| &image.position));
    let folded = || images.iter().map(|(_, image)| image.row.as_ref());
    query(
        "/* compaction.image */ INSERT INTO synchrotron.row_images (table_name, row_id, position_clock, \
         position_client_id, position_action_id, audience_key, columns, final) SELECT *, true FROM unnest($1::text[], \
         $2::text[], $3::bigint[], $4::uuid[], $5::uuid[], $6::text[], $7::bytea[])",
    )
    .bind(tables)
    .bind(rows)
    .bind(at.clocks)
    .bind(at.clients)
    .bind(at.actions)
    .bind(folded().map(|row| row.map(|row| row.audience_key.to_string())).collect::<Vec<_>>())
    .bind(folded().map(|row| row.map(|row| encode_columns(&row.columns))).collect::<Vec<_>>())
    .execute(conn)
    .await
    .map(drop)
}

fn row_key(row: &PgRow) -> Result<RowKey, sqlx_core::Error> {
    Ok(RowKey {
        table: TableName::new(row.try_get::<String, _>("table_name")?).map_err(StoredFormError::from)?,
        row_id: RowId::new(row.try_get::<String, _>("row_id")?).map_err(StoredFormError::from)?,
    })
}

fn place_of(row: &PgRow) -> Result<usize, sqlx_core::Error> {
    Ok(usize::try_from(row.try_get::<i64, _>("place")? - 1).expect("BUG: ordinality counts from 1"))
}

fn keys_of<'k>(keys: impl Iterator<Item = &'k RowKey>) -> (Vec<&'k str>, Vec<&'k str>) {
    keys.map(|key| (key.table.as_str(), key.row_id.as_str())).unzip()
}

/// The rows of some records with the newest position there, whether others have effects on them, and where their final
/// images are.
pub(crate) const CUTS: &str = "/* compaction.cuts */ WITH gone AS MATERIALIZED (SELECT unnest($1::uuid[]) AS id), \
    cut AS (SELECT DISTINCT ON (m.table_name, m.row_id) m.table_name, m.row_id, m.position_clock, \
            m.position_client_id, m.position_action_id \
        FROM gone JOIN synchrotron.action_modified_rows m ON m.action_id = gone.id \
        ORDER BY m.table_name, m.row_id, m.position_clock DESC, m.position_client_id DESC, m.position_action_id DESC) \
    SELECT cut.*, coalesce((SELECT true FROM synchrotron.action_modified_rows o \
            WHERE o.table_name = cut.table_name AND o.row_id = cut.row_id \
            AND o.action_id NOT IN (SELECT id FROM gone) LIMIT 1), false) AS stays, \
        f.position_clock AS final_clock, f.position_client_id AS final_client_id, \
        f.position_action_id AS final_action_id \
    FROM cut LEFT JOIN LATERAL (SELECT i.position_clock, i.position_client_id, i.position_action_id \
        FROM synchrotron.row_images i WHERE i.table_name = cut.table_name AND i.row_id = cut.row_id AND i.final \
        ORDER BY i.position_clock DESC, i.position_client_id DESC, i.position_action_id DESC LIMIT 1) f ON true";

/// The newest image of each of some rows at or beneath a position.
pub(crate) const IMAGES: &str = "/* compaction.images */ SELECT w.place, i.* \
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::uuid[]) WITH ORDINALITY \
    AS w(table_name, row_id, clock, client_id, action_id, place) CROSS JOIN LATERAL \
    (SELECT i.position_clock, i.position_client_id, i.position_action_id, i.audience_key, i.columns \
    FROM synchrotron.row_images i WHERE i.table_name = w.table_name AND i.row_id = w.row_id \
    AND (i.position_clock, i.position_client_id, i.position_action_id) <= (w.clock, w.client_id, w.action_id) \
    ORDER BY i.position_clock DESC, i.position_client_id DESC, i.position_action_id DESC LIMIT 1) i";

/// The effects on each of some rows above one position and through another.
pub(crate) const EFFECTS: &str = "/* compaction.effects */ SELECT w.place, m.* \
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::uuid[], $6::bigint[], $7::uuid[], $8::uuid[]) \
    WITH ORDINALITY AS w(table_name, row_id, a_clock, a_client_id, a_action_id, clock, client_id, action_id, place) \
    CROSS JOIN LATERAL (SELECT m.* FROM synchrotron.action_modified_rows m \
        WHERE m.table_name = w.table_name AND m.row_id = w.row_id \
        AND (m.position_clock, m.position_client_id, m.position_action_id) > (w.a_clock, w.a_client_id, w.a_action_id) \
        AND (m.position_clock, m.position_client_id, m.position_action_id) <= (w.clock, w.client_id, w.action_id) \
        OFFSET 0) m \
    ORDER BY w.place, m.position_clock, m.position_client_id, m.position_action_id, m.server_ingest_id, m.sequence";

/// Drops the images of some rows at and beneath a position.
pub(crate) const FORGET: &str = "/* compaction.forget */ DELETE FROM synchrotron.row_images i \
    USING unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::uuid[]) \
    AS w(table_name, row_id, clock, client_id, action_id) \
    WHERE i.table_name = w.table_name AND i.row_id = w.row_id \
    AND (i.position_clock, i.position_client_id, i.position_action_id) <= (w.clock, w.client_id, w.action_id)";
