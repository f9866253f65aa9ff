//! Every subject, built from typed ids and read back from what arrives.
//!
//! Place in the journey: between an id and the wire. A token keeps `A-Z a-z 0-9 _ -`; every other byte becomes `=XX`, so
//! that no id can hold a separator, a wildcard or a space. An audience of more than 128 bytes becomes `=h` and its SHA-256;
//! a user is never hashed, because the server reads it from the subject.
//!
//! # Invariants
//! - A token is never empty and never holds `.`, `*`, `>` or whitespace.
//! - Two ids never share a token (beyond 128 bytes: unless SHA-256 collides), and none has the token of "no audience".

mod method;
mod parse;
mod prefix;
mod rights;
mod token;

use std::fmt;

use async_nats::Subject;
use synchrotron_core::model::{AudienceKey, ClientId, UserId};

pub use method::RpcMethod;
pub use parse::{RpcSubject, SubjectError, UpSubject};
pub use prefix::{PrefixError, SubjectPrefix};
pub use rights::{Exports, Rights};
pub use token::{AudienceToken, UserToken};

/// One server process, among all that serve one NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessToken(u64);

impl ProcessToken {
    /// The process of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ProcessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where NATS itself tells a connection its rights.
pub const OWN_RIGHTS: &str = "$SYS.REQ.USER.INFO";

/// Where answers to a user's devices arrive, and to nobody else's. What follows is each device's own to choose, and not to
/// be guessed: whoever knows it could have an answer of its own sent there.
#[must_use]
pub fn inbox_prefix(user: &UserToken) -> String {
    format!("_INBOX.{user}")
}

/// The subjects beneath one prefix.
///
/// ```
/// use synchrotron_core::model::AudienceKey;
/// use synchrotron_nats::subjects::{SubjectPrefix, Subjects};
/// let subjects = Subjects::new(SubjectPrefix::default());
/// let audience = AudienceKey::new("project:1.*")?;
/// assert_eq!(subjects.live(&audience).as_str(), "sync.live.project=3A1=2E=2A");
/// # Ok::<(), synchrotron_core::model::IdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    prefix: SubjectPrefix,
}

impl Subjects {
    /// Subjects beneath this prefix.
    #[must_use]
    pub const fn new(prefix: SubjectPrefix) -> Self {
        Self { prefix }
    }

    /// What all of them begin with.
    #[must_use]
    pub const fn prefix(&self) -> &SubjectPrefix {
        &self.prefix
    }

    /// Where a device uploads; `audience` is that of the batch's first row.
    #[must_use]
    pub fn up(&self, audience: Option<&AudienceKey>, user_id: &UserId, client_id: ClientId) -> Subject {
        let audience = audience.map_or_else(AudienceToken::none, AudienceToken::of);
        self.subject(format_args!("up.{audience}.{}.{client_id}", UserToken::of(user_id)))
    }

    /// All uploads.
    #[must_use]
    pub fn all_up(&self) -> Subject {
        self.subject(format_args!("up.>"))
    }

    /// What devices may reach of the server's subjects, whoever they are: what they publish, and what they hear.
    #[must_use]
    pub fn exports(&self) -> Exports {
        let subjects = |of: &[&str]| of.iter().map(|rest| self.subject(format_args!("{rest}"))).collect();
        Exports {
            services: subjects(&["up.*.*.*", "rpc.*.*.*"]),
            streams: subjects(&["live.*", "outcome.*.*", "ctl.*"]),
        }
    }

