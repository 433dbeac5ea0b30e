use super::*;
use serde_json::json;

const ISSUER: &str = "https://login.example.com";
const SCOPE: Scope<'_> = Scope { issuer: ISSUER, opaque: Opaque::Session };

fn event_as(scope: Scope<'_>, members: Value) -> Result<Option<(Kind, String)>, RejectReason> {
    let mut claims = json!({
        "iss": ISSUER, "aud": "a", "iat": 1, "jti": "j", "events": { SESSION_REVOKED: { "event_timestamp": 1 } },
    });
    for (name, value) in members.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let claims = Claims::read(claims.to_string().as_bytes())?;
    Ok(ending(&claims, scope)?.map(|ending| (ending.kind, ending.ids.concat())))
}

fn event(members: Value) -> Result<Option<(Kind, String)>, RejectReason> {
    event_as(SCOPE, members)
}

fn of(sub_id: Value) -> Result<Option<(Kind, String)>, RejectReason> {
    event(json!({ "sub_id": sub_id }))
}

/// The rows of the page's table under the line `head`: the cells of each.
fn rows(head: &str) -> Vec<Vec<String>> {
    let page = include_str!("../../../../../docs/logout.md");
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
    assert!(taken.iter().all(|name| rows.iter().any(|row| name.ends_with(&format!("/{}", row[0].trim_matches('`'))))));
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
