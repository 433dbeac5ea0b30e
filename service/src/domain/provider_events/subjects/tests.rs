use super::*;
use crate::domain::provider_events::mappings::tests::tables;
use serde_json::json;

const ISSUER: &str = "https://login.example.com";

/// The mappings that the page describes.
fn mappings() -> Mappings {
    tables(&[
        (MappedFormat::Email, r#"{"u@example.com": "U"}"#),
        (MappedFormat::Account, r#"{"acct:u@example.com": "U"}"#),
        (MappedFormat::PhoneNumber, r#"{"+12065550100": "U"}"#),
        (MappedFormat::Uri, r#"{"https://login.example.com/users/U": "U"}"#),
        (MappedFormat::Did, r#"{"did:example:123456": "U"}"#),
    ])
}

fn ends_as(sub_id: &Value, extent: Extent, scope: Scope<'_>) -> Result<(Kind, String), RejectReason> {
    let sub_id: Members = serde_json::from_value(sub_id.clone()).unwrap();
    ending(&sub_id, scope, extent).map(|ending| (ending.kind, ending.ids.join(" ")))
}

fn ends(sub_id: &Value, extent: Extent) -> Result<(Kind, String), RejectReason> {
    let mappings = Mappings::default();
    ends_as(sub_id, extent, Scope { issuer: ISSUER, issuer_names: &[], opaque: Opaque::Session, mappings: &mappings })
}

fn of(sub_id: Value) -> Result<(Kind, String), RejectReason> {
    ends(&sub_id, Extent::Subject)
}

/// The rows of the page's table under the line `head`: the cells of each.
pub fn rows(head: &str) -> Vec<Vec<String>> {
    let page = include_str!("../../../../../docs/events.md");
    let (_, table) = page.split_once(head).unwrap_or_else(|| panic!("the page has no table {head}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn form(row: &[String]) -> Value {
    serde_json::from_str(row[0].trim_matches('`')).unwrap_or_else(|error| panic!("{row:?}: {error}"))
}

fn expected(cell: &str) -> Option<(Kind, String)> {
    match cell {
        "the session `S`" => Some((Kind::Session, "S".to_owned())),
        "the user `U`" => Some((Kind::User, "U".to_owned())),
        refused => {
            assert!(refused.starts_with("refused"), "{refused}");
            None
        }
    }
}

#[test]
fn the_page_is_right_about_each_form_of_a_subject() {
    let rows = rows("| `sub_id` of a `session-revoked` | ends |");
    assert!(rows.len() > 20, "{}", rows.len());
    for row in &rows {
        assert_eq!(of(form(row)).ok(), expected(&row[1]), "{row:?}");
    }
    for (format, _) in FORMATS.iter().chain([&("aliases", [].as_slice()), &("complex", [].as_slice())]) {
        assert!(rows.iter().any(|row| row[0].contains(&format!("\"format\": \"{format}\""))), "{format}");
    }
    for member in ["user", "session", "device", "application"].iter().chain(&BELONGING) {
        assert!(rows.iter().any(|row| row[0].contains(&format!("\"{member}\": {{"))), "{member}");
    }
}

#[test]
fn the_page_is_right_about_what_end_user_ends() {
    let rows = rows("| `sub_id` with `end_user` | ends |");
    assert!(rows.len() > 5, "{}", rows.len());
    for row in &rows {
        assert_eq!(ends(&form(row), Extent::User).ok(), expected(&row[1]), "{row:?}");
    }
}

#[test]
fn the_page_is_right_about_mapped_subjects() {
    let (mappings, names) = (mappings(), [format!("{ISSUER}/")]);
    let rows = rows("| `sub_id` with `subjects` | configuration | ends |");
    assert!(rows.len() > 10, "{}", rows.len());
    for row in &rows {
        let (opaque, issuer_names): (_, &[String]) = match row[1].as_str() {
            "default" => (Opaque::Session, &[]),
            "`opaque: user`" => (Opaque::User, &[]),
            "`subject_issuer_names`" => (Opaque::Session, &names),
            other => panic!("{other}"),
        };
        let scope = Scope { issuer: ISSUER, issuer_names, opaque, mappings: &mappings };
        assert_eq!(ends_as(&form(row), Extent::Subject, scope).ok(), expected(&row[2]), "{row:?}");
    }
}

#[test]
fn aliases_that_map_to_several_users_end_all_of_them() {
    let mappings = mappings();
    let scope = Scope { issuer: ISSUER, issuer_names: &[], opaque: Opaque::User, mappings: &mappings };
    let email = json!({ "format": "email", "email": "u@example.com" });
    let aliases = json!({ "format": "aliases", "identifiers": [
        email, email, { "format": "opaque", "id": "V" }, { "format": "iss_sub", "iss": ISSUER, "sub": "W" },
    ] });
    assert_eq!(ends_as(&aliases, Extent::Subject, scope), Ok((Kind::User, "U V W".into())));
    for bad in [
        json!({ "format": "aliases" }),
        json!({ "format": "aliases", "identifiers": [] }),
        json!({ "format": "aliases", "identifiers": email }),
        json!({ "format": "aliases", "identifiers": ["u@example.com"] }),
        json!({ "format": "aliases", "identifiers": [email, {}] }),
        json!({ "format": "aliases", "identifiers": [email], "device": "D" }),
        json!({ "format": "aliases", "identifiers": [aliases] }),
        json!({ "format": "aliases", "identifiers": vec![email.clone(); 17] }),
    ] {
        assert!(ends_as(&bad, Extent::Subject, scope).is_err(), "{bad}");
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
    let mappings = Mappings::default();
    let scope = Scope { issuer: ISSUER, issuer_names: &[], opaque: Opaque::User, mappings: &mappings };
    let opaque = json!({ "format": "opaque", "id": "x" });
    let told = |sub_id: &Value| ends_as(sub_id, Extent::Subject, scope);
    assert_eq!(told(&opaque), Ok((Kind::User, "x".into())));
    // Within a complex one its member states it.
    assert_eq!(told(&json!({ "format": "complex", "session": opaque })), Ok((Kind::Session, "x".into())));
    assert_eq!(told(&json!({ "format": "complex", "user": opaque })), Ok((Kind::User, "x".into())));
}

#[test]
fn accounts_are_users_and_never_sessions() {
    let user = json!({ "format": "iss_sub", "iss": ISSUER, "sub": "u" });
    let session = json!({ "format": "opaque", "id": "s" });
    let told = |sub_id: &Value| ends(sub_id, Extent::Account);
    let ended = Ok((Kind::User, "u".to_owned()));
    assert_eq!(told(&user), ended);
    assert_eq!(told(&json!({ "format": "complex", "user": user, "tenant": session })), ended);
    for sub_id in [
        session.clone(),
        json!({ "format": "email", "email": "u@example.com" }),
        json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "u" }),
        json!({ "format": "complex", "user": user, "session": session }),
        json!({ "format": "complex", "user": user, "device": session }),
        json!({ "format": "complex", "tenant": session }),
    ] {
        assert!(told(&sub_id).is_err(), "{sub_id}");
    }
}
