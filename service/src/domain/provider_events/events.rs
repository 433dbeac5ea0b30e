//! The form of a security event (RFC 8417, Shared Signals Framework 1.0 section 4), the events that end sessions (CAEP 1.0
//! section 3.1, RISC 1.0 section 2), and their subjects.
//!
//! A subject is understood in full, or the event is refused. A member that narrows it down must not be ignored, and a subject
//! that names no session or user here must not be acknowledged. docs/logout.md has the forms, and a test reads them there.
use jose::Unverified;
use serde_json::{Map, Value};
use wire::Kind;

use super::Ending;
use super::claims::{Claims, Members, judge_id};
use super::error::RejectReason;
use super::jws::is_typed;
use super::providers::Opaque;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// Of accounts: everything that was issued for the account until now ends. CAEP's event replaced the last one.
const OF_ACCOUNTS: [&str; 3] = [
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
];
/// About the stream itself (Shared Signals Framework 1.0 sections 8.1.4.1 and 8.1.5): acknowledged without effect.
const OF_THE_STREAM: [&str; 2] = [
    "https://schemas.openid.net/secevent/ssf/event-type/verification",
    "https://schemas.openid.net/secevent/ssf/event-type/stream-updated",
];
/// The simple formats and all members that each has (RFC 9493 section 3.2, Shared Signals Framework 1.0 section 3.4).
const FORMATS: [(&str, &[&str]); 9] = [
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
const BELONGING: [&str; 3] = ["tenant", "org_unit", "group"];
/// In the place of a session's id, all sessions of the user: Keycloak's `ALL`, in any case.
const ALL_SESSIONS: [&str; 2] = ["ALL", "*"];

/// # Errors
/// It is of another type. Events must have theirs (Shared Signals Framework 1.0 section 4.1.1).
pub fn judge_type(token: &Unverified<'_>) -> Result<(), RejectReason> {
    if is_typed(token, &["secevent+jwt"]) { Ok(()) } else { Err(RejectReason::Type("`secevent+jwt`")) }
}

/// The issuer and the ids of this transmitter's subjects.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'p> {
    /// The issuer of the tokens that they end.
    pub issuer: &'p str,
    /// The meaning of a subject of the format `opaque` alone.
    pub opaque: Opaque,
}

/// `None`: there is nothing to end.
///
/// # Errors
/// The event is unknown, or its subject cannot be ended.
pub fn ending(claims: &Claims, scope: Scope<'_>) -> Result<Option<Ending>, RejectReason> {
    // Both keep events apart from other tokens (sections 4.1.2 and 4.1.7).
    if claims.sub.is_some() {
        return Err(RejectReason::Claim("sub", "must not be in an event: `sub_id` names its subject"));
    }
    if claims.has_exp() {
        return Err(RejectReason::Claim("exp", "must not be in an event"));
    }
    let [(name, event)] = claims.events.0.as_slice() else {
        return Err(RejectReason::Events("must have exactly one event"));
    };
    let Some(event) = event.as_object() else {
        return Err(RejectReason::Events("must have an object for its event"));
    };
    let Some(sub_id) = &claims.sub_id else { return Err(RejectReason::Subject("is missing")) };
    if OF_THE_STREAM.contains(&name.as_str()) {
        return Ok(None);
    }
    // Drafts had the subject there. Two subjects would be ambiguous.
    if event.contains_key("subject") || event.contains_key("sub_id") {
        return Err(RejectReason::Events("has a subject within its event: `sub_id` names it"));
    }
    match name.as_str() {
        SESSION_REVOKED => subject(sub_id, scope).map(Some),
        name if OF_ACCOUNTS.contains(&name) => account(sub_id, scope.issuer).map(Some),
        _ => Err(RejectReason::Events(
            "has no supported event: session-revoked and events that end an account are supported",
        )),
    }
}

/// A simple subject that is complete and has no other members (RFC 9493 section 3).
#[derive(Debug)]
enum Simple {
    Opaque(String),
    IssSub {
        iss: String,
        sub: String,
    },
    /// A format that no token corresponds to.
    Other,
}

/// The session or user to end.
fn subject(sub_id: &Members, scope: Scope<'_>) -> Result<Ending, RejectReason> {
    let Some(complex) = Complex::of(sub_id)? else {
        return match (simple(sub_id.0.iter().map(|(name, value)| (name, value)))?, scope.opaque) {
            (Simple::Opaque(id), Opaque::Session) => match is_all(&id) {
                true => Err(RejectReason::Subject("means all sessions but names no user")),
                false => session(&id, scope.issuer),
            },
            (Simple::Opaque(id), Opaque::User) => user(scope.issuer, &id, scope.issuer),
            (Simple::IssSub { iss, sub }, _) => user(&iss, &sub, scope.issuer),
            (Simple::Other, _) => Err(RejectReason::Subject("must be of the format opaque, iss_sub or complex")),
        };
    };
    match &complex.session {
        Some(Simple::Opaque(id)) if !is_all(id) => complex.session_of(id, scope.issuer),
        Some(Simple::Opaque(_)) | None => complex.user(scope.issuer),
        Some(Simple::IssSub { .. } | Simple::Other) => {
            Err(RejectReason::Subject("must have a `session` of the format opaque"))
        }
    }
}

