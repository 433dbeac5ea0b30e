use super::*;
use serde_json::json;

const NOW: u64 = 10_000;
const MAX_AGE: Duration = Duration::from_secs(120);
const SKEW: Duration = Duration::from_secs(30);

fn with(members: Value) -> Value {
    let mut claims = json!({ "iss": "i", "aud": "a", "iat": NOW, "jti": "j", "events": {} });
    for (name, value) in members.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn read(members: Value) -> Result<Claims, RejectReason> {
    Claims::read(with(members).to_string().as_bytes())
}

#[test]
fn a_claim_that_is_missing_wrong_or_there_twice_is_refused() {
    for name in ["iss", "aud", "iat", "jti"] {
        let mut claims = with(json!({}));
        claims.as_object_mut().unwrap().remove(name);
        assert!(Claims::read(claims.to_string().as_bytes()).unwrap_err().to_string().contains(name), "{name}");
        assert!(read(json!({ name: null })).is_err(), "{name}");
    }
    for wrong in [
        json!({ "sub": 5 }),
        json!({ "sub": "" }),
        json!({ "sid": "" }),
        json!({ "sid": "x".repeat(MAX_ID + 1) }),
        json!({ "jti": "" }),
        json!({ "iat": "10000" }),
        json!({ "events": [] }),
        json!({ "aud": [5] }),
        json!({ "sub_id": "u" }),
        json!({ "sub_id": [] }),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
    let twice = |text: &str| format!(r#"{{"iss":"i","aud":"a","iat":1,"jti":"j",{text}}}"#);
    for text in [
        r#""events":{},"sub":"a","sub":"b""#,
        r#""events":{"e":{},"e":{}}"#,
        r#""events":{},"events":{}"#,
        r#""events":{"e":{"a":1,"a":1}}"#,
        r#""events":{},"sub_id":{"a":[{"b":{"c":1,"c":2}}]}"#,
    ] {
        assert!(Claims::read(twice(text).as_bytes()).is_err(), "{text}");
    }
    assert!(Claims::read(twice(r#""events":{},"sub":"a""#).as_bytes()).is_ok());
}

#[test]
fn one_of_several_audiences_must_be_ours() {
    let ours = ["client".to_owned()];
    for (aud, good) in [
        (json!("client"), true),
        (json!(["other", "client"]), true),
        (json!("clien"), false),
        (json!([]), false),
        (json!(["other"]), false),
    ] {
        assert_eq!(read(json!({ "aud": aud })).unwrap().judge_audience(&ours).is_ok(), good, "{aud}");
    }
}

#[test]
fn times_are_judged_at_their_boundaries() {
    for (claims, good) in [
        (json!({ "iat": NOW + 30 }), true),
        (json!({ "iat": NOW + 31 }), false),
        (json!({ "iat": NOW - 150 }), true),
        (json!({ "iat": NOW - 151 }), false),
        (json!({ "iat": -1 }), false),
        (json!({ "iat": 1e300 }), false),
        (json!({ "exp": NOW - 29 }), true),
        (json!({ "exp": NOW - 30 }), false),
        (json!({ "exp": 1e300 }), false),
        (json!({ "nbf": NOW + 30 }), true),
        (json!({ "nbf": NOW as f64 + 30.5 }), false),
    ] {
        assert_eq!(read(claims.clone()).unwrap().judge_times(NOW, MAX_AGE, SKEW).is_ok(), good, "{claims}");
    }
}

#[test]
fn a_nonce_is_seen_whatever_it_is() {
    assert!(read(json!({})).unwrap().nonce.is_none());
    for nonce in [json!("n"), json!(5), json!(false)] {
        assert!(read(json!({ "nonce": nonce })).unwrap().nonce.is_some(), "{nonce}");
    }
}

#[test]
fn an_optional_claim_that_is_null_is_absent() {
    let claims =
        read(json!({ "sub": null, "sid": null, "exp": null, "nbf": null, "nonce": null, "sub_id": null })).unwrap();
    assert!(claims.sub.is_none() && claims.sid.is_none() && claims.sub_id.is_none() && !claims.has_exp());
    assert!(claims.nonce.is_none() && claims.judge_times(NOW, MAX_AGE, SKEW).is_ok());
}
