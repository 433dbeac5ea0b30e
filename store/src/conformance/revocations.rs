//! Revocations: merge rules, retention, batches, concurrency.
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;
use wire::{Answer, RevocationKey};

use super::{Fixture, LONG, SHORT, after_short};
use crate::clock::unix_seconds;
use crate::{
    Ending, Ends, ListError, MergedRevocation, Place, Revocation, RevocationStore, ShardNews, Stores, WriteError,
};

/// Spread over all shards of a store that uses the first byte.
fn key(number: u16) -> RevocationKey {
    let mut key = [0x5a; 16];
    let [high, low] = number.to_be_bytes();
    (key[0], key[1], key[2]) = (low, high, low);
    RevocationKey(key)
}

fn revocation(number: u16, ends: Ends) -> Revocation {
    Revocation { key: key(number), ends, sealed: number.to_be_bytes().to_vec(), ttl: Some(LONG) }
}

async fn answer(store: &dyn RevocationStore, number: u16) -> Answer {
    store.check(&[key(number)]).await.unwrap()[0]
}

async fn revoke(store: &dyn RevocationStore, number: u16, ends: Ends) -> Ending {
    store.revoke(vec![revocation(number, ends)]).await.unwrap().in_force[0].ending
}

pub async fn an_unknown_key_is_live(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    assert_eq!(store.health(), Ok(()));
    assert_eq!(store.check(&[]).await, Ok(vec![]));
    assert_eq!(store.check(&[key(1), key(2)]).await, Ok(vec![Answer::Live; 2]));
    assert_eq!(store.show(key(1)).await, Ok(None));
}

pub async fn answers_come_in_the_order_of_the_keys(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    revoke(&*store, 1, Ends::ForGood).await;
    let Ending::Before(before) = revoke(&*store, 2, Ends::IssuedUntilNow).await else { panic!("it is not for good") };
    let asked = [key(3), key(1), key(2), key(1), key(4)];
    let expected = [Answer::Live, Answer::Dead, Answer::Before(before), Answer::Dead, Answer::Live];
    assert_eq!(store.check(&asked).await.unwrap(), expected);
}

pub async fn before_covers_the_moment_of_the_write_and_the_tolerance(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let asked = unix_seconds();
    let ending = revoke(&*store, 1, Ends::IssuedUntilNow).await;
    let written = unix_seconds();
    let Ending::Before(before) = ending else { panic!("it is not for good") };
    let margin = 1 + fixture.future_iat_tolerance().as_secs();
    assert!((asked + margin..=written + margin + 1).contains(&before), "{before} is not about {written}");
    assert_eq!(answer(&*store, 1).await, Answer::Before(before));
}

pub async fn a_revocation_asked_for_earlier_does_not_end_what_came_later(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let then = unix_seconds() - 100;
    let margin = 1 + fixture.future_iat_tolerance().as_secs();
    assert_eq!(revoke(&*store, 1, Ends::IssuedUntil(then)).await, Ending::Before(then + margin));
    // Capped at now, although the request has a later time.
    let Ending::Before(before) = revoke(&*store, 1, Ends::IssuedUntil(u64::MAX / 4)).await else { panic!() };
    assert!(before <= unix_seconds() + margin + 1, "{before}");
}

pub async fn dead_stays_over_before_and_a_larger_before_over_a_smaller(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let now = unix_seconds();
    let late = revoke(&*store, 1, Ends::IssuedUntil(now - 50)).await;
    assert_eq!(revoke(&*store, 1, Ends::IssuedUntil(now - 90)).await, late, "the reply tells what is in force");
    assert_eq!(answer(&*store, 1).await, late.into());
    assert!(revoke(&*store, 1, Ends::IssuedUntil(now - 10)).await != late);
    assert_eq!(revoke(&*store, 1, Ends::ForGood).await, Ending::Dead);
    assert_eq!(revoke(&*store, 1, Ends::IssuedUntilNow).await, Ending::Dead);
    assert_eq!(answer(&*store, 1).await, Answer::Dead);
}

pub async fn an_entry_expires_and_lives_as_long_as_the_longest_write_asked_for(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let with = |number, ends, ttl| Revocation { ttl: Some(ttl), ..revocation(number, ends) };
    let written = store.revoke(vec![with(1, Ends::ForGood, SHORT), with(2, Ends::ForGood, LONG)]).await.unwrap();
    assert!(written.in_force[0].expires_in.unwrap() <= SHORT);
    // A later time with a shorter life keeps the longer life. A weaker answer with a longer life gives the stronger
    // answer the longer life.
    store.revoke(vec![with(2, Ends::ForGood, SHORT)]).await.unwrap();
    store.revoke(vec![with(3, Ends::ForGood, SHORT)]).await.unwrap();
    let in_force = store.revoke(vec![with(3, Ends::IssuedUntilNow, LONG)]).await.unwrap().in_force[0];
    assert!(in_force.expires_in.unwrap() > LONG / 2 && in_force.ending == Ending::Dead, "{in_force:?}");
    after_short().await;
    let answers = store.check(&[key(1), key(2), key(3)]).await.unwrap();
    assert_eq!(answers, [Answer::Live, Answer::Dead, Answer::Dead]);
    assert_eq!(store.show(key(1)).await, Ok(None));
    let left = store.show(key(2)).await.unwrap().unwrap().expires_in.unwrap();
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
}

