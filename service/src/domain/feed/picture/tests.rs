use std::time::Duration;

use store::LogEntry;
use wire::feed::MAX_KEYS;

use super::super::history::Mark;
use super::*;

fn place(sequence: u64) -> Place {
    Place { sequence, chain: sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes() }
}

fn key(number: u64) -> RevocationKey {
    RevocationKey(u128::from(number).to_be_bytes())
}

fn revoked(number: u64) -> LogEntry {
    let expires_in = Some(Duration::from_secs(60));
    LogEntry { place: place(number), change: Change::Revoked { key: key(number), expires_in } }
}

fn whole(keys: impl IntoIterator<Item = u64>, at: u64) -> ShardNews {
    ShardNews::Whole {
        revocations: keys.into_iter().map(|number| (key(number), None)).collect(),
        place: place(at),
        recent: vec![LogEntry { place: place(at), change: Change::Begun }],
    }
}

fn parsed(cursor: &Cursor) -> Parsed {
    Parsed::read(cursor).unwrap()
}

#[test]
fn a_picture_is_complete_when_every_shard_was_read() {
    let start = Instant::now();
    let later = start + Duration::from_secs(1);
    let mut picture = Picture::new(2, start);
    picture.apply(vec![whole([1], 1), ShardNews::Gap], start, start);
    assert_eq!((picture.complete(), picture.here()), (None, None));
    picture.apply(vec![ShardNews::Nothing, whole([], 1)], start, start);
    assert_eq!(picture.complete(), Some(start));
    picture.apply(vec![ShardNews::Entries(vec![revoked(2)]), ShardNews::Gap], later, later);
    assert_eq!(picture.complete(), None, "a shard must be read anew");
    picture.apply(vec![ShardNews::Nothing, whole([], 5)], later, later);
    assert_eq!((picture.complete(), picture.keys()), (Some(later), 2));
}

#[test]
fn a_follower_gets_what_came_after_its_cursor_in_steps_of_the_most_keys() {
    let start = Instant::now();
    let shards = 10;
    let mut picture = Picture::new(shards, start);
    picture.apply((0..shards as u64).map(|_| whole([], 1)).collect(), start, start);
    let first = picture.newest().unwrap().clone();
    let mut sent = Vec::new();
    for shard in 0..shards as u64 {
        let entries: Vec<_> = (2..1002)
            .map(|number| LogEntry {
                change: Change::Revoked { key: key(shard * 10_000 + number), expires_in: None },
                ..revoked(number)
            })
            .collect();
        sent.extend(entries.iter().filter_map(LogEntry::key));
        let mut news = vec![ShardNews::Nothing; shards];
        news[shard as usize] = ShardNews::Entries(entries);
        picture.apply(news, start, start);
    }
    let (mut cursor, mut got) = (first, Vec::new());
    for more in [true, false] {
        let Understood::At(numbers) = picture.understand(&parsed(&cursor)) else { panic!() };
        let lacking = picture.since(&numbers, MAX_KEYS).unwrap();
        assert!(lacking.keys.len() <= MAX_KEYS);
        assert_eq!(lacking.more, more);
        got.extend(lacking.keys);
        cursor = lacking.cursor;
    }
    assert_eq!(got, sent);
    assert_eq!(Some(&cursor), picture.newest());
}

#[test]
fn a_cursor_is_understood_only_with_the_same_past() {
    let start = Instant::now();
    let of = |keys: &[u64]| {
        let mut picture = Picture::new(1, start);
        picture.apply(vec![whole([], 1)], start, start);
        if !keys.is_empty() {
            picture.apply(vec![ShardNews::Entries(keys.iter().map(|key| revoked(*key)).collect())], start, start);
        }
        picture
    };
    let mut one = of(&[2, 3, 4]);
    let mut behind = of(&[2]);
    let cursor = |picture: &mut Picture| parsed(picture.newest().unwrap());
    assert!(matches!(one.understand(&cursor(&mut behind)), Understood::At(_)));
    assert_eq!(behind.understand(&cursor(&mut one)), Understood::Ahead);
    let same = cursor(&mut one);
    assert_eq!(one.understand(&Parsed { digest: [0; 16], ..same.clone() }), Understood::Unknown);
    assert_eq!(one.understand(&Parsed { marks: vec![], ..same.clone() }), Understood::Unknown);
    let other = Mark { chain: 9, ..same.marks[0] };
    assert_eq!(one.understand(&Parsed { marks: vec![other], ..same }), Understood::Unknown);
}

#[test]
fn a_small_shard_that_was_read_anew_is_sent_and_a_large_one_is_not() {
    let start = Instant::now();
    for (count, is_sent) in [(MAX_BRIDGE as u64, true), (MAX_BRIDGE as u64 + 1, false)] {
        let mut picture = Picture::new(1, start);
        picture.apply(vec![whole([1, 2], 5)], start, start);
        let before = parsed(picture.newest().unwrap());
        picture.apply(vec![ShardNews::Gap], start, start);
        picture.apply(vec![whole(0..count, 7)], start, start);
        match picture.understand(&before) {
            Understood::At(numbers) => {
                let lacking = picture.since(&numbers, MAX_KEYS).unwrap();
                assert!(is_sent && !lacking.more);
                assert_eq!(lacking.keys.len() as u64, count);
                assert_eq!(Some(&lacking.cursor), picture.newest());
            }
            Understood::Unknown => assert!(!is_sent),
            Understood::Ahead => panic!(),
        }
    }
}

#[test]
fn a_lifted_key_leaves_the_picture_and_a_prolonged_one_stays() {
    let start = Instant::now();
    let mut picture = Picture::new(1, start);
    picture.apply(vec![whole([1], 1)], start, start);
    let change = |sequence, change| LogEntry { place: place(sequence), change };
    let short = Some(Duration::from_secs(1));
    let long = Some(Duration::from_secs(100));
    let news = vec![
        change(2, Change::Revoked { key: key(2), expires_in: short }),
        change(3, Change::Revoked { key: key(3), expires_in: short }),
        change(4, Change::Revoked { key: key(3), expires_in: long }),
        change(5, Change::Lifted { key: key(1) }),
        change(6, Change::Revoked { key: key(4), expires_in: long }),
        change(7, Change::Lifted { key: key(4) }),
        change(8, Change::Revoked { key: key(4), expires_in: short }),
    ];
    picture.apply(vec![ShardNews::Entries(news)], start, start);
    assert_eq!(picture.live_keys(0, start), [key(2), key(3), key(4)]);
    let later = start + Duration::from_secs(3);
    assert_eq!(picture.live_keys(0, later), [key(3)]);
    picture.purge(later);
    assert_eq!(picture.keys(), 1);
}

/// A poll that waits for a piece of a snapshot has numbers from before.
#[test]
fn numbers_are_not_used_again_after_everything_was_forgotten() {
    let start = Instant::now();
    let mut picture = Picture::new(1, start);
    picture.apply(vec![whole([1], 1)], start, start);
    picture.apply(vec![ShardNews::Entries(vec![revoked(2), revoked(3)])], start, start);
    let before = picture.here().unwrap();
    picture.forget(start);
    assert_eq!((picture.complete(), picture.here(), picture.keys()), (None, None, 0));
    assert!(!picture.is_at_least(&before, &before));
    picture.apply(vec![whole([1, 2, 3, 4], 4)], start, start);
    for _ in 0..10 {
        let next = picture.places()[0].unwrap().sequence + 1;
        picture.apply(vec![ShardNews::Entries(vec![revoked(next)])], start, start);
        assert!(!picture.is_at_least(&before, &before) && picture.cursor(Step::Following, &before).is_none());
    }
}
