use super::TokenHistory::{Unknown, WasActive};
use super::*;

const MS: u64 = 1_000_000;

fn at(millis: u64) -> Monotonic {
    Monotonic(millis * MS)
}

fn questions() -> Introspections {
    Introspections::new(100, Duration::from_millis(500))
}

fn name(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

#[test]
fn one_token_that_is_waited_for_twice_is_asked_about_once() {
    let mut questions = questions();
    questions.join(1, b"token", Unknown, at(0)).unwrap();
    let (query, token) = questions.next_query(at(0)).unwrap();
    assert_eq!(&*token, b"token");
    questions.join(2, b"token", Unknown, at(1)).unwrap();
    assert_eq!(questions.next_query(at(1)), None);
    let over = questions.over(query).unwrap();
    assert_eq!((&*over.token, over.sent, over.waiters), (b"token".as_slice(), at(0), vec![1, 2]));
    assert_eq!(questions.over(query), None, "an answer counts once");
    assert_eq!((questions.waiting(), questions.unknown_waiters, questions.unknown_in_flight), (0, 0, 0));
    questions.join(3, b"token", Unknown, at(2)).unwrap();
    assert!(questions.next_query(at(2)).is_some(), "and is asked about again");
}

#[test]
fn a_flood_of_unknown_tokens_leaves_room_for_those_that_were_active() {
    let mut questions = questions();
    let joined = (0..200).filter(|&waiter| questions.join(waiter, &name(waiter), Unknown, at(0)).is_ok()).count();
    assert_eq!(joined, 75, "three quarters of the waiting room");
    let sent = std::iter::from_fn(|| questions.next_query(at(0))).count();
    assert_eq!(sent, MAX_UNKNOWN_IN_FLIGHT);
    for waiter in 1000..1025 {
        questions.join(waiter, &name(waiter), WasActive, at(1)).unwrap();
    }
    assert_eq!(questions.join(1025, b"one more", WasActive, at(1)), Err(Full));
    let mut asked = Vec::new();
    while let Some((query, token)) = questions.next_query(at(1)) {
        assert!(name(1000) <= *token.first_chunk::<8>().unwrap(), "only those that were active");
        asked.push(query);
    }
    assert_eq!(asked.len(), MAX_IN_FLIGHT - MAX_UNKNOWN_IN_FLIGHT);
    // A free place goes to a token that was active, before all that arrived earlier.
    questions.over(asked[0]).unwrap();
    assert!(name(1000) <= *questions.next_query(at(2)).unwrap().1.first_chunk::<8>().unwrap());
}

#[test]
fn the_newest_of_those_that_queue_is_asked_about_first() {
    let mut questions = questions();
    let in_flight: Vec<QueryId> = (0..60)
        .filter_map(|waiter| {
            questions.join(waiter, &name(waiter), Unknown, at(0)).unwrap();
            questions.next_query(at(0)).map(|(query, _)| query)
        })
        .collect();
    assert_eq!(in_flight.len(), MAX_UNKNOWN_IN_FLIGHT);
    questions.over(in_flight[0]).unwrap();
    assert_eq!(*questions.next_query(at(1)).unwrap().1, name(59));
}

#[test]
fn each_waiter_keeps_its_own_deadline() {
    let mut questions = questions();
    questions.join(1, b"token", Unknown, at(0)).unwrap();
    let (query, _) = questions.next_query(at(0)).unwrap();
    questions.join(2, b"token", Unknown, at(300)).unwrap();
    assert!(questions.expire(at(499)).is_empty());
    assert_eq!(questions.expire(at(500)), [1]);
    assert_eq!(questions.over(query).unwrap().waiters, [2]);
    assert!(questions.expire(at(5000)).is_empty());
}

#[test]
fn a_question_that_is_never_answered_gives_its_place_back() {
    let mut questions = questions();
    questions.join(1, b"a", Unknown, at(0)).unwrap();
    let (query, _) = questions.next_query(at(0)).unwrap();
    questions.join(2, b"a", Unknown, at(900)).unwrap();
    assert_eq!(questions.expire(at(1001)), [1, 2]);
    assert_eq!((questions.in_flight.len(), questions.unknown_in_flight), (0, 0));
    assert_eq!(questions.over(query), None, "its late answer counts for nothing");
}

#[test]
fn what_nobody_waits_for_any_more_is_not_asked() {
    let mut questions = questions();
    questions.join(1, b"a", Unknown, at(0)).unwrap();
    questions.leave(1);
    assert_eq!(questions.next_query(at(0)), None);
    assert!(questions.pending.is_empty() && questions.unknown.is_empty());
}

#[test]
fn what_comes_and_goes_does_not_pile_up() {
    let mut questions = Introspections::new(10, Duration::from_millis(500));
    for waiter in 0..MAX_UNKNOWN_IN_FLIGHT as u64 {
        questions.join(waiter, &name(waiter), Unknown, at(0)).unwrap();
        questions.next_query(at(0)).unwrap();
        questions.leave(waiter);
    }
    for waiter in 100..100_000 {
        questions.join(waiter, &name(waiter % 7 + 1000), Unknown, at(1)).unwrap();
        questions.leave(waiter);
    }
    assert!(questions.deadlines.len() <= 90 && questions.unknown.len() <= 90);
    assert_eq!((questions.waiting(), questions.unknown_waiters), (0, 0));
}

#[test]
fn refusals_are_of_one_issuer_and_the_exact_token_and_never_more_than_their_places() {
    let mut refusals = Refusals::new(7);
    assert!(refusals.find(0, b"token").is_none());
    let rejection = Rejection::new(authn::reject::Cause::NotActive);
    refusals.remember(0, b"token", at(3), rejection.clone());
    assert_eq!(refusals.find(0, b"token"), Some((at(3), &rejection)));
    assert!(refusals.find(1, b"token").is_none() && refusals.find(0, b"tokem").is_none());
    for number in 0..100_000 {
        refusals.remember(0, &name(number), at(4), rejection.clone());
    }
    assert_eq!(refusals.slots.len(), MAX_REFUSALS);
}
