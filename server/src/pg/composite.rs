//! Many rows as one parameter: an array of a composite type.
//!
//! Place in the journey: beneath [`ingest`](crate::ingest), whose statements take hundreds of rows at once. Postgres scans an
//! array for each column by itself, and puts what it finds side by side: for a hundred rows of seventeen columns that takes
//! nine times as long as one array of rows.

use sqlx_core::encode::{Encode, IsNull};
use sqlx_core::error::BoxDynError;
use sqlx_core::types::Type;
use sqlx_postgres::types::PgRecordEncoder;
use sqlx_postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, Postgres};
use synchrotron_core::model::ReplayKey;

/// What travels as a value of a composite type.
pub(crate) trait Composite {
    /// The type's name, with its schema.
    const TYPE: &'static str;

    /// Adds its fields in the type's order, and of the type's types: Postgres refuses others.
    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError>;
}

/// A row as an element of the array.
#[derive(Debug)]
pub(crate) struct Element<T>(T);

/// What is bound for a parameter that is an array of rows.
pub(crate) fn composites<T: Composite>(rows: impl IntoIterator<Item = T>) -> Vec<Element<T>> {
    rows.into_iter().map(Element).collect()
}

impl<T: Composite> Type<Postgres> for Element<T> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name(T::TYPE)
    }
}

impl<T: Composite> PgHasArrayType for Element<T> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of(T::TYPE)
    }
}

impl<T: Composite> Encode<'_, Postgres> for Element<T> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut row = PgRecordEncoder::new(buffer);
        self.0.fields(&mut row)?;
        row.finish();
        Ok(IsNull::No)
    }
}

/// Adds a position's three fields.
pub(crate) fn encode_position(row: &mut PgRecordEncoder<'_>, position: &ReplayKey) -> Result<(), BoxDynError> {
    row.encode(position.clock.packed())?
        .encode(*position.client_id.as_uuid())?
        .encode(*position.action_id.as_uuid())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx_core::row::Row;
    use synchrotron_core::model::{ActionId, ClientId, Hlc};
    use uuid::Uuid;

    use super::*;
    use crate::fixture;

    struct Place(i64);

    impl Composite for Place {
        const TYPE: &'static str = "synchrotron.place_in_audience";

        fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
            row.encode(self.0)?.encode("project:p")?;
            let least = ReplayKey {
                clock: Hlc::from_packed(self.0),
                client_id: ClientId::from_uuid(Uuid::from_u128(1)),
                action_id: ActionId::from_uuid(Uuid::from_u128(2)),
            };
            encode_position(row, &least)
        }
    }

    #[tokio::test]
    async fn rows_arrive_in_their_order_and_none_is_none() {
        let (pool, _) = fixture::database("composite").await;
        for count in [2, 0] {
            let asked = "SELECT array_agg(p.place) AS places FROM unnest($1::synchrotron.place_in_audience[]) p \
                WHERE p.audience_key = 'project:p' AND p.clock = p.place AND p.client_id < p.action_id";
            let row =
                crate::pg::query(asked).bind(composites((0..count).map(Place))).fetch_one(&pool).await.expect("rows");
            let places: Option<Vec<i64>> = row.get("places");
            assert_eq!(places.unwrap_or_default(), Vec::from_iter(0..count));
        }
    }
}
