//! The actions of the stories: well-behaved ones, and ones that wrongly look at the device that runs them.

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Registry};
use synchrotron_core::model::{RowId, Value};
use synchrotron_core::params;

thread_local! {
    /// The device whose engine runs now: what an impure action wrongly looks at.
    pub(crate) static RUNNING_ON: Cell<&'static str> = const { Cell::new("") };
    /// How often an action of this thread has looked at it: what a non-deterministic action wrongly uses.
    static LOOKS: Cell<i64> = const { Cell::new(0) };
}

/// Declares actions and a function that registers them all.
macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident $tag:literal { $($field:ident: $type:ty),* } -> $output:ty = |$ctx:ident| $run:block)*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        impl Action for $name {
            const TAG: &'static str = $tag;
            type Output = $output;

            fn run(&self, $ctx: &mut Context<'_>) -> Result<$output, ActionError> {
                let Self { $($field),* } = self;
                $run
            }
        })*

        /// All actions but `without`: an app of that version knows no such tag.
        pub(crate) fn registry(without: &[&str]) -> Registry {
            let mut registry = Registry::default();
            $(if !without.contains(&$tag) {
                registry.register::<$name>().expect("tags are distinct");
            })*
            registry
        }
    };
}

actions! {
    CreateNote "create_note_v1" { note: String, title: String, content: String, audience: String } -> () = |ctx| {
        put_note(ctx, note, title, content, audience)
    }
    /// Inserts a note under a derived id.
    AddNote "add_note_v1" { title: String, content: String } -> RowId = |ctx| {
        add_note(ctx, title, content)
    }
    SetTitle "set_title_v1" { note: String, title: String } -> () = |ctx| {
        set(ctx, note, "title", title.into())
    }
    SetContent "set_content_v1" { note: String, content: String } -> () = |ctx| {
        set(ctx, note, "content", content.into())
    }
    SetTags "set_tags_v1" { note: String, tags: String } -> () = |ctx| {
        set(ctx, note, "tags", Value::Json(tags.clone()))
    }
    DeleteNote "delete_note_v1" { note: String } -> () = |ctx| {
        ctx.execute("DELETE FROM notes WHERE id = ?", params![note]).map(drop)
    }
    /// Copies the title into the content: what it does depends on what came before.
    CopyTitle "copy_title_v1" { note: String } -> () = |ctx| {
        ctx.execute("UPDATE notes SET content = title WHERE id = ?", params![note]).map(drop)
    }
    /// A rule: only a free note may be claimed.
    Claim "claim_v1" { note: String, by: String } -> () = |ctx| {
        match ctx.execute("UPDATE notes SET title = ? WHERE id = ? AND title = 'free'", params![by, note])? {
            0 => Err(ActionError::reject("it is taken")),
            _ => Ok(()),
        }
    }
    /// One note in each of two audiences.
    CreatePair "create_pair_v1" { first: (String, String), second: (String, String) } -> () = |ctx| {
        put_note(ctx, &first.0, "pair", "first", &first.1)?;
        put_note(ctx, &second.0, "pair", "second", &second.1)
    }
    /// Moves a note to the audience that the first of these other notes names which is there: a move is a delete and an
    /// insert.
    MoveNote "move_note_v1" { note: String, by: Vec<String> } -> () = |ctx| {
        let Some((title, content)) = read_note(ctx, note)? else { return Err(ActionError::reject("it is gone")) };
        for by in by {
            if let Some((_, audience)) = read_note(ctx, by)? {
                ctx.execute("DELETE FROM notes WHERE id = ?", params![note])?;
                return put_note(ctx, note, &title, &content, &audience);
            }
        }
        Err(ActionError::reject("nothing says where to"))
    }
    Nothing "nothing_v1" {} -> () = |_ctx| { Ok(()) }

    /// Impure: content and suffix where it runs on A, content alone elsewhere.
    SuffixOnA "suffix_on_a_v1" { note: String, content: String } -> () = |ctx| {
        let suffix = if RUNNING_ON.get() == "A" { " Suffix" } else { "" };
        set(ctx, note, "content", format!("{content}{suffix}").into())
    }
    /// Impure: as [`SuffixOnA`], and tags where it runs on C.
    SuffixOnATagsOnC "suffix_on_a_tags_on_c_v1" { note: String, content: String } -> () = |ctx| {
        let suffix = if RUNNING_ON.get() == "A" { " Suffix" } else { "" };
        set(ctx, note, "content", format!("{content}{suffix}").into())?;
        if RUNNING_ON.get() == "C" { set(ctx, note, "tags", Value::Json(r#"["C"]"#.into()))?; }
        Ok(())
    }
    /// Impure: the content names the device.
    DeviceContent "device_content_v1" { note: String } -> () = |ctx| {
        set(ctx, note, "content", format!("Base-{}", RUNNING_ON.get()).into())
    }
    /// Impure: as [`DeviceContent`], for a new note under a derived id.
    AddDeviceNote "add_device_note_v1" { title: String } -> RowId = |ctx| {
        add_note(ctx, title, &format!("Base-{}", RUNNING_ON.get()))
    }
    /// Impure: a note everywhere, and a row about it only where it runs on a device whose name begins so.
    CreateWithMetaOn "create_with_meta_on_v1" { note: String, device: String } -> () = |ctx| {
        put_note(ctx, note, "with meta", "", "shared")?;
        if RUNNING_ON.get().starts_with(device.as_str()) {
            put_meta(ctx, &format!("meta of {note}"), note, device, "shared")?;
        }
        Ok(())
    }
    /// Non-deterministic: another number each time it runs, wherever it runs.
    Roll "roll_v1" { note: String } -> () = |ctx| {
        LOOKS.set(LOOKS.get() + 1);
        set(ctx, note, "content", format!("roll {}", LOOKS.get()).into())
    }
    /// What an administrator keeps about a note, in an audience of its own.
    WatchNote "watch_note_v1" { note: String, audience: String } -> () = |ctx| {
        put_meta(ctx, &format!("watch of {note}"), note, "watch", audience)
    }
    /// Sets the content, and what administrators last saw of it where that is kept.
    SetWatchedContent "set_watched_content_v1" { note: String, content: String } -> () = |ctx| {
        set(ctx, note, "content", content.into())?;
        let sql = "UPDATE note_admin_meta SET last_seen_content = ? WHERE note_id = ?";
        ctx.execute(sql, params![content, note]).map(drop)
    }
    OpenProject "open_project_v1" { project: String, name: String } -> () = |ctx| {
        ctx.insert("projects", &[("id", project.into()), ("name", name.into())]).map(drop)
    }
    RenameProject "rename_project_v1" { project: String, name: String } -> () = |ctx| {
        ctx.execute("UPDATE projects SET name = ? WHERE id = ?", params![name, project]).map(drop)
    }
    DeleteProject "delete_project_v1" { project: String } -> () = |ctx| {
        ctx.execute("DELETE FROM projects WHERE id = ?", params![project]).map(drop)
    }
    AddTask "add_task_v1" { task: String, project: String } -> () = |ctx| {
        let row = [("id", task.into()), ("project_id", project.into()), ("text", "new".into())];
        ctx.insert("tasks", &row).map(drop)
    }
    SetTask "set_task_v1" { task: String, text: String } -> () = |ctx| {
        ctx.execute("UPDATE tasks SET text = ? WHERE id = ?", params![text, task]).map(drop)
    }
}

fn put_note(ctx: &mut Context<'_>, note: &str, title: &str, content: &str, audience: &str) -> Result<(), ActionError> {
    let (user, time) = (ctx.user_id().to_string(), ctx.timestamp_ms());
    let sql = "INSERT INTO notes (id, title, content, updated_at, user_id, audience_key) VALUES (?, ?, ?, ?, ?, ?)";
    ctx.execute(sql, params![note, title, content, time, user, audience]).map(drop)
}

/// Title and content.
fn read_note(ctx: &mut Context<'_>, note: &str) -> Result<Option<(String, String)>, ActionError> {
    let row = ctx.query_one("SELECT title, content FROM notes WHERE id = ?", params![note])?;
    row.map(|row| Ok((row.get("title")?, row.get("content")?))).transpose()
}

fn add_note(ctx: &mut Context<'_>, title: &str, content: &str) -> Result<RowId, ActionError> {
    let (user, time) = (ctx.user_id().to_string(), ctx.timestamp_ms());
    let row = [("title", title.into()), ("content", content.into()), ("updated_at", time.into())];
    ctx.insert("notes", &[&row[..], &[("user_id", user.into()), ("audience_key", "shared".into())]].concat())
}

fn put_meta(ctx: &mut Context<'_>, id: &str, note: &str, kind: &str, audience: &str) -> Result<(), ActionError> {
    let row = [("id", id.into()), ("note_id", note.into()), ("kind", kind.into()), ("audience_key", audience.into())];
    ctx.insert("note_admin_meta", &row).map(drop)
}

fn set(ctx: &mut Context<'_>, note: &str, column: &str, value: Value) -> Result<(), ActionError> {
    let time = Value::from(ctx.timestamp_ms());
    ctx.execute(&format!("UPDATE notes SET {column} = ?, updated_at = ? WHERE id = ?"), &[value, time, note.into()])
        .map(drop)
}

// Short names, so that a test reads like a story.

pub(crate) fn create(note: &str, title: &str) -> CreateNote {
    create_in("shared", note, title)
}

pub(crate) fn create_in(audience: &str, note: &str, title: &str) -> CreateNote {
    CreateNote { note: note.into(), title: title.into(), content: "Base".into(), audience: audience.into() }
}

pub(crate) fn title(note: &str, title: &str) -> SetTitle {
    SetTitle { note: note.into(), title: title.into() }
}

pub(crate) fn content(note: &str, content: &str) -> SetContent {
    SetContent { note: note.into(), content: content.into() }
}

pub(crate) fn claim(note: &str, by: &str) -> Claim {
    Claim { note: note.into(), by: by.into() }
}

pub(crate) fn pair(first: (&str, &str), second: (&str, &str)) -> CreatePair {
    let own = |(note, audience): (&str, &str)| (note.to_owned(), audience.to_owned());
    CreatePair { first: own(first), second: own(second) }
}