pub async fn an_endless_entry_stays_endless(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let with = |ttl| Revocation { ttl, ..revocation(1, Ends::ForGood) };
    for ttl in [None, Some(SHORT), Some(LONG)] {
        assert_eq!(store.revoke(vec![with(ttl)]).await.unwrap().in_force[0].expires_in, None, "{ttl:?}");
    }
    after_short().await;
    assert_eq!(store.show(key(1)).await.unwrap().unwrap().expires_in, None);
}

pub async fn the_note_of_what_is_in_force_is_kept(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let with = |ends, note: &[u8]| Revocation { sealed: note.to_vec(), ..revocation(1, ends) };
    let bytes: Vec<u8> = (0..=255).collect();
    store.revoke(vec![with(Ends::ForGood, &bytes)]).await.unwrap();
    store.revoke(vec![with(Ends::IssuedUntilNow, b"weaker")]).await.unwrap();
    let shown = store.show(key(1)).await.unwrap().unwrap();
    assert_eq!((shown.key, shown.answer, shown.sealed), (key(1), Some(Answer::Dead), bytes));
}

pub async fn lifting_removes_and_counts(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    revoke(&*store, 1, Ends::ForGood).await;
    revoke(&*store, 2, Ends::ForGood).await;
    assert_eq!(store.lift(vec![key(1), key(3)]).await.unwrap().removed, 1);
    assert_eq!(store.check(&[key(1), key(2)]).await.unwrap(), [Answer::Live, Answer::Dead]);
    assert_eq!(store.lift(vec![key(1)]).await.unwrap().removed, 0);
}

pub async fn every_entry_is_listed(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let all: BTreeSet<RevocationKey> = (0..300).map(key).collect();
    store.revoke((0..300).map(|number| revocation(number, Ends::ForGood)).collect()).await.unwrap();
    let (mut listed, mut cursor, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = store.list(cursor.as_deref(), 50).await.unwrap();
        listed.extend(page.revocations.iter().map(|stored| stored.key));
        pages += 1;
        assert!(pages < 1000, "the list does not end");
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, all);
    assert!(pages > 1);
}

pub async fn a_cursor_of_another_kind_is_refused(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    assert_eq!(store.list(Some("no cursor!"), 10).await, Err(ListError::InvalidCursor));
}

pub async fn a_batch_is_written_and_read_as_one(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let numbers: Vec<u16> = (0..512).collect();
    let written = store.revoke(numbers.iter().map(|number| revocation(*number, Ends::ForGood)).collect()).await;
    assert_eq!(written.unwrap().in_force.len(), numbers.len());
    let keys: Vec<_> = numbers.iter().map(|number| key(*number)).chain([key(999)]).collect();
    let answers = store.check(&keys).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| **answer == Answer::Dead).count(), numbers.len());
    assert_eq!(answers.last(), Some(&Answer::Live));
}

pub async fn what_is_acknowledged_is_readable_by_every_instance(fixture: &impl Fixture) {
    let (one, other) = (fixture.open().await.revocations, fixture.open().await.revocations);
    for number in 0..100 {
        revoke(&*one, number, Ends::ForGood).await;
        assert_eq!(answer(&*other, number).await, Answer::Dead, "{number}");
        other.lift(vec![key(number)]).await.unwrap();
        assert_eq!(answer(&*one, number).await, Answer::Live, "{number}");
    }
}

pub async fn concurrent_writes_leave_the_strongest(fixture: &impl Fixture) {
    let now = unix_seconds();
    let mut writes = JoinSet::new();
    for instance in 0..2 {
        let store = fixture.open().await.revocations;
        for number in 0..32 {
            let store = store.clone();
            writes.spawn(async move {
                let then = now - 1000 + 2 * number + instance;
                let last = if number == 7 { Ends::ForGood } else { Ends::IssuedUntil(then) };
                let both = vec![revocation(1, Ends::IssuedUntil(then)), revocation(2, last)];
                store.revoke(both).await.map(|_| ())
            });
        }
    }
    let results: Vec<Result<(), WriteError>> = writes.join_all().await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let store = fixture.open().await.revocations;
    let most = now - 1000 + 63 + 1 + fixture.future_iat_tolerance().as_secs();
    assert_eq!(store.check(&[key(1), key(2)]).await.unwrap(), [Answer::Before(most), Answer::Dead]);
}

