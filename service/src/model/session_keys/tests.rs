use super::*;

fn ring(bytes: &[u8]) -> Ring {
    Ring::new(&bytes.iter().map(|byte| Secret::new(&[*byte; 32]).unwrap()).collect::<Vec<_>>())
}

#[test]
fn a_token_is_known_by_the_key_that_made_it_also_when_another_is_first() {
    let old = ring(&[1]);
    let token = old.make_token(old.first(), Purpose::Access, Sid([7; 16])).unwrap();
    let rotated = ring(&[2, 1]);
    assert_eq!(rotated.maker_of(&token), Some(KeyAt(1)));
    assert_eq!(rotated.token_mac(KeyAt(1), &token).0, old.token_mac(old.first(), &token).0);
    assert_eq!(ring(&[2]).maker_of(&token), None);
}

#[test]
fn who_changes_a_token_makes_a_stranger_of_it() {
    let ring = ring(&[1]);
    let token = ring.make_token(ring.first(), Purpose::Access, Sid([7; 16])).unwrap();
    for bad in [
        OpaqueToken { sid: [8; 16], ..token },
        OpaqueToken { random: [0; 32], ..token },
        OpaqueToken { tag: [0; 16], ..token },
        OpaqueToken { purpose: Purpose::Refresh, ..token },
    ] {
        assert_eq!(ring.maker_of(&bad), None);
    }
}

#[test]
fn what_is_sealed_opens_in_its_place_with_its_key_and_unchanged() {
    let keys = ring(&[1, 2]);
    let sealed = keys.seal(KeyAt(1), "here", b"alice".to_vec()).unwrap();
    assert!(!sealed.windows(5).any(|window| window == b"alice"));
    assert_eq!(keys.open(KeyAt(1), "here", &sealed).as_deref(), Some(&b"alice"[..]));
    assert_eq!(ring(&[2]).open(KeyAt(0), "here", &sealed).as_deref(), Some(&b"alice"[..]));
    assert_eq!(keys.open(KeyAt(0), "here", &sealed), None);
    assert_eq!(keys.open(KeyAt(1), "there", &sealed), None);
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        assert_eq!(keys.open(KeyAt(1), "here", &bad), None, "byte {at}");
    }
    assert_eq!(keys.open(KeyAt(1), "here", &[]), None);
}

#[test]
fn names_tell_subjects_and_issuers_apart() {
    let ring = ring(&[1]);
    let named = |issuer, subject| ring.subject_name(ring.first(), issuer, subject);
    assert_ne!(named("a", "bc"), named("ab", "c"));
    assert_eq!(named("a", "b"), named("a", "b"));
}

#[test]
fn tokens_tell_nothing_in_logs() {
    assert_eq!(format!("{:?}", ring(&[1, 2])), "Ring(2)");
}
