use super::*;
use crate::config::Document;
use crate::policy::Policy;
use crate::reject::RejectReason;

const SECRET: &str = "s3cret:/&= ü";

fn introspection(more: &serde_json::Value) -> serde_json::Value {
    let mut document = serde_json::json!({
        "cluster": "hydra", "path": "/oauth2/introspect", "client_id": "gate:way", "client_secret_env": "SECRET",
        "format": { "shape": { "prefix": "ory_at_" } },
    });
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
        if value.is_null() {
            document.as_object_mut().unwrap().remove(name);
        }
    }
    document
}

fn policy(more: &serde_json::Value) -> Result<Policy, Invalid> {
    compile(serde_json::json!({
        "issuers": [{ "issuer": "https://a", "audiences": "any", "introspection": introspection(more) }],
        "rules": [{ "access": "required" }],
    }))
}

fn compile(document: serde_json::Value) -> Result<Policy, Invalid> {
    let document: Document = serde_json::from_value(document).unwrap();
    let environment = |name: &str| match name {
        "SECRET" => Some(b"s3cret:/&= +\n".to_vec()),
        "BINARY" => Some(SECRET.into()),
        _ => None,
    };
    Policy::compile(&document, &environment, [0; 32])
}

fn question(more: &serde_json::Value, token: &str) -> (Vec<(&'static str, String)>, String) {
    let question = policy(more).unwrap().introspection(0).unwrap().question(token.as_bytes());
    (question.headers, question.body)
}

fn header<'h>(headers: &'h [(&'static str, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
}

#[test]
fn asks_as_rfc_7662_and_rfc_6749_have_it() {
    let (headers, body) = question(&serde_json::json!({}), "ory_at_abc");
    assert_eq!(body, "token=ory_at_abc&token_type_hint=access_token");
    assert_eq!(header(&headers, ":path"), Some("/oauth2/introspect"));
    assert_eq!(header(&headers, ":authority"), Some("hydra"));
    assert_eq!(header(&headers, "content-type"), Some("application/x-www-form-urlencoded"));
    let encoded = STANDARD.encode("gate%3Away:s3cret%3A%2F%26%3D+%2B");
    assert_eq!(header(&headers, "authorization"), Some(format!("Basic {encoded}").as_str()));

    let (headers, body) = question(&serde_json::json!({ "client_auth": "post", "authority": "id.example" }), "t");
    assert_eq!(body, "token=t&token_type_hint=access_token&client_id=gate%3Away&client_secret=s3cret%3A%2F%26%3D+%2B");
    assert_eq!((header(&headers, "authorization"), header(&headers, ":authority")), (None, Some("id.example")));

    let nobody = serde_json::json!({ "client_auth": "none", "client_id": null, "client_secret_env": null });
    let (headers, body) = question(&nobody, "t");
    assert_eq!((header(&headers, "authorization"), body.as_str()), (None, "token=t&token_type_hint=access_token"));
}

#[test]
fn no_token_can_add_a_parameter() {
    let (_, body) = question(&serde_json::json!({ "client_auth": "post" }), "a&client_id=b=c%26+d/\0\n");
    assert!(body.starts_with("token=a%26client_id%3Db%3Dc%2526%2Bd%2F%00%0A&token_type_hint"), "{body}");
}

#[test]
fn the_secret_is_never_printed() {
    let policy = policy(&serde_json::json!({})).unwrap();
    let printed = format!("{policy:?}");
    let encoded = STANDARD.encode("gate%3Away:s3cret%3A%2F%26%3D+%2B");
    assert!(printed.contains("Introspection"));
    assert!(!printed.contains("s3cret") && !printed.contains(&encoded), "{printed}");
}

#[test]
fn what_is_wrong_with_the_configuration_names_its_field() {
    use serde_json::json;
    for (more, field) in [
        (json!({ "cluster": "" }), "cluster"),
        (json!({ "authority": "a b" }), "authority"),
        (json!({ "path": "introspect" }), "path"),
        (json!({ "path": "/a b" }), "path"),
        (json!({ "path": "/a#b" }), "path"),
        (json!({ "client_id": null }), "client_id"),
        (json!({ "client_id": "" }), "client_id"),
        (json!({ "client_secret_env": null }), "client_secret_env"),
        (json!({ "client_secret_env": "ABSENT" }), "client_secret_env"),
        (json!({ "client_secret_env": "BINARY" }), "client_secret_env"),
        (json!({ "client_id": "i".repeat(1025) }), "client_id"),
        (json!({ "client_auth": "none" }), "client_id"),
        (json!({ "client_auth": "none", "client_id": null }), "client_secret_env"),
        (json!({ "timeout": "5ms" }), "timeout"),
        (json!({ "timeout": "3s" }), "timeout"),
        (json!({ "freshness": "900ms" }), "freshness"),
        (json!({ "freshness": "6s" }), "freshness"),
        (json!({ "format": { "shape": { "min_length": 3 } } }), "format.shape.min_length"),
    ] {
        let invalid = policy(&more).unwrap_err();
        assert_eq!(invalid.field, format!("issuers[0].introspection.{field}"), "{more}: {invalid}");
        assert!(!invalid.message.contains("s3cret"), "{invalid}");
    }
}

#[test]
fn an_issuer_of_opaque_tokens_alone_has_nothing_that_is_for_jwts() {
    use serde_json::json;
    for (field, value) in [("algorithms", json!(["RS256"])), ("types", json!(["JWT"]))] {
        let mut issuer =
            json!({ "issuer": "https://a", "audiences": "any", "introspection": introspection(&json!({})) });
        issuer[field] = value;
        let invalid = compile(json!({ "issuers": [issuer], "rules": [{ "access": "required" }] })).unwrap_err();
        assert_eq!(invalid.field, format!("issuers[0].{field}"));
    }
    let issuer = json!({ "issuer": "https://a", "audiences": "any" });
    let invalid = compile(json!({ "issuers": [issuer], "rules": [{ "access": "required" }] })).unwrap_err();
    assert_eq!(invalid.field, "issuers[0].algorithms");
}

#[test]
fn a_token_that_could_be_for_two_issuers_of_a_rule_is_refused_at_load() {
    use serde_json::json;
    let issuer = |name: &str, prefix: &str| {
        let format = json!({ "format": { "shape": { "prefix": prefix } } });
        json!({
            "name": name, "issuer": format!("https://{name}"), "audiences": "any", "introspection": introspection(&format),
        })
    };
    let document = |one: &str, other: &str, rules: serde_json::Value| {
        compile(json!({ "issuers": [issuer("one", one), issuer("other", other)], "rules": rules }))
    };
    let all = json!([{ "access": "required" }]);
    assert!(document("a_", "b_", all.clone()).is_ok());
    let invalid = document("a_", "a_", all).unwrap_err();
    assert_eq!(invalid.field, "rules[0].issuers");
    assert!(invalid.message.contains("`one`") && invalid.message.contains("`other`"), "{invalid}");

    let apart = json!([
        { "access": "public", "match": { "path": { "prefix": "/public" } } },
        { "access": "required", "match": { "path": { "prefix": "/one" } }, "issuers": ["one"] },
        { "access": "required", "issuers": ["other"] },
    ]);
    let policy = document("a_", "a_", apart).unwrap();
    let token = b"a_0123456789abcdefghij";
    assert_eq!([0, 1, 2].map(|rule| policy.introspecting(rule, token)), [None, Some(0), Some(1)]);
    assert_eq!(policy.introspecting(2, b"b_0123456789abcdefghij"), None);
}

fn reply<'a>(status: u16, content_type: &'a str, body: &'a str) -> Reply<'a> {
    Reply { status, content_type: Some(content_type.as_bytes()), body: body.as_bytes() }
}

fn json_reply(body: &str) -> Result<Result<Json<'_>, Rejection>, Unanswered> {
    reply(200, "application/json", body).read()
}

#[test]
fn only_the_boolean_true_is_active_and_only_the_boolean_false_is_not() {
    assert!(json_reply(r#"{"active":true,"sub":"a"}"#).unwrap().is_ok());
    assert_eq!(json_reply(r#"{"active":false}"#).unwrap().unwrap_err().reason, RejectReason::SessionUnknown);
    for body in [
        r#"{"active":"true"}"#,
        r#"{"active":1}"#,
        r#"{"active":null}"#,
        r#"{"active":["true"]}"#,
        r#"{"Active":true}"#,
        r#"{"ok":true}"#,
        "{}",
        "[]",
        "true",
        "null",
        "",
        r#"{"active":true"#,
        r#"{"active":true}{"active":false}"#,
        r#"{"active":false,"active":true}"#,
        r#"{"active":true,"sub":"a","\u0073ub":"b"}"#,
        r#"{"active":true,"x":{"y":1,"y":2}}"#,
        "<html>{\"active\":true}</html>",
    ] {
        assert_eq!(json_reply(body).unwrap_err().failure, Failure::NotUnderstood, "{body}");
    }
}

#[test]
fn only_200_with_json_of_a_bounded_size_is_an_answer() {
    const ACTIVE: &str = r#"{"active":true}"#;
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=UTF-8"] {
        assert!(reply(200, content_type, ACTIVE).read().unwrap().is_ok(), "{content_type}");
    }
    for content_type in ["text/html", "text/json", "application/jsonp", "application/token-introspection+jwt", ""] {
        let failure = reply(200, content_type, ACTIVE).read().unwrap_err().failure;
        assert_eq!(failure, Failure::NotUnderstood, "{content_type}");
    }
    assert!(Reply { status: 200, content_type: None, body: ACTIVE.as_bytes() }.read().is_err());
    for (status, failure) in [
        (201, Failure::NotUnderstood),
        (204, Failure::NotUnderstood),
        (302, Failure::NotUnderstood),
        (400, Failure::NotUnderstood),
        (401, Failure::ClientRefused),
        (403, Failure::ClientRefused),
        (404, Failure::NotUnderstood),
        (500, Failure::ServerError),
        (502, Failure::NoAnswer),
        (503, Failure::NoAnswer),
        (504, Failure::NoAnswer),
        (599, Failure::ServerError),
    ] {
        let unanswered = reply(status, "application/json", ACTIVE).read().unwrap_err();
        assert_eq!(unanswered.failure, failure, "{status}");
        assert_eq!(Rejection::from(unanswered).reason, RejectReason::StoreUnavailable);
    }
    let long = |length: usize| format!(r#"{{"active":true,"x":"{}"}}"#, "x".repeat(length - 22));
    assert!(json_reply(&long(MAX_REPLY_BYTES)).unwrap().is_ok());
    assert!(json_reply(&long(MAX_REPLY_BYTES + 1)).is_err());
}

/// The table of cases judges the claims themselves; these tests are about the order of answers.
mod over_time {
    use super::*;
    use crate::decide::Verified;
    use crate::time::{Now, UnixSeconds};

    const SECOND: u64 = 1_000_000_000;
    const TOKEN: &[u8] = b"ory_at_0123456789abcdefghij";

    fn at(seconds: u64) -> Now {
        Now { wall: UnixSeconds(1_750_000_000 + seconds), monotonic: Monotonic(1_000 * SECOND + seconds * SECOND) }
    }

    fn active(policy: &Policy, sent: Now) -> Verified {
        let reply = reply(200, "application/json", r#"{"active":true}"#);
        policy.introspected(0, TOKEN, &reply, sent.monotonic, sent).unwrap().unwrap()
    }

    #[test]
    fn an_answer_counts_while_it_is_fresh_and_no_longer_than_the_server_says() {
        let policy = policy(&serde_json::json!({})).unwrap();
        let verified = active(&policy, at(0));
        let trusts = |verified: &Verified, now: Now| policy.still_trusts(verified, &policy.keyrings(), now).unwrap();
        assert!(trusts(&verified, at(0)) && trusts(&verified, at(1)));
        assert!(!trusts(&verified, at(2)), "freshness is two seconds");
        let earlier = Now { wall: at(0).wall, monotonic: Monotonic(at(0).monotonic.0 - 1) };
        assert!(!trusts(&verified, earlier), "an answer from the future is not of this clock");
        assert!(verified.is_opaque() && verified.was_active());
        verified.end();
        assert!(!verified.was_active() && !trusts(&verified, at(1)));
    }

    #[test]
    fn an_answer_of_one_server_is_no_answer_for_a_rule_that_asks_another() {
        use serde_json::json;
        let issuer = |name: &str| json!({ "name": name, "issuer": name, "audiences": "any", "introspection": introspection(&json!({})) });
        let rule = |issuer: &str| json!({ "access": "required", "match": { "path": { "exact": format!("/{issuer}") } }, "issuers": [issuer] });
        let document = json!({ "issuers": [issuer("one"), issuer("two")], "rules": [rule("one"), rule("two")] });
        let policy = compile(document).unwrap();
        let of_one = active(&policy, at(0));
        assert_eq!((policy.introspecting(0, TOKEN), policy.introspecting(1, TOKEN)), (Some(0), Some(1)));
        assert!(policy.is_for_rule(&of_one, 0) && !policy.is_for_rule(&of_one, 1));
    }

    #[test]
    fn a_jwt_waits_for_each_answer_anew_and_an_answer_shortens_its_time_and_never_prolongs_it() {
        use jose::{Algorithm, Family, base64url};
        use serde_json::json;

        use crate::credentials::Source;
        use crate::decide::{Accepted, Entry, Peer, RevocationStatus};
        use crate::engine::{BadSignature, Engine, Key};
        use crate::request::Request;

        struct Believes;
        impl Engine for Believes {
            fn verify(&self, _: &Key, _: Algorithm, _: &[u8], _: &[u8]) -> Result<(), BadSignature> {
                Ok(())
            }
        }
        struct Nobody;
        impl Peer for Nobody {
            fn address(&self) -> Option<std::net::IpAddr> {
                None
            }
            fn certificate_sha256(&self) -> Option<Vec<u8>> {
                None
            }
        }

        let jwk = crate::vectors::public_jwk(Family::P256);
        let introspection = introspection(&json!({ "of": "jwt", "format": null }));
        let issuer = json!({
            "issuer": "https://a", "audiences": "any", "skew": "0s", "algorithms": ["ES256"], "keys": [{ "jwk": jwk }],
            "introspection": introspection,
        });
        let policy = compile(json!({ "issuers": [issuer], "rules": [{ "access": "required" }] })).unwrap();
        let (from, until) = (at(0).wall.0, at(100).wall.0);
        let payload = json!({ "iss": "https://a", "sub": "u", "iat": from, "exp": until });
        let token =
            format!("{}.{}.c2ln", base64url::encode(r#"{"alg":"ES256"}"#), base64url::encode(payload.to_string()));
        assert_eq!(policy.introspecting(0, token.as_bytes()), None, "it is no opaque token");
        let header = format!("Bearer {token}");
        let pairs: [(&[u8], &[u8]); 4] =
            [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"authorization", header.as_bytes())];
        let request = Request::from_pairs(&pairs).unwrap();
        let enter = || match policy.enter(&request) {
            Entry::Token(entered) => entered,
            Entry::Open { .. } | Entry::Denied { .. } => panic!("there is a token"),
        };
        assert_eq!(enter().source(), Source::Header(0));
        let verified = std::sync::Arc::new(policy.verify(&Believes, &policy.keyrings(), &enter(), at(0)).unwrap());
        let revocation_status = |now: Now| -> Result<RevocationStatus, Rejection> {
            let accepted: Accepted =
                policy.accept(std::sync::Arc::clone(&verified), enter(), now, &crate::engine::Portable, &Nobody)?;
            policy.revocation_status(accepted, None, now)
        };
        let must_introspect = |now: Now| matches!(revocation_status(now), Ok(RevocationStatus::MustIntrospect(_)));
        let is_admitted = |now: Now| matches!(revocation_status(now), Ok(RevocationStatus::Admitted(_)));
        let confirm = |body: &str, sent: Now| {
            policy.confirm(&verified, &reply(200, "application/json", body), sent.monotonic, sent).unwrap()
        };
        assert!(must_introspect(at(0)) && !verified.was_active());

        // The same answer, as an opaque token's, has no effect.
        let active = reply(200, "application/json", r#"{"active":true}"#);
        assert!(policy.introspected(0, token.as_bytes(), &active, at(0).monotonic, at(0)).is_err());

        confirm(r#"{"active":true}"#, at(0)).unwrap();
        assert!(is_admitted(at(0)) && is_admitted(at(1)) && verified.was_active());
        assert!(must_introspect(at(2)), "freshness is two seconds");
        confirm(&json!({ "active": true, "exp": until + 1000 }).to_string(), at(98)).unwrap();
        assert!(is_admitted(at(99)));
        assert_eq!(
            revocation_status(at(100)).err().unwrap().reason,
            RejectReason::JwtExpired,
            "the token's own exp holds"
        );
        confirm(&json!({ "active": true, "exp": at(51).wall.0 }).to_string(), at(50)).unwrap();
        // The clock of this test runs backwards: an older answer does not replace a newer one.
        assert!(must_introspect(at(50)));
        verified.end();
        confirm(&json!({ "active": true, "exp": at(51).wall.0 }).to_string(), at(50)).unwrap();
        assert!(is_admitted(at(50)));
        assert_eq!(
            revocation_status(at(51)).err().unwrap().reason,
            RejectReason::JwtExpired,
            "the answer's exp is earlier"
        );
        assert_eq!(confirm(r#"{"active":false}"#, at(52)).unwrap_err().reason, RejectReason::SessionUnknown);
        verified.end();
        assert!(must_introspect(at(50)) && !verified.was_active());
    }

    #[test]
    fn which_tokens_are_asked_about_and_their_format_must_fit() {
        use serde_json::json;
        let jwk = crate::vectors::public_jwk(jose::Family::P256);
        let compiled = |more: &serde_json::Value, keys: bool| {
            let mut issuer = json!({ "issuer": "https://a", "audiences": "any", "introspection": introspection(more) });
            if keys {
                issuer["algorithms"] = json!(["ES256"]);
                issuer["keys"] = json!([{ "jwk": jwk }]);
            }
            let compiled = compile(json!({ "issuers": [issuer], "rules": [{ "access": "required" }] }));
            compiled.map(|_| ()).map_err(|invalid| invalid.field)
        };
        let format = || Err("issuers[0].introspection.format".to_owned());
        assert_eq!(compiled(&json!({ "of": "jwt", "format": null }), true), Ok(()));
        assert_eq!(compiled(&json!({ "of": "both" }), true), Ok(()));
        assert_eq!(compiled(&json!({ "of": "opaque" }), false), Ok(()));
        assert_eq!(compiled(&json!({ "of": "jwt" }), true), format());
        assert_eq!(compiled(&json!({ "of": "both", "format": null }), true), format());
        assert_eq!(compiled(&json!({ "format": null }), true), format());
        for of in ["jwt", "both"] {
            let more = if of == "jwt" { json!({ "of": of, "format": null }) } else { json!({ "of": of }) };
            assert_eq!(compiled(&more, false), Err("issuers[0].algorithms".to_owned()), "{of} needs keys");
        }
    }

    #[test]
    fn without_exp_it_ends_with_the_longest_lifetime_from_its_issue() {
        let policy = policy(&serde_json::json!({})).unwrap();
        let body = r#"{"active":true,"iat":1750000000}"#;
        let reply = reply(200, "application/json", body);
        let verified = policy.introspected(0, TOKEN, &reply, at(0).monotonic, at(0)).unwrap().unwrap();
        assert_eq!(verified.window().until, UnixSeconds(1_750_000_000 + 86_400 + 30));
        let late = policy.introspected(0, TOKEN, &reply, at(86_430).monotonic, at(86_430)).unwrap().unwrap_err();
        assert_eq!(late.reason, RejectReason::JwtExpired);
    }
}
