use super::*;
use mint::{Alg, SigningKey as Minted};

fn key(alg: Alg) -> Arc<SigningKey> {
    read(&Minted::generate(alg, "x"))
}

fn read(minted: &Minted) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_pem(&minted.private_pem().unwrap()).unwrap())
}

fn of(keys: Vec<Arc<SigningKey>>, overlap: Duration, now: Instant) -> Signing {
    Signing::new(keys, overlap, Metrics::default(), now)
}

fn kids(signing: &Signing) -> Vec<String> {
    signing.jwks().keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn claims() -> Map<String, Value> {
    Map::from_iter([("sub".to_owned(), "alice".into())])
}

async fn signed(signing: &Signing) -> String {
    signing.sign(ACCESS_TOKEN, &claims()).await.unwrap().token
}

#[tokio::test]
async fn each_kind_of_key_signs_what_it_verifies_and_is_named_by_its_thumbprint() {
    for alg in [Alg::RS256, Alg::ES256, Alg::EdDSA] {
        let minted = Minted::generate(alg, "x");
        let ours = read(&minted);
        assert_eq!((ours.kid(), ours.public().algorithm().name()), (minted.thumbprint().as_str(), alg.name()));
        let signing = of(vec![ours], Duration::ZERO, Instant::now());
        let token = signed(&signing).await;
        let verified = signing.verify(&token).unwrap();
        assert_eq!((verified.claims, verified.thumbprint), (claims(), minted.thumbprint()));
        let mut jwk = minted.public_jwk().unwrap();
        jwk.insert("kid".into(), minted.thumbprint().into());
        assert_eq!(signing.jwks().keys[0], jwk);
    }
}

#[tokio::test]
async fn a_status_list_is_no_access_token() {
    let signing = of(vec![key(Alg::ES256)], Duration::ZERO, Instant::now());
    let list = signing.sign(STATUS_LIST, &claims()).await.unwrap();
    assert!(signing.verify(&list.token).is_none());
    assert_eq!(list.thumbprint, kids(&signing)[0]);
}

#[tokio::test]
async fn what_another_signed_or_somebody_changed_is_refused() {
    let minted = Minted::generate(Alg::ES256, "x");
    let signing = of(vec![read(&minted)], Duration::ZERO, Instant::now());
    let kid = minted.thumbprint();
    let token = signed(&signing).await;
    let with = |header: Value| minted.sign(&header.to_string(), r#"{"sub":"alice"}"#);
    assert!(signing.verify(&with(json!({ "alg": "ES256", "kid": kid, "typ": "at+jwt" }))).is_some());
    for header in [
        json!({ "alg": "none", "kid": kid, "typ": "at+jwt" }),
        json!({ "alg": "HS256", "kid": kid, "typ": "at+jwt" }),
        json!({ "alg": "ES256", "kid": kid, "typ": "JWT" }),
        json!({ "alg": "ES256", "kid": kid }),
        json!({ "alg": "ES256", "typ": "at+jwt" }),
        json!({ "alg": "ES256", "kid": kid, "typ": "at+jwt", "crit": ["x"] }),
        json!({ "alg": "ES256", "kid": kid, "typ": "at+jwt", "jwk": minted.public_jwk().unwrap() }),
    ] {
        assert!(signing.verify(&with(header.clone())).is_none(), "{header}");
    }
    let other = signed(&of(vec![key(Alg::ES256)], Duration::ZERO, Instant::now())).await;
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = input.split_once('.').unwrap();
    let forged = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"sub":"mallory"}"#));
    for bad in [other.as_str(), &forged, &format!("{token}."), &format!("{input}."), input, "", "..", "a.b.c"] {
        assert!(signing.verify(bad).is_none(), "{bad}");
    }
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs_and_the_old_one_until_its_tokens_are_over() {
    let (start, overlap) = (Instant::now(), Duration::from_secs(60));
    let (old, new) = (key(Alg::EdDSA), key(Alg::EdDSA));
    let (old_kid, new_kid) = (old.kid().to_owned(), new.kid().to_owned());
    let signing = of(vec![old], overlap, start);
    let old_token = signed(&signing).await;
    signing.load(vec![new], start);
    assert_eq!(kids(&signing), [old_kid.clone(), new_kid.clone()]);
    let signer = async || signing.verify(&signed(&signing).await).unwrap().thumbprint;
    signing.advance(start + PUBLISH_LEAD - Duration::from_millis(1));
    assert_eq!(signer().await, old_kid);
    signing.advance(start + PUBLISH_LEAD);
    assert_eq!(signer().await, new_kid);
    assert!(signing.verify(&old_token).is_some());
    signing.advance(start + PUBLISH_LEAD + overlap - Duration::from_millis(1));
    assert_eq!(kids(&signing), [new_kid.clone(), old_kid]);
    signing.advance(start + PUBLISH_LEAD + overlap);
    assert_eq!(kids(&signing), [new_kid]);
    assert!(signing.verify(&old_token).is_none());
}

#[test]
fn no_more_than_so_many_old_keys_are_kept() {
    let now = Instant::now();
    let signing = of(vec![key(Alg::EdDSA)], Duration::from_secs(60), now);
    for n in 0..20 {
        signing.load(vec![key(Alg::EdDSA)], now + PUBLISH_LEAD * n);
        signing.advance(now + PUBLISH_LEAD * n);
    }
    assert!(kids(&signing).len() <= MAX_RETIRED + 2);
}

#[tokio::test]
async fn without_a_key_nothing_is_signed() {
    let signing = of(vec![], Duration::ZERO, Instant::now());
    assert_eq!((signing.has_key(), signing.sign(ACCESS_TOKEN, &claims()).await), (false, Err(SignError::NoKey)));
    assert!(signing.jwks().keys.is_empty());
}
