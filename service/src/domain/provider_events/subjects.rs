//! The subjects of events and of revocation requests (RFC 9493, Shared Signals Framework 1.0 section 3): each is read
//! completely, and mapped to the ids that tokens carry, or refused.
//!
//! A member that narrows a subject down must not be ignored, and a subject that names no session or user here must not be
//! acknowledged. docs/events.md has the forms, and a test reads them there.
use serde_json::{Map, Value};
use wire::Kind;

use super::Ending;
use super::actions::Extent;
use super::claims::{MAX_ID, Members};
use super::error::{RejectReason, SubjectFault};
use super::mappings::{Mapped, Mappings};
use super::providers::{MappedFormat, Opaque};

/// The simple formats and all members that each has (RFC 9493 section 3.2, Shared Signals Framework 1.0 section 3.4).
/// `aliases` is apart: its member is a list.
pub const FORMATS: [(&str, &[&str]); 9] = [
    ("account", &["uri"]),
    ("did", &["url"]),
    ("email", &["email"]),
    ("iss_sub", &["iss", "sub"]),
    ("jwt_id", &["iss", "jti"]),
    ("opaque", &["id"]),
    ("phone_number", &["phone_number"]),
    ("saml_assertion_id", &["issuer", "assertion_id"]),
    ("uri", &["uri"]),
];
/// Members of a complex subject that say where its user belongs, and do not change which user it is.
pub const BELONGING: [&str; 3] = ["tenant", "org_unit", "group"];
/// In the place of a session's id, all sessions of the user: Keycloak's `ALL`, in any case.
const ALL_SESSIONS: [&str; 2] = ["ALL", "*"];
/// The most identifiers of a subject of the format `aliases`.
const MAX_ALIASES: usize = 16;

/// How the subjects of a provider are understood.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'p> {
    /// The issuer of the tokens that they end.
    pub issuer: &'p str,
    /// Other spellings of it.
    pub issuer_names: &'p [String],
    /// The meaning of a subject of the format `opaque` alone.
    pub opaque: Opaque,
    pub mappings: &'p Mappings,
}

/// A simple subject that is complete and has no other members (RFC 9493 section 3).
#[derive(Debug)]
enum Simple {
    Opaque(String),
    IssSub {
        iss: String,
        sub: String,
    },
    Mapped(MappedFormat, String),
    /// Names of one subject. No list within a list.
    Aliases(Vec<Simple>),
    /// A format that no token corresponds to.
    Other,
}

/// A complex subject (Shared Signals Framework 1.0 section 3.2), which means the intersection of its members.
struct Complex {
    user: Option<Simple>,
    session: Option<Simple>,
    device: bool,
    application: bool,
}

/// # Errors
/// It cannot be ended to this extent.
pub fn ending(sub_id: &Members, scope: Scope<'_>, extent: Extent) -> Result<Ending, RejectReason> {
    if let Some(complex) = Complex::of(sub_id)? {
        return complex.ending(scope, extent);
    }
    let subject = simple_or_aliases(sub_id.0.iter().map(|(name, value)| (name, value)))?;
    match (subject, extent, scope.opaque) {
        (Simple::Opaque(id), Extent::Subject, Opaque::Session) => match is_all(&id) {
            true => Err(unsupported("means all sessions but names no user")),
            false => session(&id, scope.issuer),
        },
        (Simple::Opaque(_), Extent::Account | Extent::User, Opaque::Session) => {
            Err(unsupported("of the format opaque means a session here, and no user is named"))
        }
        (subject, ..) => user(&subject, scope),
    }
}

/// The user of a subject that is not complex: the form of revocation requests.
///
/// # Errors
/// It names no user here.
pub fn user_of(sub_id: &Members, scope: Scope<'_>) -> Result<Ending, RejectReason> {
    match sub_id.get("format").and_then(Value::as_str) {
        Some("complex") => Err(unsupported("must be a subject of RFC 9493, and `complex` is none")),
        _ => ending(sub_id, scope, Extent::User),
    }
}

