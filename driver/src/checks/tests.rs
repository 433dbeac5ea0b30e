use super::*;
use wire::Retention;

const NEEDS: Retention = Retention { token: 600, login: 3600 };

fn reply(answers: &[Answer]) -> Reply {
    Reply { keeps: NEEDS, regions: wire::check::RegionsMoment::UNKNOWN, answers: answers.to_vec(), claims: Vec::new() }
}
use authn::revocation::KeyPosition;
use authn::time::UnixSeconds;

const MS: u64 = 1_000_000;

fn query(name: u8) -> Arc<RevocationQuery> {
    let keys = vec![RevocationKey([name; 16]), RevocationKey([200; 16])];
    Arc::new(RevocationQuery::of(keys, 0, UnixSeconds(100), NEEDS, [name; 16]))
}

/// By the key at this position.
fn dead(position: usize) -> Option<Verdict> {
    Some(Verdict::Dead { by: KeyPosition::new(position) })
}

fn checks() -> Checks {
    Checks::new(10, Duration::from_millis(500), Duration::from_millis(100))
}

fn at(millis: u64) -> Monotonic {
    Monotonic(millis * MS)
}

#[test]
fn a_lone_miss_goes_at_once_and_later_ones_share_the_next_question() {
    let mut checks = checks();
    checks.join(1, query(1), at(0)).unwrap();
    let first = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    assert_eq!(first.keys.len(), 2);
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(0)), None);
    checks.join(2, query(2), at(1)).unwrap();
    let second = checks.next_batch(Trigger::Waiters, false, at(1)).unwrap();
    for waiter in 3..6 {
        checks.join(waiter, query(waiter as u8), at(2)).unwrap();
    }
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(2)), None, "two are under way");
    let resolved = checks.answered(first.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
    assert_eq!(resolved[0].waiters, [1]);
    assert_eq!((resolved[0].verdict, resolved[0].sent), (Some(Verdict::Live), at(0)));
    let third = checks.next_batch(Trigger::Waiters, false, at(3)).unwrap();
    assert_eq!((third.tokens, third.keys.len()), (3, 4), "the shared key is asked once");
    assert_eq!(checks.failed(second.id), [2]);
    assert_eq!(checks.waiting(), 3);
}

#[test]
fn one_token_that_is_waited_for_twice_is_asked_once() {
    let mut checks = checks();
    checks.join(1, query(1), at(0)).unwrap();
    checks.join(2, query(1), at(0)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    assert_eq!(batch.tokens, 1);
    checks.join(3, query(1), at(1)).unwrap();
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(1)), None);
    let resolved = checks.answered(batch.id, &reply(&[Answer::Dead, Answer::Live])).unwrap();
    assert_eq!((resolved[0].verdict, resolved[0].waiters.as_slice()), (dead(0), [1, 2, 3].as_slice()));
    assert_eq!(checks.waiting(), 0);
}

#[test]
fn what_is_anticipated_is_asked_once_and_whoever_comes_later_waits_for_it() {
    let mut checks = checks();
    checks.refresh(query(1));
    checks.anticipate(query(1));
    checks.anticipate(query(1));
    let batch = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    assert_eq!((batch.tokens, checks.waiting()), (1, 0));
    checks.join(1, query(1), at(1)).unwrap();
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(1)), None);
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
    assert_eq!((resolved.len(), resolved[0].waiters.as_slice()), (1, [1].as_slice()));
    for name in 0..20 {
        checks.anticipate(query(name));
    }
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(2)).unwrap().tokens, 10, "no more than may wait");
}

#[test]
fn what_is_to_be_refreshed_goes_along_with_others_or_with_a_tick() {
    let mut checks = checks();
    checks.refresh(query(1));
    checks.refresh(query(1));
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(0)), None);
    checks.join(7, query(2), at(0)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    assert_eq!(batch.tokens, 2);
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live, Answer::Dead])).unwrap();
    let seen: Vec<_> =
        resolved.iter().map(|one| (one.query.digest()[0], one.verdict, one.waiters.as_slice())).collect();
    assert_eq!(seen, [(2, Some(Verdict::Live), [7].as_slice()), (1, dead(0), [].as_slice())]);
    checks.refresh(query(3));
    let batch = checks.next_batch(Trigger::Tick, false, at(1)).unwrap();
    assert_eq!(batch.tokens, 1);
    assert!(checks.failed(batch.id).is_empty());
    assert_eq!(checks.next_batch(Trigger::Tick, false, at(2)), None);
    assert!(checks.pending.is_empty());
}

