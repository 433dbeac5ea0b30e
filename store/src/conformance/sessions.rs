//! Sessions: their life, the rotation of refresh tokens, the index by subject.
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Fixture, LONG, SHORT, after_short};
use crate::clock::unix_millis;
use crate::{IndexEntry, NewSession, Rotated, Rotation, SessionName, SessionStore, SubjectName};

const NAME: SessionName = SessionName([9; 16]);
const SUBJECT: SubjectName = SubjectName([8; 16]);
const GRACE: Duration = SHORT;

fn session() -> NewSession {
    let sealed = (0..=255).collect();
    NewSession { sealed, access: b"first".to_vec(), refresh: Some(token(1)), lifetime: LONG, idle: None }
}

fn token(number: u8) -> [u8; 32] {
    [number; 32]
}

fn rotation(presented: u8, new: u8) -> Rotation {
    let access = format!("{new:05}").into_bytes();
    Rotation { presented: token(presented), new: token(new), access, max_access_bytes: 15, grace: GRACE }
}

async fn rotate(store: &dyn SessionStore, presented: u8, new: u8) -> Rotated {
    store.rotate(NAME, rotation(presented, new)).await.unwrap()
}

async fn ended(store: &dyn SessionStore) -> Option<String> {
    store.read(NAME).await.unwrap().unwrap().ended
}

pub async fn a_session_is_read_as_it_was_created(fixture: &impl Fixture) {
    let (store, other) = (fixture.open().await.sessions, fixture.open().await.sessions);
    assert_eq!(store.read(NAME).await, Ok(None));
    assert_eq!(store.create(NAME, session()).await, Ok(true));
    let read = other.read(NAME).await.unwrap().unwrap();
    assert_eq!((read.sealed, read.access, read.ended), (session().sealed, session().access, None));
    assert!(read.used.abs_diff(unix_millis()) < 60_000, "{}", read.used);
    assert_eq!(store.read(SessionName([10; 16])).await, Ok(None));
}

pub async fn a_name_is_created_once(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    assert_eq!(store.create(NAME, session()).await, Ok(true));
    assert_eq!(store.create(NAME, NewSession { sealed: vec![1], ..session() }).await, Ok(false));
    assert_eq!(store.read(NAME).await.unwrap().unwrap().sealed, session().sealed);
}

pub async fn a_session_ends_with_its_lifetime(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    store.create(NAME, NewSession { lifetime: SHORT, idle: Some(LONG), ..session() }).await.unwrap();
    store.touch(NAME, Duration::ZERO).await.unwrap();
    after_short().await;
    assert_eq!(store.read(NAME).await, Ok(None));
    assert_eq!(rotate(&*store, 1, 2).await, Rotated::Gone);
    assert_eq!(store.read(NAME).await, Ok(None), "nothing brings it back");
    store.touch(NAME, Duration::ZERO).await.unwrap();
    store.end(NAME, "test").await.unwrap();
    assert_eq!(store.read(NAME).await, Ok(None), "nothing brings it back");
}

pub async fn an_unused_session_ends_with_its_idle_timeout_and_a_used_one_does_not(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    let idle = Duration::from_millis(800);
    let other = SessionName([10; 16]);
    for name in [NAME, other] {
        store.create(name, NewSession { idle: Some(idle), ..session() }).await.unwrap();
    }
    for _ in 0..4 {
        sleep(idle / 3).await;
        store.touch(NAME, Duration::ZERO).await.unwrap();
    }
    assert!(store.read(NAME).await.unwrap().is_some());
    assert_eq!(store.read(other).await, Ok(None));
    sleep(idle * 2).await;
    assert_eq!(store.read(NAME).await, Ok(None));
}

pub async fn a_use_within_a_step_is_not_noted_again(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    store.create(NAME, NewSession { idle: Some(LONG), ..session() }).await.unwrap();
    let first = store.read(NAME).await.unwrap().unwrap().used;
    sleep(Duration::from_millis(50)).await;
    store.touch(NAME, LONG).await.unwrap();
    assert_eq!(store.read(NAME).await.unwrap().unwrap().used, first);
    store.touch(NAME, Duration::from_millis(10)).await.unwrap();
    assert!(store.read(NAME).await.unwrap().unwrap().used > first);
}

pub async fn a_rotation_replaces_the_token_and_puts_its_record_first(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    store.create(NAME, session()).await.unwrap();
    assert_eq!(rotate(&*store, 1, 2).await, Rotated::Done);
    assert_eq!(store.read(NAME).await.unwrap().unwrap().access, b"00002first");
    assert_eq!(rotate(&*store, 2, 3).await, Rotated::Done);
    assert_eq!(rotate(&*store, 3, 4).await, Rotated::Done);
    assert_eq!(store.read(NAME).await.unwrap().unwrap().access, b"000040000300002", "the oldest record is dropped");
    let no_record = Rotation { access: vec![], ..rotation(4, 5) };
    assert_eq!(store.rotate(NAME, no_record).await, Ok(Rotated::Done));
    assert_eq!(store.read(NAME).await.unwrap().unwrap().access, b"000040000300002");
    // One that cannot be refreshed is as good as none here.
    let other = SessionName([10; 16]);
    store.create(other, NewSession { refresh: None, ..session() }).await.unwrap();
    assert_eq!(store.rotate(other, rotation(1, 2)).await, Ok(Rotated::Gone));
    assert_eq!(store.rotate(SessionName([11; 16]), rotation(1, 2)).await, Ok(Rotated::Gone));
}

