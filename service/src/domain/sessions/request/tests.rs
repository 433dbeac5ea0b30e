use super::*;
use crate::domain::sessions::tests::config;
use crate::model::json::{self, JsonError};
use serde_json::json;

const NOW: u64 = 1_000_000;

fn read(body: Value) -> Result<NewSession, String> {
    read_text(&body.to_string()).map_err(|error| match error {
        JsonError::Field(error) => error.field,
        JsonError::Body(error) => panic!("{error}"),
    })
}

fn read_text(body: &str) -> Result<NewSession, JsonError> {
    Ok(NewSession::new(json::read(body.as_bytes())?, NOW, &config())?)
}

#[test]
fn a_wrong_field_is_named() {
    let long = "x".repeat(9000);
    for (field, body) in [
        ("subject", json!({})),
        ("subject", json!({ "subject": "" })),
        ("subject", json!({ "subject": 5 })),
        ("colour", json!({ "subject": "a", "colour": "red" })),
        ("client_id", json!({ "subject": "a", "refresh": true })),
        ("audience", json!({ "subject": "a", "audience": [] })),
        ("scope", json!({ "subject": "a", "scope": "a\"b" })),
        ("scope", json!({ "subject": "a", "scope": (0..65).map(|n| n.to_string()).collect::<Vec<_>>().join(" ") })),
        ("claims", json!({ "subject": "a", "claims": { "sub": "mallory" } })),
        ("claims", json!({ "subject": "a", "claims": { "cnf": {} } })),
        ("claims", json!({ "subject": "a", "claims": { "x": long } })),
        ("claims", json!({ "subject": "a", "claims": [] })),
        ("lifetime", json!({ "subject": "a", "lifetime": "86401s" })),
        ("lifetime", json!({ "subject": "a", "lifetime": "1500ms" })),
        ("lifetime", json!({ "subject": "a", "lifetime": "0s" })),
        ("lifetime", json!({ "subject": "a", "lifetime": 5 })),
        ("idle_timeout", json!({ "subject": "a", "idle_timeout": "soon" })),
        ("format", json!({ "subject": "a", "format": "saml" })),
        ("auth_time", json!({ "subject": "a", "auth_time": NOW + 1 })),
        ("auth_time", json!({ "subject": "a", "auth_time": NOW - 3600, "lifetime": "1h" })),
        ("auth_time", json!({ "subject": "a", "auth_time": -1 })),
        ("binding.addresses", json!({ "subject": "a", "binding": { "addresses": ["10.0.0.1/8"] } })),
        ("binding.certificate", json!({ "subject": "a", "binding": { "certificate": "abc" } })),
        ("binding.network", json!({ "subject": "a", "binding": { "network": "10.0.0.0/24" } })),
        ("made_from.address", json!({ "subject": "a", "made_from": { "address": "home" } })),
        ("claims", json!({ "subject": "a", "claims": { "user_agent_hmac": "x" } })),
        ("binding.colour", json!({ "subject": "a", "binding": { "colour": "red" } })),
        ("reason", json!({ "subject": "a", "reason": "x".repeat(513) })),
    ] {
        let wrong = read(body.clone()).map(|_| ()).unwrap_err();
        assert!(wrong.starts_with(field), "{body} gave {wrong}");
    }
    for body in ["", "[]", "{", "null", "{} {}", r#"{"subject":"a","subject":"b"}"#] {
        assert!(read_text(body).is_err(), "{body}");
    }
}

#[test]
fn defaults_are_those_of_the_service_and_the_end_counts_from_the_login() {
    let made = read(json!({ "subject": "a", "auth_time": NOW - 100 })).unwrap();
    assert_eq!((made.ends, made.auth_time), (NOW - 100 + 12 * 3600, NOW - 100));
    assert_eq!((made.access_lifetime.as_secs(), made.aud), (12 * 3600, vec!["api".to_owned()]));
    let refreshed = read(json!({ "subject": "a", "refresh": true, "client_id": "c" })).unwrap();
    assert_eq!(refreshed.access_lifetime.as_secs(), 300);
    assert_eq!(read(json!({ "subject": "a", "lifetime": "86400s" })).unwrap().ends, NOW + 86_400);
}

#[test]
fn no_jwt_outlives_what_is_kept_of_an_idle_session() {
    let access = |more: Value| {
        let mut body = json!({ "subject": "a", "client_id": "c", "idle_timeout": "60s" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(body).map(|made| made.access_lifetime.as_secs())
    };
    assert_eq!(access(json!({ "format": "jwt" })), Ok(60));
    assert_eq!(access(json!({ "format": "jwt", "refresh": true })), Ok(60));
    assert_eq!(access(json!({ "format": "jwt", "access_lifetime": "60s" })), Ok(60));
    let wrong = access(json!({ "format": "jwt", "access_lifetime": "61s" }));
    assert_eq!(wrong, Err("access_lifetime".to_owned()));
    assert_eq!(access(json!({ "access_lifetime": "61s" })), Ok(61));
}

#[test]
fn binding_becomes_the_claims_that_the_filter_reads() {
    let thumbprint = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
    let binding = json!({ "addresses": ["10.0.0.0/8", "::1"], "user_agent": "", "certificate": thumbprint });
    let made = read(json!({ "subject": "a", "binding": binding })).unwrap();
    let expected = json!({
        "client_addresses": ["10.0.0.0/8", "::1"],
        "user_agent_sha256": thumbprint,
        "cnf": { "x5t#S256": thumbprint },
    });
    assert_eq!(Value::Object(made.binding), expected);
}

#[test]
fn the_network_and_the_agent_of_the_client_become_claims() {
    let asked = |network: &str| json!({ "addresses": ["192.0.2.1"], "network": network, "user_agent": "curl/8.0" });
    let bound = |network: &str, config: &Config| {
        let body = json!({ "subject": "a", "binding": asked(network) }).to_string();
        NewSession::new(json::read(body.as_bytes()).unwrap(), NOW, config).unwrap().binding
    };
    let v4 = bound("203.0.113.9", &config());
    assert_eq!(v4[ADDRESSES], json!(["192.0.2.1", "203.0.113.0/24"]));
    assert_eq!(bound("::ffff:203.0.113.9", &config())[ADDRESSES], v4[ADDRESSES]);
    assert_eq!(bound("2001:db8:1:2ff::1", &config())[ADDRESSES], json!(["192.0.2.1", "2001:db8:1:200::/56"]));
    // As in tests/cases/cases/binding.yaml.
    assert_eq!(v4[USER_AGENT], "zyA1ervMKL_84Q_vH01Sl4d0VeLpKjqqpWAXeBzfy-M");
    let keyed = Config {
        agent_secret: Some(hmac::Key::new(
            hmac::HMAC_SHA256,
            b"a secret of the tests, and of nothing else, long enough",
        )),
        ..config()
    };
    let keyed = bound("203.0.113.9", &keyed);
    assert_eq!(keyed[USER_AGENT_HMAC], "iyt-i46fhQOqNlNIN9BDCc3VbT_pFhXfoI0RN59U-4I");
    assert!(keyed.get(USER_AGENT).is_none(), "everybody could try agents against it");
}
