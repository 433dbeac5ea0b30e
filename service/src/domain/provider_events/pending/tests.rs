use super::*;

fn token(text: &str, arrived: Instant) -> PendingToken {
    let endpoint = Endpoint::Logout;
    PendingToken { endpoint, text: text.to_owned(), body: None, arrived, arrived_at: 0, judged: None, waiter: None }
}

fn texts(tokens: &[PendingToken]) -> Vec<&str> {
    let mut texts: Vec<_> = tokens.iter().map(|token| token.text.as_str()).collect();
    texts.sort_unstable();
    texts
}

#[test]
fn what_came_until_then_is_taken_and_the_rest_stays() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut kept = PendingTokens::new(10_000);
    for (text, at) in [("a", 0), ("b", 1), ("c", 2), ("a", 3)] {
        assert!(kept.put(token(text, after(at))).is_empty());
    }
    assert_eq!(kept.len(), 3, "the same token is kept once");
    assert_eq!(texts(&kept.take_until(after(1))), ["a", "b"]);
    assert_eq!(kept.bytes, OVERHEAD + 1);
    assert!(kept.take_old(after(2) + MAX_PENDING - Duration::from_millis(1)).is_empty());
    assert_eq!(texts(&kept.take_old(after(2) + MAX_PENDING)), ["c"]);
    assert_eq!((kept.len(), kept.bytes), (0, 0));
}

#[test]
fn those_that_are_taken_one_by_one_leave_their_room() {
    let start = Instant::now();
    let mut kept = PendingTokens::new(10_000);
    for text in ["a", "b"] {
        kept.put(token(text, start));
    }
    let taken: Vec<PendingToken> = (0..2).filter_map(|_| kept.take_one()).collect();
    assert_eq!(texts(&taken), ["a", "b"]);
    assert!(kept.take_one().is_none());
    assert_eq!((kept.len(), kept.bytes, kept.oldest), (0, 0, None));
}

#[test]
fn it_never_has_more_bytes_than_it_may_however_long_the_tokens_are() {
    let now = Instant::now();
    let mut kept = PendingTokens::new(20_000);
    for n in 0..1000 {
        kept.put(token(&format!("{n}{}", "x".repeat(n * 17 % 16_000)), now));
        assert!(kept.bytes <= 20_000);
        assert_eq!(kept.bytes, kept.tokens.values().map(size_of).sum::<usize>());
    }
}

#[test]
fn a_token_longer_than_all_the_room_is_not_kept() {
    let now = Instant::now();
    let mut kept = PendingTokens::new(1_000);
    assert_eq!(texts(&kept.put(token(&"x".repeat(1_001), now))).len(), 1);
    assert!(kept.put(token("a", now)).is_empty());
    assert_eq!(texts(&kept.put(token(&"x".repeat(1_001), now))).len(), 1, "and nobody goes for it");
    assert_eq!(kept.len(), 1);
}

// An attacker who sends ten times the capacity does not choose which are dropped.
#[test]
fn who_gives_way_is_drawn_by_lot() {
    let now = Instant::now();
    let (room, rounds) = (100, 400);
    let mut stayed = 0;
    for round in 0..rounds {
        let mut kept = PendingTokens::new(room * (OVERHEAD + 8));
        let genuine = format!("g{round:07}");
        for n in 0..1000 {
            if n == round {
                kept.put(token(&genuine, now));
            }
            kept.put(token(&format!("f{n:07}"), now));
        }
        assert_eq!(kept.len(), room);
        stayed += usize::from(kept.tokens.values().any(|token| token.text == genuine));
    }
    // Mean 40, deviation 6.
    assert!((10..80).contains(&stayed), "{stayed} of {rounds}");
}
