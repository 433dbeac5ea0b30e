//! What a security event must be (RFC 8417, Shared Signals Framework 1.0 section 4), and what a CAEP 1.0
//! `session-revoked` (section 3.1) ends.
//!
//! | `sub_id` | ends |
//! |---|---|
//! | `opaque` | the session `id` |
//! | `iss_sub` | the user `sub` |
//! | `complex` with `session` (`opaque`) | that session |
//! | `complex` with `user` (`iss_sub`) and no `session` | the user |
//!
//! Other members of a complex subject that narrow it down, `device` and `application` above all, are refused if there is
//! no session: we cannot tell which sessions are meant.
use serde::Deserialize;
use serde_json::Value;
use wire::Kind;

use super::Ending;
use super::claims::{Claims, Members, judge_id};
use super::jws::Unverified;
use super::refused::Refused;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
/// About the stream itself (Shared Signals Framework 1.0 sections 8.1.4.1 and 8.1.5): acknowledged, and nothing ends.
const OF_THE_STREAM: [&str; 2] = [
    "https://schemas.openid.net/secevent/ssf/event-type/verification",
    "https://schemas.openid.net/secevent/ssf/event-type/stream-updated",
];
/// Members of a complex subject that say where its user belongs, and leave it the same user.
const BELONGING: [&str; 3] = ["tenant", "org_unit", "group"];

/// # Errors
/// It is of another type. Events must have theirs (Shared Signals Framework 1.0 section 4.1.1).
pub fn judge_type(token: &Unverified<'_>) -> Result<(), Refused> {
    if token.is_typed(&["secevent+jwt"]) { Ok(()) } else { Err(Refused::Type("`secevent+jwt`")) }
}

/// `None`: there is nothing to end. `issuer` is that of the tokens that this transmitter's events end.
///
/// # Errors
/// It is no event that we know, or its subject is none that we can end.
pub fn ending(claims: &Claims, issuer: &str) -> Result<Option<Ending>, Refused> {
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
    if !event.is_object() {
        return Err(Refused::Events("must have an object for its event"));
    }
    let Some(sub_id) = &claims.sub_id else { return Err(Refused::Subject("is missing")) };
    if OF_THE_STREAM.contains(&name.as_str()) {
        return Ok(None);
    }
    if name != SESSION_REVOKED {
        return Err(Refused::Events("has none that is taken here: session-revoked is"));
    }
    subject(sub_id, issuer).map(Some)
}

/// A simple subject (RFC 9493 section 3), of the two formats that we can look up.
#[derive(Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
enum Simple {
    Opaque { id: String },
    IssSub { iss: String, sub: String },
}

fn subject(sub_id: &Value, issuer: &str) -> Result<Ending, Refused> {
    if sub_id.get("format").and_then(Value::as_str) == Some("complex") {
        return complex(sub_id, issuer);
    }
    match simple(sub_id, "must be of the format opaque, iss_sub or complex, and whole")? {
        Simple::Opaque { id } => session(id, issuer),
        Simple::IssSub { iss, sub } => user(&iss, sub, issuer),
    }
}

fn complex(sub_id: &Value, issuer: &str) -> Result<Ending, Refused> {
    let members = Members::deserialize(sub_id).map_err(|_| Refused::Subject("must be an object"))?;
    let of_user = members.get("user").map(|value| simple(value, "must have a `user` of the format iss_sub"));
    if let Some(value) = members.get("session") {
        // Whose it is need not be told; but who is told must be of the same issuer, or the session is another's.
        if let Some(Ok(Simple::IssSub { iss, sub })) = of_user {
            user(&iss, sub, issuer)?;
        }
        return match simple(value, "must have a `session` of the format opaque")? {
            Simple::Opaque { id } => session(id, issuer),
            Simple::IssSub { .. } => Err(Refused::Subject("must have a `session` of the format opaque")),
        };
    }
    let Some(of_user) = of_user else { return Err(Refused::Subject("must have a `session` or a `user`")) };
    let known = |name: &str| matches!(name, "format" | "user") || BELONGING.contains(&name);
    if !members.0.iter().all(|(name, _)| known(name)) {
        return Err(Refused::Subject("narrows the user's sessions down by what is not known here"));
    }
    match of_user? {
        Simple::IssSub { iss, sub } => user(&iss, sub, issuer),
        Simple::Opaque { .. } => Err(Refused::Subject("must have a `user` of the format iss_sub")),
    }
}

