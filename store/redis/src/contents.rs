//! What a store has under each name, and how it is copied to another store: read, compared, and merged by scripts that let
//! nothing go backwards (docs/decisions/0040).
//!
//! A new kind of name must be added here. Otherwise it is not copied, and `migrate` reports it as not understood.
use std::fmt;

use redis::{Cmd, Value};
use store::Ending;

use crate::entry::{self, Bucket, Entry};

/// All names of ours, for SCAN.
pub const PATTERN: &str = "portcullis:{??}:*";
/// How much shorter than the original a copy may live. Times to live are relative and are read one after the other, so the
/// time in between shows.
pub const TTL_TOLERANCE_MILLIS: i64 = 1000;
/// All fields of a session's hash; see [`crate::sessions`].
pub const SESSION_FIELDS: [&str; 10] = ["d", "a", "r", "p", "t", "u", "e", "i", "x", "n"];
/// The scripts' and PTTL's value for no expiry.
pub const FOR_EVER: i64 = -1;

const TEXT: &str =
    concat!(include_str!("lua/lives.lua"), include_str!("lua/log.lua"), include_str!("lua/merge/text.lua"));
const SESSION: &str = concat!(include_str!("lua/lives.lua"), include_str!("lua/merge/session.lua"));
const SUBJECT: &str = concat!(include_str!("lua/lives.lua"), include_str!("lua/merge/subject.lua"));
const AUDIT: &str = include_str!("lua/merge/audit.lua");

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Revocation,
    /// A mark of [`store::ReplayGuard`].
    Mark,
    Session,
    /// The sessions of one subject.
    Subject,
    Audit,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    pub kind: Kind,
    pub bucket: Bucket,
    pub text: String,
}

/// A name that SCAN found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Sentinel,
    /// The log of a bucket, or its head, for [`crate::log`]. Each store has its own, so they are not copied.
    Log,
    /// When a revocation was written, for [`crate::lag`]. It expires in seconds and is not copied.
    Timing,
    /// From where a session was used, for [`crate::sightings`]. It is not copied.
    Sightings,
    /// The issuers that filters ask about. Filters announce them again, so they are not copied.
    Issuers,
    Ours(Name),
    Strange,
}

/// What a store has under a name. `ttl` is in milliseconds; -1: no expiry.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Absent,
    Text { value: Vec<u8>, ttl: i64 },
    Session { fields: Vec<Option<Vec<u8>>>, ttl: i64 },
    Subject { members: Vec<(Vec<u8>, f64)>, ttl: i64 },
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Revocation, Kind::Mark, Kind::Session, Kind::Subject, Kind::Audit];

    /// For reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Revocation => "revocations",
            Kind::Mark => "marks of used tokens",
            Kind::Session => "sessions",
            Kind::Subject => "subjects' lists",
            Kind::Audit => "audit entries",
        }
    }
}

impl Found {
    pub fn parse(found: &[u8]) -> Self {
        let read = || {
            let text = std::str::from_utf8(found).ok()?;
            let (tag, rest) = text.strip_prefix("portcullis:{")?.split_once("}:")?;
            let bucket = Bucket::all().find(|bucket| bucket.to_string() == tag)?;
            let kind = match rest.split_once(':') {
                None if rest == "sentinel" => return Some(Found::Sentinel),
                None if rest == "head" || rest == "log" => return Some(Found::Log),
                None if text == Name::of_audit().text => Kind::Audit,
                None if text == Name::of_issuers() => return Some(Found::Issuers),
                Some(("m", _)) => return Some(Found::Timing),
                Some(("w", _)) => return Some(Found::Sightings),
                Some(("r", _)) => Kind::Revocation,
                Some(("j", _)) => Kind::Mark,
                Some(("s", _)) => Kind::Session,
                Some(("u", _)) => Kind::Subject,
                _ => return None,
            };
            Some(Found::Ours(Name { kind, bucket, text: text.to_owned() }))
        };
        read().unwrap_or(Found::Strange)
    }
}

impl Name {
    pub fn of_revocation(key: wire::RevocationKey) -> Self {
        Self { kind: Kind::Revocation, bucket: Bucket::of(key.0), text: entry::name(key) }
    }

    /// By the digest that names it, and that digest as text.
    pub fn of_session(digest: [u8; 16], text: impl fmt::Display) -> Self {
        let bucket = Bucket::of(digest);
        Self { kind: Kind::Session, bucket, text: bucket.name(format_args!("s:{text}")) }
    }

