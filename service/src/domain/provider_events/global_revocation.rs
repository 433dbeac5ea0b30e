//! Requests to end all sessions of a user (draft-parecki-oauth-global-token-revocation-06): a JWT of the provider that
//! authenticates the request once, and a body that names the user.
use jose::Unverified;
use serde::Deserialize;

use super::Ending;
use super::claims::{Claims, Members};
use super::error::{RejectReason, SubjectFault};
use super::jws::is_typed;
use super::subjects::{Scope, user_of};

/// Okta's, and those of client authentication (RFC 7523). None is required by the draft, so others are told apart by `aud`.
const TYPES: [&str; 3] = ["global-token-revocation+jwt", "client-authentication+jwt", "jwt"];

/// The body (section 3.2). A member that is not known could restrict the request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    sub_id: Members,
}

/// # Errors
/// It is of another type.
pub fn judge_type(token: &Unverified<'_>) -> Result<(), RejectReason> {
    match token.header().typ.is_none() || is_typed(token, &TYPES) {
        true => Ok(()),
        false => Err(RejectReason::Type("`global-token-revocation+jwt`, `client-authentication+jwt`, `JWT` or absent")),
    }
}

/// The subject of a request.
///
/// # Errors
/// The body is not one of such a request.
pub fn read_body(body: &str) -> Result<Members, RejectReason> {
    let body: Result<Body, _> = serde_json::from_str(body);
    body.map(|body| body.sub_id).map_err(|error| RejectReason::Body(format!("is not a revocation request: {error}")))
}

/// `caller`: the `sub` that the JWT must have.
///
/// # Errors
/// It is another kind of token, of another caller, or the subject names no user here.
pub fn ending(claims: &Claims, caller: Option<&str>, scope: Scope<'_>) -> Result<Ending, RejectReason> {
    // RFC 7523 section 3. A token that does not expire would be a password.
    if !claims.has_exp() {
        return Err(RejectReason::Claim("exp", "is missing"));
    }
    // ID tokens, logout tokens and events have one of these.
    if claims.events.is_some() {
        return Err(RejectReason::Claim("events", "must not be there"));
    }
    if claims.nonce.is_some() {
        return Err(RejectReason::Claim("nonce", "must not be there"));
    }
    if claims.sid.is_some() {
        return Err(RejectReason::Claim("sid", "must not be there"));
    }
    if caller.is_some() && claims.sub.as_deref() != caller {
        return Err(RejectReason::Caller);
    }
    let missing = RejectReason::Subject(SubjectFault::Malformed, "is missing");
    user_of(claims.sub_id.as_ref().ok_or(missing)?, scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::provider_events::mappings::tests::tables;
    use crate::domain::provider_events::providers::{MappedFormat, Opaque};
    use serde_json::{Value, json};

    const ISSUER: &str = "https://login.example.com";

    fn ends(claims: Value, caller: Option<&str>, sub_id: &Value) -> Result<Vec<String>, RejectReason> {
        let mut whole = json!({ "iss": ISSUER, "aud": "a", "iat": 1, "exp": 2, "jti": "j", "sub": "caller" });
        for (name, value) in claims.as_object().unwrap() {
            whole[name] = value.clone();
        }
        let mut claims = Claims::read(whole.to_string().as_bytes())?;
        claims.sub_id = Some(read_body(&json!({ "sub_id": sub_id }).to_string())?);
        let mappings = tables(&[(MappedFormat::Email, r#"{"u@example.com": "U"}"#)]);
        let scope = Scope { issuer: ISSUER, issuer_names: &[], opaque: Opaque::User, mappings: &mappings };
        ending(&claims, caller, scope).map(|ending| ending.ids)
    }

    // The examples of section 3.2, and what section 3.4 says of others.
    #[test]
    fn a_request_names_a_user_or_says_why_it_does_not() {
        let none = json!({});
        let told = |sub_id: Value| ends(none.clone(), None, &sub_id);
        let user = Ok(vec!["U".to_owned()]);
        assert_eq!(told(json!({ "format": "email", "email": "U@example.com" })), user);
        assert_eq!(told(json!({ "format": "opaque", "id": "U" })), user);
        assert_eq!(told(json!({ "format": "iss_sub", "iss": ISSUER, "sub": "U" })), user);
        let fault = |sub_id: Value| match told(sub_id.clone()) {
            Err(RejectReason::Subject(fault, _)) => fault,
            other => panic!("{sub_id}: {other:?}"),
        };
        let foreign = json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "U" });
        assert_eq!(fault(json!({ "format": "opaque" })), SubjectFault::Malformed);
        assert_eq!(fault(json!({ "format": "did", "url": "did:example:1" })), SubjectFault::Unsupported);
        assert_eq!(
            fault(json!({ "format": "complex", "user": { "format": "opaque", "id": "U" } })),
            SubjectFault::Unsupported
        );
        assert_eq!(fault(foreign.clone()), SubjectFault::Foreign);
        assert_eq!(fault(json!({ "format": "email", "email": "v@example.com" })), SubjectFault::Unknown);
        assert_eq!(fault(json!({ "format": "opaque", "id": "u".repeat(2049) })), SubjectFault::Unending);
        assert_eq!(fault(json!({ "format": "aliases", "identifiers": [foreign] })), SubjectFault::Unknown);
    }

    #[test]
    fn other_tokens_and_other_bodies_are_no_requests() {
        let sub_id = json!({ "format": "opaque", "id": "U" });
        for claims in [json!({ "exp": null }), json!({ "events": {} }), json!({ "nonce": "n" }), json!({ "sid": "s" })]
        {
            assert!(matches!(ends(claims.clone(), None, &sub_id), Err(RejectReason::Claim(..))), "{claims}");
        }
        assert_eq!(ends(json!({}), Some("caller"), &sub_id), Ok(vec!["U".to_owned()]));
        assert_eq!(ends(json!({}), Some("other"), &sub_id), Err(RejectReason::Caller));
        assert_eq!(ends(json!({ "sub": null }), Some("other"), &sub_id), Err(RejectReason::Caller));
        for body in [
            "",
            "[]",
            "{}",
            r#"{"sub_id": "U"}"#,
            r#"{"subject": {"format": "opaque", "id": "U"}}"#,
            r#"{"sub_id": {"format": "opaque", "id": "U"}, "device": "D"}"#,
            r#"{"sub_id": {"format": "opaque", "id": "U", "id": "V"}}"#,
            r#"{"sub_id": {"format": "opaque", "id": "U"}, "sub_id": {"format": "opaque", "id": "V"}}"#,
        ] {
            assert!(matches!(read_body(body), Err(RejectReason::Body(_))), "{body}");
        }
    }
}