#[test]
fn who_comes_while_its_token_is_to_be_refreshed_does_not_wait_for_a_tick() {
    let mut checks = checks();
    checks.refresh(query(1));
    checks.join(7, query(1), at(0)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    assert_eq!(batch.tokens, 1);
    checks.join(8, query(1), at(1)).unwrap();
    assert_eq!(checks.next_batch(Trigger::Tick, false, at(1)), None, "it is under way");
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
    assert_eq!(resolved[0].waiters, [7, 8]);
    // A request that leaves takes its refresh with it: no other request waited for it.
    checks.refresh(query(2));
    checks.join(9, query(2), at(2)).unwrap();
    checks.leave(9);
    assert_eq!(checks.next_batch(Trigger::Tick, false, at(2)), None);
    assert!(checks.pending.is_empty() && checks.queue.is_empty() && checks.refreshes.is_empty());
}

#[test]
fn a_refresh_that_is_no_longer_needed_is_not_sent_unless_a_request_waits_for_it() {
    let mut checks = checks();
    assert!((1..=3).all(|name| checks.refresh(query(name))));
    checks.join(7, query(2), at(0)).unwrap();
    checks.retain_refreshes(|query| query.digest()[0] == 3);
    let batch = checks.next_batch(Trigger::Tick, false, at(0)).unwrap();
    assert_eq!((batch.tokens, batch.refreshes), (2, 1));
    // It is in flight.
    checks.retain_refreshes(|_| false);
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live; 3])).unwrap();
    let seen: Vec<_> = resolved.iter().map(|one| (one.query.digest()[0], one.waiters.as_slice())).collect();
    assert_eq!(seen, [(2, [7].as_slice()), (3, [].as_slice())]);
    assert!(checks.pending.is_empty() && checks.queue.is_empty() && checks.refreshes.is_empty());
}

#[test]
fn what_is_to_be_refreshed_is_bounded() {
    let mut checks = checks();
    let kept = (0..100).filter(|name| checks.refresh(query(*name))).count();
    assert_eq!(kept, 10);
    assert_eq!((checks.refreshes.len(), checks.pending.len()), (10, 10));
    assert_eq!(checks.join(1, query(1), at(0)), Ok(()));
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(0)).unwrap().tokens, 10);
}

/// A query with one key of its own and one that it shares with all others.
fn sharing(name: u8) -> Arc<RevocationQuery> {
    let keys = vec![RevocationKey([name; 16]), RevocationKey([200; 16])];
    Arc::new(RevocationQuery::of(keys, 1, UnixSeconds(100), NEEDS, [name; 16]))
}

#[test]
fn what_many_tokens_share_is_not_asked_again_at_once_and_counts_from_its_own_question() {
    let mut checks = checks();
    checks.join(1, sharing(1), at(10)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(10)).unwrap();
    assert_eq!(batch.keys.len(), 2);
    checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
    checks.join(2, sharing(2), at(109)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(109)).unwrap();
    assert_eq!(batch.keys, [RevocationKey([2; 16])]);
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live])).unwrap();
    assert_eq!((resolved[0].verdict, resolved[0].sent), (Some(Verdict::Live), at(10)));
    // Reuse does not make an answer younger.
    checks.join(3, sharing(3), at(110)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(110)).unwrap();
    assert_eq!(batch.keys.len(), 2);
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Before(101)])).unwrap();
    assert_eq!((resolved[0].verdict, resolved[0].sent), (dead(1), at(110)));
    // A revocation is reused as well.
    checks.join(4, sharing(4), at(120)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(120)).unwrap();
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live])).unwrap();
    assert_eq!((resolved[0].verdict, resolved[0].sent), (dead(1), at(110)));
}

