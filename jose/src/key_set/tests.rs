use super::*;
use crate::alg::Family;
use crate::key::engine::any::Any;

type Key = crate::key::Key<Any>;
type KeySet = super::KeySet<Any>;

const ALL: &[Algorithm] = &Algorithm::ALL;
/// RFC 7638 section 3.1.
const RSA: &str = r#"{"kty":"RSA",
    "n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e":"AQAB"}"#;
/// RFC 7515 appendix A.3.1.
const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

fn key(family: Family, kid: Option<&str>, allowed: &[Algorithm]) -> Key {
    let kid = kid.map(str::to_owned);
    let jwk = match family {
        Family::Hmac => return Key::from_secret(&[0; 64], kid, None, allowed).unwrap(),
        Family::Rsa => RSA,
        _ => P256,
    };
    Key::from_jwk(&serde_json::from_str(jwk).unwrap(), kid, None, allowed).unwrap()
}

/// A key of its own for each number.
fn secret(number: u8, kid: Option<&str>) -> Key {
    Key::from_secret(&[number; 32], kid.map(str::to_owned), None, &[Algorithm::HS256]).unwrap()
}

fn kids<'k>(set: &'k KeySet, kid: Option<&str>, alg: Algorithm) -> Result<Vec<Option<&'k str>>, NoCandidate> {
    set.candidates(kid, alg).map(|keys| keys.map(Key::kid).collect())
}

#[test]
fn a_kid_selects_its_key_and_those_without_kid() {
    let keys = vec![secret(1, None), secret(2, Some("a")), secret(3, Some("b"))];
    let set = KeySet::new(keys).unwrap();
    assert_eq!(kids(&set, Some("a"), Algorithm::HS256), Ok(vec![Some("a"), None]));
    assert_eq!(kids(&set, Some("unknown"), Algorithm::HS256), Ok(vec![None]));
    assert_eq!(kids(&set, None, Algorithm::HS256), Ok(vec![Some("a"), Some("b"), None]));
}

#[test]
fn a_kid_that_no_key_has_is_unknown() {
    let set = KeySet::new(vec![secret(1, Some("a"))]).unwrap();
    for kid in ["", "A", "a ", "b"] {
        assert_eq!(kids(&set, Some(kid), Algorithm::HS256), Err(NoCandidate::UnknownKid), "{kid:?}");
    }
    let empty = KeySet::new(Vec::new()).unwrap();
    assert_eq!(kids(&empty, None, Algorithm::HS256), Err(NoCandidate::NoKey));
    assert_eq!(kids(&empty, Some("a"), Algorithm::HS256), Err(NoCandidate::UnknownKid));
}

#[test]
fn a_kid_of_another_family_does_not_allow_the_algorithm() {
    let set = KeySet::new(vec![key(Family::Rsa, Some("rsa"), ALL), key(Family::Hmac, Some("mac"), ALL)]).unwrap();
    for (kid, alg) in [("rsa", Algorithm::HS256), ("mac", Algorithm::RS256), ("rsa", Algorithm::ES256)] {
        assert_eq!(kids(&set, Some(kid), alg), Err(NoCandidate::OtherAlgorithm), "{kid} {alg}");
    }
    assert_eq!(kids(&set, None, Algorithm::ES256), Err(NoCandidate::OtherAlgorithm));
    assert_eq!(kids(&set, None, Algorithm::HS256), Ok(vec![Some("mac")]));
    assert_eq!(kids(&set, None, Algorithm::RS256), Ok(vec![Some("rsa")]));
}

#[test]
fn a_key_narrowed_to_one_algorithm_allows_no_other_of_its_family() {
    let set = KeySet::new(vec![key(Family::Rsa, Some("k"), &[Algorithm::PS256])]).unwrap();
    assert_eq!(kids(&set, Some("k"), Algorithm::PS256), Ok(vec![Some("k")]));
    assert_eq!(kids(&set, Some("k"), Algorithm::RS256), Err(NoCandidate::OtherAlgorithm));
    assert_eq!(kids(&set, Some("k"), Algorithm::PS384), Err(NoCandidate::OtherAlgorithm));
}

#[test]
fn tries_no_more_than_eight_keys() {
    let named: Vec<String> = (0..10).map(|i| format!("k{i}")).collect();
    let keys = named.iter().zip(0..).map(|(kid, number)| secret(number, Some(kid))).collect();
    let set = KeySet::new(keys).unwrap();
    assert_eq!(set.candidates(None, Algorithm::HS256).unwrap().count(), MAX_CANDIDATES);
    assert_eq!(kids(&set, Some("k9"), Algorithm::HS256), Ok(vec![Some("k9")]));
}

