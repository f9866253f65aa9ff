//! The conformance suite: what a store owes the engine, as tests.
//!
//! Place in the journey: beside it. Every implementation of [`Store`] passes it: give a [`StoreFixture`] and let
//! [`store_suite!`](crate::store_suite) make a test of each rule. A group of rules is one file.
//!
//! ```
//! # use synchrotron_core::store::suite::{self, StoreFixture};
//! # use synchrotron_core::store::{Durability, SqliteSettings, SqliteStore};
//! struct Fixture(tempfile::TempDir);
//!
//! impl StoreFixture for Fixture {
//!     type Store = SqliteStore;
//!
//!     fn open(&self) -> SqliteStore {
//!         let settings = SqliteSettings {
//!             path: self.0.path().join("suite.db"),
//!             schema: suite::SCHEMA.to_owned(),
//!             tables: suite::tables(),
//!             user_id: suite::user(),
//!             new_client_id: suite::client(),
//!             durability: Durability::Normal,
//!             busy_timeout: std::time::Duration::from_secs(5),
//!         };
//!         SqliteStore::open(&settings).expect("opens")
//!     }
//! }
//!
//! // The expression is evaluated once for each test.
//! synchrotron_core::store_suite!(Fixture(tempfile::tempdir().expect("a folder")));
//! ```

mod applying;
mod audiences;
mod capturing;
mod keeping;
mod logging;
mod moving;
mod ordering;
mod subject;
mod transacting;
mod undoing;
mod values;

pub use applying::{
    a_patch_may_break_a_foreign_key_on_its_way, a_patch_sets_rows_and_is_captured,
    a_patch_that_does_not_fit_is_applied_as_far_as_it_does, absent_rows_are_not_updated,
};
pub use audiences::{
    a_digest_is_of_the_rows_alone, a_forgotten_audience_leaves_no_trace, a_snapshot_on_its_way_is_kept,
    an_audience_is_kept_with_its_state, an_erased_user_leaves_nothing, loaded_rows_leave_no_undo,
};
pub use capturing::{
    a_cascade_is_captured, a_delete_carries_no_columns, a_failed_statement_leaves_no_effect,
    a_replaced_row_is_deleted_and_inserted, a_value_that_a_collation_calls_equal_is_captured,
    an_insert_carries_every_column, an_update_carries_only_what_changed, effects_of_actions_stay_apart,
    every_kind_of_value_is_captured_as_it_is_stored, id_and_audience_never_change, what_changes_nothing_is_no_effect,
    writes_outside_an_action_are_refused,
};
pub use keeping::{
    a_clock_never_goes_back, a_cursor_never_goes_back, a_device_keeps_what_it_knows_of_itself,
    a_fate_is_kept_and_may_change, a_quarantined_action_is_inspected_and_discarded, a_quarantined_action_is_kept,
    a_refused_correction_is_remembered, a_session_is_kept, fates_are_listed_and_pruned_by_age,
};
pub use logging::{
    a_patch_is_replaced_with_its_count, a_record_is_kept_whole, a_record_put_again_replaces_the_first,
    a_removed_record_leaves_nothing,
};
pub use moving::{
    a_displaced_row_is_forgotten_with_its_audience, a_displaced_row_that_is_deleted_is_gone,
    a_loaded_row_waits_for_its_id, a_rewind_displaces_what_came_without_a_trace,
    a_rewind_displaces_what_returned_without_a_trace, a_row_that_moved_displaces_the_one_that_it_was,
    an_effect_is_on_the_row_of_its_audience, contending_rows_are_rewound_beneath_a_snapshot,
    contending_rows_are_rewound_exactly,
};
pub use ordering::{
    a_devices_actions_are_pending_again, the_ends_of_the_log_are_known, the_first_later_arrival_is_found,
    the_log_is_walked_in_replay_order, the_newest_arrival_before_a_position_is_known,
    unsent_corrections_are_forgotten_from_a_position, unsent_records_are_read_on, what_is_accepted_is_no_longer_unsent,
};
pub use transacting::{
    a_dropped_transaction_leaves_nothing, a_reading_transaction_sees_everything_and_leaves_nothing,
    a_reopened_store_has_everything, a_savepoint_takes_log_and_status_along,
    savepoints_nest_and_take_captured_effects_along,
};
pub use undoing::{
    a_rewind_restores_a_row_inserted_anew, a_rewind_restores_replaced_rows_and_cascades,
    a_rewind_takes_back_every_kind_of_value, a_rewind_takes_back_what_came_later_and_nothing_else,
    any_order_rewinds_bit_by_bit, the_ends_of_undo_are_known,
};

use super::Store;
use crate::action::Table;
use crate::model::{ClientId, UserId};

/// A fresh database.
pub trait StoreFixture {
    /// The implementation.
    type Store: Store;

    /// Opens the database: with [`SCHEMA`] and [`tables`], for [`user`] on [`client`]. The first call makes it, later
    /// ones find it as it was left. Rules drop the store before they open it again.
    fn open(&self) -> Self::Store;
}

