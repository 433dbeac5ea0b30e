//! The module's own behaviour at its border, against a host that this binary plays.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod host;

use host::Config;
use native::abi::HeadersStatus;

/// The key is RFC 8037's.
const DOCUMENT: &str = r#"{
    "issuers": [{ "name": "main", "issuer": "https://issuer.example", "audiences": ["api"], "algorithms": ["EdDSA"],
        "keys": [{ "jwk": { "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" } }] }],
    "tokens": { "headers": [{ "name": "authorization", "scheme": "Bearer" }] },
    "rules": [{ "name": "all", "match": { "path": { "prefix": "/" } }, "access": "required" }],
    "expose": { "metadata": true, "filter_state": true }
}"#;
const REQUEST: &[(&str, &str)] = &[(":method", "GET"), (":path", "/"), (":authority", "api.example")];

#[test]
fn a_document_that_is_not_right_is_refused() {
    for document in ["", "{", "[]", r#"{ "issuers": 1 }"#] {
        assert!(Config::load(document).is_none(), "{document}");
    }
    assert!(Config::load(DOCUMENT).is_some());
}

// The Envoy of these tests has no secrets of SDS, like 1.39.
#[test]
fn a_document_with_secrets_of_sds_is_refused_by_an_envoy_without_them() {
    assert!(Config::load(&DOCUMENT.replacen('{', r#"{ "sds": [{ "name": "S" }],"#, 1)).is_none());
    assert!(Config::load(&DOCUMENT.replacen('{', r#"{ "sds": [],"#, 1)).is_some());
}

/// Envoy gives the configuration of a route whichever module made it.
#[test]
fn a_route_that_another_module_configured_selects_no_rule_and_is_not_read() {
    let document = DOCUMENT.replace(
        r#""access": "required" }]"#,
        r#""access": "required" },
        { "name": "admin", "for_routes": true, "access": "required" }]"#,
    );
    let config = Config::load(&document).unwrap();
    let ours = Config::route_config(r#"{ "rule": "admin" }"#);
    assert!(!ours.is_null());
    let code = |route: *const std::ffi::c_void| {
        let stream = config.stream(REQUEST).route(route);
        assert_eq!(stream.request_headers(true), HeadersStatus::StopIteration);
        let code = stream.reply().unwrap().details;
        stream.end();
        code
    };
    let theirs = 1usize;
    assert_eq!(code(ours), "TOKEN_MISSING");
    assert_eq!(code((&raw const theirs).cast()), "ROUTE_UNMATCHED");
    assert_eq!(code(std::ptr::without_provenance(1)), "ROUTE_UNMATCHED");
    for wrong in [r#"{ "rule": "" }"#, "{ \"rule\": \"a\\nb\" }", "{}"] {
        assert!(Config::route_config(wrong).is_null(), "{wrong}");
    }
    // Another listener is loaded meanwhile. It does not have the rule, and is not refused: the route can be this one's.
    assert!(Config::load(DOCUMENT).is_some());
    Config::forget_route_config(ours);
}

#[test]
fn another_filter_of_the_module_is_refused() {
    assert!(Config::load_as("other", DOCUMENT.as_bytes()).is_none());
}

#[test]
fn a_filter_that_is_destroyed_by_its_own_reply_is_not_used_again() {
    let config = Config::load(DOCUMENT).unwrap();
    let stream = config.stream(REQUEST).destroys_at_once();
    assert_eq!(stream.request_headers(true), HeadersStatus::StopIteration);
    let reply = stream.reply().unwrap();
    assert_eq!((reply.status, reply.details.as_str()), (401, "TOKEN_MISSING"));
    let seen = ["outcome", "code", "rule"].map(|key| stream.metadata(&format!("portcullis/{key}")));
    assert_eq!(seen, ["refused", "TOKEN_MISSING", "all"].map(|text| Some(text.to_owned())));
    assert_eq!(stream.metadata("flag").as_deref(), Some("PCR"));
    stream.end();
}

#[test]
fn a_refused_grpc_call_has_a_status_that_is_not_ok() {
    let config = Config::load(DOCUMENT).unwrap();
    for (content_type, expected) in [
        ("application/grpc", Some("16")),
        ("application/grpc+proto", Some("16")),
        ("application/grpc-web", None),
        ("application/json", None),
    ] {
        let stream = config.stream(&[REQUEST, &[("content-type", content_type)]].concat());
        stream.request_headers(false);
        assert_eq!(stream.reply().unwrap().header("grpc-status").as_deref(), expected, "{content_type}");
    }
}
