use super::*;

const KEEPS: Retention = Retention { token: 600, login: 600 };

fn named(issuer: &str) -> NamedIssuer {
    NamedIssuer { issuer: issuer.into(), needs: KEEPS, kinds: Kinds::of([Kind::Session, Kind::SigningKey]) }
}

fn learn(issuers: &Known, told: &[NamedIssuer]) -> Vec<String> {
    issuers.learn(told, KEEPS).into_iter().map(|named| named.issuer).collect()
}

fn ends_something(known: &Known, issuer: &str, kind: Kind) -> bool {
    let mut matches = Matches::new(issuer, kind);
    known.find(&mut matches);
    matches.ends_something()
}

#[test]
fn what_filters_told_is_known_and_stored_once_in_a_while() {
    let issuers = Known::new(vec!["https://own".into()]);
    assert_eq!(learn(&issuers, &[named("https://a"), named("https://b")]), ["https://a", "https://b"]);
    assert!(learn(&issuers, &[named("https://a")]).is_empty());
    issuers.not_stored(&[named("https://a")]);
    assert_eq!(learn(&issuers, &[named("https://a")]), ["https://a"]);
    let is_ok = |issuer: &str, kind| ends_something(&issuers, issuer, kind);
    for issuer in ["https://own", "https://a", "https://b"] {
        assert!(is_ok(issuer, Kind::Session), "{issuer}");
    }
    assert!(!is_ok("https://a/", Kind::Session));
    // A kind that no filter asks about ends nothing, until one does.
    assert!(is_ok("https://own", Kind::User) && !is_ok("https://a", Kind::User));
    let user = NamedIssuer { kinds: Kinds::of([Kind::User]), ..named("https://a") };
    assert_eq!(learn(&issuers, &[user]), ["https://a"]);
    assert!([Kind::User, Kind::Session].into_iter().all(|kind| is_ok("https://a", kind)));
}

#[test]
fn a_tenant_is_one_segment_and_keys_are_of_all_tenants() {
    let pattern = "https://login.example/{tenant}/v2.0";
    let acme = "https://login.example/acme/v2.0";
    let ends = |known: &str, issuer: &str, kind| ends_something(&Known::new(vec![known.to_owned()]), issuer, kind);
    for known in [pattern, acme] {
        assert!(ends(known, acme, Kind::User));
        assert!(ends(known, pattern, Kind::SigningKey) && ends(known, pattern, Kind::Issuer));
    }
    assert!(!ends(acme, pattern, Kind::User));
    assert!(!ends(acme, "https://login.example/other/v2.0", Kind::User));
    for other in ["https://login.example//v2.0", "https://login.example/a/b/v2.0", "https://login.example/acme/v2.0/"] {
        assert!(!ends(pattern, other, Kind::User), "{other}");
    }
}

#[test]
fn what_is_known_does_not_grow_without_bound() {
    let issuers = Known::new(vec![]);
    for number in 0..=MAX_ISSUERS {
        issuers.learn(&[named(&number.to_string())], KEEPS);
    }
    assert_eq!(issuers.told.lock().unwrap().len(), MAX_ISSUERS);
}
