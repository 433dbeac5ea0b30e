use super::*;
use jose::MAX_CANDIDATES;
use jose::jwks::MAX_BYTES;
use mint::SigningKey;
use serde_json::{Value, json};

fn set(keys: &[Value]) -> KeySet {
    parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap().keys
}

fn jwk(key: &SigningKey) -> Value {
    Value::Object(key.public_jwk().unwrap())
}

/// The signing input and signature of a token.
fn signed(key: &SigningKey) -> (String, Vec<u8>) {
    let token = key.mint(&json!({ "iss": "i" }));
    let (input, signature) = token.rsplit_once('.').unwrap();
    (input.to_owned(), jose::base64url::decode(signature).unwrap())
}

#[test]
fn each_algorithm_verifies_with_its_own_key_only() {
    let pairs: Vec<(Algorithm, SigningKey)> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| !algorithm.is_hmac())
        .map(|algorithm| (algorithm, SigningKey::generate(algorithm, "k")))
        .collect();
    for (algorithm, key) in &pairs {
        let (input, signature) = signed(key);
        let ours = set(&[jwk(key)]);
        assert_eq!(judge(&ours, Some("k"), *algorithm, input.as_bytes(), &signature), Judged::Good, "{algorithm:?}");
        assert_eq!(judge(&ours, None, *algorithm, input.as_bytes(), &signature), Judged::Good);
        assert_eq!(judge(&ours, Some("k"), *algorithm, b"other", &signature), Judged::Bad);
        assert_eq!(judge(&ours, Some("other"), *algorithm, input.as_bytes(), &signature), Judged::UnknownKey);
        for (other, _) in pairs.iter().filter(|(other, _)| other != algorithm) {
            let judged = judge(&ours, Some("k"), *other, input.as_bytes(), &signature);
            assert_eq!(judged, Judged::OtherAlgorithm, "{algorithm:?} as {other:?}");
        }
    }
}

#[test]
fn a_key_without_an_id_is_tried_for_every_id_after_those_that_have_it() {
    let [named, nameless, stranger] = [(); 3].map(|()| SigningKey::generate(Algorithm::EdDSA, "k"));
    let without_kid = |key: &SigningKey| {
        let mut jwk = jwk(key);
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    };
    let many = vec![without_kid(&stranger); MAX_CANDIDATES];
    let keys = set(&[many, vec![jwk(&named)]].concat());
    let judge = |keys: &KeySet, key, kid| {
        let (input, signature) = signed(key);
        super::judge(keys, Some(kid), Algorithm::EdDSA, input.as_bytes(), &signature)
    };
    assert_eq!(judge(&keys, &named, "k"), Judged::Good);
    let keys = set(&[jwk(&named), without_kid(&nameless)]);
    for kid in ["k", "other", ""] {
        assert_eq!(judge(&keys, &nameless, kid), Judged::Good, "{kid}");
        assert_eq!(judge(&keys, &stranger, kid), Judged::Bad, "{kid}");
    }
    assert_eq!(judge(&keys, &named, "other"), Judged::Bad, "a key that has an id is meant by no other");
}

#[test]
fn keys_that_must_not_verify_are_left_out() {
    let rsa = jwk(&SigningKey::generate(Algorithm::RS256, "k"));
    let with = |name: &str, value: Value| {
        let mut key = rsa.clone();
        key[name] = value;
        key
    };
    assert_eq!(set(std::slice::from_ref(&rsa)).keys().len(), 1);
    for key in [
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("RSA-OAEP")),
        with("alg", json!("HS256")),
        with("e", json!("Aw")),
        with("n", json!("AQAB")),
        with("d", json!("AQAB")),
        with("kty", json!("oct")),
        json!({ "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "k" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AA" }),
        json!(5),
    ] {
        assert_eq!(set(std::slice::from_ref(&key)).keys().len(), 0, "{key}");
    }
}

/// Only a known key id proves that the algorithm is wrong. Otherwise the key may be one that we do not have yet.
#[test]
fn a_key_of_another_algorithm_is_unknown_unless_the_token_names_it() {
    let rsa = jwk(&SigningKey::generate(Algorithm::RS256, "k"));
    let mut nameless = rsa.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    let (input, signature) = signed(&SigningKey::generate(Algorithm::ES256, "k"));
    for (key, kid, expected) in [
        (&rsa, Some("k"), Judged::OtherAlgorithm),
        (&rsa, Some("other"), Judged::UnknownKey),
        (&rsa, None, Judged::UnknownKey),
        (&nameless, Some("k"), Judged::UnknownKey),
        (&nameless, None, Judged::UnknownKey),
    ] {
        let keys = set(std::slice::from_ref(key));
        assert_eq!(judge(&keys, kid, Algorithm::ES256, input.as_bytes(), &signature), expected, "{kid:?}");
    }
}

#[test]
fn sets_are_the_same_by_their_usable_keys() {
    let [one, two] = ["a", "b"].map(|kid| jwk(&SigningKey::generate(Algorithm::ES256, kid)));
    let mut renamed = one.clone();
    renamed["kid"] = json!("c");
    let both = set(&[one.clone(), two.clone()]);
    assert!(are_same(&both, &set(&[one.clone(), json!({ "kty": "oct" }), two.clone()])));
    for other in [vec![], vec![one.clone()], vec![one, two.clone(), renamed.clone()], vec![renamed, two]] {
        assert!(!are_same(&both, &set(&other)));
    }
}

#[test]
fn every_key_of_the_largest_set_is_used() {
    let keys: Vec<Value> =
        (0..MAX_MEMBERS).map(|n| jwk(&SigningKey::generate(Algorithm::EdDSA, &n.to_string()))).collect();
    assert_eq!(set(&keys).keys().len(), MAX_MEMBERS);
}

#[test]
fn an_rsa_key_of_8192_bits_verifies() {
    let key = SigningKey::generate_rsa(Algorithm::PS512, "k", 8192).unwrap();
    let (input, signature) = signed(&key);
    assert_eq!(judge(&set(&[jwk(&key)]), Some("k"), Algorithm::PS512, input.as_bytes(), &signature), Judged::Good);
}

#[test]
fn what_is_no_key_set_or_too_large_is_refused() {
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let many = json!({ "keys": vec![json!({}); MAX_MEMBERS + 1] });
    assert!(parse(many.to_string().as_bytes()).is_err());
    let long = format!("{{\"keys\":[]{}}}", " ".repeat(MAX_BYTES));
    assert!(parse(long.as_bytes()).is_err());
}