impl Complex {
    /// `None`: it is a simple one.
    fn of(sub_id: &Members) -> Result<Option<Self>, RejectReason> {
        if sub_id.get("format").and_then(Value::as_str) != Some("complex") {
            return Ok(None);
        }
        let mut complex = Self { user: None, session: None, device: false, application: false };
        for (name, value) in &sub_id.0 {
            if name == "format" {
                continue;
            }
            let value = value.as_object().ok_or(malformed("has a member that is not a subject"))?;
            match name.as_str() {
                "user" => complex.user = Some(simple_or_aliases(value.iter())?),
                "session" => complex.session = Some(simple(value.iter())?),
                "device" => {
                    simple_or_aliases(value.iter())?;
                    complex.device = true;
                }
                "application" => {
                    simple_or_aliases(value.iter())?;
                    complex.application = true;
                }
                name if BELONGING.contains(&name) => drop(simple_or_aliases(value.iter())?),
                // The meaning of a new member is unknown.
                _ => return Err(unsupported("is restricted by an unknown member")),
            }
        }
        Ok(Some(complex))
    }

    fn ending(&self, scope: Scope<'_>, extent: Extent) -> Result<Ending, RejectReason> {
        if extent == Extent::User {
            let user_given = self.user.as_ref().ok_or(unsupported("must have a `user`"))?;
            return user(user_given, scope);
        }
        // An application has only a part of a session or of a user's tokens.
        if self.application {
            return Err(narrowed("is restricted to an application, which is a part of a session"));
        }
        match (&self.session, extent) {
            (None, _) => self.user(scope),
            (Some(_), Extent::Account) => Err(unsupported("has a `session`, which is no account")),
            (Some(Simple::Opaque(id)), _) if !is_all(id) => self.session_of(id, scope),
            (Some(Simple::Opaque(_)), _) => self.user(scope),
            (Some(_), _) => Err(unsupported("must have a `session` of the format opaque")),
        }
    }

    /// A session is exact alone: it belongs to one user, on one device.
    fn session_of(&self, id: &str, scope: Scope<'_>) -> Result<Ending, RejectReason> {
        if let Some(Simple::IssSub { iss, .. }) = &self.user {
            // But the user must be of the same issuer, or the session is another issuer's.
            scope.judge_issuer(iss)?;
        }
        session(id, scope.issuer)
    }

    fn user(&self, scope: Scope<'_>) -> Result<Ending, RejectReason> {
        if self.device {
            return Err(narrowed("is restricted to a device, which no token names"));
        }
        match &self.user {
            Some(given) => user(given, scope),
            None => Err(unsupported("must have a `session` or a `user`")),
        }
    }
}

impl Scope<'_> {
    /// A transmitter ends only subjects of its own issuer.
    fn judge_issuer(&self, iss: &str) -> Result<(), RejectReason> {
        match iss == self.issuer || self.issuer_names.iter().any(|name| name == iss) {
            true => Ok(()),
            false => Err(RejectReason::Subject(
                SubjectFault::Foreign,
                "is of an issuer whose users this provider may not end",
            )),
        }
    }
}

fn user(subject: &Simple, scope: Scope<'_>) -> Result<Ending, RejectReason> {
    let ids = match subject {
        Simple::Aliases(identifiers) => {
            // All of them are the same user, so one that is known here is enough. If they map to several ids, all end.
            let mut ids: Vec<String> = Vec::new();
            let mut rejected = None;
            for identifier in identifiers {
                match user_id(identifier, scope) {
                    Ok(id) if ids.contains(&id) => {}
                    Ok(id) => ids.push(id),
                    Err(why) => rejected = Some(rejected.unwrap_or(why)),
                }
            }
            match (ids.is_empty(), rejected) {
                (false, _) => ids,
                (true, Some(RejectReason::Subject(SubjectFault::Foreign | SubjectFault::Unknown, _))) => {
                    return Err(RejectReason::Subject(SubjectFault::Unknown, "has no alias that names a user here"));
                }
                (true, _) => return Err(narrowed("has no alias that can be mapped to a user")),
            }
        }
        subject => vec![user_id(subject, scope)?],
    };
    Ok(Ending { kind: Kind::User, issuer: scope.issuer.to_owned(), ids })
}

