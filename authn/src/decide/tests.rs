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

fn policy() -> Policy {
    let document = json!({
        "issuers": [{
            "name": "entra", "issuer": "https://login.example/{tenant}/v2.0", "tenants": "any", "audiences": "any",
            "algorithms": ["RS256", "PS256"], "jwks": { "uri": "https://login.example/keys", "cluster": "idp" },
        }],
        "rules": [{ "access": "required" }],
    });
    Policy::from_json(document.to_string().as_bytes(), &|_| None).unwrap()
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
    let payload = json!({ "iss": TENANT, "sub": "u", "iat": NOW.wall.0, "exp": NOW.wall.0 + 60 }).to_string();
    let input = format!("{}.{}", base64url::encode(r#"{"alg":"RS256","kid":"k"}"#), base64url::encode(payload));
    let bearer = format!("Bearer {input}.{}", base64url::encode(vectors::sign(Algorithm::RS256, input.as_bytes())));
    let pairs: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"authorization", bearer.as_bytes())];
    let request = Request::from_pairs(&pairs).unwrap();
    let Entry::Token(entered) = policy.enter(&request) else { panic!("there is a token") };
    policy.verify(&Portable, keyrings, &entered, NOW)
}

// Once, only thumbprints were compared: what a key was for could be narrowed, and cached tokens still passed.
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

#[test]
fn a_policy_and_what_it_has_verified_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Policy>();
    shared::<Verified>();
    shared::<Keyrings>();
    shared::<Box<dyn Engine>>();
}
