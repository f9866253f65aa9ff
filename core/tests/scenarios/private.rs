//! PRV: an action that is conditional on private rows keeps its author's result on shared columns, and adds only what
//! others lack, in the audience where it lives.

use synchrotron_core::model::RecordBody;

use crate::actions::{SetWatchedContent, WatchNote, create_in};
use crate::device::Device;
use crate::fleet::{World, audience_key, story};

/// A is an administrator, B is not. A watches B's note, which B cannot know; then B updates the note.
fn watched(world: &World) -> (Device, Device) {
    let mut admin = world.device_in("A", &["project:p", "adm"]);
    let mut b = world.device_in("B", &["project:p"]);
    b.run(&create_in("project:p", "n", "T"));
    b.sync();
    admin.sync();
    admin.run(&WatchNote { note: "n".into(), audience: "adm".into() });
    admin.sync();
    b.sync();
    b.run(&SetWatchedContent { note: "n".into(), content: "updated".into() });
    assert_eq!(b.pending()[0].rows.len(), 1, "B writes the note only");
    b.sync();
    (admin, b)
}

/// The administrator's replay finds its private row and updates it: an addition, in the private audience only.
#[test]
fn prv_01_prv_03_replay_adds_the_private_effect_in_its_own_audience() {
    let world = World::new();
    let (mut admin, mut b) = watched(&world);
    admin.sync();
    assert_eq!(admin.value("SELECT last_seen_content FROM note_admin_meta"), Some("updated".into()));
    let corrections = world.corrections();
    assert_eq!(corrections.len(), 1);
    assert_eq!(story(&corrections[0].rows), ["UPDATE note_admin_meta.watch of n {last_seen_content=updated}"]);
    assert_eq!(corrections[0].rows[0].audience_key, audience_key("adm"));
    let on_server = world.server_value("note_admin_meta", "watch of n", "last_seen_content");
    assert_eq!(on_server, Some("updated".into()));
    world.settle(&mut [&mut admin, &mut b]);
}

/// Who is not in that audience gets neither the row nor the record of the correction.
#[test]
fn prv_02_others_see_neither_the_row_nor_the_correction() {
    let world = World::new();
    let (mut admin, mut b) = watched(&world);
    admin.sync();
    b.sync();
    assert_eq!((b.count("note_admin_meta"), b.corrections()), (0, 0));
    let known = world.corrections()[0].record.id;
    let records = b.count(&format!("action_records WHERE id = x'{}'", known.as_uuid().simple()));
    assert_eq!(records, 0);
    world.settle(&mut [&mut admin, &mut b]);
}

/// A record whose rows are all in audiences of others does not travel at all.
#[test]
fn prv_04_a_record_without_a_visible_row_does_not_travel() {
    let world = World::new();
    let (mut admin, mut b) = watched(&world);
    admin.run(&create_in("adm", "secret", "of administrators"));
    admin.sync();
    let page = b.page().expect("a page");
    let secret = |body: &RecordBody| match body {
        RecordBody::Action { args, .. } => args.as_bytes().windows(6).any(|bytes| bytes == b"secret"),
        RecordBody::Correction { .. } => true,
    };
    assert!(!page.records.iter().any(|logged| secret(&logged.record.body)));
    b.sync();
    assert_eq!(b.count("notes"), 1);
}
