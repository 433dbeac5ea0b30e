use super::*;
use crate::Secret;

fn derived(byte: u8) -> DerivedKeys {
    Secret::new(&[byte; 32]).unwrap().derive()
}

/// As good as random, and the same in each run: the finalizer of SplitMix64.
fn keys(from: u32, count: u32) -> Vec<RevocationKey> {
    let mix = |number: u64| {
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(number ^ (number >> 31))
    };
    let key = |number: u64| (mix(number << 1) << 64 | mix(number << 1 | 1)).to_be_bytes();
    (from..from + count)
        .map(|number| RevocationKey(key(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15))))
        .collect()
}

const NEEDS: Needs = Needs { future_iat_tolerance_seconds: 7, now_seconds: 1_700_000_000 };
const KEEPS: Retention = Retention { token: 86_400, login: 2_592_000 };
const WAIT: Duration = Duration::from_millis(400);

fn cursor() -> Cursor {
    Cursor::new(vec![3; 530]).unwrap()
}

fn news() -> [News; 4] {
    [
        News::Keys { complete_millis: -1500, more: false, keys: vec![] },
        News::Keys { complete_millis: 320, more: true, keys: keys(0, 5) },
        News::Piece { piece: 0, pieces: 1, membership: Membership::default() },
        News::Piece { piece: 6, pieces: 7, membership: Membership::of(keys(0, 100)).unwrap() },
    ]
}

fn exchange(news: News) -> (DerivedKeys, Poll, Vec<u8>, Reply) {
    let ours = derived(1);
    let poll = Poll::new(&ours, [9; 16], NEEDS, WAIT, &cursor());
    let polled = Polled::read(&[derived(2), ours.clone()], poll.bytes()).unwrap();
    assert_eq!((polled.secret(), polled.needs(), polled.wait(), polled.cursor()), (1, NEEDS, WAIT, &cursor()));
    let reply = Reply { keeps: KEEPS, regions: RegionsMoment::UNKNOWN, cursor: Cursor::new(vec![5; 9]).unwrap(), news };
    let body = polled.reply(&ours, &reply);
    (ours, poll, body, reply)
}

#[test]
fn news_is_read_back_as_written() {
    for news in news() {
        let (ours, poll, body, reply) = exchange(news);
        assert_eq!(poll.read_reply(&ours, 200, &body), Ok(Ok(reply)));
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    for news in news() {
        let (ours, poll, body, _) = exchange(news);
        for at in 0..body.len() {
            let mut bad = body.clone();
            bad[at] ^= 1;
            assert!(poll.read_reply(&ours, 200, &bad).is_err(), "byte {at}");
            assert!(poll.read_reply(&ours, 200, &body[..at]).is_err(), "cut at {at}");
        }
    }
    let ours = derived(1);
    let poll = Poll::new(&ours, [9; 16], NEEDS, WAIT, &cursor());
    for at in 0..poll.bytes().len() {
        let mut bad = poll.bytes().to_vec();
        bad[at] ^= 1;
        assert!(Polled::read(std::slice::from_ref(&ours), &bad).is_err(), "byte {at}");
    }
}

#[test]
fn a_reply_fits_one_poll_one_status_and_one_secret() {
    let (ours, poll, body, _) = exchange(news()[1].clone());
    let again = Poll::new(&ours, [8; 16], NEEDS, WAIT, &cursor());
    assert_eq!(again.read_reply(&ours, 200, &body), Err(ReplyError::OtherQuestion));
    assert_eq!(poll.read_reply(&ours, 201, &body), Err(ReplyError::OtherStatus));
    assert_eq!(poll.read_reply(&derived(2), 200, &body), Err(ReplyError::OtherSecret));
    assert_eq!(poll.read_reply(&ours, 200, poll.bytes()), Err(ReplyError::Malformed));
    assert_eq!(Polled::read(&[derived(2)], poll.bytes()).unwrap_err(), QuestionError::UnknownSecret);
}

#[test]
fn a_poll_is_no_check_and_a_check_no_poll() {
    let ours = derived(1);
    let poll = Poll::new(&ours, [9; 16], NEEDS, WAIT, &cursor());
    assert!(crate::check::Asked::read(std::slice::from_ref(&ours), poll.bytes()).is_err());
    let check = crate::check::Question::new(&ours, [9; 16], NEEDS, &keys(0, 2)).unwrap();
    assert!(Polled::read(std::slice::from_ref(&ours), check.bytes()).is_err());
}

#[test]
fn trouble_comes_back_with_its_own_status_and_codes_are_distinct() {
    let ours = derived(1);
    let poll = Poll::new(&ours, [9; 16], NEEDS, WAIT, &Cursor::default());
    let polled = Polled::read(std::slice::from_ref(&ours), poll.bytes()).unwrap();
    assert!(polled.cursor().is_start());
    for trouble in Trouble::ALL {
        let body = polled.trouble(&ours, 503, trouble);
        assert_eq!(poll.read_reply(&ours, 503, &body), Ok(Err(trouble)));
        assert_eq!(poll.read_reply(&ours, 200, &body), Err(ReplyError::OtherStatus));
    }
    for error in StoreError::ALL {
        assert!(Trouble::ALL.contains(&Trouble::Store(error)));
    }
    let codes: std::collections::HashSet<u8> = Trouble::ALL.iter().map(|trouble| trouble.code()).collect();
    assert_eq!(codes.len(), Trouble::ALL.len());
}

#[test]
fn a_membership_misses_no_key_and_takes_few_others_for_one() {
    for count in [1, 2, 3, 10, 1000, 50_000] {
        let inside = keys(0, count);
        let membership = Membership::of(inside.iter().copied()).unwrap();
        let mut bytes = Vec::new();
        membership.write(&mut bytes);
        assert_eq!(bytes.len(), membership.len_bytes());
        let read = Membership::read(&bytes).unwrap();
        assert_eq!(read, membership);
        assert!(inside.iter().all(|key| read.may_contain(key)), "{count}");
        let others = keys(1_000_000, 100_000).iter().filter(|key| read.may_contain(key)).count();
        assert!(others < 20, "{others} of 100,000 at {count}");
    }
    assert!(!Membership::default().may_contain(&keys(0, 1)[0]));
}

#[test]
fn keys_that_differ_only_in_the_first_half_are_one() {
    let (mut one, mut other) = ([7; 16], [7; 16]);
    (one[0], other[0]) = (1, 2);
    let membership = Membership::of([RevocationKey(one), RevocationKey(other)]).unwrap();
    assert!(membership.may_contain(&RevocationKey(one)) && membership.may_contain(&RevocationKey(other)));
}

#[test]
fn no_bytes_make_a_membership_that_reads_out_of_bounds() {
    let mut bytes = Vec::new();
    Membership::of(keys(0, 300)).unwrap().write(&mut bytes);
    for at in 8..16 {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            if let Ok(read) = Membership::read(&bad) {
                for key in keys(0, 1000) {
                    read.may_contain(&key);
                }
            }
        }
    }
    assert_eq!(Membership::read(&bytes[..15]), Err(MembershipError::Malformed));
    assert_eq!(Membership::read(&bytes[..bytes.len() - 1]), Err(MembershipError::Malformed));
    assert_eq!(Membership::read(&[0; 18]), Err(MembershipError::Malformed));
    assert_eq!(Membership::read(&vec![0; MAX_MEMBERSHIP_BYTES + 2]), Err(MembershipError::TooLarge));
}

