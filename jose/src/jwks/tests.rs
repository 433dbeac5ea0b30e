use super::*;
use crate::MAX_KEYS;
use crate::key::engine::any::Any;
use crate::key_set::MAX_CANDIDATES;

/// RFC 7638 section 3.1.
const RSA: &str = r#"{"kty":"RSA",
    "n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e":"AQAB"}"#;

fn parse(text: &[u8], allowed: &[Algorithm], symmetric: bool) -> Result<Parsed<Any>, JwksError> {
    super::parse(text, allowed, symmetric)
}

fn rsa(kid: &str) -> Value {
    let mut jwk: Value = serde_json::from_str(RSA).unwrap();
    jwk["kid"] = kid.into();
    jwk
}

fn parse_set(keys: Value) -> Parsed<Any> {
    parse(serde_json::json!({ "keys": keys }).to_string().as_bytes(), &Algorithm::ALL, false).unwrap()
}

#[test]
fn takes_what_it_can_use_and_names_what_it_cannot() {
    let mut private = rsa("private");
    private["d"] = "AQAB".into();
    let parsed = parse_set(serde_json::json!([
        rsa("good"), private, { "kty": "EC", "crv": "secp256k1", "kid": "k1" }, 7, { "kty": "oct", "k": "AAAA" },
        rsa("good"), { "kty": "unheard of", "kid": "line\nbreak" },
    ]));
    assert_eq!(parsed.keys.keys().len(), 1);
    // The same key once more is no loss.
    assert_eq!(parsed.left_out.len(), 5);
    assert!(parsed.left_out[0].starts_with("keys[1] (kid private): "), "{:?}", parsed.left_out);
    assert!(parsed.left_out[4].contains("line?break"), "{:?}", parsed.left_out);
    let summary = parsed.summary().unwrap();
    assert!(summary.starts_with("5 of 6 keys left out: keys[1] (kid private): the JWK has"), "{summary}");
}

#[test]
fn several_keys_of_one_kid_are_taken_up_to_the_bound() {
    let key = |number: u8| {
        serde_json::json!({
            "kty": "oct", "kid": "k", "alg": "HS256", "k": base64url::encode([number; 32]),
        })
    };
    let text = serde_json::json!({ "keys": (0..11).map(key).collect::<Vec<_>>() }).to_string();
    let parsed = parse(text.as_bytes(), &Algorithm::ALL, true).unwrap();
    assert_eq!((parsed.keys.keys().len(), parsed.left_out.len()), (MAX_CANDIDATES, 3));
    assert!(parsed.summary().unwrap().starts_with("3 of 11 keys left out: keys[8] (kid k): "));
}

#[test]
fn keys_for_encryption_are_neither_used_nor_a_warning() {
    let with = |members: Value| {
        let mut jwk = rsa("k");
        members.as_object().unwrap().iter().for_each(|(name, value)| jwk[name] = value.clone());
        jwk
    };
    for quiet in [
        with(serde_json::json!({ "use": "enc" })),
        with(serde_json::json!({ "use": "enc", "alg": "RS256" })),
        with(serde_json::json!({ "alg": "RSA-OAEP-256" })),
        with(serde_json::json!({ "key_ops": ["wrapKey", "encrypt"] })),
        serde_json::json!({ "kty": "oct", "use": "enc", "k": "AAAA" }),
        serde_json::json!({ "kty": "OKP", "crv": "X25519", "use": "enc", "x": "AAAA" }),
        serde_json::json!({ "kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A128KW" }),
    ] {
        let parsed = parse_set(serde_json::json!([quiet]));
        assert_eq!((parsed.keys.keys().len(), parsed.for_encryption.len()), (0, 1), "{quiet}");
        assert_eq!(parsed.summary(), None, "{quiet}");
    }
    for loud in [
        with(serde_json::json!({ "use": "enc", "d": "AQAB" })),
        with(serde_json::json!({ "use": "SIG" })),
        with(serde_json::json!({ "use": 1 })),
        with(serde_json::json!({ "key_ops": [] })),
        with(serde_json::json!({ "key_ops": ["sign"] })),
        with(serde_json::json!({ "use": "sig", "alg": "RSA-OAEP" })),
        with(serde_json::json!({ "alg": "AES" })),
    ] {
        let parsed = parse_set(serde_json::json!([loud]));
        assert_eq!((parsed.keys.keys().len(), parsed.left_out.len()), (0, 1), "{loud}");
    }
    let secret = r#"{"keys":[{"kty":"oct","use":"enc","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}]}"#;
    let parsed = parse(secret.as_bytes(), &Algorithm::ALL, true).unwrap();
    assert_eq!((parsed.keys.keys().len(), parsed.for_encryption.len()), (0, 1));
}

