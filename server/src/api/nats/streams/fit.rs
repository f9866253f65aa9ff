//! A stream that is there against the one that is wanted: what is added to it, what stays larger, and what will not do.
//!
//! Place in the journey: before a loop uses a stream that somebody has made: an earlier version, another server, an
//! operator. Nothing here talks to NATS.
//!
//! # Invariants
//! - Nothing that a stream has is taken away: limits rise, subjects are added, and what would have to go is a fault.
//! - A stream that will do is left as it is; looking at it twice changes nothing the second time.

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};

use super::fault::StreamFault;

/// What to do about a stream that is there.
#[derive(Debug, Default)]
pub(super) struct Fit {
    /// What it is to become, if it is not that already.
    pub(super) update: Option<Config>,
    /// Settings that ask for less than it has. They are not heard.
    pub(super) larger: Vec<StreamFault>,
}

/// Compares a stream with what it must be; one that is `managed` is brought up to it.
///
/// # Errors
/// [`StreamFault::Lacks`] for what cannot be brought about, or must not be because the stream is not ours to change.
pub(super) fn fit(existing: &Config, wanted: &Config, managed: bool) -> Result<Fit, StreamFault> {
    refuse_what_no_update_mends(existing)?;
    let mut grown = existing.clone();
    let mut fit = Fit::default();
    for subject in &wanted.subjects {
        if !existing.subjects.iter().any(|had| covers(had, subject)) {
            grown.subjects.push(subject.clone());
            required(existing, managed, "subjects", existing.subjects.join(","), subject)?;
        }
    }
    if wanted.discard == DiscardPolicy::New && existing.discard != DiscardPolicy::New {
        grown.discard = DiscardPolicy::New;
        required(existing, managed, "discard", "old".to_owned(), "new")?;
    }
    if let Some(republish) = &wanted.republish {
        let shown = |republish: &async_nats::jetstream::stream::Republish| {
            let headers = if republish.headers_only { ", headers only" } else { "" };
            format!("{} to {}{headers}", republish.source, republish.destination)
        };
        match &existing.republish {
            Some(had) if had == republish => {}
            Some(had) => return Err(lacks(existing, "republish", shown(had), &shown(republish))),
            None => {
                grown.republish = Some(republish.clone());
                required(existing, managed, "republish", "none".to_owned(), &shown(republish))?;
            }
        }
    }
    for limit in limits(existing, wanted) {
        if limit.existing_is_less() {
            (limit.set)(&mut grown, wanted);
            if limit.is_needed {
                required(existing, managed, limit.field, limit.existing.to_string(), &limit.wanted.to_string())?;
            }
        } else if limit.is_setting && managed && limit.existing != limit.wanted {
            let (stream, field) = (existing.name.clone(), limit.field);
            fit.larger.push(StreamFault::Shrinks { stream, field, existing: limit.existing, wanted: limit.wanted });
        }
    }
    fit.update = (managed && grown != *existing).then_some(grown);
    Ok(fit)
}

/// Whatever is done to such a stream, it is not the one that is needed.
fn refuse_what_no_update_mends(existing: &Config) -> Result<(), StreamFault> {
    if existing.retention != RetentionPolicy::Limits {
        return Err(lacks(existing, "retention", format!("{:?}", existing.retention).to_lowercase(), "limits"));
    }
    if existing.mirror.is_some() {
        return Err(lacks(existing, "mirror", "another stream".to_owned(), "none"));
    }
    if existing.sealed {
        return Err(lacks(existing, "sealed", "true".to_owned(), "false"));
    }
    if existing.no_ack {
        return Err(lacks(existing, "no_ack", "true".to_owned(), "false"));
    }
    Ok(())
}

fn required(
    existing: &Config,
    managed: bool,
    field: &'static str,
    had: String,
    needed: &str,
) -> Result<(), StreamFault> {
    if managed { Ok(()) } else { Err(lacks(existing, field, had, needed)) }
}