fn user_id(subject: &Simple, scope: Scope<'_>) -> Result<String, RejectReason> {
    let id = match subject {
        Simple::IssSub { iss, sub } => {
            scope.judge_issuer(iss)?;
            sub.clone()
        }
        Simple::Opaque(id) if scope.opaque == Opaque::User => id.clone(),
        Simple::Opaque(_) => return Err(unsupported("has a user of the format opaque, which names no issuer")),
        Simple::Mapped(format, value) => match scope.mappings.user(*format, value) {
            Mapped::User(id) => id,
            Mapped::Unknown => {
                return Err(RejectReason::Subject(SubjectFault::Unknown, "is mapped to no user by `subjects`"));
            }
            Mapped::NoTable => {
                return Err(unsupported("has a format that tokens do not carry and `subjects` does not map"));
            }
        },
        Simple::Aliases(_) | Simple::Other => {
            return Err(unsupported("has a format that names no session and no user of tokens"));
        }
    };
    judge_id(&id)?;
    Ok(id)
}

fn session(id: &str, issuer: &str) -> Result<Ending, RejectReason> {
    judge_id(id)?;
    Ok(Ending { kind: Kind::Session, issuer: issuer.to_owned(), ids: vec![id.to_owned()] })
}

fn is_all(id: &str) -> bool {
    ALL_SESSIONS.iter().any(|all| all.eq_ignore_ascii_case(id.trim()))
}

fn simple_or_aliases<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>) -> Result<Simple, RejectReason> {
    let members: Vec<(&String, &Value)> = members.collect();
    let is_aliases = members.iter().any(|(name, value)| *name == "format" && value.as_str() == Some("aliases"));
    if !is_aliases {
        return simple(members.into_iter());
    }
    let mut identifiers = None;
    for (name, value) in members {
        match (name.as_str(), value) {
            ("format", _) => {}
            ("identifiers", Value::Array(list)) => identifiers = Some(list),
            _ => return Err(malformed("has a member that its format does not have")),
        }
    }
    let identifiers = identifiers.ok_or(malformed("lacks a member of its format"))?;
    if identifiers.is_empty() || identifiers.len() > MAX_ALIASES {
        return Err(malformed("must have from 1 to 16 identifiers"));
    }
    let each = identifiers.iter().map(|identifier| {
        let identifier = identifier.as_object().ok_or(malformed("has an identifier that is not a subject"))?;
        simple(identifier.iter())
    });
    Ok(Simple::Aliases(each.collect::<Result<_, _>>()?))
}

fn simple<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>) -> Result<Simple, RejectReason> {
    let mut texts = Map::new();
    for (name, value) in members {
        match value {
            Value::String(text) if !text.is_empty() => drop(texts.insert(name.clone(), value.clone())),
            _ => return Err(malformed("has a member that is not a string")),
        }
    }
    let mut take = |name: &str| match texts.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let format = take("format").ok_or(malformed("has no `format`"))?;
    let known = FORMATS.iter().find(|(name, _)| *name == format);
    let (_, names) = known.ok_or(unsupported("has an unknown format"))?;
    let values: Option<Vec<String>> = names.iter().map(|name| take(name)).collect();
    let values = values.ok_or(malformed("lacks a member of its format"))?;
    // RFC 9493 section 3: a format has no other members. One could restrict the subject.
    if !texts.is_empty() {
        return Err(malformed("has a member that its format does not have"));
    }
    let mut values = values.into_iter();
    Ok(match (format.as_str(), values.next(), values.next()) {
        ("opaque", Some(id), None) => Simple::Opaque(id),
        ("iss_sub", Some(iss), Some(sub)) => Simple::IssSub { iss, sub },
        (format, Some(value), None) => {
            MappedFormat::named(format).map_or(Simple::Other, |of| Simple::Mapped(of, value))
        }
        _ => Simple::Other,
    })
}

fn judge_id(id: &str) -> Result<(), RejectReason> {
    match id.len() {
        0..=MAX_ID => Ok(()),
        _ => Err(RejectReason::Subject(SubjectFault::Unending, "is longer than any id in a token")),
    }
}

fn malformed(what: &'static str) -> RejectReason {
    RejectReason::Subject(SubjectFault::Malformed, what)
}

fn unsupported(what: &'static str) -> RejectReason {
    RejectReason::Subject(SubjectFault::Unsupported, what)
}

fn narrowed(what: &'static str) -> RejectReason {
    RejectReason::Subject(SubjectFault::Unending, what)
}

#[cfg(test)]
pub mod tests;
