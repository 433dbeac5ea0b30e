use super::*;
use wire::Retention;

const LAG: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Monotonic {
    Monotonic(millis * 1_000_000)
}

fn key(number: u8) -> RevocationKey {
    RevocationKey([number; 16])
}

fn cursor(number: u8) -> Cursor {
    Cursor::new(vec![number]).unwrap()
}

fn follower() -> Following {
    Following::new(FeedSettings { lag: LAG, max_bytes: 1 << 20 }, 7)
}

fn keys(keys: &[RevocationKey], complete_millis: i32, more: bool) -> Reply {
    let news = News::Keys { complete_millis, more, keys: keys.to_vec() };
    Reply { keeps: Retention::LONGEST, regions: wire::check::RegionsMoment::UNKNOWN, cursor: cursor(9), news }
}

fn piece(piece: u16, pieces: u16, inside: &[RevocationKey]) -> Reply {
    let membership = Membership::of(inside.iter().copied()).unwrap();
    Reply {
        keeps: Retention::LONGEST,
        regions: wire::check::RegionsMoment::UNKNOWN,
        cursor: cursor(8),
        news: News::Piece { piece, pieces, membership },
    }
}

/// With a snapshot of one piece, complete as of 1 s.
fn settled() -> Following {
    let mut it = follower();
    assert_eq!(it.on_reply(piece(0, 1, &[key(1)]), at(900), at(910)), Change::Piece);
    assert_eq!(it.on_reply(keys(&[], 0, false), at(1000), at(1010)), Change::Snapshot);
    it
}

#[test]
fn it_begins_with_a_snapshot_and_has_no_proof_before_its_keys_came() {
    let mut it = follower();
    assert!(it.is_due(at(0)) && it.cursor().is_start());
    it.sent(at(900));
    assert!(!it.is_due(at(5000)), "one poll at a time");
    it.on_reply(piece(0, 2, &[key(1)]), at(900), at(910));
    assert_eq!((it.complete(), it.cursor()), (Monotonic(0), &cursor(8)));
    it.on_reply(piece(1, 2, &[]), at(910), at(920));
    assert_eq!(it.complete(), Monotonic(0));
    assert_eq!(it.on_reply(keys(&[key(2)], 5, false), at(920), at(930)), Change::Snapshot);
    assert_eq!((it.complete(), it.picture().pieces().len(), it.picture().later()), (at(925), 2, 1));
    assert_eq!(it.cursor(), &cursor(9));
}

#[test]
fn a_proof_counts_from_when_the_poll_was_sent_and_never_into_the_future() {
    for (millis, expected) in [(0, 2000), (-300, 1700), (400, 2400), (401, 2400), (i32::MAX, 2400), (i32::MIN, 1000)] {
        let mut it = settled();
        it.on_reply(keys(&[], millis, false), at(2000), at(2400));
        assert_eq!(it.complete(), at(expected), "{millis}");
    }
}

#[test]
fn more_keys_to_come_prove_nothing() {
    let mut it = settled();
    assert_eq!(it.on_reply(keys(&[key(2)], 0, true), at(2000), at(2010)), Change::Keys(vec![key(2)]));
    assert_eq!((it.complete(), it.picture().later()), (at(1000), 1));
    it.on_reply(keys(&[key(3)], 0, false), at(2010), at(2020));
    assert_eq!((it.complete(), it.picture().later()), (at(2010), 2));
}

#[test]
fn an_instance_that_is_behind_does_not_take_a_proof_back() {
    let mut it = settled();
    it.on_reply(keys(&[], 0, false), at(2000), at(2010));
    it.on_reply(keys(&[], -500, false), at(2020), at(2030));
    assert_eq!(it.complete(), at(2000));
}

#[test]
fn a_snapshot_brings_its_own_proof_also_an_earlier_one() {
    let mut it = settled();
    it.on_reply(keys(&[], 0, false), at(2000), at(2010));
    let before = it.generation();
    it.on_reply(piece(0, 1, &[]), at(2020), at(2030));
    assert_eq!(it.complete(), at(2000), "the earlier picture is in use until then");
    it.on_reply(keys(&[], -500, false), at(2030), at(2040));
    assert_eq!(it.complete(), at(1530));
    assert_ne!(it.generation(), before);
    // Keys that come in parts: no proof until the last.
    it.on_reply(piece(0, 1, &[]), at(3000), at(3010));
    assert_eq!(it.on_reply(keys(&[key(4)], 0, true), at(3010), at(3020)), Change::Snapshot);
    assert_eq!(it.complete(), Monotonic(0));
    it.on_reply(keys(&[], 0, false), at(3020), at(3030));
    assert_eq!(it.complete(), at(3020));
}