#[test]
fn too_many_keys_for_one_piece_are_refused() {
    assert_eq!(Membership::of(keys(0, 200_000)), Err(MembershipError::TooLarge));
}

#[test]
fn every_key_has_one_piece() {
    for pieces in [1, 2, 3, 7, 256, MAX_PIECES] {
        let mut counts = vec![0u32; pieces.into()];
        for key in keys(0, 20_000) {
            counts[usize::from(piece_of(&key, pieces))] += 1;
        }
        assert!(counts.iter().all(|count| *count > 0), "{pieces}: {counts:?}");
    }
    assert_eq!(piece_of(&RevocationKey([0xff; 16]), MAX_PIECES), MAX_PIECES - 1);
}

#[test]
fn a_cursor_is_bounded() {
    assert!(Cursor::new(vec![0; MAX_CURSOR_BYTES]).is_ok());
    assert!(Cursor::new(vec![0; MAX_CURSOR_BYTES + 1]).is_err());
    let ours = derived(1);
    let longest = Poll::new(&ours, [9; 16], NEEDS, WAIT, &Cursor::new(vec![0; MAX_CURSOR_BYTES]).unwrap());
    assert_eq!(longest.bytes().len(), MAX_POLL_BYTES);
    assert!(Polled::read(std::slice::from_ref(&ours), longest.bytes()).is_ok());
}

#[test]
fn a_moment_of_regions_comes_with_news_if_it_was_asked_for() {
    let ours = derived(1);
    let secrets = std::slice::from_ref(&ours);
    for (news, regions) in news().into_iter().zip([RegionsMoment::of(-20), RegionsMoment::UNKNOWN].into_iter().cycle())
    {
        let poll = Poll::new(&ours, [9; 16], NEEDS.asking_about_regions(), WAIT, &cursor());
        let polled = Polled::read(secrets, poll.bytes()).unwrap();
        assert_eq!((polled.asks_about_regions(), polled.needs()), (true, NEEDS));
        let reply = Reply { keeps: KEEPS, regions, cursor: cursor(), news };
        let body = polled.reply(&ours, &reply);
        assert_eq!(poll.read_reply(&ours, 200, &body), Ok(Ok(reply)));
        let other = Poll::new(&ours, [9; 16], NEEDS, WAIT, &cursor());
        assert!(!Polled::read(secrets, other.bytes()).unwrap().asks_about_regions());
    }
}