pub async fn a_replaced_token_is_a_race_within_the_grace_and_a_theft_after_it(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    store.create(NAME, session()).await.unwrap();
    assert_eq!(rotate(&*store, 1, 2).await, Rotated::Done);
    assert_eq!(rotate(&*store, 1, 3).await, Rotated::Raced);
    assert_eq!(ended(&*store).await, None);
    after_short().await;
    assert_eq!(rotate(&*store, 1, 3).await, Rotated::Reused);
    assert_eq!(ended(&*store).await.as_deref(), Some("reused"));
    assert_eq!(rotate(&*store, 2, 3).await, Rotated::Ended, "the token that replaced it is worth nothing either");
}

pub async fn an_unknown_token_is_a_theft(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    store.create(NAME, session()).await.unwrap();
    assert_eq!(rotate(&*store, 9, 2).await, Rotated::Reused);
    assert_eq!(ended(&*store).await.as_deref(), Some("reused"));
}

pub async fn of_concurrent_rotations_one_is_done(fixture: &impl Fixture) {
    let stores = [fixture.open().await.sessions, fixture.open().await.sessions];
    stores[0].create(NAME, session()).await.unwrap();
    let mut rotations = JoinSet::new();
    for number in 0..16_u8 {
        let store = stores[usize::from(number % 2)].clone();
        let rotation = Rotation { grace: LONG, ..rotation(1, 100 + number) };
        rotations.spawn(async move { store.rotate(NAME, rotation).await.unwrap() });
    }
    let all = rotations.join_all().await;
    assert_eq!(all.iter().filter(|rotated| **rotated == Rotated::Done).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|rotated| **rotated == Rotated::Raced).count(), 15, "{all:?}");
}

pub async fn an_ended_session_stays_ended(fixture: &impl Fixture) {
    let (store, other) = (fixture.open().await.sessions, fixture.open().await.sessions);
    store.create(NAME, NewSession { idle: Some(LONG), ..session() }).await.unwrap();
    store.end(NAME, "logout").await.unwrap();
    assert_eq!(ended(&*other).await.as_deref(), Some("logout"));
    let used = other.read(NAME).await.unwrap().unwrap().used;
    sleep(Duration::from_millis(20)).await;
    other.touch(NAME, Duration::ZERO).await.unwrap();
    assert_eq!(rotate(&*other, 1, 2).await, Rotated::Ended);
    let read = store.read(NAME).await.unwrap().unwrap();
    assert_eq!((read.ended.as_deref(), read.used), (Some("logout"), used));
    // There is nothing to end.
    let gone = SessionName([10; 16]);
    store.end(gone, "logout").await.unwrap();
    assert_eq!(store.read(gone).await, Ok(None));
}

pub async fn a_deleted_session_is_gone(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    store.create(NAME, session()).await.unwrap();
    store.delete(NAME).await.unwrap();
    assert_eq!(store.read(NAME).await, Ok(None));
    store.delete(NAME).await.unwrap();
    assert_eq!(store.create(NAME, session()).await, Ok(true));
}

pub async fn a_subject_lists_its_sessions_up_to_the_bound(fixture: &impl Fixture) {
    let (store, other) = (fixture.open().await.sessions, fixture.open().await.sessions);
    let entry = |sid: &str| IndexEntry { sid: sid.to_owned(), lifetime: LONG };
    for sid in ["a", "b", "c"] {
        assert_eq!(store.index(SUBJECT, entry(sid), 3).await, Ok(true), "{sid}");
    }
    assert_eq!(store.index(SUBJECT, entry("d"), 3).await, Ok(false));
    let mut sids = other.sids(SUBJECT).await.unwrap();
    sids.sort_unstable();
    assert_eq!(sids, ["a", "b", "c"]);
    other.unindex(SUBJECT, &["b".to_owned(), "x".to_owned()]).await.unwrap();
    assert_eq!(store.index(SUBJECT, entry("d"), 3).await, Ok(true));
    let mut sids = store.sids(SUBJECT).await.unwrap();
    sids.sort_unstable();
    assert_eq!(sids, ["a", "c", "d"]);
    assert_eq!(store.sids(SubjectName([1; 16])).await, Ok(vec![]));
}

pub async fn an_expired_index_entry_makes_room(fixture: &impl Fixture) {
    let store = fixture.open().await.sessions;
    let entry = |sid: &str, lifetime| IndexEntry { sid: sid.to_owned(), lifetime };
    assert_eq!(store.index(SUBJECT, entry("long", LONG), 2).await, Ok(true));
    assert_eq!(store.index(SUBJECT, entry("short", SHORT), 2).await, Ok(true));
    after_short().await;
    assert_eq!(store.index(SUBJECT, entry("new", SHORT), 2).await, Ok(true));
    let sids = store.sids(SUBJECT).await.unwrap();
    assert!(sids.contains(&"long".to_owned()) && sids.contains(&"new".to_owned()), "{sids:?}");
}