#[test]
fn an_older_answer_that_comes_late_does_not_replace_a_newer_one() {
    let mut checks = checks();
    checks.join(1, sharing(1), at(0)).unwrap();
    let older = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    checks.join(2, sharing(2), at(1)).unwrap();
    let newer = checks.next_batch(Trigger::Waiters, false, at(1)).unwrap();
    checks.answered(newer.id, &reply(&[Answer::Live, Answer::Dead])).unwrap();
    checks.answered(older.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
    checks.join(3, sharing(3), at(2)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(2)).unwrap();
    assert_eq!(checks.answered(batch.id, &reply(&[Answer::Live])).unwrap()[0].verdict, dead(1));
}

#[test]
fn a_token_with_no_key_of_its_own_is_asked_about_whole_and_what_is_kept_is_bounded() {
    let mut checks = Checks::new(10, Duration::from_millis(500), Duration::from_millis(100));
    for number in 0..10_000u64 {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(number / 2).to_le_bytes());
        let query = RevocationQuery::of(vec![RevocationKey(key)], 1, UnixSeconds(1), NEEDS, key);
        checks.join(1, Arc::new(query), at(number)).unwrap();
        let batch = checks.next_batch(Trigger::Waiters, false, at(number)).unwrap();
        assert_eq!(batch.keys, [RevocationKey(key)]);
        checks.answered(batch.id, &reply(&[Answer::Live])).unwrap();
        assert!(checks.recent.answers.len() <= MAX_RECENT);
    }
}

#[test]
fn answers_that_do_not_fit_resolve_nobody() {
    let mut checks = checks();
    checks.join(1, query(1), at(0)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    assert_eq!(checks.answered(batch.id, &reply(&[Answer::Live])).unwrap_err(), [1]);
    assert!(checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap().is_empty());
}

#[test]
fn nobody_hangs_when_the_request_that_caused_the_question_goes_away() {
    let mut checks = checks();
    checks.join(1, query(1), at(0)).unwrap();
    let batch = checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    checks.join(2, query(1), at(1)).unwrap();
    checks.leave(1);
    let resolved = checks.answered(batch.id, &reply(&[Answer::Live, Answer::Live])).unwrap();
    assert_eq!(resolved[0].waiters, [2]);
}

#[test]
fn a_waiter_is_refused_at_its_own_deadline_whatever_the_batch_does() {
    let mut checks = checks();
    checks.join(1, query(1), at(0)).unwrap();
    checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    checks.join(2, query(1), at(300)).unwrap();
    assert!(checks.expire(at(499)).is_empty());
    assert_eq!(checks.expire(at(500)), [1]);
    assert!(checks.expire(at(799)).is_empty());
    assert_eq!(checks.expire(at(800)), [2]);
    assert_eq!(checks.waiting(), 0);
}

#[test]
fn a_question_that_is_never_answered_does_not_block_the_next_ones() {
    let mut checks = checks();
    for waiter in 1..=2 {
        checks.join(waiter, query(waiter as u8), at(0)).unwrap();
        checks.next_batch(Trigger::Waiters, false, at(0)).unwrap();
    }
    checks.join(3, query(3), at(900)).unwrap();
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(900)), None);
    assert_eq!(checks.expire(at(1001)), [1, 2]);
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(1001)).unwrap().tokens, 1);
}

#[test]
fn what_waits_is_bounded_and_so_is_what_is_remembered_of_those_who_left() {
    let mut checks = checks();
    for waiter in 0..10 {
        checks.join(waiter, query(waiter as u8), at(0)).unwrap();
    }
    assert_eq!(checks.join(10, query(10), at(0)), Err(Full));
    for waiter in 0..10 {
        checks.leave(waiter);
    }
    for waiter in 10..100_000 {
        checks.join(waiter, query((waiter % 100) as u8), at(1)).unwrap();
        checks.leave(waiter);
    }
    assert_eq!(checks.waiting(), 0);
    assert!(checks.queue.len() <= 100 && checks.deadlines.len() <= 100 && checks.pending.is_empty());
}

#[test]
fn a_batch_takes_no_more_keys_than_a_question_may_have() {
    let mut checks = Checks::new(10_000, Duration::from_millis(500), Duration::ZERO);
    for waiter in 0..1_000u64 {
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&waiter.to_be_bytes());
        let query = RevocationQuery::of(vec![RevocationKey(digest)], 0, UnixSeconds(1), NEEDS, digest);
        checks.join(waiter, Arc::new(query), at(0)).unwrap();
    }
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(0)).unwrap().keys.len(), MAX_KEYS);
    assert_eq!(checks.next_batch(Trigger::Waiters, false, at(0)).unwrap().keys.len(), 1_000 - MAX_KEYS);
}
