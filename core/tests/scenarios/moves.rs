//! COR: corrections of actions that move a row between audiences, which is a DELETE and an INSERT.
//!
//! A row is its table, its id and its audience, for life: what an action does to one id in two audiences is two effects,
//! and each is amended, and travels, by itself.

use synchrotron_core::model::Value;
use synchrotron_core::store::Fate;

use crate::actions::{DeleteNote, MoveNote, content, create_in, title};
use crate::device::Device;
use crate::fleet::{World, story};

fn moved<const N: usize>(note: &str, by: [&str; N]) -> MoveNote {
    MoveNote { note: note.into(), by: by.map(str::to_owned).into() }
}

/// The audience that a device shows a note in.
fn audience_of(device: &Device, note: &str) -> Option<String> {
    match device.value(&format!("SELECT audience_key FROM notes WHERE id = '{note}'"))? {
        Value::Text(audience) => Some(audience),
        other => unreachable!("audience_key is text, not {other:?}"),
    }
}

/// An author and a late device, members of each of `q`, `p` and `r`, and one who is in all: the note `n` is in `q`, and the
/// settings `s`, in `q` too, say `p`.
struct Office {
    world: World,
    author: Device,
    late: Device,
    all: Device,
    of_p: Device,
    of_r: Device,
}

impl Office {
    fn new(author_in: &[&str]) -> Self {
        let world = World::new();
        let mut office = Self {
            author: world.device_in("A", author_in),
            late: world.device_in("L", &["q"]),
            all: world.device_in("D", &["q", "p", "r"]),
            of_p: world.device_in("P", &["p"]),
            of_r: world.device_in("R", &["r"]),
            world,
        };
        office.author.run(&create_in("q", "n", "note"));
        office.author.run(&create_in("q", "s", "settings"));
        office.author.run(&content("s", "p"));
        office.settle();
        office
    }

    fn settle(&mut self) {
        let Self { world, author, late, all, of_p, of_r } = self;
        world.settle(&mut [author, late, all, of_p, of_r]);
    }

    fn shown(&self) -> [Option<String>; 4] {
        [&self.author, &self.all, &self.of_p, &self.of_r].map(|device| audience_of(device, "n"))
    }
}

/// Settings that arrive late name another audience: the move ends there, and leaves the one that it first went to.
#[test]
fn cor_a_move_ends_in_the_audience_that_late_settings_name() {
    for author_in in [&["q", "p"][..], &["q", "p", "r"]] {
        let mut office = Office::new(author_in);
        office.late.run(&content("s", "r"));
        let action = office.author.run(&moved("n", ["s"]));
        office.author.sync();
        office.all.sync();
        office.of_p.sync();
        let p = Some("p".to_owned());
        assert_eq!(office.shown(), [p.clone(), p.clone(), p, None]);
        office.settle();
        let r = Some("r".to_owned());
        let author = r.clone().filter(|_| author_in.contains(&"r"));
        assert_eq!(office.shown(), [author, r.clone(), None, r]);
        assert!(matches!(office.author.fate(action), Some(Fate::Changed { .. })));
        let corrections = office.world.corrections();
        let told: Vec<_> = corrections.iter().flat_map(|correction| story(&correction.rows)).collect();
        assert_eq!(corrections.len(), 1);
        assert_eq!(told[0], "NOTHING notes.n", "it leaves one audience before it comes into another");
        assert!(told[1].starts_with("INSERT notes.n"), "{told:?}");
    }
}

/// A rename beneath a move goes with the row, and the row stays where it was moved to.
#[test]
fn cor_a_rename_beneath_a_move_goes_along_with_the_row() {
    let mut office = Office::new(&["q", "p"]);
    office.all.run(&title("n", "renamed"));
    office.author.run(&moved("n", ["s"]));
    office.author.sync();
    office.of_p.sync();
    assert_eq!(office.of_p.title("n"), "note");
    office.settle();
    let p = Some("p".to_owned());
    assert_eq!(office.shown(), [p.clone(), p.clone(), p, None]);
    for device in [&office.author, &office.all, &office.of_p] {
        assert_eq!(device.title("n"), "renamed");
    }
}

/// A move that can no longer be made is taken back: the row is where it was, and only there.
#[test]
fn cor_a_move_that_fails_on_replay_is_taken_back() {
    let mut office = Office::new(&["q", "p"]);
    office.late.run(&DeleteNote { note: "s".into() });
    let action = office.author.run(&moved("n", ["s"]));
    office.author.sync();
    office.settle();
    let q = Some("q".to_owned());
    assert_eq!(office.shown(), [q.clone(), q.clone(), None, None]);
    assert_eq!(audience_of(&office.late, "n"), q);
    assert_eq!(office.author.fate(action), Some(Fate::Changed { reason: Some("nothing says where to".into()) }));
}

/// Nobody who may judge is in the audience that late settings name: half of a move is never corrected, the row stays where
/// its author moved it.
#[test]
fn cor_a_row_is_never_lost_between_two_audiences() {
    let mut office = Office::new(&["q", "p"]);
    office.late.run(&content("s", "x"));
    office.author.run(&moved("n", ["s"]));
    office.author.sync();
    office.settle();
    let p = Some("p".to_owned());
    assert_eq!(office.shown(), [p.clone(), p.clone(), p, None]);
    assert_eq!(office.world.corrections().len(), 0);
}

/// Where replay would put a row into another audience and may not judge, the author's choice stands and nothing is added.
#[test]
fn cor_a_replica_that_may_not_judge_never_gives_a_row_a_second_audience() {
    let world = World::new();
    let mut author = world.device_in("A", &["q", "p", "r", "own"]);
    let mut other = world.device_in("D", &["q", "p", "r"]);
    author.run(&create_in("q", "n", "note"));
    author.run(&create_in("q", "shown", "settings of all"));
    author.run(&content("shown", "r"));
    author.run(&create_in("own", "hidden", "settings of the author"));
    author.run(&content("hidden", "p"));
    world.settle(&mut [&mut author, &mut other]);
    author.run(&moved("n", ["hidden", "shown"]));
    world.settle(&mut [&mut author, &mut other]);
    assert_eq!([&author, &other].map(|device| audience_of(device, "n")), [Some("p".into()), Some("p".into())]);
    assert_eq!(world.corrections().len(), 0);
}
