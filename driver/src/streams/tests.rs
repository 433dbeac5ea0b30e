use super::*;
use authn::revocation::KeyPosition;
use authn::time::UnixSeconds;
use wire::Retention;

const LIMIT: usize = 8;

const TIMEOUT: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(1200);

fn dead() -> Verdict {
    Verdict::Dead { by: KeyPosition::new(0) }
}

fn at(millis: u64) -> Monotonic {
    Monotonic((10_000 + millis) * 1_000_000)
}

fn now(millis: u64) -> Now {
    Now { wall: UnixSeconds(1000 + millis / 1000), monotonic: at(millis) }
}

fn key(name: u8) -> RevocationKey {
    RevocationKey([name; 16])
}

/// A query with a key of its own and one that all share.
fn query(name: u8) -> Arc<RevocationQuery> {
    let keys = vec![key(name), key(0xee)];
    Arc::new(RevocationQuery::of(keys, 1, UnixSeconds(900), Retention::default(), [name; 16]))
}

fn revocable(query: &Arc<RevocationQuery>) -> Watched {
    let cannot_tell_for = Some(Duration::from_secs(30));
    Watched { token: *query.digest(), query: Some(Arc::clone(query)), until: None, cannot_tell_for }
}

fn asking() -> Pace {
    Pace { again_after: AGAIN, timeout: TIMEOUT, complete: None }
}

fn following(complete: u64) -> Pace {
    Pace { complete: Some(at(complete)), ..asking() }
}

/// The sessions to ask about, by name.
fn due(streams: &mut OpenStreams, pace: Pace, millis: u64) -> Vec<(u8, Urgency)> {
    let mut due = Vec::new();
    streams.judge(pace, now(millis), |query, urgency| {
        due.push((query.digest()[0], urgency));
        true
    });
    due
}

fn ends(streams: &mut OpenStreams) -> Vec<(StreamId, EndCause)> {
    let mut ends: Vec<_> = std::iter::from_fn(|| streams.poll()).collect();
    ends.sort_unstable();
    ends.into_iter().map(|stream| (stream, streams.ending(stream).unwrap().1)).collect()
}

#[test]
fn without_a_feed_each_session_is_asked_about_again_and_again() {
    let mut streams = OpenStreams::new(LIMIT);
    let one = query(1);
    one.learn(at(0), Verdict::Live);
    for stream in [10, 11] {
        streams.enter(stream, (0, revocable(&one)), None, asking(), at(100)).unwrap();
    }
    assert_eq!(due(&mut streams, asking(), 1199), []);
    assert_eq!(due(&mut streams, asking(), 1200), [(1, Urgency::Soon)], "once for both");
    assert_eq!(due(&mut streams, asking(), 1300), [], "the answer is on its way");
    streams.learn(&[1; 16], at(1200), Verdict::Live);
    assert_eq!(due(&mut streams, asking(), 2399), []);
    assert_eq!(due(&mut streams, asking(), 2400), [(1, Urgency::Soon)]);
    streams.learn(&[1; 16], at(2400), dead());
    assert_eq!(ends(&mut streams), [(10, EndCause::Revoked), (11, EndCause::Revoked)]);
}

#[test]
fn with_a_proof_nothing_is_asked_until_a_key_comes_and_then_at_once() {
    let mut streams = OpenStreams::new(LIMIT);
    let picture = Picture::default().replaced(Vec::new(), at(0));
    let known = |picture| Some(Known { picture, complete: at(50) });
    for (stream, name) in [(10, 1), (20, 2)] {
        streams.enter(stream, (0, revocable(&query(name))), known(&picture), following(50), at(100)).unwrap();
    }
    streams.compare(&picture, at(100));
    for millis in [100, 5000, 9000] {
        assert_eq!(due(&mut streams, following(millis), millis), []);
    }
    let picture = picture.with(&[key(9), key(1)], at(9100));
    streams.compare(&picture, at(9100));
    assert_eq!(due(&mut streams, following(9100), 9100), [(1, Urgency::AtOnce)]);
    // A check that was sent before says nothing.
    streams.learn(&[1; 16], at(9099), Verdict::Live);
    assert_eq!(due(&mut streams, following(9200), 9200), [(1, Urgency::AtOnce)]);
    assert_eq!(due(&mut streams, following(9300), 9300), []);
    assert_eq!(due(&mut streams, following(9700), 9700), [(1, Urgency::AtOnce)], "no answer came");
    streams.learn(&[1; 16], at(9700), Verdict::Live);
    assert_eq!(due(&mut streams, following(10_000), 10_000), []);
    // Its key stays in the picture, so the proof says nothing about it.
    assert_eq!(due(&mut streams, following(10_900), 10_900), [(1, Urgency::Soon)]);
    streams.learn(&[1; 16], at(10_900), dead());
    assert_eq!(ends(&mut streams), [(10, EndCause::Revoked)]);
}

#[test]
fn a_key_that_came_between_admission_and_entry_is_seen() {
    let mut streams = OpenStreams::new(LIMIT);
    let picture = Picture::default().replaced(Vec::new(), at(0)).with(&[key(1)], at(90));
    streams.compare(&picture, at(90));
    let known = Some(Known { picture: &picture, complete: at(80) });
    streams.enter(10, (0, revocable(&query(1))), known, following(80), at(100)).unwrap();
    assert_eq!(due(&mut streams, following(100), 100), [(1, Urgency::AtOnce)]);
}

