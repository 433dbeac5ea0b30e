use jose::{Algorithm, Family, base64url};
use serde_json::{Value, json};

use super::*;
use crate::engine::{Engine, Portable};
use crate::keys::rings::Keyrings;
use crate::policy::Policy;
use crate::request::Request;
use crate::time::{Monotonic, Now, UnixSeconds};
use crate::vectors;

const NOW: Now = Now { wall: UnixSeconds(1_750_000_000), monotonic: Monotonic(1_000_000_000) };
const TENANT: &str = "https://login.example/a/v2.0";

fn document() -> Value {
    json!({
        "issuers": [{
            "name": "entra", "issuer": "https://login.example/{tenant}/v2.0", "tenants": "any", "audiences": "any",
            "algorithms": ["RS256", "PS256"], "jwks": { "uri": "https://login.example/keys", "cluster": "idp" },
        }],
        "rules": [{ "access": "required" }],
    })
}

fn policy() -> Policy {
    Policy::from_json(document().to_string().as_bytes(), &|_| None).unwrap()
}

/// The key of all of this test's tokens, with more members.
fn jwk(more: Value) -> Value {
    let mut jwk = vectors::public_jwk(Family::Rsa);
    more.as_object().unwrap().iter().for_each(|(name, value)| drop(jwk.insert(name.clone(), value.clone())));
    jwk.into()
}

fn fetched(keyrings: &mut Keyrings, second: u64, keys: &[Value]) {
    let (set, at) = (json!({ "keys": keys }).to_string(), Monotonic(second));
    assert!(keyrings.source_mut(0).unwrap().adopt(set.as_bytes(), at, at, at, 0));
}

fn verified(policy: &Policy, keyrings: &Keyrings) -> Result<Verified, Unverifiable> {
    verified_with(policy, keyrings, json!({}))
}

fn verified_with(policy: &Policy, keyrings: &Keyrings, cnf: Value) -> Result<Verified, Unverifiable> {
    let mut payload = json!({ "iss": TENANT, "sub": "u", "iat": NOW.wall.0, "exp": NOW.wall.0 + 60 });
    cnf.as_object().unwrap().iter().for_each(|(name, value)| payload[name] = value.clone());
    let payload = payload.to_string();
    let input = format!("{}.{}", base64url::encode(r#"{"alg":"RS256","kid":"k"}"#), base64url::encode(payload));
    let bearer = format!("Bearer {input}.{}", base64url::encode(vectors::sign(Algorithm::RS256, input.as_bytes())));
    let pairs: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"authorization", bearer.as_bytes())];
    let request = Request::from_pairs(&pairs).unwrap();
    let Entry::Token(entered) = policy.enter(&request) else { panic!("there is a token") };
    policy.verify(&Portable, keyrings, &entered, NOW)
}

// Regression: only thumbprints were compared, so a key's use could be restricted, and cached tokens still passed.
#[test]
fn a_cached_token_passes_only_while_its_key_would_verify_it_again() {
    let policy = policy();
    let ours = "https://login.example/{tenantid}/v2.0";
    let other = json!({ "kid": "k", "issuer": "https://login.example/b/v2.0" });
    for (keys, passes) in [
        (vec![jwk(json!({ "kid": "k" }))], true),
        (vec![jwk(json!({ "kid": "k", "issuer": TENANT }))], true),
        (vec![jwk(json!({ "kid": "k", "issuer": ours, "alg": "RS256", "use": "sig" }))], true),
        (vec![jwk(json!({}))], true),
        (vec![jwk(other.clone()), jwk(json!({ "kid": "k", "issuer": ours }))], true),
        (vec![jwk(other)], false),
        (vec![jwk(json!({ "kid": "k", "alg": "PS256" }))], false),
        (vec![jwk(json!({ "kid": "k", "use": "enc" }))], false),
        (vec![jwk(json!({ "kid": "k", "key_ops": ["encrypt"] }))], false),
        (vec![jwk(json!({ "kid": "l" }))], false),
        (vec![], false),
    ] {
        let mut keyrings = policy.keyrings();
        fetched(&mut keyrings, 1, &[jwk(json!({ "kid": "k", "issuer": ours }))]);
        let cached = verified(&policy, &keyrings).unwrap();
        assert!(policy.still_trusts(&cached, &keyrings, NOW).unwrap());
        fetched(&mut keyrings, 2, &keys);
        assert_eq!(policy.still_trusts(&cached, &keyrings, NOW).unwrap(), passes, "{keys:?}");
        assert_eq!(verified(&policy, &keyrings).is_ok(), passes, "{keys:?}");
    }
}

// Regression: of further rules the last judgement is cached. A request on another rule, at the same time, left a client without
// the nonce that it was asked for.
#[test]
fn a_client_gets_its_nonce_although_the_judgement_of_its_rule_is_not_cached() {
    let mut document = document();
    document["dpop"] = json!({ "origins": ["https://api.example"], "nonce": {}, "secret_env": "S" });
    document["rules"] = json!([
        { "match": { "path": { "exact": "/" } }, "access": "required" },
        { "match": { "path": { "prefix": "/b" } }, "access": "required" },
        { "access": "public" },
    ]);
    let policy = Policy::from_json(document.to_string().as_bytes(), &|_| Some(vec![1; 32])).unwrap();
    let mut keyrings = policy.keyrings();
    fetched(&mut keyrings, 1, &[jwk(json!({ "kid": "k" }))]);
    let bound = verified_with(&policy, &keyrings, json!({ "cnf": { "jkt": base64url::encode([7; 32]) } })).unwrap();
    for rule in [0, 1, 0] {
        assert!(policy.nonce_for(&bound, rule, NOW).is_some(), "{rule}");
    }
    assert_eq!(policy.nonce_for(&bound, 3, NOW), None);
    let bearer = verified(&policy, &keyrings).unwrap();
    assert_eq!(policy.nonce_for(&bearer, 1, NOW), None);
}

#[test]
fn a_policy_and_what_it_has_verified_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Policy>();
    shared::<Verified>();
    shared::<Keyrings>();
    shared::<Box<dyn Engine>>();
}
