//! What a security event must be (RFC 8417, Shared Signals Framework 1.0 section 4), which events end somebody (CAEP 1.0
//! section 3.1, RISC 1.0 section 2), and whom.
//!
//! A subject is understood in full, or the event is refused: what narrows it down would be widened, what names nobody here
//! would be acknowledged and end nobody. docs/logout.md has the forms, and a test reads them there.
use serde_json::{Map, Value};
use wire::Kind;

use super::Ending;
use super::claims::{Claims, Members, judge_id};
use super::jws::Unverified;
use super::providers::Opaque;
use super::refused::Refused;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// Of accounts: all that was issued for it until now is to end. The last one is what CAEP's replaced.
const OF_ACCOUNTS: [&str; 3] = [
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
];
/// About the stream itself (Shared Signals Framework 1.0 sections 8.1.4.1 and 8.1.5): acknowledged, and nothing ends.
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
/// Members of a complex subject that say where its user belongs, and leave it the same user.
const BELONGING: [&str; 3] = ["tenant", "org_unit", "group"];
/// What stands in the place of a session's id and means all of the user's: Keycloak's `ALL`, in any case.
const ALL_SESSIONS: [&str; 2] = ["ALL", "*"];

/// # Errors
/// It is of another type. Events must have theirs (Shared Signals Framework 1.0 section 4.1.1).
pub fn judge_type(token: &Unverified<'_>) -> Result<(), Refused> {
    if token.is_typed(&["secevent+jwt"]) { Ok(()) } else { Err(Refused::Type("`secevent+jwt`")) }
}

/// What this transmitter's events are about.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'p> {
    /// Of the tokens that they end.
    pub issuer: &'p str,
    /// What a subject of the format `opaque` is, standing alone.
    pub opaque: Opaque,
}

/// `None`: there is nothing to end.
///
/// # Errors
/// It is no event that we know, or its subject is none that we can end.
pub fn ending(claims: &Claims, scope: Scope<'_>) -> Result<Option<Ending>, Refused> {
    // Both keep events apart from other tokens (sections 4.1.2 and 4.1.7).
    if claims.sub.is_some() {
        return Err(Refused::Claim("sub", "must not be in an event: `sub_id` names its subject"));
    }
    if claims.has_exp() {
        return Err(Refused::Claim("exp", "must not be in an event"));
    }
    let [(name, event)] = claims.events.0.as_slice() else {
        return Err(Refused::Events("must have exactly one event"));
    };
    let Some(event) = event.as_object() else {
        return Err(Refused::Events("must have an object for its event"));
    };
    let Some(sub_id) = &claims.sub_id else { return Err(Refused::Subject("is missing")) };
    if OF_THE_STREAM.contains(&name.as_str()) {
        return Ok(None);
    }
    // Drafts had the subject there. Two of them are one too many.
    if event.contains_key("subject") || event.contains_key("sub_id") {
        return Err(Refused::Events("has a subject within its event: `sub_id` names it"));
    }
    match name.as_str() {
        SESSION_REVOKED => subject(sub_id, scope).map(Some),
        name if OF_ACCOUNTS.contains(&name) => account(sub_id, scope.issuer).map(Some),
        _ => Err(Refused::Events("has none that is taken here: session-revoked is, and what ends an account")),
    }
}

/// A simple subject that is whole and nothing more (RFC 9493 section 3).
#[derive(Debug)]
enum Simple {
    Opaque(String),
    IssSub {
        iss: String,
        sub: String,
    },
    /// Of a format that no token says anything of.
    Other,
}

/// Whose sessions end, and which.
fn subject(sub_id: &Members, scope: Scope<'_>) -> Result<Ending, Refused> {
    let Some(complex) = Complex::of(sub_id)? else {
        return match (simple(sub_id.0.iter().map(|(name, value)| (name, value)))?, scope.opaque) {
            (Simple::Opaque(id), Opaque::Session) => match is_all(&id) {
                true => Err(Refused::Subject("means all sessions and says not whose")),
                false => session(&id, scope.issuer),
            },
            (Simple::Opaque(id), Opaque::User) => user(scope.issuer, &id, scope.issuer),
            (Simple::IssSub { iss, sub }, _) => user(&iss, &sub, scope.issuer),
            (Simple::Other, _) => Err(Refused::Subject("must be of the format opaque, iss_sub or complex")),
        };
    };
    match &complex.session {
        Some(Simple::Opaque(id)) if !is_all(id) => complex.session_of(id, scope.issuer),
        Some(Simple::Opaque(_)) | None => complex.user(scope.issuer),
        Some(Simple::IssSub { .. } | Simple::Other) => {
            Err(Refused::Subject("must have a `session` of the format opaque"))
        }
    }
}

