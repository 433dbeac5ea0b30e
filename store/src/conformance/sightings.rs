//! From where sessions were used.
use tokio::task::JoinSet;
use wire::RevocationKey;

use super::{Fixture, LONG, SHORT, after_short};

const SESSION: RevocationKey = RevocationKey([7; 16]);

pub async fn a_record_is_read_as_it_was_written_by_every_instance(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await.sightings, fixture.open().await.sightings);
    assert_eq!(one.sightings(SESSION).await, Ok(None));
    let record: Vec<u8> = (0..=255).collect();
    assert_eq!(one.replace_sightings(SESSION, None, record.clone(), LONG).await, Ok(true));
    assert_eq!(other.sightings(SESSION).await, Ok(Some(record)));
    assert_eq!(other.sightings(RevocationKey([8; 16])).await, Ok(None));
}

pub async fn only_the_record_that_was_read_is_replaced(fixture: &impl Fixture) {
    let store = fixture.open().await.sightings;
    assert_eq!(store.replace_sightings(SESSION, Some(b"a"), b"b".to_vec(), LONG).await, Ok(false));
    assert_eq!(store.replace_sightings(SESSION, None, b"a".to_vec(), LONG).await, Ok(true));
    assert_eq!(store.replace_sightings(SESSION, None, b"b".to_vec(), LONG).await, Ok(false));
    assert_eq!(store.replace_sightings(SESSION, Some(b"x"), b"b".to_vec(), LONG).await, Ok(false));
    assert_eq!(store.sightings(SESSION).await, Ok(Some(b"a".to_vec())));
    assert_eq!(store.replace_sightings(SESSION, Some(b"a"), b"b".to_vec(), LONG).await, Ok(true));
    assert_eq!(store.sightings(SESSION).await, Ok(Some(b"b".to_vec())));
}

pub async fn a_record_expires(fixture: &impl Fixture) {
    let store = fixture.open().await.sightings;
    assert_eq!(store.replace_sightings(SESSION, None, b"a".to_vec(), SHORT).await, Ok(true));
    after_short().await;
    assert_eq!(store.sightings(SESSION).await, Ok(None));
    assert_eq!(store.replace_sightings(SESSION, Some(b"a"), b"b".to_vec(), LONG).await, Ok(false));
    assert_eq!(store.replace_sightings(SESSION, None, b"b".to_vec(), LONG).await, Ok(true));
}

pub async fn of_concurrent_writers_one_replaces_the_record(fixture: &impl Fixture) {
    let stores = [fixture.open().await.sightings, fixture.open().await.sightings];
    let mut writers = JoinSet::new();
    for number in 0..16u8 {
        let store = stores[usize::from(number) % 2].clone();
        writers.spawn(async move { store.replace_sightings(SESSION, None, vec![number], LONG).await.unwrap() });
    }
    assert_eq!(writers.join_all().await.into_iter().filter(|written| *written).count(), 1);
}
