//! The issuers that filters ask about.
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;
use wire::{Kind, Kinds};

use super::{Fixture, LONG};
use crate::{IssuerBounds, IssuerRegistry, KnownIssuer};

const BOUNDS: IssuerBounds = IssuerBounds { max_age: LONG, max_entries: 100 };
/// Ages may be counted in whole seconds.
const SECONDS: Duration = Duration::from_secs(2);

fn issuer(name: &str) -> KnownIssuer {
    KnownIssuer { issuer: format!("https://{name}.example/a b"), kinds: Kinds::of([Kind::Session, Kind::User]) }
}

async fn known(registry: &dyn IssuerRegistry, max_age: Duration) -> BTreeSet<String> {
    registry.known(max_age).await.unwrap().into_iter().map(|known| known.issuer).collect()
}

pub async fn announced_issuers_are_known_to_every_instance(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await.issuers, fixture.open().await.issuers);
    assert_eq!(one.known(LONG).await, Ok(vec![]));
    one.remember(&[issuer("a"), issuer("b")], BOUNDS).await.unwrap();
    one.remember(&[issuer("a")], BOUNDS).await.unwrap();
    let mut all = other.known(LONG).await.unwrap();
    all.sort_by(|one, other| one.issuer.cmp(&other.issuer));
    assert_eq!(all, [issuer("a"), issuer("b")]);
}

pub async fn the_registry_is_bounded_and_forgets(fixture: &impl Fixture) {
    let registry = fixture.open().await.issuers;
    let two = IssuerBounds { max_entries: 2, ..BOUNDS };
    registry.remember(&[issuer("old")], two).await.unwrap();
    sleep(SECONDS + Duration::from_secs(1)).await;
    registry.remember(&[issuer("a"), issuer("b")], two).await.unwrap();
    assert_eq!(known(&*registry, LONG).await, [issuer("a"), issuer("b")].map(|known| known.issuer).into());
    sleep(SECONDS + Duration::from_secs(1)).await;
    registry.remember(&[issuer("b")], two).await.unwrap();
    assert_eq!(known(&*registry, SECONDS).await, [issuer("b").issuer].into());
}
