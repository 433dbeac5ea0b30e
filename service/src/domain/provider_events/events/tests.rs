use super::super::mappings::Mappings;
use super::super::providers::Opaque;
use super::*;
use serde_json::json;
use wire::Kind;

const ISSUER: &str = "https://login.example.com";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

fn event_as(drafts: bool, members: Value) -> Result<Meaning, RejectReason> {
    let mut claims = json!({
        "iss": ISSUER, "aud": "a", "iat": 1, "jti": "j", "events": { REVOKED: { "event_timestamp": 1 } },
    });
    for (name, value) in members.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let claims = Claims::read(claims.to_string().as_bytes())?;
    let (mappings, actions, names) = (Mappings::default(), BTreeMap::new(), [format!("{ISSUER}/")]);
    let scope = Scope { issuer: ISSUER, issuer_names: &names, opaque: Opaque::Session, mappings: &mappings };
    meaning(&claims, Reading { scope, actions: &actions, drafts })
}

fn event(members: Value) -> Result<Meaning, RejectReason> {
    event_as(false, members)
}

fn ends(kind: Kind, id: &str) -> Result<Meaning, RejectReason> {
    Ok(Meaning::Ends(Ending { kind, issuer: ISSUER.into(), ids: vec![id.into()] }))
}

#[test]
fn other_tokens_are_no_events() {
    let sub_id = json!({ "format": "opaque", "id": "s" });
    for claims in [
        json!({}),
        json!({ "sub_id": sub_id, "sub": "u" }),
        json!({ "sub_id": sub_id, "exp": 2 }),
        json!({ "sub_id": sub_id, "events": null }),
        json!({ "sub_id": sub_id, "events": {} }),
        json!({ "sub_id": sub_id, "events": { REVOKED: null } }),
        json!({ "sub_id": sub_id, "events": { REVOKED: {}, "x": {} } }),
        json!({ "sub_id": sub_id, "events": { REVOKED: { "subject": sub_id } } }),
        json!({ "sub_id": sub_id, "events": { REVOKED: { "sub_id": sub_id } } }),
        json!({ "sub_id": sub_id, "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
    ] {
        assert!(event(claims.clone()).is_err(), "{claims}");
    }
    assert_eq!(event(json!({ "sub_id": sub_id })), ends(Kind::Session, "s"));
}

#[test]
fn an_event_about_its_stream_ends_nothing() {
    let stream = json!({ "format": "opaque", "id": "the stream" });
    let told = |uri: &str, event_of: Value| event(json!({ "sub_id": stream, "events": { uri: event_of } }));
    assert_eq!(told(VERIFICATION, json!({ "state": "x" })), Ok(Meaning::OfStream(StreamEvent::Verified)));
    for (status, expected) in [
        (json!("enabled"), Some(StreamStatus::Enabled)),
        (json!("paused"), Some(StreamStatus::Paused)),
        (json!("disabled"), Some(StreamStatus::Disabled)),
        (json!("new"), None),
        (json!(null), None),
    ] {
        let updated = told(STREAM_UPDATED, json!({ "status": status, "reason": "r" }));
        assert_eq!(updated, Ok(Meaning::OfStream(StreamEvent::Updated(expected))), "{status}");
    }
    assert!(event(json!({ "events": { VERIFICATION: {} } })).is_err(), "without its stream");
    for uri in DRAFT_VERIFICATIONS.iter().chain([&DRAFT_STREAM_UPDATED]) {
        assert!(told(uri, json!({})).is_err(), "{uri}");
        assert!(event_as(true, json!({ "events": { *uri: { "state": "x" } } })).is_ok(), "{uri}");
    }
}

// Google's example, Okta's form, and Google Workspace's example, which has the subject twice.
#[test]
fn drafts_had_the_subject_within_the_event() {
    let disabled = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";
    let google = json!({ "events": { disabled: {
        "subject": { "subject_type": "iss-sub", "iss": format!("{ISSUER}/"), "sub": "u" }, "reason": "hijacking",
    } } });
    let user = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "u" });
    let okta = json!({ "events": { REVOKED: { "event_timestamp": 1, "subject": { "user": user } } } });
    let twice = json!({ "sub_id": user, "events": { REVOKED: {
        "subject": { "sub": "u", "format": "iss_sub", "iss": ISSUER },
    } } });
    for claims in [google, okta, twice] {
        assert_eq!(event_as(true, claims.clone()), ends(Kind::User, "u"), "{claims}");
        assert!(event(claims.clone()).is_err(), "{claims}");
    }
    let of = |subject: Value| json!({ "events": { REVOKED: { "subject": subject } } });
    let mut differs = of(user.clone());
    differs["sub_id"] = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "v" });
    for claims in [
        differs,
        json!({ "events": { REVOKED: {} } }),
        json!({ "events": { REVOKED: { "subject": user, "sub_id": user } } }),
        of(json!({})),
        of(json!("u")),
        of(json!({ "subject_type": "iss-sub", "format": "iss_sub", "iss": ISSUER, "sub": "u" })),
        of(json!({ "subject_type": "id_token_claims", "iss": ISSUER, "sub": "u" })),
        of(json!({ "subject_type": "iss-sub", "iss": "https://other.example", "sub": "u" })),
        of(json!({ "user": user, "device": { "format": "opaque", "id": "d" } })),
        of(json!({ "user": user, "device": "d" })),
    ] {
        assert!(event_as(true, claims.clone()).is_err(), "{claims}");
    }
}