    /// As [`Name::of_session`].
    pub fn of_subject(digest: [u8; 16], text: impl fmt::Display) -> Self {
        let bucket = Bucket::of(digest);
        Self { kind: Kind::Subject, bucket, text: bucket.name(format_args!("u:{text}")) }
    }

    /// The set of [`crate::issuers`].
    pub fn of_issuers() -> String {
        Bucket::FIRST.name("issuers")
    }

    /// The record of [`crate::sightings`].
    pub fn of_sightings(session: wire::RevocationKey) -> String {
        Bucket::of(session.0).name(format_args!("w:{session}"))
    }

    /// The audit log, of which there is one.
    pub fn of_audit() -> Self {
        let bucket = Bucket::FIRST;
        Self { kind: Kind::Audit, bucket, text: bucket.name("audit") }
    }

    /// An entry of the audit log, for the backlog of a mirror. The text is the entry's id.
    pub fn of_audit_entry(id: &str) -> Self {
        Self { text: id.to_owned(), ..Self::of_audit() }
    }

    pub fn of_mark(digest: &str) -> Self {
        let bucket = Bucket::of_text(digest);
        Self { kind: Kind::Mark, bucket, text: bucket.name(format_args!("j:{digest}")) }
    }

    /// Two commands, whose replies [`State::read`] takes. The audit log is read by pages instead.
    pub fn asks(&self) -> [Cmd; 2] {
        let mut ask = match self.kind {
            Kind::Revocation | Kind::Mark | Kind::Audit => redis::cmd("GET"),
            Kind::Session => redis::cmd("HMGET"),
            Kind::Subject => redis::cmd("ZRANGE"),
        };
        ask.arg(&self.text);
        match self.kind {
            Kind::Revocation | Kind::Mark | Kind::Audit => {}
            Kind::Session => {
                ask.arg(&SESSION_FIELDS);
            }
            Kind::Subject => {
                ask.arg(0).arg(-1).arg("WITHSCORES");
            }
        }
        let mut ttl = redis::cmd("PTTL");
        ttl.arg(&self.text);
        [ask, ttl]
    }

    /// The command that merges a revocation, unless what is there covers it: see the script. It replies with how many were
    /// written.
    pub fn merge_revocation(&self, value: Vec<u8>, ttl: i64, slack_millis: u64) -> Cmd {
        let mut eval = self.eval(TEXT, ttl);
        eval.arg(value).arg("r").arg(slack_millis);
        eval
    }

    fn eval(&self, script: &str, ttl: i64) -> Cmd {
        let mut eval = redis::cmd("EVAL");
        match self.kind {
            Kind::Revocation => {
                eval.arg(script).arg(3).arg(&self.text).arg(self.bucket.head()).arg(self.bucket.log());
            }
            _ => {
                eval.arg(script).arg(1).arg(&self.text);
            }
        }
        eval.arg(ttl);
        eval
    }

    /// The command that merges `state` into the store where it runs. `None`: there is nothing to merge.
    pub fn merge(&self, state: &State) -> Option<Cmd> {
        Some(match state {
            State::Absent => return None,
            State::Text { value, ttl } => {
                let mut eval = self.eval(TEXT, *ttl);
                eval.arg(value).arg(if self.kind == Kind::Mark { "j" } else { "r" });
                eval
            }
            State::Session { fields, ttl } => {
                let mut eval = self.eval(SESSION, *ttl);
                for (name, value) in SESSION_FIELDS.iter().zip(fields) {
                    if let Some(value) = value {
                        eval.arg(*name).arg(value);
                    }
                }
                eval
            }
            State::Subject { members, ttl } => {
                let mut eval = self.eval(SUBJECT, *ttl);
                for (member, score) in members {
                    eval.arg(format!("{score:.0}")).arg(member);
                }
                eval
            }
        })
    }
}

/// The command that continues the audit log; see the script.
pub fn merge_audit(most: usize, entries: &[(String, Vec<u8>)], even_if_passed: bool) -> Cmd {
    let mut eval = redis::cmd("EVAL");
    eval.arg(AUDIT).arg(1).arg(Name::of_audit().text).arg(most).arg(u8::from(even_if_passed));
    for (id, value) in entries {
        eval.arg(id).arg(value);
    }
    eval
}