#[test]
fn pieces_out_of_order_are_no_snapshot() {
    for replies in [
        vec![piece(1, 2, &[])],
        vec![piece(0, 2, &[]), piece(0, 3, &[]), piece(1, 2, &[])],
        vec![piece(0, 3, &[]), piece(2, 3, &[])],
        vec![piece(0, 2, &[]), keys(&[], 0, false)],
        vec![keys(&[key(1)], 0, false)],
    ] {
        let mut it = follower();
        for reply in replies {
            it.on_reply(reply, at(100), at(110));
        }
        assert!(it.cursor().is_start());
        assert_eq!((it.complete(), it.generation()), (Monotonic(0), 0));
    }
}

#[test]
fn many_keys_and_age_lead_to_a_new_snapshot() {
    let mut it = settled();
    let many: Vec<RevocationKey> = (0..u32::try_from(MOST_LATER).unwrap())
        .map(|number| {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&number.to_be_bytes());
            RevocationKey(key)
        })
        .collect();
    let (last, most) = many.split_last().unwrap();
    it.settings.max_bytes = 1 << 24;
    it.on_reply(keys(most, 0, false), at(2000), at(2010));
    assert!(!it.cursor().is_start());
    it.on_reply(keys(&[*last], 0, false), at(2010), at(2020));
    assert!(it.cursor().is_start());
    assert_eq!(it.complete(), at(2010), "what is known stays in use");
    let mut it = settled();
    let late = 1010 + u64::try_from(SNAPSHOT_SERVES.as_millis()).unwrap();
    it.on_reply(keys(&[], 0, false), at(late), at(late));
    assert!(it.cursor().is_start());
}

#[test]
fn a_picture_above_its_bound_is_dropped_for_a_while() {
    let mut it = Following::new(FeedSettings { lag: LAG, max_bytes: 1000 }, 7);
    let many: Vec<RevocationKey> = (0..200).map(key).collect();
    assert_eq!(it.on_reply(piece(0, 1, &many), at(100), at(110)), Change::Piece, "few bytes");
    assert_eq!(it.on_reply(keys(&[], 0, false), at(110), at(120)), Change::Snapshot);
    assert_eq!(it.on_reply(keys(&many, 0, false), at(120), at(130)), Change::TooLarge);
    assert_eq!((it.complete(), it.generation(), it.picture().bytes()), (Monotonic(0), 0, 0));
    assert!(!it.is_due(at(131)) && it.is_due(at(10_130)));
    let mut it = Following::new(FeedSettings { lag: LAG, max_bytes: 100 }, 7);
    assert_eq!(it.on_reply(piece(0, 1, &many), at(100), at(110)), Change::TooLarge);
}

#[test]
fn failures_are_retried_at_once_then_ever_later() {
    let mut it = settled();
    let mut now = at(2000);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        it.sent(now);
        it.failed(now);
        pauses.push(it.due.since(now));
        now = it.due;
    }
    assert_eq!(pauses[0], Duration::ZERO);
    assert!(pauses[1] >= FIRST_RETRY && pauses[9] >= LAST_RETRY / 2 && pauses[9] <= LAST_RETRY, "{pauses:?}");
    it.on_reply(keys(&[], 0, false), now, now);
    assert!(it.is_due(now));
    it.refused(Trouble::TooManyFollowers, now);
    assert!(it.due.since(now) >= LONG_RETRY / 2);
}

/// A poll that is lost does not cost the proof: the next one answers in time.
#[test]
fn the_timing_leaves_room_for_one_lost_poll() {
    for lag in [250, 1000, 5000].map(Duration::from_millis) {
        let mut it = settled();
        it.settings.lag = lag;
        let (wait, timeout) = it.timing();
        assert!(wait < timeout && timeout < lag);
        it.failed(at(2000));
        assert_eq!(it.timing().0, Duration::ZERO);
        assert!(it.is_due(at(2000)));
    }
}