fn simple(value: &Value, must: &'static str) -> Result<Simple, Refused> {
    Simple::deserialize(value).map_err(|_| Refused::Subject(must))
}

fn session(id: String, issuer: &str) -> Result<Ending, Refused> {
    judge_id("sub_id", &id)?;
    Ok(Ending { kind: Kind::Session, issuer: issuer.to_owned(), id })
}

fn user(iss: &str, sub: String, issuer: &str) -> Result<Ending, Refused> {
    // A transmitter ends what is its own, whatever it signs.
    if iss != issuer {
        return Err(Refused::Subject("is of an issuer whose users this transmitter does not end"));
    }
    judge_id("sub_id", &sub)?;
    Ok(Ending { kind: Kind::User, issuer: issuer.to_owned(), id: sub })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(members: Value) -> Result<Option<(Kind, String)>, Refused> {
        let mut claims = json!({
            "iss": "i", "aud": "a", "iat": 1, "jti": "j", "events": { SESSION_REVOKED: { "event_timestamp": 1 } },
        });
        for (name, value) in members.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let claims = Claims::read(claims.to_string().as_bytes()).unwrap();
        Ok(ending(&claims, "i")?.map(|ending| (ending.kind, ending.id)))
    }

    fn of(sub_id: Value) -> Result<Option<(Kind, String)>, Refused> {
        event(json!({ "sub_id": sub_id }))
    }

    #[test]
    fn subjects_that_name_a_session_or_a_user_end_it() {
        let session = json!({ "format": "opaque", "id": "s" });
        let user = json!({ "format": "iss_sub", "iss": "i", "sub": "u" });
        let tenant = json!({ "format": "opaque", "id": "t" });
        let device = json!({ "format": "iss_sub", "iss": "d", "sub": "d" });
        let email = json!({ "format": "email", "email": "u@example.com" });
        let is_session = Ok(Some((Kind::Session, "s".to_owned())));
        let is_user = Ok(Some((Kind::User, "u".to_owned())));
        assert_eq!(of(session.clone()), is_session);
        assert_eq!(of(user.clone()), is_user);
        for others in [
            json!({}),
            json!({ "user": user }),
            json!({ "user": email }),
            json!({ "user": user, "tenant": tenant, "device": device }),
        ] {
            let mut complex = others.clone();
            complex["format"] = json!("complex");
            complex["session"] = session.clone();
            assert_eq!(of(complex), is_session, "{others}");
        }
        assert_eq!(of(json!({ "format": "complex", "user": user, "tenant": tenant })), is_user);
    }

    #[test]
    fn subjects_that_we_cannot_end_or_that_are_not_the_transmitters_are_refused() {
        let user = json!({ "format": "iss_sub", "iss": "i", "sub": "u" });
        let others = json!({ "format": "iss_sub", "iss": "j", "sub": "u" });
        let session = json!({ "format": "opaque", "id": "s" });
        for sub_id in [
            json!({}),
            json!("u"),
            json!([]),
            json!({ "format": "email", "email": "u@example.com" }),
            json!({ "format": "opaque" }),
            json!({ "format": "opaque", "id": "" }),
            json!({ "format": "opaque", "id": 5 }),
            others.clone(),
            json!({ "format": "complex" }),
            json!({ "format": "complex", "tenant": session }),
            json!({ "format": "complex", "user": session }),
            json!({ "format": "complex", "user": others }),
            json!({ "format": "complex", "session": user }),
            json!({ "format": "complex", "session": session, "user": others }),
            json!({ "format": "complex", "user": user, "device": session }),
            json!({ "format": "complex", "user": user, "application": session }),
            json!({ "format": "complex", "user": user, "new": session }),
        ] {
            assert!(of(sub_id.clone()).is_err(), "{sub_id}");
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
            json!({ "sub_id": sub_id, "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
            json!({ "sub_id": sub_id, "events": { "https://schemas.openid.net/secevent/caep/event-type/credential-change": {} } }),
        ] {
            assert!(event(claims.clone()).is_err(), "{claims}");
        }
        let verification = json!({ "sub_id": sub_id, "events": { OF_THE_STREAM[0]: { "state": "x" } } });
        assert_eq!(event(verification), Ok(None));
    }
}
