//! Identity: a store that lost its data says so.
use wire::{Answer, RevocationKey};

use super::{Fixture, LONG};
use crate::{AuditFrom, Ends, ListError, Revocation, SessionName, StoreError};

const KEY: RevocationKey = RevocationKey([7; 16]);

fn revocation() -> Revocation {
    Revocation { key: KEY, ends: Ends::ForGood, sealed: vec![], ttl: Some(LONG) }
}

pub async fn an_empty_store_is_not_nobody_revoked(fixture: &impl Fixture) {
    let before = fixture.open().await.revocations;
    before.revoke(vec![revocation()]).await.unwrap();
    assert_eq!(before.check(&[KEY]).await, Ok(vec![Answer::Dead]));
    fixture.lose().await;
    // Neither an instance that knew the store nor one that comes now answers "live".
    let after = fixture.open().await.revocations;
    for store in [before, after] {
        assert_eq!(store.check(&[KEY]).await, Err(StoreError::StoreChanged));
        assert_eq!(store.check(&[]).await, Err(StoreError::StoreChanged));
    }
}

pub async fn a_lost_store_is_not_read_written_or_listed(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    fixture.lose().await;
    let changed = StoreError::StoreChanged;
    assert_eq!(stores.revocations.show(KEY).await, Err(changed));
    assert_eq!(stores.revocations.list(None, 10).await.map(|_| ()), Err(ListError::Store(changed)));
    assert_eq!(stores.sessions.read(SessionName([7; 16])).await, Err(changed));
    assert_eq!(stores.audit.page(AuditFrom::Last, 10, LONG).await, Err(changed));
    // Not acknowledged, whether something was written or not.
    assert!(stores.revocations.revoke(vec![revocation()]).await.is_err());
    assert!(stores.revocations.lift(vec![KEY]).await.is_err());
    assert!(stores.sessions.end(SessionName([7; 16]), "test").await.is_err());
}
