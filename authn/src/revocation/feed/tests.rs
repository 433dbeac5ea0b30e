use super::*;
use crate::time::UnixSeconds;
use wire::Retention;

const LAG: Duration = Duration::from_secs(1);

fn key(number: u8) -> RevocationKey {
    RevocationKey([number; 16])
}

fn many(from: u32, count: u32) -> Vec<RevocationKey> {
    let bytes = |number: u32| {
        let mut key = [0xee; 16];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key[8..12].copy_from_slice(&number.to_be_bytes());
        RevocationKey(key)
    };
    (from..from + count).map(bytes).collect()
}

fn query(keys: &[RevocationKey]) -> RevocationQuery {
    RevocationQuery::of(keys.to_vec(), 0, UnixSeconds(0), Retention::default(), [0; 16])
}

fn at(millis: u64) -> Monotonic {
    Monotonic(millis * 1_000_000)
}

fn word(picture: &Picture, query: &RevocationQuery) -> FeedWord {
    Known { picture, complete: at(1000) }.word(query, LAG, at(1500))
}

#[test]
fn it_says_nothing_without_a_proof_or_with_an_old_one() {
    let (picture, token) = (Picture::default(), query(&[key(1)]));
    let word = |complete, now| Known { picture: &picture, complete }.word(&token, LAG, now);
    assert_eq!(word(Monotonic(0), at(1)), FeedWord::Silent);
    assert_eq!(word(at(1000), at(2000)), FeedWord::Clear);
    assert_eq!(word(at(1000), Monotonic(at(2000).0 + 1)), FeedWord::Silent);
}

#[test]
fn a_key_is_found_wherever_it_came_from() {
    let snapshot = Membership::of([key(1)]).unwrap();
    let picture = Picture::default().replaced(vec![snapshot], at(10)).with(&[key(2)], at(20)).with(&[key(3)], at(30));
    for (keys, expected) in [
        (vec![key(9)], FeedWord::Clear),
        (vec![key(9), key(1)], FeedWord::Perhaps { since: at(10) }),
        (vec![key(2)], FeedWord::Perhaps { since: at(20) }),
        (vec![key(3), key(2), key(1)], FeedWord::Perhaps { since: at(30) }),
    ] {
        assert_eq!(word(&picture, &query(&keys)), expected, "{keys:?}");
    }
}

#[test]
fn a_token_that_was_clear_is_compared_with_what_came_since() {
    for more in [1, COMPARED, COMPARED + 1, 3000] {
        let first = Picture::default().replaced(vec![], at(10));
        let (ended, lives) = (query(&[key(7)]), query(&[key(8)]));
        assert_eq!(word(&first, &ended), FeedWord::Clear);
        assert_eq!(word(&first, &lives), FeedWord::Clear);
        let mut keys = many(0, u32::try_from(more).unwrap());
        *keys.last_mut().unwrap() = key(7);
        let later = first.with(&keys, at(20));
        for _ in 0..2 {
            assert_eq!(word(&later, &ended), FeedWord::Perhaps { since: at(20) }, "{more}");
            assert_eq!(word(&later, &lives), FeedWord::Clear, "{more}");
        }
    }
}

#[test]
fn a_token_that_was_clear_is_looked_up_in_a_new_snapshot() {
    let first = Picture::default().replaced(vec![], at(10));
    let token = query(&[key(7)]);
    assert_eq!(word(&first, &token), FeedWord::Clear);
    let second = first.replaced(vec![Membership::of([key(7)]).unwrap()], at(20));
    assert_eq!(word(&second, &token), FeedWord::Perhaps { since: at(20) });
    // Also the first snapshot of all: a token may have been judged before it.
    let token = query(&[key(7)]);
    assert_eq!(word(&Picture::default(), &token), FeedWord::Clear);
    assert_eq!(word(&second, &token), FeedWord::Perhaps { since: at(20) });
}

#[test]
fn a_thread_with_an_older_picture_undoes_nothing() {
    let older = Picture::default().replaced(vec![], at(10)).with(&many(0, 10), at(20));
    let newer = older.with(&[key(7)], at(30));
    let (token, ended) = (query(&[key(8)]), query(&[key(7)]));
    assert_eq!(word(&newer, &token), FeedWord::Clear);
    assert_eq!(word(&older, &token), FeedWord::Clear);
    assert_eq!(word(&older, &ended), FeedWord::Clear);
    assert_eq!(word(&newer, &ended), FeedWord::Perhaps { since: at(30) });
}

#[test]
fn a_key_that_comes_again_counts_from_then() {
    let picture = Picture::default().replaced(vec![Membership::of([key(7)]).unwrap()], at(10));
    let again = picture.with(&[key(7)], at(40)).with(&[key(7)], at(50));
    assert_eq!(word(&again, &query(&[key(7)])), FeedWord::Perhaps { since: at(50) });
}

#[test]
fn every_key_has_its_number_over_many_chunks() {
    let keys = many(0, 5000);
    let mut picture = Picture::default().replaced(vec![], at(10));
    for part in keys.chunks(700) {
        picture = picture.with(part, at(20));
    }
    assert_eq!((picture.later(), picture.end()), (5000, 5001));
    let chunks: Vec<RevocationKey> =
        (0..).map(|number| picture.chunk(number)).take_while(|it| !it.is_empty()).flatten().copied().collect();
    assert_eq!(chunks, keys);
    assert!(keys.iter().all(|key| word(&picture, &query(&[*key])) != FeedWord::Clear));
    assert!(many(5000, 5000).iter().all(|key| word(&picture, &query(&[*key])) == FeedWord::Clear));
    assert!(picture.bytes() >= 5000 * 16);
}
