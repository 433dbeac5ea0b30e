use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wire::{Retention, RevocationKey, Secret};

use super::*;
use store::Ends;

fn policy() -> Policy {
    Policy { retention: Retention { token: 86_701, login: 2_592_301 }, ..Policy::default() }
}

/// The field that is wrong; empty if it is the body.
fn ask(json: &str) -> Result<RevokeRequest, String> {
    read(json.as_bytes(), &policy()).map_err(|error| match error {
        JsonError::Field(error) => error.field,
        JsonError::Body(_) => String::new(),
    })
}

fn names_no_claim(request: &RevokeRequest) -> bool {
    request.note(5, "admin").signing_input_sha256.is_some()
}

fn jwt(payload: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
}

fn key(ask: &RevokeRequest) -> RevocationKey {
    ask.subject.keys(&[Secret::new(&[1; 32]).unwrap().derive()])[0]
}

#[test]
fn a_wrong_field_is_named() {
    for (field, json) in [
        ("kind", r#"{"issuer":"i","id":"x"}"#),
        ("kind", r#"{"kind":"nobody","issuer":"i","id":"x"}"#),
        ("kind", r#"{"kind":5,"issuer":"i","id":"x"}"#),
        ("issuer", r#"{"kind":"user","id":"x"}"#),
        ("issuer", r#"{"kind":"user","issuer":"","id":"x"}"#),
        ("id", r#"{"kind":"user","issuer":"i"}"#),
        ("id", r#"{"kind":"user","issuer":"i","id":null}"#),
        ("id", r#"{"kind":"issuer","issuer":"i","id":"x"}"#),
        ("id", r#"{"kind":"user","issuer":"i","id":"x","id":"y"}"#),
        ("colour", r#"{"kind":"user","issuer":"i","id":"x","colour":"red"}"#),
        ("ttl", r#"{"kind":"user","issuer":"i","id":"x","ttl":"1h"}"#),
        ("ttl", r#"{"kind":"user","issuer":"i","id":"x","ttl":"soon"}"#),
        ("ttl", r#"{"kind":"user","issuer":"i","id":"x","ttl":"99999d"}"#),
        ("new_issuer", r#"{"kind":"user","issuer":"i","id":"x","new_issuer":"yes"}"#),
        ("until_now", r#"{"kind":"user","issuer":"i","id":"x","until_now":true}"#),
        ("until_now", r#"{"kind":"session","issuer":"i","id":"x","until_now":"yes"}"#),
        ("token", r#"{"token":"nonsense"}"#),
        ("token", r#"{"token":"a.b.c.d.e"}"#),
        ("kind", r#"{"token":"e30.e30.","kind":"token"}"#),
    ] {
        assert_eq!(ask(json).map(|_| ()), Err(field.to_owned()), "{json}");
    }
    for body in ["", "[]", "{", "null", r#"{"kind":"user"} {}"#] {
        assert_eq!(ask(body).map(|_| ()), Err(String::new()), "{body}");
    }
}

#[test]
fn a_ttl_may_be_longer_than_retention_and_not_shorter() {
    let with = |ttl: &str| ask(&format!(r#"{{"kind":"issuer","issuer":"i","ttl":"{ttl}"}}"#));
    assert!(with("2592300s").is_err());
    assert!(with("never").is_err());
    assert_eq!(with("2592301s").unwrap().ttl, Some(Duration::from_secs(2_592_301)));
    assert_eq!(ask(r#"{"kind":"issuer","issuer":"i"}"#).unwrap().ttl, Some(Duration::from_secs(2_592_301)));
}

// A revocation of a session or key that expired after a token's lifetime let newer tokens pass.
#[test]
fn a_session_holds_as_long_as_sessions_live_and_a_key_for_ever() {
    let thumbprint = "A".repeat(43);
    let with = |kind: &str, ttl: &str| ask(&format!(r#"{{"kind":"{kind}","issuer":"i","id":"{thumbprint}"{ttl}}}"#));
    let month = Some(Duration::from_secs(30 * 86_400 + 301));
    assert_eq!(with("session", "").unwrap().ttl, month);
    assert!(with("session", r#","ttl":"2592300s""#).is_err());
    assert!(with("session", r#","ttl":"never""#).is_err());
    assert_eq!(with("key", "").unwrap().ttl, None);
    assert_eq!(with("key", r#","ttl":"never""#).unwrap().ttl, None);
    assert!(with("key", r#","ttl":"2592300s""#).is_err());
    assert_eq!(with("key", r#","ttl":"2592301s""#).unwrap().ttl, month);
    assert_eq!(with("token", "").unwrap().ttl, Some(Duration::from_secs(86_701)));
    assert_eq!(with("key", "").unwrap().note(5, "admin").until, None);
}

#[test]
fn a_session_ends_for_good_unless_its_id_is_used_again() {
    let with = |more: &str| ask(&format!(r#"{{"kind":"session","issuer":"i","id":"x"{more}}}"#)).unwrap().ends();
    assert_eq!((with(""), with(r#","until_now":false"#)), (Ends::ForGood, Ends::ForGood));
    assert_eq!(with(r#","until_now":true"#), Ends::IssuedUntilNow);
}

#[test]
fn what_ends_is_said_for_each_kind() {
    let thumbprint = "A".repeat(43);
    for kind in ["token", "session", "user", "client", "key"] {
        let ask = ask(&format!(r#"{{"kind":"{kind}","issuer":"i","id":"{thumbprint}"}}"#)).unwrap();
        let before = (ask.ends() == Ends::IssuedUntilNow).then_some(1234);
        let said = ask.subject.ends_what(before);
        assert_eq!(said.contains("before `before`"), before.is_some(), "{kind}: {said}");
    }
}

#[test]
fn a_token_is_named_by_its_jti_and_else_by_its_signing_input() {
    let by_token = ask(&format!(r#"{{"token":"{}"}}"#, jwt(r#"{"iss":"i","jti":"x"}"#))).unwrap();
    let by_jti = ask(r#"{"kind":"token","issuer":"i","id":"x"}"#).unwrap();
    assert_eq!(key(&by_token), key(&by_jti));
    let token = jwt(r#"{"iss":"i"}"#);
    let without = ask(&format!(r#"{{"token":"{token}"}}"#)).unwrap();
    let other_signature = token.replace("c2ln", "b3RoZXI");
    assert_eq!(key(&without), key(&ask(&format!(r#"{{"token":"{other_signature}"}}"#)).unwrap()));
    assert_ne!(key(&without), key(&by_jti));
    for payload in
        [r#"{"jti":"x"}"#, r#"{"iss":null}"#, r#"{"iss":"i","jti":5}"#, r#"{"iss":"i","jti":null,"jti":"x"}"#]
    {
        assert!(ask(&format!(r#"{{"token":"{}"}}"#, jwt(payload))).is_err(), "{payload}");
    }
    // The filter has the same names, in the same order.
    for payload in
        [r#"{"iss":"i","uti":"x"}"#, r#"{"iss":"i","jti":null,"uti":"x"}"#, r#"{"iss":"i","jti":"x","uti":"y"}"#]
    {
        assert_eq!(key(&ask(&format!(r#"{{"token":"{}"}}"#, jwt(payload))).unwrap()), key(&by_jti), "{payload}");
    }
    let number = jwt(r#"{"iss":"i","uti":5}"#);
    let number = ask(&format!(r#"{{"token":"{number}"}}"#)).unwrap();
    assert!(names_no_claim(&number));
    let padded = ask(r#"{"token":"e30=.eyJpc3MiOiJpIiwianRpIjoieCJ9IA==.c2ln"}"#).unwrap();
    assert_eq!(key(&padded), key(&by_jti));
    // A null jti is absent.
    let null = jwt(r#"{"iss":"i","jti":null}"#);
    let null = ask(&format!(r#"{{"token":"{null}"}}"#)).unwrap();
    assert!(names_no_claim(&null));
}

#[test]
fn an_issuer_may_name_its_tokens_by_other_claims() {
    let own = Policy { token_claims: vec![("i".into(), vec!["tid".into(), "jti".into()])], ..policy() };
    let read =
        |payload: &str| super::read(format!(r#"{{"token":"{}"}}"#, jwt(payload)).as_bytes(), &own).map_err(|_| ());
    let by_id = key(&ask(r#"{"kind":"token","issuer":"i","id":"x"}"#).unwrap());
    assert_eq!(key(&read(r#"{"iss":"i","tid":"x","jti":"y"}"#).unwrap()), by_id);
    assert_eq!(key(&read(r#"{"iss":"i","jti":"x"}"#).unwrap()), by_id);
    assert_ne!(key(&read(r#"{"iss":"j","tid":"x","jti":"y"}"#).unwrap()), by_id);
    assert!(read(r#"{"iss":"i","tid":5,"jti":"x"}"#).is_err());
    assert!(read(r#"{"iss":"i","tid":"x","tid":"x"}"#).is_err());
}

#[test]
fn a_pattern_is_no_issuer() {
    let pattern = "https://login.example/{tenant}/v2.0";
    let body = |kind: &str| format!(r#"{{"kind":"{kind}","issuer":"{pattern}","id":"x"}}"#);
    assert!(ask(&body("user")).is_err() && ask(&body("session")).is_err());
    assert!(ask(&format!(r#"{{"kind":"issuer","issuer":"{pattern}"}}"#)).is_ok());
}

#[test]
fn a_note_leads_back_to_the_same_names() {
    for json in [
        r#"{"kind":"user","issuer":"i","id":"x"}"#.to_owned(),
        r#"{"kind":"token","issuer":"i","id":"x"}"#.to_owned(),
        r#"{"kind":"issuer","issuer":"i"}"#.to_owned(),
        format!(r#"{{"token":"{}"}}"#, jwt(r#"{"iss":"i"}"#)),
    ] {
        let ask = ask(&json).unwrap();
        assert!(Subject::from_note(&ask.note(5, "admin")).unwrap() == ask.subject, "{json}");
    }
}
