use super::super::subjects::tests::rows;
use super::*;
use serde_json::json;

fn config(action: Action, when: Option<&[&str]>) -> ActionConfig {
    ActionConfig { action, when: when.map(|when| when.iter().map(|&value| value.to_owned()).collect()) }
}

fn told(name: &str, event: Value, given: Option<ActionConfig>) -> Result<Effect, RejectReason> {
    let of = TYPES.iter().find(|of| of.name == name).unwrap();
    let actions = given.map(|given| (name.to_owned(), given)).into_iter().collect();
    effect(&format!("{PREFIX}{}{INFIX}{name}", of.profile), event.as_object().unwrap(), &actions)
}

#[test]
fn the_page_is_right_about_each_type_of_event() {
    let rows = rows("| event | of | by default | decided by |");
    assert_eq!(rows.len(), TYPES.len());
    for row in &rows {
        let name = row[0].trim_matches('`');
        let of = TYPES.iter().find(|of| of.name == name).unwrap_or_else(|| panic!("{row:?}"));
        assert_eq!(row[1].to_lowercase(), of.profile, "{row:?}");
        let default = serde_json::to_value(of.default).unwrap();
        assert_eq!(row[2].trim_matches('`'), default, "{row:?}");
        let words: Vec<&str> = row.get(3).map_or(vec![], |cell| cell.split('`').skip(1).step_by(2).collect());
        match &of.decides {
            None => assert_eq!(words, Vec::<&str>::new(), "{row:?}"),
            Some(decides) => {
                assert_eq!(words.first(), Some(&decides.member), "{row:?}");
                let others: Vec<&str> =
                    decides.values.iter().copied().filter(|value| !decides.ends.contains(value)).collect();
                let all: Vec<&str> = decides.ends.iter().copied().chain(others).collect();
                assert_eq!(words.get(1..), Some(all.as_slice()), "{row:?}");
                let (ending, _) = row[3].split_once("not `").unwrap();
                assert!(decides.ends.iter().all(|value| ending.contains(&format!("`{value}`"))), "{row:?}");
            }
        }
    }
}

#[test]
fn a_type_does_by_default_what_it_states_and_nothing_else() {
    for of in &TYPES {
        let expected = match (of.default, of.is_account) {
            (Action::EndSubject, true) => Ok(Effect::End(Extent::Account)),
            (Action::EndSubject, false) => Ok(Effect::End(Extent::Subject)),
            _ => Err(()),
        };
        assert_eq!(told(of.name, json!({}), None).map_err(drop), expected, "{}", of.name);
        let acknowledged = told(of.name, json!({}), Some(config(Action::Acknowledge, None)));
        assert_eq!(acknowledged, Ok(Effect::Nothing), "{}", of.name);
        assert!(told(of.name, json!({}), Some(config(Action::Refuse, None))).is_err(), "{}", of.name);
    }
    let none = BTreeMap::new();
    for uri in [
        "",
        "session-revoked",
        "https://schemas.openid.net/secevent/caep/event-type/account-disabled",
        "https://schemas.openid.net/secevent/risc/event-type/session-revoked",
        "https://schemas.openid.net/secevent/caep/event-type/session-revoked/",
        "http://schemas.openid.net/secevent/caep/event-type/session-revoked",
        "https://schemas.openid.net/secevent/caep/event-type/new",
    ] {
        assert!(effect(uri, &Map::new(), &none).is_err(), "{uri}");
    }
}

#[test]
fn what_an_event_says_decides_whether_something_ends() {
    let user = || Some(config(Action::EndUser, None));
    let end = Ok(Effect::End(Extent::User));
    for (name, member, value, expected) in [
        ("credential-change", "change_type", "revoke", &end),
        ("credential-change", "change_type", "delete", &end),
        ("credential-change", "change_type", "create", &Ok(Effect::Nothing)),
        ("credential-change", "change_type", "update", &Ok(Effect::Nothing)),
        ("device-compliance-change", "current_status", "not-compliant", &end),
        ("device-compliance-change", "current_status", "compliant", &Ok(Effect::Nothing)),
        ("assurance-level-change", "change_direction", "decrease", &end),
        ("assurance-level-change", "change_direction", "increase", &Ok(Effect::Nothing)),
        ("risk-level-change", "current_level", "HIGH", &end),
        ("risk-level-change", "current_level", "LOW", &Ok(Effect::Nothing)),
    ] {
        assert_eq!(&told(name, json!({ member: value }), user()), expected, "{name} {value}");
        for bad in [json!({}), json!({ member: "other" }), json!({ member: null }), json!({ member: [value] })] {
            assert!(told(name, bad.clone(), user()).is_err(), "{name} {bad}");
        }
    }
    let update = config(Action::EndUser, Some(&["update"]));
    assert_eq!(told("credential-change", json!({ "change_type": "update" }), Some(update.clone())), end);
    assert_eq!(told("credential-change", json!({ "change_type": "revoke" }), Some(update)), Ok(Effect::Nothing));
    assert_eq!(told("credential-compromise", json!({ "credential_type": "password" }), user()), end);
}

#[test]
fn an_action_that_has_no_meaning_is_refused_at_start() {
    let check = |name: &str, action, when: Option<&[&str]>| check_action(name, &config(action, when));
    assert_eq!(check("credential-change", Action::EndUser, Some(&["revoke", "update"])), Ok(()));
    assert_eq!(check("session-revoked", Action::Refuse, None), Ok(()));
    for (name, action, when, says) in [
        ("credential-changed", Action::EndUser, None, "known are session-revoked, credential-change"),
        ("verification", Action::Refuse, None, "no known type"),
        ("credential-change", Action::EndUser, Some(["changed"].as_slice()), "create, revoke, update, delete"),
        ("credential-change", Action::EndUser, Some(&[]), "empty"),
        ("credential-change", Action::Refuse, Some(&["revoke"]), "must not have `when`"),
        ("session-revoked", Action::EndUser, Some(&["revoke"]), "must not have `when`"),
    ] {
        let error = check(name, action, when).unwrap_err();
        assert!(error.contains(says), "{name}: {error}");
    }
}
