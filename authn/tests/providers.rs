//! The pages of docs/providers: their configurations load, their tokens get the result that the page states, and a
//! revocation of each kind in the page's table ends exactly the tokens that have a claim for it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use authn::decide::{Entry, Peer, RevocationStatus};
use authn::engine::Portable;
use authn::policy::Policy;
use authn::reject::Rejection;
use authn::request::Request;
use authn::revocation::Verdict;
use authn::time::{Monotonic, Now, UnixSeconds};
use cases::{ProviderKey, ProviderPage, ProviderToken, provider_key};
use serde_json::json;
use wire::{Answer, Kind, Secret};

const SECRET: &[u8; 32] = &[7; 32];
const PROVIDERS: [&str; 8] = ["auth0", "cognito", "entra", "firebase", "google", "keycloak", "kubernetes", "okta"];

struct Nobody;

impl Peer for Nobody {
    fn address(&self) -> Option<std::net::IpAddr> {
        None
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        None
    }
}

/// For a token that passes: the verdict, if this kind and id are revoked.
fn judge(policy: &Policy, token: &ProviderToken, revoked: Option<(Kind, &str)>) -> Result<Vec<Kind>, Rejection> {
    let key = provider_key_of_this_run();
    let now = Now { wall: UnixSeconds(token.issued() + 60), monotonic: Monotonic(1) };
    let text = token.sign(key, token.issued());
    let bearer = format!("Bearer {text}");
    let pairs: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":path", b"/orders"),
        (b":authority", b"api.example.com"),
        (b":scheme", b"https"),
        (b"authorization", bearer.as_bytes()),
    ];
    let request = Request::from_pairs(&pairs).unwrap();
    let Entry::Token(entered) = policy.enter(&request) else { panic!("no token is looked at") };
    let mut keyrings = policy.keyrings();
    let set = json!({ "keys": [key.public_jwk().unwrap()] }).to_string();
    for place in 0.. {
        if policy.issuer_name(place).is_none() {
            break;
        }
        keyrings.source_mut(place).unwrap().adopt(set.as_bytes(), Monotonic(0), Monotonic(0), Monotonic(0), 0);
    }
    let verified = policy.verify(&Portable, &keyrings, &entered, now).map_err(|unverifiable| unverifiable.rejection)?;
    let verified = Arc::new(verified);
    let unreachable = policy.not_revocable_by(&verified)?;
    let accepted = policy.accept(verified, entered, now, &authn::engine::Portable, &Nobody)?;
    let RevocationStatus::MustAsk(asking) = policy.revocation_status(accepted, None, now)? else {
        panic!("nobody is asked")
    };
    let derived = Secret::new(SECRET).unwrap().derive();
    let ended = revoked.map(|(kind, id)| derived.revocation_key(kind, token.issuer(), id.as_bytes()));
    let answers = asking.query().keys.iter().map(|key| if Some(*key) == ended { Answer::Dead } else { Answer::Live });
    let verdict: Verdict = asking.query().judge(answers.collect::<Vec<_>>());
    asking.on_verdict(policy, now.monotonic, verdict, now)?;
    Ok(unreachable)
}

fn provider_key_of_this_run() -> &'static ProviderKey {
    static KEY: OnceLock<ProviderKey> = OnceLock::new();
    KEY.get_or_init(provider_key)
}

fn pages() -> Vec<(ProviderPage, Policy)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/providers");
    let pages = ProviderPage::read_all(&folder).unwrap();
    let with_policy = pages.into_iter().map(|page| {
        let policy = Policy::from_json(page.document.to_string().as_bytes(), &|_| Some(SECRET.to_vec()));
        let policy = policy.unwrap_or_else(|error| panic!("{}: {error}", page.name));
        (page, policy)
    });
    with_policy.collect()
}

#[test]
fn each_provider_has_a_page_and_its_document_loads() {
    let pages = pages();
    assert_eq!(pages.iter().map(|(page, _)| page.name.as_str()).collect::<Vec<_>>(), PROVIDERS);
    for (page, policy) in &pages {
        for issuer in page.document["issuers"].as_array().unwrap() {
            assert_eq!(issuer["provider"], page.name.as_str());
        }
        for (kind, names) in &page.claims {
            assert_eq!(&policy.revocation_claims(0, kind.parse().unwrap()), names, "{} {kind}", page.name);
        }
        assert_eq!(page.claims.len(), 3, "{}", page.name);
    }
}

#[test]
fn each_token_of_a_page_has_the_fate_that_it_says() {
    for (page, policy) in pages() {
        assert!(page.tokens.iter().any(|token| token.refused.is_none()), "{}", page.name);
        assert!(page.tokens.iter().any(|token| token.refused.is_some()), "{}", page.name);
        for token in &page.tokens {
            let code = judge(&policy, token, None).err().map(|rejection| rejection.reason.code().to_owned());
            assert_eq!(code, token.refused, "{}: {}", page.name, token.claims);
        }
    }
}

#[test]
fn each_token_is_ended_by_its_session_user_and_client_where_it_has_them() {
    for (page, policy) in pages() {
        for (kind, names) in &page.claims {
            let kind: Kind = kind.parse().unwrap();
            let mut reached = 0;
            for token in page.tokens.iter().filter(|token| token.refused.is_none()) {
                let what = format!("{} {kind}: {}", page.name, token.claims);
                let unreachable = judge(&policy, token, None).unwrap();
                let Some(id) = token.first(names) else {
                    assert!(unreachable.contains(&kind), "{what}");
                    continue;
                };
                reached += 1;
                assert!(!unreachable.contains(&kind), "{what}");
                let rejection = judge(&policy, token, Some((kind, &id))).unwrap_err();
                assert_eq!(rejection.reason.code(), "SESSION_REVOKED", "{what}");
                assert!(judge(&policy, token, Some((kind, &format!("{id}x")))).is_ok(), "{what}");
            }
            assert_eq!(reached > 0, !names.is_empty(), "{} {kind}", page.name);
        }
    }
}