/// The tables that rules write: one of all kinds of values, a child of it, one with a generated audience.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS things (
        id TEXT PRIMARY KEY, number INTEGER, ratio REAL, label TEXT UNIQUE, flag BOOLEAN, document JSON, data BLOB,
        audience_key TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS parts (
        id TEXT PRIMARY KEY, thing TEXT REFERENCES things (id) ON DELETE CASCADE, name TEXT COLLATE NOCASE,
        audience_key TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS notes (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT,
        audience_key TEXT GENERATED ALWAYS AS ('user:' || owner) STORED,
        length INTEGER GENERATED ALWAYS AS (length(body)) VIRTUAL
    );
";

/// The tables that the store tracks.
#[must_use]
pub fn tables() -> Vec<Table> {
    ["things", "parts", "notes"].map(|name| Table::new(name).given_ids()).into()
}

/// Whose database it is.
#[must_use]
pub fn user() -> UserId {
    UserId::new("alice").expect("BUG: a good name")
}

/// On which device.
#[must_use]
pub fn client() -> ClientId {
    ClientId::from_uuid(uuid::Uuid::from_u128(0xc1))
}

/// Makes a `#[test]` of each rule of the [suite](crate::store::suite).
///
/// The argument is an expression that makes a fresh [`StoreFixture`](crate::store::suite::StoreFixture); it is evaluated
/// in each test.
#[macro_export]
macro_rules! store_suite {
    ($fixture:expr) => {
        // Capture.
        $crate::store_suite! { @rules $fixture;
            an_insert_carries_every_column,
            an_update_carries_only_what_changed,
            a_delete_carries_no_columns,
            a_replaced_row_is_deleted_and_inserted,
            a_cascade_is_captured,
            what_changes_nothing_is_no_effect,
            a_value_that_a_collation_calls_equal_is_captured,
            a_failed_statement_leaves_no_effect,
            effects_of_actions_stay_apart,
            every_kind_of_value_is_captured_as_it_is_stored,
            id_and_audience_never_change,
            writes_outside_an_action_are_refused,
        }
        // Patches.
        $crate::store_suite! { @rules $fixture;
            a_patch_sets_rows_and_is_captured,
            absent_rows_are_not_updated,
            a_patch_may_break_a_foreign_key_on_its_way,
            a_patch_that_does_not_fit_is_applied_as_far_as_it_does,
        }
        // Undo.
        $crate::store_suite! { @rules $fixture;
            a_rewind_takes_back_every_kind_of_value,
            a_rewind_takes_back_what_came_later_and_nothing_else,
            a_rewind_restores_replaced_rows_and_cascades,
            a_rewind_restores_a_row_inserted_anew,
            any_order_rewinds_bit_by_bit,
            the_ends_of_undo_are_known,
        }
        // Rows that contend.
        $crate::store_suite! { @rules $fixture;
            an_effect_is_on_the_row_of_its_audience,
            a_row_that_moved_displaces_the_one_that_it_was,
            a_displaced_row_that_is_deleted_is_gone,
            a_loaded_row_waits_for_its_id,
            a_displaced_row_is_forgotten_with_its_audience,
            a_rewind_displaces_what_came_without_a_trace,
            a_rewind_displaces_what_returned_without_a_trace,
            contending_rows_are_rewound_exactly,
            contending_rows_are_rewound_beneath_a_snapshot,
        }
        // Transactions.
        $crate::store_suite! { @rules $fixture;
            savepoints_nest_and_take_captured_effects_along,
            a_savepoint_takes_log_and_status_along,
            a_dropped_transaction_leaves_nothing,
            a_reading_transaction_sees_everything_and_leaves_nothing,
            a_reopened_store_has_everything,
        }
        // The log.
        $crate::store_suite! { @rules $fixture;
            a_record_is_kept_whole,
            a_record_put_again_replaces_the_first,
            a_patch_is_replaced_with_its_count,
            a_removed_record_leaves_nothing,
            the_log_is_walked_in_replay_order,
            what_is_accepted_is_no_longer_unsent,
            unsent_corrections_are_forgotten_from_a_position,
            the_newest_arrival_before_a_position_is_known,
            the_first_later_arrival_is_found,
            the_ends_of_the_log_are_known,
            unsent_records_are_read_on,
            a_devices_actions_are_pending_again,
        }
        // Status.
        $crate::store_suite! { @rules $fixture;
            a_session_is_kept,
            a_clock_never_goes_back,
            a_cursor_never_goes_back,
            a_fate_is_kept_and_may_change,
            a_quarantined_action_is_kept,
            fates_are_listed_and_pruned_by_age,
            a_quarantined_action_is_inspected_and_discarded,
            a_device_keeps_what_it_knows_of_itself,
            a_refused_correction_is_remembered,
        }
        // Audiences.
        $crate::store_suite! { @rules $fixture;
            an_audience_is_kept_with_its_state,
            loaded_rows_leave_no_undo,
            an_erased_user_leaves_nothing,
            a_forgotten_audience_leaves_no_trace,
            a_digest_is_of_the_rows_alone,
            a_snapshot_on_its_way_is_kept,
        }
    };
    (@rules $fixture:expr; $($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                $crate::store::suite::$rule(&$fixture);
            }
        )*
    };
}