/// The user of the account. A single session is not an account.
fn account(sub_id: &Members, issuer: &str) -> Result<Ending, RejectReason> {
    let must = RejectReason::Subject("must be of the format iss_sub for an account");
    match Complex::of(sub_id)? {
        Some(complex) if complex.session.is_none() => complex.user(issuer),
        Some(_) => Err(must),
        None => match simple(sub_id.0.iter().map(|(name, value)| (name, value)))? {
            Simple::IssSub { iss, sub } => user(&iss, &sub, issuer),
            Simple::Opaque(_) | Simple::Other => Err(must),
        },
    }
}

/// A complex subject (Shared Signals Framework 1.0 section 3.2), which means the intersection of its members.
struct Complex {
    user: Option<Simple>,
    session: Option<Simple>,
    device: bool,
}

impl Complex {
    /// `None`: it is a simple one.
    fn of(sub_id: &Members) -> Result<Option<Self>, RejectReason> {
        if sub_id.get("format").and_then(Value::as_str) != Some("complex") {
            return Ok(None);
        }
        let mut complex = Self { user: None, session: None, device: false };
        for (name, value) in &sub_id.0 {
            if name == "format" {
                continue;
            }
            let Some(value) = value.as_object() else {
                return Err(RejectReason::Subject("has a member that is not a subject"));
            };
            let member = simple(value.iter())?;
            match name.as_str() {
                "user" => complex.user = Some(member),
                "session" => complex.session = Some(member),
                "device" => complex.device = true,
                name if BELONGING.contains(&name) => {}
                // An application has only a part of a session, and the meaning of a new member is unknown.
                _ => return Err(RejectReason::Subject("is restricted by an unknown member")),
            }
        }
        Ok(Some(complex))
    }

    /// A session is exact alone: it belongs to one user, on one device.
    fn session_of(&self, id: &str, issuer: &str) -> Result<Ending, RejectReason> {
        if let Some(Simple::IssSub { iss, sub }) = &self.user {
            // But the user must be of the same issuer, or the session is another issuer's.
            user(iss, sub, issuer)?;
        }
        session(id, issuer)
    }

    fn user(&self, issuer: &str) -> Result<Ending, RejectReason> {
        if self.device {
            return Err(RejectReason::Subject("is restricted to a device, which no token names"));
        }
        match &self.user {
            Some(Simple::IssSub { iss, sub }) => user(iss, sub, issuer),
            Some(Simple::Opaque(_) | Simple::Other) => {
                Err(RejectReason::Subject("must have a `user` of the format iss_sub"))
            }
            None => Err(RejectReason::Subject("must have a `session` or a `user`")),
        }
    }
}

fn is_all(id: &str) -> bool {
    ALL_SESSIONS.iter().any(|all| all.eq_ignore_ascii_case(id.trim()))
}

fn simple<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>) -> Result<Simple, RejectReason> {
    let mut texts = Map::new();
    for (name, value) in members {
        match value {
            Value::String(text) if !text.is_empty() => drop(texts.insert(name.clone(), value.clone())),
            _ => return Err(RejectReason::Subject("has a member that is not a string")),
        }
    }
    let mut take = |name: &str| match texts.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let format = take("format").ok_or(RejectReason::Subject("has no `format`"))?;
    let known = FORMATS.iter().find(|(name, _)| *name == format);
    let (_, names) = known.ok_or(RejectReason::Subject("has an unknown format"))?;
    let values: Option<Vec<String>> = names.iter().map(|name| take(name)).collect();
    let values = values.ok_or(RejectReason::Subject("lacks a member of its format"))?;
    // RFC 9493 section 3: a format has no other members. One could restrict the subject.
    if !texts.is_empty() {
        return Err(RejectReason::Subject("has a member that its format does not have"));
    }
    let mut values = values.into_iter();
    Ok(match (format.as_str(), values.next(), values.next()) {
        ("opaque", Some(id), None) => Simple::Opaque(id),
        ("iss_sub", Some(iss), Some(sub)) => Simple::IssSub { iss, sub },
        _ => Simple::Other,
    })
}

fn session(id: &str, issuer: &str) -> Result<Ending, RejectReason> {
    judge_id("sub_id", id)?;
    Ok(Ending { kind: Kind::Session, issuer: issuer.to_owned(), ids: vec![id.to_owned()] })
}

fn user(iss: &str, sub: &str, issuer: &str) -> Result<Ending, RejectReason> {
    // A transmitter ends only subjects of its own issuer.
    if iss != issuer {
        return Err(RejectReason::Subject("is of an issuer whose users this transmitter may not end"));
    }
    judge_id("sub_id", sub)?;
    Ok(Ending { kind: Kind::User, issuer: issuer.to_owned(), ids: vec![sub.to_owned()] })
}

#[cfg(test)]
mod tests;
