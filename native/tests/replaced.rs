//! The callouts of a configuration that was replaced. One test, because the newest configuration is the process's.
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

const DOCUMENT: &str = r#"{
    "issuers": [{ "name": "main", "issuer": "https://issuer.example", "audiences": ["api"],
        "introspection": { "cluster": "idp", "path": "/introspect", "client_id": "edge", "client_secret_env": "PATH",
            "format": { "shape": { "prefix": "op_" } },
            "timeout": "1s", "freshness": "1s" } }],
    "tokens": { "headers": [{ "name": "authorization", "scheme": "Bearer" }] },
    "rules": [{ "name": "all", "match": { "path": { "prefix": "/" } }, "access": "required" }]
}"#;
const REQUEST: &[(&str, &str)] = &[
    (":method", "GET"),
    (":path", "/"),
    (":authority", "api.example"),
    ("authorization", "Bearer op_token-of-some-length"),
];

#[test]
fn they_go_through_the_newest_configuration_and_their_answers_to_the_request_that_waits() {
    let old = Config::load(DOCUMENT).unwrap();
    let new = Config::load(DOCUMENT).unwrap();
    let stream = old.stream(REQUEST);
    assert_eq!(stream.request_headers(true), HeadersStatus::StopAllIterationAndWatermark);
    old.run_main();
    assert!(old.callouts().is_empty());
    new.run_main();
    let callouts = new.callouts();
    assert_eq!(callouts.len(), 1);
    new.answer(callouts[0].id, None);
    stream.run_worker();
    assert_eq!(stream.reply().unwrap().status, 503);
    stream.end();

    // The newest one goes first: a request of the other is answered, and the other sends its callouts itself.
    let stream = old.stream(REQUEST);
    stream.request_headers(true);
    old.run_main();
    drop(new);
    stream.run_worker();
    assert_eq!(stream.reply().unwrap().status, 503);
    stream.end();
    let stream = old.stream(REQUEST);
    stream.request_headers(true);
    old.run_main();
    assert_eq!(old.callouts().len(), 1);
}
