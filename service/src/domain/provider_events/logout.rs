//! The form of a logout token (OpenID Connect Back-Channel Logout 1.0 sections 2.4 and 2.6), and the session or user that it
//! ends.
use jose::Unverified;
use serde_json::Value;
use wire::Kind;

use super::Ending;
use super::claims::Claims;
use super::error::RejectReason;
use super::jws::is_typed;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Keycloak's member beside the event that ends offline sessions too (its client's “Backchannel logout revoke offline
/// sessions”).
const OFFLINE_TOO: &str = "revoke_offline_access";
/// The prefix of an offline session's id if those are separate sessions, as the filter's `offline_sessions` defines.
const OFFLINE: &str = "offline:";
/// Types are recommended and not required (section 2.4), and many providers write `JWT`. Without the event a token is
/// never a logout token.
const TYPES: [&str; 2] = ["logout+jwt", "jwt"];

/// # Errors
/// It is of another type.
pub fn judge_type(token: &Unverified<'_>) -> Result<(), RejectReason> {
    match token.header().typ.is_none() || is_typed(token, &TYPES) {
        true => Ok(()),
        false => Err(RejectReason::Type("`logout+jwt`, `JWT` or absent")),
    }
}

/// # Errors
/// It is no logout token, or has no subject.
pub fn ending(claims: &Claims, issuer: &str) -> Result<Ending, RejectReason> {
    match claims.events.as_ref().and_then(|events| events.get(EVENT)) {
        Some(Value::Object(_)) => {}
        Some(_) => return Err(RejectReason::Events("must have an object for the logout event")),
        None => return Err(RejectReason::Events("must have the logout event")),
    }
    // A logout token must have none, so that none serves as an ID token. A token with one may be an ID token.
    if claims.nonce.is_some() {
        return Err(RejectReason::Claim("nonce", "must not be there"));
    }
    // With a session, only that session (section 2.4).
    let (kind, ids) = match (&claims.sid, &claims.sub) {
        (Some(sid), _) if ends_offline(claims) => (Kind::Session, vec![sid.clone(), format!("{OFFLINE}{sid}")]),
        (Some(sid), _) => (Kind::Session, vec![sid.clone()]),
        // All of the user's sessions end, including the offline ones.
        (None, Some(sub)) => (Kind::User, vec![sub.clone()]),
        (None, None) => return Err(RejectReason::Claim("sid", "and `sub` are missing: one of them is required")),
    };
    Ok(Ending { kind, issuer: issuer.to_owned(), ids })
}

/// As Keycloak reads it: a string may also say it.
fn ends_offline(claims: &Claims) -> bool {
    match claims.events.as_ref().and_then(|events| events.get(OFFLINE_TOO)) {
        Some(Value::Bool(said)) => *said,
        Some(Value::String(said)) => said.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ends(members: Value) -> Result<(Kind, String), RejectReason> {
        let mut claims = json!({ "iss": "i", "aud": "a", "iat": 1, "jti": "j", "events": { EVENT: {} } });
        for (name, value) in members.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let claims = Claims::read(claims.to_string().as_bytes()).unwrap();
        ending(&claims, "i").map(|ending| (ending.kind, ending.ids.join(" ")))
    }

    #[test]
    fn an_offline_session_ends_too_where_the_provider_says_so() {
        for (said, expected) in [
            (json!(true), "s offline:s"),
            (json!("True"), "s offline:s"),
            (json!(false), "s"),
            (json!(null), "s"),
            (json!("false"), "s"),
            (json!({}), "s"),
        ] {
            let events = json!({ EVENT: {}, OFFLINE_TOO: said });
            let session = ends(json!({ "sid": "s", "sub": "u", "events": events }));
            assert_eq!(session, Ok((Kind::Session, expected.into())), "{events}");
            assert_eq!(ends(json!({ "sub": "u", "events": events })), Ok((Kind::User, "u".into())));
        }
        let alone = json!({ "sid": "s", "events": { OFFLINE_TOO: true } });
        assert!(ends(alone).is_err(), "it is no event by itself");
    }

    #[test]
    fn a_session_is_ended_alone_and_a_user_without_one_everywhere() {
        assert_eq!(ends(json!({ "sid": "s" })), Ok((Kind::Session, "s".into())));
        assert_eq!(ends(json!({ "sid": "s", "sub": "u" })), Ok((Kind::Session, "s".into())));
        assert_eq!(ends(json!({ "sub": "u" })), Ok((Kind::User, "u".into())));
        assert_eq!(ends(json!({ "sub": "u", "sid": null, "nonce": null })), Ok((Kind::User, "u".into())));
    }

    #[test]
    fn what_is_no_logout_token_ends_nothing() {
        for claims in [
            json!({}),
            json!({ "sub": "u", "nonce": "n" }),
            json!({ "sid": null, "sub": null }),
            json!({ "sub": "u", "events": {} }),
            json!({ "sub": "u", "events": { EVENT: null } }),
            json!({ "sub": "u", "events": { EVENT: [] } }),
            json!({ "sub": "u", "events": { EVENT: true } }),
            json!({ "sub": "u", "events": { "https://schemas.openid.net/event/backchannel-logout": {} } }),
        ] {
            assert!(ends(claims.clone()).is_err(), "{claims}");
        }
    }
}