#[test]
fn keys_of_other_algorithms_do_not_use_up_the_candidates() {
    let mut keys: Vec<Key> = (1..=3).map(|number| secret(number, None)).collect();
    keys.push(key(Family::Rsa, None, ALL));
    keys.push(key(Family::P256, None, ALL));
    let set = KeySet::new(keys).unwrap();
    assert_eq!(set.candidates(None, Algorithm::ES256).unwrap().count(), 1);
    assert_eq!(set.candidates(Some("any"), Algorithm::HS256).unwrap().count(), 3);
}

#[test]
fn refuses_more_than_64_keys() {
    let keys = |count: u8| (0..count).map(|i| secret(i, Some(&format!("k{i}")))).collect::<Vec<_>>();
    assert!(KeySet::new(keys(64)).is_ok());
    assert_eq!(KeySet::new(keys(65)).unwrap_err(), KeySetError::TooMany(64));
}

#[test]
fn all_keys_of_one_kid_are_tried() {
    let set = KeySet::new((0..8).map(|number| secret(number, Some("k"))).collect()).unwrap();
    let tried: Vec<_> = set.candidates(Some("k"), Algorithm::HS256).unwrap().map(Key::thumbprint).collect();
    assert_eq!(tried, set.keys().iter().map(Key::thumbprint).collect::<Vec<_>>());
    // Some issuers use one kid for different algorithms.
    let ps = key(Family::Rsa, Some("k"), &[Algorithm::PS256]);
    let rs = key(Family::Rsa, Some("k"), &[Algorithm::RS256]);
    let set = KeySet::new(vec![ps, rs, secret(1, Some("k")), secret(2, Some("k"))]).unwrap();
    assert_eq!(set.candidates(Some("k"), Algorithm::HS256).unwrap().count(), 2);
    assert_eq!(set.candidates(Some("k"), Algorithm::RS256).unwrap().count(), 1);
}

#[test]
fn refuses_keys_that_could_never_all_be_tried() {
    let too_many = |kid: &str| KeySetError::TooManyOfKid { kid: kid.into(), algorithm: Algorithm::HS256 };
    let mut set = KeySet::new((0..8).map(|number| secret(number, Some("k"))).collect()).unwrap();
    assert_eq!(set.add(secret(9, Some("k"))).unwrap_err(), too_many("k"));
    assert_eq!(set.add(secret(9, None)).unwrap_err(), too_many("k"));
    assert!(set.add(secret(9, Some("other"))).is_ok());
    assert!(set.add(key(Family::Rsa, Some("k"), ALL)).is_ok(), "another algorithm");
    assert_eq!(set.keys().len(), 10);

    let mut set = KeySet::new((0..7).map(|number| secret(number, None)).collect()).unwrap();
    assert_eq!(set.add(secret(9, None)).unwrap_err(), KeySetError::TooManyWithoutKid(Algorithm::HS256));
    assert!(set.add(secret(9, Some("k"))).is_ok());
    assert_eq!(set.add(secret(10, Some("k"))).unwrap_err(), too_many("k"));
    assert_eq!(set.candidates(Some("k"), Algorithm::HS256).unwrap().count(), MAX_CANDIDATES);
    // The publisher of a key set must not be able to write lines into the log.
    let set = KeySet::new((0..8).map(|number| secret(number, Some("line\nbreak"))).collect());
    assert_eq!(set.unwrap().add(secret(9, Some("line\nbreak"))).unwrap_err(), too_many("line?break"));
}

#[test]
fn refuses_the_same_key_twice() {
    for kid in [None, Some("k")] {
        assert_eq!(KeySet::new(vec![secret(1, kid), secret(1, kid)]).unwrap_err(), KeySetError::DuplicateKey);
    }
    assert!(KeySet::new(vec![secret(1, None), secret(1, Some("k")), secret(1, Some("l"))]).is_ok());
    let of = |issuer: &str| {
        let mut jwk: serde_json::Map<_, _> = serde_json::from_str(P256).unwrap();
        jwk.insert("issuer".into(), issuer.into());
        Key::from_jwk(&jwk, Some("k".into()), None, ALL).unwrap()
    };
    let one_key = vec![of("a"), of("b"), key(Family::P256, Some("k"), ALL)];
    assert!(KeySet::new(one_key).is_ok(), "for one tenant and for another");
}