impl State {
    /// `None`: a name of this kind cannot have such a value.
    pub fn read(kind: Kind, values: Value, ttl: Value) -> Option<Self> {
        let ttl: i64 = redis::from_redis_value(ttl).ok()?;
        // Expired in between, or about to expire.
        if ttl != FOR_EVER && ttl <= 0 {
            return Some(State::Absent);
        }
        match kind {
            Kind::Revocation | Kind::Mark | Kind::Audit => {
                let value: Option<Vec<u8>> = redis::from_redis_value(values).ok()?;
                Some(value.map_or(State::Absent, |value| State::Text { value, ttl }))
            }
            Kind::Session => {
                let fields: Vec<Option<Vec<u8>>> = redis::from_redis_value(values).ok()?;
                let is_whole = fields.len() == SESSION_FIELDS.len() && fields.first().is_some_and(Option::is_some);
                if fields.iter().all(Option::is_none) {
                    return Some(State::Absent);
                }
                is_whole.then_some(State::Session { fields, ttl })
            }
            Kind::Subject => {
                let members: Vec<(Vec<u8>, f64)> = redis::from_redis_value(values).ok()?;
                Some(match members.is_empty() {
                    true => State::Absent,
                    false => State::Subject { members, ttl },
                })
            }
        }
    }

    pub fn is_absent(&self) -> bool {
        *self == State::Absent
    }

    /// Whether it is a revocation that is at least as strong as `ending`.
    pub fn ends(&self, ending: Ending) -> bool {
        let least = match ending {
            Ending::Dead => i128::MAX,
            Ending::Before(before) => i128::from(before),
        };
        matches!(self, State::Text { value, .. } if rank(Kind::Revocation, value) >= least)
    }

    /// Whether this covers `original`: nothing of it is missing, weaker, older or shorter-lived here.
    pub fn covers(&self, kind: Kind, original: &State) -> bool {
        let lives = |ttl: &i64, original: &i64| {
            *ttl == FOR_EVER || (*original != FOR_EVER && ttl.saturating_add(TTL_TOLERANCE_MILLIS) >= *original)
        };
        match (self, original) {
            (_, State::Absent) => true,
            (State::Text { value, ttl }, State::Text { value: other, ttl: other_ttl }) => {
                rank(kind, value) >= rank(kind, other) && lives(ttl, other_ttl)
            }
            (State::Session { fields, ttl }, State::Session { fields: other, ttl: other_ttl }) => {
                let (here, there) = (Session(fields), Session(other));
                let is_later = here.order() > there.order()
                    || (here.order() == there.order()
                        && ["r", "p", "a"].iter().all(|name| here.get(name) == there.get(name)));
                let is_same = ["d", "e", "i"].iter().all(|name| here.get(name) == there.get(name));
                is_later && is_same && (here.get("x").is_some() || there.get("x").is_none()) && lives(ttl, other_ttl)
            }
            (State::Subject { members, ttl }, State::Subject { members: other, ttl: other_ttl }) => {
                let scores: std::collections::HashMap<_, _> =
                    members.iter().map(|(member, score)| (member, *score)).collect();
                other.iter().all(|(member, score)| scores.get(member).is_some_and(|here| here >= score))
                    && lives(ttl, other_ttl)
            }
            (_, _) => false,
        }
    }
}

/// The rank of text.lua: the stronger revocation is higher, and nonsense is higher than nothing.
fn rank(kind: Kind, value: &[u8]) -> i128 {
    match kind {
        Kind::Mark => i128::from(value == b"d"),
        _ => match Entry::parse(value).map(|entry| entry.ending) {
            Some(Ending::Dead) => i128::MAX,
            Some(Ending::Before(before)) => i128::from(before),
            None => -1,
        },
    }
}

struct Session<'a>(&'a [Option<Vec<u8>>]);