fn lacks(existing: &Config, field: &'static str, had: String, needed: &str) -> StreamFault {
    StreamFault::Lacks { stream: existing.name.clone(), field, existing: had, needed: needed.to_owned() }
}

/// A bound of a stream; what it has not above zero is no bound, as is a wanted one beneath zero.
struct Limit {
    field: &'static str,
    existing: i64,
    wanted: i64,
    /// Whether a stream without so much does not work, whoever made it.
    is_needed: bool,
    /// Whether it is an operator's setting.
    is_setting: bool,
    set: fn(&mut Config, &Config),
}

impl Limit {
    const fn existing_is_less(&self) -> bool {
        self.existing > 0 && (self.existing < self.wanted || self.wanted < 0)
    }
}

fn limits(existing: &Config, wanted: &Config) -> [Limit; 8] {
    let limit = |field, value: fn(&Config) -> i64, set| Limit {
        field,
        existing: value(existing),
        wanted: value(wanted),
        is_needed: false,
        is_setting: false,
        set,
    };
    [
        Limit {
            is_needed: true,
            ..limit(
                "max_msg_size",
                |config| config.max_message_size.into(),
                |grown, wanted| grown.max_message_size = wanted.max_message_size,
            )
        },
        Limit {
            is_needed: true,
            ..limit(
                "max_consumers",
                |config| config.max_consumers.into(),
                |grown, wanted| grown.max_consumers = wanted.max_consumers,
            )
        },
        Limit {
            is_setting: true,
            ..limit("max_bytes", |config| config.max_bytes, |grown, wanted| grown.max_bytes = wanted.max_bytes)
        },
        Limit {
            is_setting: true,
            ..limit("max_age", |config| seconds_of(config.max_age), |grown, wanted| grown.max_age = wanted.max_age)
        },
        Limit {
            is_setting: true,
            ..limit(
                "num_replicas",
                |config| i64::try_from(config.num_replicas).unwrap_or(i64::MAX),
                |grown, wanted| grown.num_replicas = wanted.num_replicas,
            )
        },
        limit(
            "duplicate_window",
            |config| seconds_of(config.duplicate_window),
            |grown, wanted| grown.duplicate_window = wanted.duplicate_window,
        ),
        limit("max_msgs", |config| config.max_messages, |grown, wanted| grown.max_messages = wanted.max_messages),
        limit(
            "max_msgs_per_subject",
            |config| config.max_messages_per_subject,
            |grown, wanted| grown.max_messages_per_subject = wanted.max_messages_per_subject,
        ),
    ]
}

/// The field's unit in faults is seconds; part of one counts as one.
fn seconds_of(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX)
}