const SLACK: Duration = Duration::from_secs(10);

fn merged(number: u16, ending: Ending, ttl: Option<Duration>) -> MergedRevocation {
    MergedRevocation { key: key(number), ending, sealed: b"theirs".to_vec(), ttl }
}

pub async fn what_another_store_has_is_merged_in_any_order(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    let entries = [
        merged(1, Ending::Before(2000), Some(LONG)),
        merged(1, Ending::Before(1000), Some(LONG * 2)),
        merged(1, Ending::Dead, Some(LONG / 2)),
        merged(2, Ending::Before(7), Some(LONG)),
        merged(2, Ending::Before(9), None),
    ];
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]] {
        for at in order {
            store.merge(vec![entries[at].clone()], SLACK).await.unwrap();
        }
        let one = store.show(key(1)).await.unwrap().unwrap();
        assert_eq!((one.answer, &one.sealed[..]), (Some(Answer::Dead), &b"theirs"[..]));
        let left = one.expires_in.unwrap();
        assert!(left > LONG * 2 - SLACK && left <= LONG * 2, "{left:?}");
        let two = store.show(key(2)).await.unwrap().unwrap();
        assert_eq!((two.answer, two.expires_in), (Some(Answer::Before(9)), None));
        store.lift(vec![key(1), key(2)]).await.unwrap();
    }
    assert_eq!(store.merge(entries.to_vec(), SLACK).await, Ok(5), "at once");
    assert_eq!(answer(&*store, 1).await, Answer::Dead);
}

async fn places(stores: &Stores) -> Vec<Option<Place>> {
    let news = stores.log.follow(&vec![None; stores.log.shards()]).await.unwrap();
    let place = |news: ShardNews| match news {
        ShardNews::Whole { place, .. } => Some(place),
        other => panic!("{other:?}"),
    };
    news.into_iter().map(place).collect()
}

pub async fn what_is_here_already_is_not_merged_again(fixture: &impl Fixture) {
    let stores = fixture.open().await;
    let store = &stores.revocations;
    store.revoke(vec![revocation(1, Ends::ForGood)]).await.unwrap();
    store.merge(vec![merged(2, Ending::Before(50), Some(LONG)), merged(3, Ending::Dead, None)], SLACK).await.unwrap();
    let before = places(&stores).await;
    let known = vec![
        merged(1, Ending::Dead, Some(LONG + SLACK / 2)),
        merged(1, Ending::Before(u64::from(u32::MAX)), Some(LONG / 2)),
        merged(2, Ending::Before(50), Some(LONG + SLACK / 2)),
        merged(2, Ending::Before(49), Some(SHORT)),
        merged(3, Ending::Dead, Some(LONG)),
    ];
    assert_eq!(store.merge(known, SLACK).await, Ok(0));
    assert_eq!(places(&stores).await, before, "no other store would stop hearing of it");
    assert_eq!(store.show(key(1)).await.unwrap().unwrap().sealed, 1_u16.to_be_bytes(), "the note that is in force");

    let news = vec![merged(1, Ending::Before(3), Some(LONG * 2)), merged(2, Ending::Before(51), Some(SHORT))];
    assert_eq!(store.merge(news, SLACK).await, Ok(2));
    let one = store.show(key(1)).await.unwrap().unwrap();
    assert!(one.answer == Some(Answer::Dead) && one.expires_in.unwrap() > LONG + SLACK, "it lives longer: {one:?}");
    let two = store.show(key(2)).await.unwrap().unwrap();
    assert!(
        two.answer == Some(Answer::Before(51)) && two.expires_in.unwrap() > LONG - SLACK,
        "and no shorter: {two:?}"
    );
    assert_ne!(places(&stores).await, before, "followers learn of it");
}

pub async fn many_entries_are_shown_at_once(fixture: &impl Fixture) {
    let store = fixture.open().await.revocations;
    store.revoke((0..300).map(|number| revocation(number, Ends::ForGood)).collect()).await.unwrap();
    let asked: Vec<_> = (0..600).step_by(2).map(key).collect();
    let shown = store.show_all(&asked).await.unwrap();
    let found: BTreeSet<_> = shown.iter().map(|shown| shown.key).collect();
    assert_eq!(found, (0..300).step_by(2).map(key).collect());
    assert!(shown.iter().all(|shown| shown.answer == Some(Answer::Dead) && shown.sealed.len() == 2));
    assert_eq!(store.show_all(&[]).await, Ok(vec![]));
}