impl Session<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        let at = SESSION_FIELDS.iter().position(|field| *field == name)?;
        self.0.get(at)?.as_deref()
    }

    /// How often it was refreshed, and when last.
    fn order(&self) -> (u64, u64) {
        let number = |name| self.get(name).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
        (number("n"), number("t"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str, ttl: i64) -> State {
        State::Text { value: value.into(), ttl }
    }

    #[test]
    fn names_are_known_by_their_letter_and_bucket() {
        let kind = |name: &str| match Found::parse(name.as_bytes()) {
            Found::Ours(name) => Some(name.kind),
            Found::Sentinel | Found::Log | Found::Timing | Found::Sightings | Found::Issuers | Found::Strange => None,
        };
        assert_eq!(kind("portcullis:{0a}:r:abc"), Some(Kind::Revocation));
        assert_eq!(kind("portcullis:{0a}:j:abc"), Some(Kind::Mark));
        assert_eq!(kind("portcullis:{ff}:s:abc"), Some(Kind::Session));
        assert_eq!(kind("portcullis:{ff}:u:abc"), Some(Kind::Subject));
        assert_eq!(kind("portcullis:{00}:audit"), Some(Kind::Audit));
        assert_eq!(Found::parse(b"portcullis:{0a}:sentinel"), Found::Sentinel);
        assert_eq!(Found::parse(Bucket::of_text("x").head().as_bytes()), Found::Log);
        assert_eq!(Found::parse(Bucket::of_text("x").log().as_bytes()), Found::Log);
        assert_eq!(Found::parse(entry::mark_name(wire::RevocationKey([10; 16])).as_bytes()), Found::Timing);
        assert_eq!(Found::parse(b"portcullis:{0a}:w:abc"), Found::Sightings);
        assert_eq!(Found::parse(b"portcullis:{00}:issuers"), Found::Issuers);
        for strange in [
            "",
            "portcullis:{01}:issuers",
            "portcullis:{0A}:r:abc",
            "portcullis:{0a}:audit",
            "portcullis:{0a}:z:abc",
            "portcullis:x",
        ] {
            assert_eq!(Found::parse(strange.as_bytes()), Found::Strange, "{strange}");
        }
    }

    #[test]
    fn a_copy_covers_what_is_not_stronger_and_does_not_live_longer() {
        let covers = |copy: &State, original: &State| copy.covers(Kind::Revocation, original);
        assert!(covers(&text("D;x", 5000), &text("D;y", 5000 + TTL_TOLERANCE_MILLIS)));
        assert!(!covers(&text("D;x", 5000), &text("D;y", 5001 + TTL_TOLERANCE_MILLIS)));
        assert!(covers(&text("D;", 9), &text("B9;", 9)) && !covers(&text("B9;", 9), &text("D;", 9)));
        assert!(covers(&text("B9;", 9), &text("B9;", 9)) && !covers(&text("B8;", 9), &text("B9;", 9)));
        assert!(covers(&text("D;", -1), &text("D;", 9)) && !covers(&text("D;", i64::MAX), &text("D;", -1)));
        assert!(!covers(&State::Absent, &text("D;", 9)) && covers(&State::Absent, &State::Absent));
        assert!(!covers(&text("?", 9), &text("B0;", 9)), "nonsense ends nothing");
        assert!(!covers(&State::Absent, &text("?", 9)), "nor is it nothing");
        let ends = |value: &str, ending| text(value, 9).ends(ending);
        assert!(ends("D;", Ending::Dead) && ends("D;", Ending::Before(9)) && ends("B9;", Ending::Before(9)));
        assert!(
            !ends("B9;", Ending::Dead) && !ends("B8;", Ending::Before(9)) && !State::Absent.ends(Ending::Before(0))
        );
        assert!(text("d", 9).covers(Kind::Mark, &text("p", 9)) && !text("p", 9).covers(Kind::Mark, &text("d", 9)));
    }

    #[test]
    fn a_session_is_covered_by_the_same_or_a_later_state_and_never_by_one_that_was_not_ended() {
        let session = |given: &[(&str, &str)]| {
            let value =
                |name: &&str| given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_bytes().to_vec());
            State::Session { fields: SESSION_FIELDS.iter().map(value).collect(), ttl: 1000 }
        };
        let covers = |copy: &State, original: &State| copy.covers(Kind::Session, original);
        let first = session(&[("d", "D"), ("r", "1")]);
        let second = session(&[("d", "D"), ("r", "2"), ("p", "1"), ("n", "1"), ("t", "5")]);
        let ended = session(&[("d", "D"), ("r", "1"), ("x", "ended")]);
        assert!(covers(&first, &first) && covers(&second, &first) && !covers(&first, &second));
        assert!(covers(&ended, &first) && !covers(&first, &ended) && !covers(&second, &ended));
        assert!(!covers(&session(&[("d", "other"), ("r", "1")]), &first));
        // Refreshed by a release that did not count.
        assert!(!covers(
            &session(&[("d", "D"), ("r", "3"), ("t", "4")]),
            &session(&[("d", "D"), ("r", "2"), ("t", "5")])
        ));
    }

    #[test]
    fn what_is_not_a_session_is_not_read_as_one() {
        let hash = |first: Option<&str>| {
            let nil = std::iter::repeat_n(Value::Nil, SESSION_FIELDS.len() - 2);
            let first = first.map_or(Value::Nil, |text| Value::BulkString(text.into()));
            Value::Array([first, Value::BulkString("a".into())].into_iter().chain(nil).collect())
        };
        assert!(matches!(State::read(Kind::Session, hash(Some("d")), Value::Int(5)), Some(State::Session { .. })));
        assert_eq!(State::read(Kind::Session, hash(None), Value::Int(5)), None);
        assert_eq!(State::read(Kind::Session, hash(Some("d")), Value::Int(-2)), Some(State::Absent));
    }
}
