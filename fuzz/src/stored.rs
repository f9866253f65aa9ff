//! What databases hold: arguments and columns, as MessagePack in SQLite and Postgres, as JSON for people.

use serde::Deserialize;
use serde::de::IgnoredAny;
use synchrotron_core::model::{ActionArgs, Columns};
use synchrotron_core::wire;

/// What is taken for one map can be walked to its end as one.
pub(crate) fn arguments(bytes: &[u8]) -> bool {
    let taken = ActionArgs::from_encoded(bytes.to_vec());
    assert_eq!(taken.is_some(), wire::is_one_map(bytes));
    let Some(arguments) = taken else { return false };
    assert!(arguments.is_map());
    assert_eq!(arguments.as_bytes(), bytes);
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    if IgnoredAny::deserialize(&mut reader).is_ok() {
        assert_eq!(reader.position(), bytes.len() as u64, "a map with something after it");
    }
    true
}

/// Columns as both logs hold them.
pub(crate) fn columns(bytes: &[u8]) -> bool {
    let Ok(columns) = rmp_serde::from_slice::<Columns>(bytes) else { return false };
    let written = rmp_serde::to_vec_named(&columns).expect("BUG: columns have a MessagePack form");
    let again: Columns = rmp_serde::from_slice(&written).expect("BUG: what was written can be read");
    assert_eq!(again, columns);
    true
}

/// Columns as people read them: what JSON cannot say is tagged, so that nothing is bent.
pub(crate) fn columns_json(bytes: &[u8]) -> bool {
    let Ok(columns) = serde_json::from_slice::<Columns>(bytes) else { return false };
    let written = serde_json::to_vec(&columns).expect("BUG: columns have a JSON form");
    let again: Columns = serde_json::from_slice(&written).expect("BUG: what was written can be read");
    assert_eq!(again, columns);
    true
}