#[test]
fn secrets_are_taken_only_where_the_issuer_says_so() {
    let text = r#"{"keys":[{"kty":"oct","kid":"s","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","alg":"HS256"}]}"#;
    assert_eq!(parse(text.as_bytes(), &[Algorithm::HS256], true).unwrap().keys.keys().len(), 1);
    assert_eq!(parse(text.as_bytes(), &[Algorithm::HS256], false).unwrap().keys.keys().len(), 0);
}

#[test]
fn an_empty_set_is_a_set_and_anything_else_is_not() {
    assert!(parse_set(serde_json::json!([])).keys.keys().is_empty());
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]} x"#, "<html>"] {
        assert!(parse(bad.as_bytes(), &Algorithm::ALL, false).is_err(), "{bad}");
    }
    assert_eq!(parse(&vec![b' '; MAX_BYTES + 1], &Algorithm::ALL, false).unwrap_err(), JwksError::TooLong);
}

#[test]
fn a_byte_order_mark_is_read_over_and_what_is_no_json_is_named() {
    let set = [b"\xef\xbb\xbf\n".as_slice(), br#"{"keys":[]}"#].concat();
    assert!(parse(&set, &Algorithm::ALL, false).is_ok());
    let twice = [b"\xef\xbb\xbf".as_slice(), &set].concat();
    assert!(parse(&twice, &Algorithm::ALL, false).is_err());
    let utf16: Vec<u8> = r#"{"keys":[]}"#.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let little: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bad, expected) in [
        (b"\x1f\x8b\x08\0rest".as_slice(), JwksError::Compressed("gzip")),
        (b"\x28\xb5\x2f\xfd\0", JwksError::Compressed("zstd")),
        (b"", JwksError::Empty),
        (b" \r\n", JwksError::Empty),
        (b"\xef\xbb\xbf", JwksError::Empty),
        (b"\n<!doctype html>", JwksError::Markup),
        (&utf16, JwksError::Utf16),
        (&little, JwksError::Utf16),
    ] {
        assert_eq!(parse(bad, &Algorithm::ALL, false).unwrap_err(), expected, "{bad:?}");
    }
}

#[test]
fn more_keys_than_are_taken_leave_the_first_ones() {
    let keys: Vec<Value> = (0..MAX_KEYS + 2).map(|at| rsa(&at.to_string())).collect();
    let parsed = parse_set(Value::Array(keys));
    assert_eq!((parsed.keys.keys().len(), parsed.left_out.len()), (MAX_KEYS, 2));
    let keys: Vec<Value> = (0..MAX_MEMBERS + 9).map(|at| rsa(&at.to_string())).collect();
    let parsed = parse_set(Value::Array(keys));
    assert_eq!((parsed.left_out.len(), parsed.beyond), (MAX_MEMBERS - MAX_KEYS, 9));
    let summary = parsed.summary().unwrap();
    assert!(summary.starts_with("73 of 137 keys left out: keys[64] (kid 64): more than 64"), "{summary}");
    assert!(summary.ends_with("; and 56 more; 9 beyond the first 128 members were not read"), "{summary}");
}