/// Whose account it is. One session is none.
fn account(sub_id: &Members, issuer: &str) -> Result<Ending, Refused> {
    let must = Refused::Subject("must be of the format iss_sub for an account");
    match Complex::of(sub_id)? {
        Some(complex) if complex.session.is_none() => complex.user(issuer),
        Some(_) => Err(must),
        None => match simple(sub_id.0.iter().map(|(name, value)| (name, value)))? {
            Simple::IssSub { iss, sub } => user(&iss, &sub, issuer),
            Simple::Opaque(_) | Simple::Other => Err(must),
        },
    }
}

/// Of a complex subject (Shared Signals Framework 1.0 section 3.2), which is what all its members have in common.
struct Complex {
    user: Option<Simple>,
    session: Option<Simple>,
    device: bool,
}

impl Complex {
    /// `None`: it is a simple one.
    fn of(sub_id: &Members) -> Result<Option<Self>, Refused> {
        if sub_id.get("format").and_then(Value::as_str) != Some("complex") {
            return Ok(None);
        }
        let mut complex = Self { user: None, session: None, device: false };
        for (name, value) in &sub_id.0 {
            if name == "format" {
                continue;
            }
            let Some(value) = value.as_object() else {
                return Err(Refused::Subject("has a member that is no subject"));
            };
            let member = simple(value.iter())?;
            match name.as_str() {
                "user" => complex.user = Some(member),
                "session" => complex.session = Some(member),
                "device" => complex.device = true,
                name if BELONGING.contains(&name) => {}
                // An application has a part of a session, and what a new member means nobody knows here.
                _ => return Err(Refused::Subject("is narrowed down by what is not known here")),
            }
        }
        Ok(Some(complex))
    }

    /// A session is exact alone: it is one user's, on one device.
    fn session_of(&self, id: &str, issuer: &str) -> Result<Ending, Refused> {
        if let Some(Simple::IssSub { iss, sub }) = &self.user {
            // But who is told must be of the same issuer, or the session is another's.
            user(iss, sub, issuer)?;
        }
        session(id, issuer)
    }

    fn user(&self, issuer: &str) -> Result<Ending, Refused> {
        if self.device {
            return Err(Refused::Subject("is narrowed down by a device: no token says on which it is"));
        }
        match &self.user {
            Some(Simple::IssSub { iss, sub }) => user(iss, sub, issuer),
            Some(Simple::Opaque(_) | Simple::Other) => {
                Err(Refused::Subject("must have a `user` of the format iss_sub"))
            }
            None => Err(Refused::Subject("must have a `session` or a `user`")),
        }
    }
}

fn is_all(id: &str) -> bool {
    ALL_SESSIONS.iter().any(|all| all.eq_ignore_ascii_case(id.trim()))
}

fn simple<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>) -> Result<Simple, Refused> {
    let mut texts = Map::new();
    for (name, value) in members {
        match value {
            Value::String(text) if !text.is_empty() => drop(texts.insert(name.clone(), value.clone())),
            _ => return Err(Refused::Subject("has a member that is no text")),
        }
    }
    let mut take = |name: &str| match texts.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let format = take("format").ok_or(Refused::Subject("has no `format`"))?;
    let known = FORMATS.iter().find(|(name, _)| *name == format);
    let (_, names) = known.ok_or(Refused::Subject("is of a format that is not known here"))?;
    let values: Option<Vec<String>> = names.iter().map(|name| take(name)).collect();
    let values = values.ok_or(Refused::Subject("lacks a member of its format"))?;
    // RFC 9493 section 3: it has no others. One could narrow it down.
    if !texts.is_empty() {
        return Err(Refused::Subject("has a member that is not of its format"));
    }
    let mut values = values.into_iter();
    Ok(match (format.as_str(), values.next(), values.next()) {
        ("opaque", Some(id), None) => Simple::Opaque(id),
        ("iss_sub", Some(iss), Some(sub)) => Simple::IssSub { iss, sub },
        _ => Simple::Other,
    })
}

fn session(id: &str, issuer: &str) -> Result<Ending, Refused> {
    judge_id("sub_id", id)?;
    Ok(Ending { kind: Kind::Session, issuer: issuer.to_owned(), ids: vec![id.to_owned()] })
}