/// Whether a stream's subject takes everything that `wanted` names; both may end with `>` and hold `*`.
fn covers(had: &str, wanted: &str) -> bool {
    let (mut had, mut wanted) = (had.split('.'), wanted.split('.'));
    loop {
        match (had.next(), wanted.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::{Republish, StorageType};

    use super::*;

    fn wanted() -> Config {
        Config {
            name: "SYNC_X".to_owned(),
            subjects: vec!["sync.x.>".to_owned()],
            max_bytes: 1_000,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_age: Duration::from_secs(60),
            max_message_size: 100,
            max_consumers: 64,
            num_replicas: 1,
            duplicate_window: Duration::from_secs(30),
            discard: DiscardPolicy::New,
            republish: Some(Republish {
                source: "sync.x.>".to_owned(),
                destination: "sync.live.>".to_owned(),
                headers_only: false,
            }),
            ..Config::default()
        }
    }

    fn without(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = wanted();
        change(&mut config);
        config
    }

    type Change = fn(&mut Config);

    #[test]
    fn what_is_as_wanted_is_left_alone_and_growing_comes_to_an_end() {
        assert!(fit(&wanted(), &wanted(), true).expect("fits").update.is_none());
        let less: [Change; 8] = [
            |config| config.subjects = vec!["elsewhere".to_owned()],
            |config| config.max_bytes = 999,
            |config| config.max_age = Duration::from_secs(59),
            |config| config.max_message_size = 99,
            |config| config.max_consumers = 16,
            |config| config.discard = DiscardPolicy::Old,
            |config| config.republish = None,
            |config| config.max_messages = 5,
        ];
        for change in less {
            let existing = without(change);
            let update = fit(&existing, &wanted(), true).expect("grows").update.expect("something to do");
            assert!(existing.subjects.iter().all(|subject| update.subjects.contains(subject)));
            assert!(fit(&update, &wanted(), true).expect("fits").update.is_none(), "{update:?}");
        }
    }

    #[test]
    fn settings_that_ask_for_less_are_told_and_not_heard() {
        let more: [(Change, &str); 3] = [
            (|config| config.max_bytes = 1_001, "max_bytes"),
            (|config| config.max_age = Duration::ZERO, "max_age"),
            (|config| config.num_replicas = 3, "num_replicas"),
        ];
        for (change, name) in more {
            let told = fit(&without(change), &wanted(), true).expect("does");
            assert!(told.update.is_none());
            assert!(matches!(&told.larger[..], [StreamFault::Shrinks { field, .. }] if *field == name), "{told:?}");
            assert!(fit(&without(change), &wanted(), false).expect("does").larger.is_empty(), "it is the operator's");
        }
        let ours: [Change; 2] = [|config| config.max_consumers = -1, |config| config.max_message_size = 5_000];
        for change in ours {
            let told = fit(&without(change), &wanted(), true).expect("does");
            assert!(told.update.is_none() && told.larger.is_empty(), "nobody set it: {told:?}");
        }
    }

    #[test]
    fn a_stream_that_an_operator_made_does_as_long_as_it_has_what_is_needed() {
        let does: [Change; 5] = [
            |config| config.subjects = vec!["sync.>".to_owned()],
            |config| config.storage = StorageType::Memory,
            |config| config.max_bytes = 10,
            |config| config.max_age = Duration::from_secs(1),
            |config| config.max_messages = 10,
        ];
        for change in does {
            assert!(fit(&without(change), &wanted(), false).expect("does").update.is_none());
        }
        let lacks: [(Change, &str); 9] = [
            (|config| config.subjects.clear(), "subjects"),
            (|config| config.discard = DiscardPolicy::Old, "discard"),
            (|config| config.republish = None, "republish"),
            (|config| config.max_message_size = 99, "max_msg_size"),
            (|config| config.max_consumers = 1, "max_consumers"),
            (|config| config.retention = RetentionPolicy::WorkQueue, "retention"),
            (|config| config.sealed = true, "sealed"),
            (|config| config.no_ack = true, "no_ack"),
            (|config| config.republish.as_mut().expect("there").destination = "theirs.>".to_owned(), "republish"),
        ];
        for (change, name) in lacks {
            let fault = fit(&without(change), &wanted(), false).expect_err(name);
            assert!(matches!(&fault, StreamFault::Lacks { field, .. } if *field == name), "{fault}");
        }
        // What is published elsewhere by somebody's will is not taken away from there, whoever manages the stream.
        let theirs = without(|config| config.republish.as_mut().expect("there").destination = "theirs.>".to_owned());
        assert!(fit(&theirs, &wanted(), true).is_err());
    }

    #[test]
    fn subjects_cover_what_nats_says_they_cover() {
        for (had, wanted) in [("a.>", "a.>"), (">", "a.>"), ("a.*.>", "a.b.>"), ("a.*", "a.b"), ("a", "a")] {
            assert!(covers(had, wanted), "{had} {wanted}");
        }
        for (had, wanted) in [("a.*", "a.>"), ("a.b.>", "a.>"), ("a", "a.b"), ("a.b", "a"), ("a.>", "a"), ("*", ">")] {
            assert!(!covers(had, wanted), "{had} {wanted}");
        }
    }
}