    /// What the devices of one user may do.
    #[must_use]
    pub fn rights<'a>(&self, user_id: &UserId, audiences: impl IntoIterator<Item = &'a AudienceKey>) -> Rights {
        let user = UserToken::of(user_id);
        let mut subscribe = vec![
            self.subject(format_args!("outcome.{user}.*")),
            self.ctl(&user),
            Subject::from(format!("{}.>", inbox_prefix(&user))),
        ];
        subscribe.extend(audiences.into_iter().map(|audience| self.live(audience)));
        let publish = vec![
            self.subject(format_args!("up.*.{user}.*")),
            self.subject(format_args!("rpc.{user}.*.*")),
            Subject::from_static(OWN_RIGHTS),
        ];
        Rights { publish, subscribe }
    }

    /// Where a device learns the outcome of its uploads.
    #[must_use]
    pub fn outcome(&self, user: &UserToken, client_id: ClientId) -> Subject {
        self.subject(format_args!("outcome.{user}.{client_id}"))
    }

    /// Where the server logs the slices of an audience.
    #[must_use]
    pub fn log(&self, audience: &AudienceKey) -> Subject {
        self.subject(format_args!("log.{}", AudienceToken::of(audience)))
    }

    /// All slices, as logged.
    #[must_use]
    pub fn all_log(&self) -> Subject {
        self.subject(format_args!("log.>"))
    }

    /// Where the slices of an audience arrive.
    #[must_use]
    pub fn live(&self, audience: &AudienceKey) -> Subject {
        self.subject(format_args!("live.{}", AudienceToken::of(audience)))
    }

    /// All slices, as they arrive.
    #[must_use]
    pub fn all_live(&self) -> Subject {
        self.subject(format_args!("live.>"))
    }

    /// Where the server tells a user's devices about their session.
    #[must_use]
    pub fn ctl(&self, user: &UserToken) -> Subject {
        self.subject(format_args!("ctl.{user}"))
    }

    /// Where a device asks.
    #[must_use]
    pub fn rpc(&self, user_id: &UserId, client_id: ClientId, method: RpcMethod) -> Subject {
        self.subject(format_args!("rpc.{}.{client_id}.{}", UserToken::of(user_id), method.as_str()))
    }

    /// All requests.
    #[must_use]
    pub fn all_rpc(&self) -> Subject {
        self.subject(format_args!("rpc.*.*.*"))
    }

    /// Where one server process is asked for what only it holds.
    #[must_use]
    pub fn held(&self, process: ProcessToken, user: &UserToken, client_id: ClientId) -> Subject {
        self.subject(format_args!("held.{process}.{user}.{client_id}"))
    }

    /// All that one server process is asked for.
    #[must_use]
    pub fn all_held(&self, process: ProcessToken) -> Subject {
        self.subject(format_args!("held.{process}.*.*"))
    }

    fn subject(&self, rest: fmt::Arguments<'_>) -> Subject {
        Subject::from(format!("{}.{rest}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn subjects() -> Subjects {
        Subjects::new(SubjectPrefix::new("app.sync").expect("plain"))
    }

    #[test]
    fn prefixes_are_plain() {
        for wrong in ["", ".", "a.", "a b", "a.*", "é", &"x".repeat(65)] {
            assert!(SubjectPrefix::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rights_are_within_what_is_exported_and_name_their_user() {
        let (subjects, user) = (subjects(), UserId::new("a.b").expect("ok"));
        let audience = AudienceKey::new("project:1").expect("ok");
        let rights = subjects.rights(&user, [&audience]);
        let expected = ["app.sync.up.*.a=2Eb.*", "app.sync.rpc.a=2Eb.*.*", "$SYS.REQ.USER.INFO"];
        assert_eq!(rights.publish.iter().map(|subject| subject.as_str()).collect::<Vec<_>>(), expected);
        let expected =
            ["app.sync.outcome.a=2Eb.*", "app.sync.ctl.a=2Eb", "_INBOX.a=2Eb.>", "app.sync.live.project=3A1"];
        assert_eq!(rights.subscribe.iter().map(|subject| subject.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_batch_without_rows_has_a_subject_too() {
        let user = UserId::new("u").expect("ok");
        let subject = subjects().up(None, &user, ClientId::from_uuid(Uuid::nil()));
        assert_eq!(subject.as_str(), "app.sync.up.=none.u.00000000-0000-0000-0000-000000000000");
        assert_eq!(subjects().parse_up(&subject).expect("ours").audience, AudienceToken::none());
    }

    #[test]
    fn what_is_not_ours_is_named() {
        let parse = |subject: &str| subjects().parse_rpc(subject).expect_err("not ours");
        assert!(matches!(parse("sync.rpc.u.c.fetch"), SubjectError::Prefix { .. }));
        assert!(matches!(parse("app.sync.rpc.u.fetch"), SubjectError::Tokens { actual: 2, expected: 3, .. }));
        assert_eq!(parse("app.sync.rpc.=41.c.fetch"), SubjectError::Token { which: "user" });
        assert_eq!(parse("app.sync.rpc.u.c.fetch"), SubjectError::Token { which: "client" });
        let upper = "app.sync.rpc.u.0000000A-0000-0000-0000-000000000000.fetch";
        assert_eq!(parse(upper), SubjectError::Token { which: "client" });
        assert_eq!(parse(&format!("app.sync.rpc.u.{}.drop", Uuid::nil())), SubjectError::Method);
    }

    proptest! {
        #[test]
        fn subjects_come_back(
            audience in "(?s)[^\0]{1,120}",
            user in "(?s)[^\0]{1,64}",
            client in any::<u128>(),
            method in prop::sample::select(&RpcMethod::ALL[..]),
        ) {
            let subjects = subjects();
            let (audience, user_id) = (AudienceKey::new(audience).expect("ok"), UserId::new(user).expect("ok"));
            let client_id = ClientId::from_uuid(Uuid::from_u128(client));
            let up = subjects.parse_up(&subjects.up(Some(&audience), &user_id, client_id)).expect("ours");
            prop_assert_eq!(&up.user, &UserToken::of(&user_id));
            prop_assert_eq!(up.client_id, client_id);
            prop_assert_eq!(&up.audience, &AudienceToken::of(&audience));
            if audience.as_str().len() <= 128 {
                prop_assert_eq!(up.audience.audience_key(), Some(audience));
            }
            let rpc = subjects.parse_rpc(&subjects.rpc(&user_id, client_id, method)).expect("ours");
            prop_assert_eq!((rpc.client_id, rpc.method), (client_id, method));
            prop_assert_eq!(rpc.user.user_id(), user_id);
        }

        #[test]
        fn a_subject_has_the_tokens_it_should(audience in "(?s)[^\0]{1,300}|[.*> ]{1,8}") {
            let Ok(audience) = AudienceKey::new(audience) else { return Ok(()) };
            let live = subjects().live(&audience);
            prop_assert_eq!(live.split('.').count(), 4);
            prop_assert!(!live.contains(['*', '>']) && !live.contains(char::is_whitespace));
        }

        #[test]
        fn what_arrives_never_panics(subject in "(app\\.sync\\.)?(up|rpc)?[.]?(?s).{0,60}") {
            let (_, _) = (subjects().parse_up(&subject), subjects().parse_rpc(&subject));
        }
    }
}