fn user(iss: &str, sub: &str, issuer: &str) -> Result<Ending, Refused> {
    // A transmitter ends what is its own, whatever it signs.
    if iss != issuer {
        return Err(Refused::Subject("is of an issuer whose users this transmitter does not end"));
    }
    judge_id("sub_id", sub)?;
    Ok(Ending { kind: Kind::User, issuer: issuer.to_owned(), ids: vec![sub.to_owned()] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ISSUER: &str = "https://login.example.com";
    const SCOPE: Scope<'_> = Scope { issuer: ISSUER, opaque: Opaque::Session };

    fn event_as(scope: Scope<'_>, members: Value) -> Result<Option<(Kind, String)>, Refused> {
        let mut claims = json!({
            "iss": ISSUER, "aud": "a", "iat": 1, "jti": "j", "events": { SESSION_REVOKED: { "event_timestamp": 1 } },
        });
        for (name, value) in members.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let claims = Claims::read(claims.to_string().as_bytes())?;
        Ok(ending(&claims, scope)?.map(|ending| (ending.kind, ending.ids.concat())))
    }

    fn event(members: Value) -> Result<Option<(Kind, String)>, Refused> {
        event_as(SCOPE, members)
    }

    fn of(sub_id: Value) -> Result<Option<(Kind, String)>, Refused> {
        event(json!({ "sub_id": sub_id }))
    }

    /// The rows of the page's table under the line `head`: the cells of each.
    fn rows(head: &str) -> Vec<Vec<String>> {
        let page = include_str!("../../../../docs/logout.md");
        let (_, table) = page.split_once(head).unwrap_or_else(|| panic!("the page has no table {head}"));
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
    }

    // What the page says of a subject is what happens to it.
    #[test]
    fn the_page_is_right_about_each_form_of_a_subject() {
        let rows = rows("| `sub_id` of a `session-revoked` | ends |");
        assert!(rows.len() > 20, "{}", rows.len());
        for row in &rows {
            let form: Value =
                serde_json::from_str(row[0].trim_matches('`')).unwrap_or_else(|error| panic!("{row:?}: {error}"));
            let expected = match row[1].as_str() {
                "the session `S`" => Some((Kind::Session, "S".to_owned())),
                "the user `U`" => Some((Kind::User, "U".to_owned())),
                refused => {
                    assert!(refused.starts_with("refused"), "{row:?}");
                    None
                }
            };
            assert_eq!(of(form).ok().flatten(), expected, "{row:?}");
        }
        for (format, _) in FORMATS.iter().chain([&("aliases", [].as_slice()), &("complex", [].as_slice())]) {
            assert!(rows.iter().any(|row| row[0].contains(&format!("\"format\": \"{format}\""))), "{format}");
        }
        for member in ["user", "session", "device", "application"].iter().chain(&BELONGING) {
            assert!(rows.iter().any(|row| row[0].contains(&format!("\"{member}\": {{"))), "{member}");
        }
    }

    #[test]
    fn the_page_is_right_about_each_type_of_event() {
        let rows = rows("| event | answer |");
        let taken: Vec<&str> = [SESSION_REVOKED].into_iter().chain(OF_ACCOUNTS).chain(OF_THE_STREAM).collect();
        assert!(
            taken.iter().all(|name| rows.iter().any(|row| name.ends_with(&format!("/{}", row[0].trim_matches('`')))))
        );
        for row in &rows {
            let name = row[0].trim_matches('`');
            let places = ["caep", "risc", "ssf"]
                .map(|place| format!("https://schemas.openid.net/secevent/{place}/event-type/{name}"));
            let user = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "U" });
            let taken: Vec<_> =
                places.iter().filter_map(|uri| event(json!({ "sub_id": user, "events": { uri: {} } })).ok()).collect();
            let expected = match row[1].as_str() {
                "ends the session or the user" | "ends the user" => vec![Some((Kind::User, "U".to_owned()))],
                "acknowledged, ends nobody" => vec![None],
                refused => {
                    assert!(refused.starts_with("refused"), "{row:?}");
                    vec![]
                }
            };
            assert_eq!(taken, expected, "{row:?}");
        }
    }

    #[test]
    fn subjects_of_another_issuer_or_a_wrong_shape_are_refused() {
        let user = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "u" });
        let others = json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "u" });
        let session = json!({ "format": "opaque", "id": "s" });
        for sub_id in [
            json!({}),
            json!({ "id": "s" }),
            json!({ "format": "opaque" }),
            json!({ "format": "Opaque", "id": "s" }),
            json!({ "format": "opaque", "id": "" }),
            json!({ "format": "opaque", "id": 5 }),
            json!({ "format": "opaque", "id": null }),
            json!({ "format": "opaque", "id": "s".repeat(4000) }),
            json!({ "format": "opaque", "id": " all " }),
            json!({ "format": "opaque", "id": "*" }),
            json!({ "format": ["opaque"], "id": "s" }),
            json!({ "subject_type": "opaque", "id": "s" }),
            json!({ "format": "iss_sub", "iss": ISSUER }),
            json!({ "format": "iss_sub", "sub": "u" }),
            json!({ "format": "iss_sub", "iss": ISSUER, "sub": "u", "device": session }),
            json!({ "format": "iss_sub", "iss": ISSUER, "sub": "u", "tenant": "t" }),
            others.clone(),
            json!({ "format": "complex" }),
            json!({ "format": "complex", "user": [user] }),
            json!({ "format": "complex", "user": "u" }),
            json!({ "format": "complex", "user": null, "session": session }),
            json!({ "format": "complex", "user": others }),
            json!({ "format": "complex", "session": user }),
            json!({ "format": "complex", "session": session, "user": others }),
            json!({ "format": "complex", "session": session, "user": {} }),
            json!({ "format": "complex", "session": session, "device": { "format": "new", "id": "d" } }),
            json!({ "format": "complex", "session": { "format": "complex", "session": session } }),
            json!({ "format": "complex", "session": { "format": "opaque", "id": "s", "part": "p" } }),
            json!({ "format": "complex", "session": session, "new": session }),
            json!({ "format": "complex", "user": user, "new": session }),
            json!({ "format": "complex", "user": user, "tenant": {} }),
        ] {
            assert!(of(sub_id.clone()).is_err(), "{sub_id}");
        }
    }

    #[test]
    fn an_opaque_id_is_what_the_provider_says_it_is() {
        let scope = Scope { opaque: Opaque::User, ..SCOPE };
        let opaque = json!({ "format": "opaque", "id": "x" });
        let told = |sub_id: &Value| event_as(scope, json!({ "sub_id": sub_id }));
        assert_eq!(told(&opaque), Ok(Some((Kind::User, "x".into()))));
        // Within a complex one its member says it.
        assert_eq!(told(&json!({ "format": "complex", "session": opaque })), Ok(Some((Kind::Session, "x".into()))));
        assert!(told(&json!({ "format": "complex", "user": opaque })).is_err());
    }

    #[test]
    fn accounts_are_users_and_never_sessions() {
        let user = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "u" });
        let session = json!({ "format": "opaque", "id": "s" });
        for name in OF_ACCOUNTS {
            let told = |sub_id: Value| event(json!({ "sub_id": sub_id, "events": { name: {} } }));
            let ends = Ok(Some((Kind::User, "u".to_owned())));
            assert_eq!(told(user.clone()), ends, "{name}");
            assert_eq!(told(json!({ "format": "complex", "user": user, "tenant": session })), ends, "{name}");
            for sub_id in [
                session.clone(),
                json!({ "format": "email", "email": "u@example.com" }),
                json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "u" }),
                json!({ "format": "complex", "user": user, "session": session }),
                json!({ "format": "complex", "user": user, "device": session }),
                json!({ "format": "complex", "tenant": session }),
            ] {
                assert!(told(sub_id.clone()).is_err(), "{name} {sub_id}");
            }
        }
    }

    #[test]
    fn other_tokens_are_no_events() {
        let sub_id = json!({ "format": "opaque", "id": "s" });
        for claims in [
            json!({}),
            json!({ "sub_id": sub_id, "sub": "u" }),
            json!({ "sub_id": sub_id, "exp": 2 }),
            json!({ "sub_id": sub_id, "events": {} }),
            json!({ "sub_id": sub_id, "events": { SESSION_REVOKED: null } }),
            json!({ "sub_id": sub_id, "events": { SESSION_REVOKED: {}, "x": {} } }),
            json!({ "sub_id": sub_id, "events": { SESSION_REVOKED: { "subject": sub_id } } }),
            json!({ "sub_id": sub_id, "events": { SESSION_REVOKED: { "sub_id": sub_id } } }),
            json!({ "sub_id": sub_id, "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
        ] {
            assert!(event(claims.clone()).is_err(), "{claims}");
        }
        let verification = json!({ "sub_id": sub_id, "events": { OF_THE_STREAM[0]: { "state": "x" } } });
        assert_eq!(event(verification), Ok(None));
    }
}