#[test]
fn a_new_picture_is_looked_up_as_a_whole() {
    let mut streams = OpenStreams::new(LIMIT);
    let picture = Picture::default().replaced(Vec::new(), at(0));
    for (stream, name) in [(10, 1), (20, 2)] {
        let known = Some(Known { picture: &picture, complete: at(0) });
        streams.enter(stream, (0, revocable(&query(name))), known, following(0), at(0)).unwrap();
    }
    streams.compare(&picture, at(0));
    let snapshot = wire::feed::Membership::of([key(1)]).unwrap();
    let picture = picture.replaced(vec![snapshot], at(100));
    streams.compare(&picture, at(100));
    assert_eq!(due(&mut streams, following(100), 100), [(1, Urgency::AtOnce)]);
}

#[test]
fn a_revocation_that_was_lifted_before_a_stream_began_does_not_end_it() {
    let mut streams = OpenStreams::new(LIMIT);
    let picture = Picture::default().replaced(Vec::new(), at(0));
    let one = query(1);
    one.learn(at(0), dead());
    let known = Some(Known { picture: &picture, complete: at(5000) });
    streams.enter(10, (0, revocable(&one)), known, following(5000), at(5100)).unwrap();
    assert_eq!(due(&mut streams, following(5200), 5200), []);
    assert_eq!(ends(&mut streams), []);
}

#[test]
fn a_stream_ends_when_nobody_can_tell_for_too_long_and_not_before() {
    let mut streams = OpenStreams::new(LIMIT);
    let one = query(1);
    streams.enter(10, (0, revocable(&one)), None, asking(), at(0)).unwrap();
    let patient = Watched { cannot_tell_for: None, ..revocable(&query(2)) };
    streams.enter(20, (0, patient), None, asking(), at(0)).unwrap();
    due(&mut streams, asking(), 30_000);
    assert_eq!(ends(&mut streams), []);
    streams.learn(&[1; 16], at(30_000), Verdict::Live);
    due(&mut streams, asking(), 60_000);
    assert_eq!(ends(&mut streams), []);
    due(&mut streams, asking(), 60_001);
    assert_eq!(ends(&mut streams), [(10, EndCause::CannotTell)]);
}

#[test]
fn a_stream_ends_with_its_token_and_is_named_until_it_is_gone() {
    let mut streams = OpenStreams::new(LIMIT);
    let watched = Watched { token: [1; 16], query: None, until: Some(UnixSeconds(1060)), cannot_tell_for: None };
    streams.enter(10, (0, watched), None, asking(), at(0)).unwrap();
    due(&mut streams, asking(), 59_999);
    assert_eq!(ends(&mut streams), []);
    for millis in [60_000, 60_100] {
        due(&mut streams, asking(), millis);
        assert_eq!(ends(&mut streams), [(10, EndCause::Expired)]);
    }
    streams.leave(10);
    due(&mut streams, asking(), 60_200);
    assert_eq!(ends(&mut streams), []);
}

#[test]
fn what_is_open_is_bounded_and_one_session_has_a_quarter() {
    let mut streams = OpenStreams::new(LIMIT);
    let one = query(1);
    let mut enter = |stream, query: &Arc<RevocationQuery>| {
        streams.enter(stream, (0, revocable(query)), None, asking(), at(0)).is_ok()
    };
    assert!(enter(1, &one) && enter(2, &one));
    assert!(!enter(3, &one), "a quarter");
    let others: Vec<_> = (10..16u8).map(|name| enter(u64::from(name), &query(name))).collect();
    assert_eq!(others, [true; 6]);
    assert!(!enter(99, &query(99)), "all");
    streams.leave(1);
    streams.leave(1);
    assert!(streams.enter(3, (0, revocable(&one)), None, asking(), at(0)).is_ok());
    (0..100).for_each(|stream| streams.leave(stream));
    assert!(streams.is_empty() && streams.sessions.is_empty());
}

#[test]
fn a_question_without_room_is_put_again_at_the_next_tick() {
    let mut streams = OpenStreams::new(LIMIT);
    streams.enter(10, (0, revocable(&query(1))), None, asking(), at(0)).unwrap();
    let mut asked = 0;
    streams.judge(asking(), now(2000), |_, _| {
        asked += 1;
        false
    });
    assert_eq!((asked, due(&mut streams, asking(), 2100).len()), (1, 1));
}

#[test]
fn streams_that_end_by_themselves_while_they_are_to_be_ended_do_not_accumulate() {
    let mut streams = OpenStreams::new(LIMIT);
    for turn in 0..1000u64 {
        let one = query(1);
        streams.enter(turn, (0, revocable(&one)), None, asking(), at(0)).unwrap();
        streams.learn(&[1; 16], at(turn + 1), dead());
        streams.leave(turn);
    }
    assert!(streams.ending.len() <= 2 * LIMIT + 1);
    assert_eq!(streams.poll(), None);
}
