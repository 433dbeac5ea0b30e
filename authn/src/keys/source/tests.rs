use jose::Algorithm;

use super::*;
use crate::reject::RejectReason;
use crate::vectors;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Monotonic {
    Monotonic(seconds * SECOND)
}

fn source(discovery: bool) -> KeySource {
    KeySource::new(Settings {
        identity: [0; 32],
        cluster: "idp".into(),
        url: Url::parse("https://idp.example/keys").unwrap(),
        discovery: discovery.then(|| "https://idp.example".to_owned()),
        timeout: Duration::from_secs(2),
        refresh: Duration::from_secs(300),
        min_refresh: Duration::from_secs(10),
        max_stale: Duration::from_secs(3600),
        cool_down: Duration::from_secs(30),
        symmetric: false,
        algorithms: Algorithm::ALL.to_vec(),
    })
}

fn says(status: u16, body: &[u8]) -> Answer<'_> {
    Answer { status, body, ..Answer::default() }
}

fn fails(source: &mut KeySource, answer: Answer<'_>, now: Monotonic) -> String {
    match source.on_reply(Ok(answer), now, 0) {
        Progress::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

fn set(kids: &[&str]) -> Vec<u8> {
    let keys: Vec<serde_json::Value> = kids
        .iter()
        .map(|kid| {
            let mut jwk = serde_json::Value::Object(vectors::public_jwk(jose::Family::P256));
            jwk["kid"] = (*kid).into();
            jwk
        })
        .collect();
    serde_json::json!({ "keys": keys }).to_string().into_bytes()
}

fn fetched(source: &mut KeySource, kids: &[&str], now: Monotonic) {
    source.start(Occasion::Schedule, now);
    let progress = source.on_reply(Ok(says(200, &set(kids))), now, 0);
    assert_eq!(progress, Progress::Installed { left_out: None });
}

#[test]
fn the_last_good_set_serves_until_max_stale_and_not_a_moment_longer() {
    let mut source = source(false);
    fetched(&mut source, &["a"], at(10));
    source.start(Occasion::Schedule, at(310));
    assert!(matches!(source.on_reply(Ok(says(200, b"<html>")), at(310), 0), Progress::Failed(_)));
    assert!(matches!(source.on_reply(Ok(says(500, b"")), at(310), 0), Progress::Failed(_)));
    assert!(source.keys(at(10 + 3600)).is_ok());
    assert_eq!(source.keys(Monotonic((10 + 3600) * SECOND + 1)).unwrap_err().reason, RejectReason::KeysUnavailable);
}

#[test]
fn an_answer_that_was_overtaken_brings_no_key_back() {
    let mut source = source(false);
    fetched(&mut source, &["old"], at(0));
    source.start(Occasion::Schedule, at(10));
    assert!(source.adopt(&set(&[]), at(11), at(300), at(11), 0));
    assert_eq!(source.on_reply(Ok(says(200, &set(&["old"]))), at(12), 0), Progress::Overtaken);
    assert!(source.keys(at(12)).unwrap().keys().is_empty());
}

#[test]
fn a_short_max_age_is_honoured_down_to_ten_seconds_and_a_long_one_only_up_to_refresh() {
    for (cache_control, due) in
        [(None, 300), (Some("max-age=60"), 60), (Some("max-age=1"), 10), (Some("max-age=9999"), 300)]
    {
        let mut source = source(false);
        source.start(Occasion::Schedule, at(0));
        source.on_reply(Ok(Answer { cache_control, ..says(200, &set(&["a"])) }), at(0), 0);
        assert!(!source.is_due(at(due - 1)), "{cache_control:?}");
        assert!(source.is_due(at(due)), "{cache_control:?}");
    }
}

#[test]
fn unknown_kids_cause_one_fetch_in_each_cool_down() {
    let mut source = source(false);
    fetched(&mut source, &["a"], at(0));
    assert_eq!(source.on_unknown_kid(at(1)), Unknown::Worthwhile);
    source.note_unknown_fetch(at(1));
    source.start(Occasion::Schedule, at(1));
    assert_eq!(source.on_unknown_kid(at(1)), Unknown::Worthwhile, "it waits for the fetch under way");
    source.on_reply(Ok(says(200, &set(&["a"]))), at(1), 0);
    assert_eq!(source.on_unknown_kid(at(30)), Unknown::Absent);
    assert_eq!(source.on_unknown_kid(at(31)), Unknown::Worthwhile);
}

// Regression: a forged token with the next key's id, sent before it was published, kept it refused until the set
// changed.
#[test]
fn a_key_id_seen_before_its_key_waits_for_one_cool_down_at_most() {
    for published in 1..=30 {
        let mut source = source(false);
        fetched(&mut source, &["a"], at(0));
        let mut names = vec!["a"];
        for second in 1..=31 {
            if second == published {
                names.push("b");
            }
            // Every second a forged token arrives, sometimes with the next key's id and sometimes with another one's.
            if source.on_unknown_kid(at(second)) == Unknown::Worthwhile {
                source.note_unknown_fetch(at(second));
                fetched(&mut source, &names, at(second));
            }
        }
        let held = source.keys(at(31)).unwrap().keys().len();
        assert_eq!(held, 2, "published at {published}, and not there one cool-down later");
    }
}

#[test]
fn the_generation_changes_with_the_keys_and_not_with_each_fetch() {
    let mut source = source(false);
    fetched(&mut source, &["a"], at(0));
    let first = source.generation();
    fetched(&mut source, &["a"], at(300));
    assert_eq!(source.generation(), first);
    fetched(&mut source, &[], at(600));
    assert_ne!(source.generation(), first);
}

#[test]
fn what_is_left_out_is_said_once_for_each_set() {
    let with = |bad: usize| {
        let mut document: serde_json::Value = serde_json::from_slice(&set(&["a"])).unwrap();
        let keys = document["keys"].as_array_mut().unwrap();
        keys.extend((0..bad).map(|_| serde_json::json!({ "kty": "EC", "crv": "P-192" })));
        document.to_string().into_bytes()
    };
    let mut source = source(false);
    let mut said = |bad: usize, now: u64| {
        source.start(Occasion::Schedule, at(now));
        match source.on_reply(Ok(says(200, &with(bad))), at(now), 0) {
            Progress::Installed { left_out } => left_out.map(|why| why[..18].to_owned()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(said(2, 0).as_deref(), Some("2 of 3 keys left o"));
    assert_eq!(said(2, 300), None);
    assert_eq!(said(3, 600).as_deref(), Some("3 of 4 keys left o"));
    assert_eq!(said(0, 900), None);
    assert_eq!(said(2, 1200).as_deref(), Some("2 of 3 keys left o"));
    // Another VM has logged it.
    assert!(source.adopt(&with(5), at(1500), at(1800), at(1500), 0));
    source.start(Occasion::Schedule, at(1800));
    let progress = source.on_reply(Ok(says(200, &with(5))), at(1800), 0);
    assert_eq!(progress, Progress::Installed { left_out: None });
}

#[test]
fn a_set_of_another_virtual_machine_is_adopted_only_if_newer_and_good() {
    let mut source = source(false);
    assert!(source.adopt(&set(&["a"]), at(5), at(305), at(6), 0));
    assert!(!source.adopt(&set(&["b"]), at(5), at(305), at(6), 0));
    assert!(!source.adopt(b"garbage", at(7), at(307), at(7), 0));
    assert!(source.adopt(&set(&["b"]), at(8), at(20), at(8), 0));
    assert!(!source.is_due(at(20)), "the one that fetched comes first");
    assert!(source.is_due(at(21)), "and another one when it does not");
}

/// The times of all scheduled attempts while each gets this answer, second by second.
fn attempts(source: &mut KeySource, seconds: std::ops::Range<u64>, answer: Answer<'_>) -> Vec<u64> {
    let mut attempts = Vec::new();
    for second in seconds {
        if source.is_due(at(second)) {
            attempts.push(second);
            source.start(Occasion::Schedule, at(second));
            fails(source, answer, at(second));
        }
    }
    attempts
}

#[test]
fn without_a_set_the_pauses_double_up_to_refresh() {
    for status in [302, 401, 404, 429, 500, 503] {
        let mut source = source(false);
        assert_eq!(source.keys(at(0)).unwrap_err().reason, RejectReason::KeysUnavailable);
        let expected = [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111];
        assert_eq!(attempts(&mut source, 0..1200, says(status, b"")), expected, "{status}");
    }
}

#[test]
fn pauses_are_spread_over_a_quarter() {
    let dues: Vec<Duration> = [0, 500, 999, u64::MAX]
        .map(|jitter| {
            let mut source = source(false);
            for _ in 0..4 {
                source.start(Occasion::Schedule, at(0));
                source.on_reply(Err("refused"), at(0), jitter);
            }
            source.due().since(at(0))
        })
        .to_vec();
    assert_eq!((dues[0], dues[1]), (Duration::from_secs(8), Duration::from_secs(7)));
    assert!(dues.iter().all(|due| (Duration::from_secs(6)..=Duration::from_secs(8)).contains(due)), "{dues:?}");
}

#[test]
fn the_pauses_begin_anew_when_the_set_that_served_is_too_old() {
    let mut source = source(false);
    fetched(&mut source, &["a"], at(0));
    let attempts = attempts(&mut source, 1..3700, says(503, b""));
    assert_eq!(&attempts[..9], [300, 301, 303, 307, 315, 331, 363, 427, 555]);
    let (serving, after): (Vec<u64>, Vec<u64>) = attempts.into_iter().partition(|second| *second < 3600);
    assert!(serving.is_sorted_by(|a, b| b - a <= 300) && serving.len() < 25, "{serving:?}");
    assert_eq!(
        after,
        [3600, 3601, 3603, 3607, 3615, 3631, 3663],
        "the pause before max_stale does not reach beyond it"
    );
}

#[test]
fn retry_after_is_honoured_up_to_refresh_and_up_to_max_stale() {
    let asks = |retry_after| Answer { retry_after: Some(retry_after), ..says(429, b"") };
    for (retry_after, expected) in [("0", 1), ("1", 1), ("45", 45), ("86400", 300)] {
        let mut source = source(false);
        source.start(Occasion::Schedule, at(0));
        // Jitter makes no pause shorter than requested.
        let Progress::Failed(why) = source.on_reply(Ok(asks(retry_after)), at(0), 0) else { panic!() };
        assert_eq!(source.due(), at(expected), "{retry_after}");
        assert!(why.ends_with(&format!("; retry in {expected}.0 s")), "{why}");
        source.start(Occasion::Schedule, at(expected));
        source.on_reply(Ok(asks("45")), at(expected), 999);
        assert!(source.due() >= at(expected + 45));
    }
    let mut source = source(false);
    fetched(&mut source, &["a"], at(0));
    source.start(Occasion::Schedule, at(3590));
    fails(&mut source, asks("200"), at(3590));
    assert_eq!(source.due(), at(3600), "once more before the set is too old");
}

#[test]
fn requests_that_want_keys_shorten_a_long_pause_to_the_cool_down() {
    let mut source = source(false);
    attempts(&mut source, 0..256, says(503, b""));
    assert_eq!(source.due(), at(511));
    assert!(!source.is_wanted(at(290)), "nobody asked");
    assert!(source.keys(at(256)).is_err());
    assert!(!source.is_wanted(at(284)), "the cool-down of the pause");
    assert!(source.is_wanted(at(285)));
    source.note_unknown_fetch(at(285));
    source.start(Occasion::Wanted, at(285));
    assert!(!source.is_wanted(at(285)));
    fails(&mut source, says(503, b""), at(285));
    assert!(source.keys(at(286)).is_err());
    assert!(!source.is_wanted(at(314)) && source.is_wanted(at(315)));
    // Not each second, however short the cool-down is.
    source.settings.cool_down = Duration::from_secs(1);
    assert!(!source.is_wanted(at(314)) && source.is_wanted(at(315)));
    // `Retry-After` of the provider is honoured.
    source.start(Occasion::Wanted, at(315));
    fails(&mut source, Answer { retry_after: Some("60"), ..says(429, b"") }, at(315));
    assert!(source.keys(at(316)).is_err());
    assert!(!source.is_wanted(at(374)) && source.is_wanted(at(375)));
    // And no set in use is refreshed for it.
    source.start(Occasion::Wanted, at(375));
    source.on_reply(Ok(says(200, &set(&["a"]))), at(375), 0);
    assert!(source.keys(at(376)).is_ok() && !source.is_wanted(at(500)));
}

#[test]
fn fetches_that_strangers_cause_put_nothing_off() {
    let mut source = source(false);
    fetched(&mut source, &["a"], at(0));
    let mut second = 1;
    while second < 290 {
        assert_eq!(source.on_unknown_kid(at(second)), Unknown::Worthwhile, "{second}");
        source.note_unknown_fetch(at(second));
        source.start(Occasion::UnknownKid, at(second));
        fails(&mut source, Answer { retry_after: Some("3600"), ..says(429, b"") }, at(second));
        assert_eq!((source.due(), source.failures(), source.not_before()), (at(300), Failures::default(), at(0)));
        second += 30;
    }
    // Nor does a scheduled failure delay the fetch for an unknown key id.
    source.start(Occasion::Schedule, at(300));
    fails(&mut source, Answer { retry_after: Some("3600"), ..says(429, b"") }, at(300));
    assert_eq!(source.due(), at(600));
    assert_eq!(source.on_unknown_kid(at(301)), Unknown::Worthwhile);
    source.note_unknown_fetch(at(301));
    source.start(Occasion::UnknownKid, at(301));
    assert_eq!(source.on_reply(Ok(says(200, &set(&["a", "b"]))), at(301), 0), Progress::Installed { left_out: None });
    assert_eq!((source.due(), source.failures()), (at(601), Failures::default()));
}

#[test]
fn what_another_virtual_machine_has_seen_counts() {
    let mut source = source(false);
    source.start(Occasion::Schedule, at(0));
    source.note_failures(Failures { count: 5, while_serving: false }, at(0), at(0));
    fails(&mut source, says(503, b""), at(0));
    assert_eq!((source.due(), source.failures().count), (at(32), 6));
    // An unreadable lease has no effect.
    source.note_failures(Failures::default(), at(0), at(1));
    assert_eq!(source.failures().count, 6);
    source.note_failures(Failures::default(), Monotonic(u64::MAX), at(1));
    assert_eq!(source.not_before(), at(301));
    assert!(source.adopt(&set(&["a"]), at(5), at(305), at(6), 0));
    assert_eq!((source.failures(), source.not_before()), (Failures::default(), at(0)));
}

#[test]
fn no_cache_leaves_it_at_refresh_and_no_answer_brings_more_than_min_refresh() {
    for (min_refresh, cache_control, due) in [
        (10, "no-cache", 300),
        (10, "no-store, max-age=1", 300),
        (10, "max-age=0", 300),
        (60, "max-age=1", 60),
        (60, "max-age=59", 60),
        (60, "max-age=100", 100),
        (300, "max-age=1", 300),
    ] {
        for jitter in [0, 999] {
            let mut source = source(false);
            source.settings.min_refresh = Duration::from_secs(min_refresh);
            source.start(Occasion::Schedule, at(0));
            let answer = Answer { cache_control: Some(cache_control), ..says(200, &[]) };
            let body = set(&["a"]);
            source.on_reply(Ok(Answer { body: &body, ..answer }), at(0), jitter);
            assert!(source.due() >= at(min_refresh), "{min_refresh} {cache_control}");
            assert!(source.due() <= at(due).plus(Duration::from_secs(due) / 40), "{min_refresh} {cache_control}");
            assert!(jitter > 0 || source.due() == at(due), "{min_refresh} {cache_control}");
        }
    }
}

#[test]
fn a_tag_is_sent_back_and_304_makes_the_set_young_again() {
    let mut source = source(false);
    let fetch = source.start(Occasion::Schedule, at(0));
    assert_eq!(fetch.if_none_match, None);
    let body = set(&["a"]);
    source.on_reply(Ok(Answer { etag: Some("\"1\""), ..says(200, &body) }), at(0), 0);
    let generation = source.generation();
    for time in [300, 600, 5000] {
        assert_eq!(source.start(Occasion::Schedule, at(time)).if_none_match.as_deref(), Some("\"1\""));
        let since = source.fetched().unwrap();
        assert_eq!(source.on_reply(Ok(says(304, b"")), at(time + 1), 0), Progress::Unchanged { since });
        assert_eq!(source.fetched(), Some(at(time)), "as old as the question");
        assert_eq!((source.due(), source.generation()), (at(time + 301), generation));
        assert!(source.keys(at(time + 3600)).is_ok());
    }
    // A new set without a tag.
    source.start(Occasion::Schedule, at(5300));
    source.on_reply(Ok(says(200, &set(&["b"]))), at(5300), 0);
    assert_eq!(source.start(Occasion::Schedule, at(5600)).if_none_match, None);
    let why = fails(&mut source, says(304, b""), at(5600));
    assert!(why.starts_with("status 304"), "nobody asked: {why}");
}

#[test]
fn a_304_says_nothing_of_a_set_that_came_meanwhile() {
    let mut source = source(false);
    source.start(Occasion::Schedule, at(0));
    let body = set(&["a"]);
    source.on_reply(Ok(Answer { etag: Some("\"1\""), ..says(200, &body) }), at(0), 0);
    source.start(Occasion::Schedule, at(300));
    // Fetched before this request, and shared after it.
    assert!(source.adopt(&set(&["b"]), at(200), at(500), at(301), 0));
    assert_eq!(source.on_reply(Ok(says(304, b"")), at(302), 0), Progress::Overtaken);
    assert_eq!(source.fetched(), Some(at(200)));
    // A set from another VM has no tag.
    assert_eq!(source.start(Occasion::Schedule, at(500)).if_none_match, None);
}

const DOCUMENT: &[u8] = br#"{"issuer":"https://idp.example","jwks_uri":"https://keys.example/k"}"#;

fn keys_url() -> Url {
    Url::parse("https://keys.example/k").unwrap()
}

/// One fetch; says whether it began with the discovery document.
fn fetch(
    source: &mut KeySource,
    occasion: Occasion,
    now: u64,
    document: Answer<'_>,
    keys: Answer<'_>,
) -> (bool, Progress) {
    let first = source.start(occasion, at(now));
    if first.url == keys_url() {
        return (false, source.on_reply(Ok(keys), at(now), 0));
    }
    match source.on_reply(Ok(document), at(now), 0) {
        Progress::Continue { fetch, .. } => {
            assert_eq!(fetch.url, keys_url());
            (true, source.on_reply(Ok(keys), at(now), 0))
        }
        other => (true, other),
    }
}

#[test]
fn the_discovery_document_is_fetched_rarely_and_only_believed_for_its_own_issuer() {
    let mut source = source(true);
    let (good, body) = (says(200, DOCUMENT), set(&["a"]));
    let evil = says(200, br#"{"issuer":"https://evil.example","jwks_uri":"https://evil.example/k"}"#);
    let (asked, progress) = fetch(&mut source, Occasion::Schedule, 0, evil, says(200, &body));
    assert!(asked && matches!(progress, Progress::Failed(why) if why.contains("another issuer")));
    let asked: Vec<u64> = (0..7300)
        .filter(|second| {
            source.is_due(at(*second)) && fetch(&mut source, Occasion::Schedule, *second, good, says(200, &body)).0
        })
        .collect();
    assert_eq!(asked, [1, 3601, 7201]);
    // A key id that is not found: the issuer may have moved its set.
    let mut unknown = |now| fetch(&mut source, Occasion::UnknownKid, now, good, says(200, &body)).0;
    assert!(!unknown(7210) && unknown(7231) && !unknown(7240) && unknown(7261));
}

#[test]
fn a_discovery_document_that_is_not_to_be_had_leaves_what_it_said_last() {
    let mut source = source(true);
    let body = set(&["a"]);
    fetch(&mut source, Occasion::Schedule, 0, says(200, DOCUMENT), says(200, &body));
    for (now, asked) in [(3600, true), (3700, false), (3900, true)] {
        let progress = fetch(&mut source, Occasion::Schedule, now, says(500, b""), says(200, &body));
        assert_eq!(progress, (asked, Progress::Installed { left_out: None }), "{now}");
        // max_stale counts from the document too.
        source.settings.max_stale = Duration::from_secs(3950);
    }
    let (asked, progress) = fetch(&mut source, Occasion::Schedule, 4300, says(500, b""), says(200, &body));
    assert!(asked && matches!(progress, Progress::Failed(why) if why.starts_with("status 500")));
}

#[test]
fn a_key_set_that_is_gone_sends_back_to_the_discovery_document() {
    let body = set(&["a"]);
    for (status, asks_again) in [(404, true), (302, true), (200, true), (503, false), (429, false)] {
        let mut source = source(true);
        fetch(&mut source, Occasion::Schedule, 0, says(200, DOCUMENT), says(200, &body));
        let (asked, progress) =
            fetch(&mut source, Occasion::Schedule, 300, says(200, DOCUMENT), says(status, b"<html>"));
        assert!(!asked && matches!(progress, Progress::Failed(_)), "{status}");
        let (asked, _) = fetch(&mut source, Occasion::Schedule, 301, says(200, DOCUMENT), says(200, &body));
        assert_eq!(asked, asks_again, "{status}");
    }
}
