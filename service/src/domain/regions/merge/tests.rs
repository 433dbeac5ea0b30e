use proptest::prelude::*;

use super::*;

fn state() -> impl Strategy<Value = State> {
    let ending = prop_oneof![Just(Ending::Dead), (0..5_u64).prop_map(Ending::Before)];
    let left = proptest::option::of((1..400_u64).prop_map(Duration::from_secs));
    (ending, left).prop_map(|(ending, left)| State { ending, left })
}

fn row(state: State) -> Row {
    let ends = match state.ending {
        Ending::Dead => Ends::All,
        Ending::Before(before) => Ends::Before(before),
    };
    Row { key: RevocationKey([1; 16]), ends, ttl: state.left }
}

fn stored(state: State) -> StoredRevocation {
    let answer = Some(state.ending.into());
    StoredRevocation { key: RevocationKey([1; 16]), answer, sealed: vec![], expires_in: state.left }
}

/// What a store does with a merge, by the traits' description.
fn merged(ours: Option<State>, theirs: State) -> Option<State> {
    Some(match ours {
        None => theirs,
        Some(ours) if ours.covers(theirs) => ours,
        Some(ours) => ours.join(theirs),
    })
}

const BOUNDS: Bounds = Bounds { before: 1000, elapsed: Duration::ZERO };

proptest! {
    #[test]
    fn states_join_in_any_order_and_any_number_of_times(a in state(), b in state(), c in state()) {
        prop_assert_eq!(a.join(b), b.join(a));
        prop_assert_eq!(a.join(b).join(c), a.join(b.join(c)));
        prop_assert_eq!(a.join(a), a);
        prop_assert!(a.join(b).covers(a) && a.join(b).covers(b));
    }

    #[test]
    fn what_is_merged_never_becomes_weaker_or_shorter(a in state(), b in state()) {
        let all = merged(Some(a), b).unwrap();
        prop_assert!(all.ending >= a.ending && all.ending >= b.ending);
        let lives = |left: Option<Duration>, than: Option<Duration>, less: Duration| match (left, than) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(left), Some(than)) => left + less >= than,
        };
        prop_assert!(lives(all.left, a.left, Duration::ZERO), "ours is not shortened");
        prop_assert!(lives(all.left, b.left, SLACK), "and the copy lacks at most the slack");
    }

    /// Regions exchange what they have in a random order. Then all have the strongest, and nothing is sent any more.
    #[test]
    fn regions_agree_and_come_to_rest(first in prop::collection::vec(proptest::option::of(state()), 2..6), seed in any::<u64>()) {
        let mut regions = first.clone();
        let (mut turn, mut writes) = (seed, 0);
        let count = regions.len();
        // Random links first, then all of them until nothing changes.
        for _ in 0..20 {
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (from, to) = ((turn >> 33) as usize % count, (turn >> 48) as usize % count);
            if let Some(theirs) = regions[from] {
                regions[to] = merged(regions[to], theirs);
            }
        }
        loop {
            let before = regions.clone();
            for from in 0..count {
                for to in 0..count {
                    let Some(theirs) = regions[from] else { continue };
                    let ours: Vec<_> = regions[to].map(stored).into_iter().collect();
                    if !lacking(&ours, &[row(theirs)], BOUNDS).is_empty() {
                        writes += 1;
                        regions[to] = merged(regions[to], theirs);
                    }
                }
            }
            if regions == before {
                break;
            }
            prop_assert!(writes < 100, "it goes in circles");
        }
        let strongest = first.iter().flatten().map(|state| state.ending).max();
        prop_assert!(regions.iter().all(|region| region.map(|state| state.ending) == strongest));
        if let Some(whole) = first.iter().flatten().copied().reduce(State::join) {
            prop_assert!(regions.iter().flatten().all(|region| region.covers(whole)));
        }
    }
}

#[test]
fn the_time_that_a_reply_took_is_taken_off() {
    let bounds = Bounds { elapsed: Duration::from_secs(3), ..BOUNDS };
    let left = |seconds| bounds.state(&row(State { ending: Ending::Dead, left: Some(Duration::from_secs(seconds)) }));
    assert_eq!(left(10).unwrap().left, Some(Duration::from_secs(7)));
    assert_eq!((left(3), left(2)), (None, None), "it has expired");
    let endless = bounds.state(&row(State { ending: Ending::Dead, left: None }));
    assert_eq!(endless.unwrap().left, None);
}

#[test]
fn a_before_far_in_the_future_is_merged_as_a_nearer_one() {
    let bounds = Bounds::new(1000, 5, Duration::ZERO);
    let state = |before| bounds.state(&row(State { ending: Ending::Before(before), left: None })).unwrap().ending;
    assert_eq!(
        (state(1306), state(1307), state(1 << 53)),
        (Ending::Before(1306), Ending::Before(1306), Ending::Before(1306))
    );
    let far = row(State { ending: Ending::Before(1307), left: None });
    assert!(bounds.is_beyond(&far));
    let ours = [stored(State { ending: Ending::Before(1306), left: None })];
    assert!(lacking(&ours, &[far], bounds).is_empty(), "not again and again");
    assert!(!bounds.is_beyond(&row(State { ending: Ending::Dead, left: None })));
}

#[test]
fn what_we_cannot_understand_of_our_own_is_lacking() {
    let strange = StoredRevocation { answer: None, ..stored(State { ending: Ending::Dead, left: None }) };
    let theirs = row(State { ending: Ending::Before(0), left: Some(Duration::from_secs(1)) });
    assert_eq!(lacking(&[strange], &[theirs], BOUNDS), [theirs.key]);
}
