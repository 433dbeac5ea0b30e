//! One issuer's published keys over time: when to fetch, what to trust meanwhile, and when to stop. No host call and no
//! clock: times and replies in, what to do out.
use std::time::Duration;

use crate::alg::Algorithm;
use crate::cause::Cause;
use crate::fault::Denial;
use crate::jwks::{self, Url};
use crate::keys::KeySet;
use crate::time::Monotonic;

/// What the configuration says of the source.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose keys these are and where they come from: the same in every configuration that says so.
    pub identity: [u8; 32],
    pub cluster: String,
    /// Of the key set, or of the discovery document that names it.
    pub url: Url,
    /// The issuer that the discovery document must name; `None` without discovery.
    pub discovery: Option<String>,
    pub timeout: Duration,
    pub refresh: Duration,
    pub max_stale: Duration,
    pub cool_down: Duration,
    pub symmetric: bool,
    pub algorithms: Vec<Algorithm>,
}

#[derive(Debug)]
pub struct KeySource {
    settings: Settings,
    held: Option<Held>,
    /// Counts the sets held so far: what was verified under an earlier one is looked at again.
    generation: u32,
    next: Monotonic,
    failures: u32,
    under_way: Option<UnderWay>,
    /// When an unknown key id last caused a fetch, here or in another virtual machine. Which key id it was is not
    /// remembered: an issuer may publish it the next moment.
    unknown_fetch: Option<Monotonic>,
    /// What was left out of the set that is held, as the log was told: it is told once.
    left_out: Option<String>,
}

#[derive(Debug)]
struct Held {
    keys: KeySet,
    fetched: Monotonic,
}

#[derive(Debug)]
struct UnderWay {
    started: Monotonic,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Discovery,
    Keys,
}

/// A GET to send to the source's cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub url: Url,
}

/// What a reply led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The discovery document named the key set: fetch it.
    Continue(Fetch),
    /// A set is held. What could not be used of it is said when it was not said before.
    Installed {
        left_out: Option<String>,
    },
    /// A newer set has come meanwhile, and stays.
    Overtaken,
    Failed(String),
}

/// What a token with a key id that is not held means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is not in a set that was fetched lately: refuse.
    Absent,
    /// A fetch could bring it: fetch, or wait for the one under way.
    Worthwhile,
}

/// Retries while no set is held at all: a provider that comes up is noticed within this.
const RETRY_WITHOUT_KEYS: Duration = Duration::from_secs(1);
/// The longest pause between retries while an older set still serves.
const RETRY_MOST: Duration = Duration::from_secs(60);
/// The shortest interval that a `max-age` can ask for.
const REFRESH_LEAST: Duration = Duration::from_secs(10);
/// How long after the one that fetched last another virtual machine takes its turn.
const STAND_BY: Duration = Duration::from_secs(1);

impl KeySource {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            held: None,
            generation: 0,
            next: Monotonic(0),
            failures: 0,
            under_way: None,
            unknown_fetch: None,
            left_out: None,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// When the held set was fetched.
    pub fn fetched(&self) -> Option<Monotonic> {
        self.held.as_ref().map(|held| held.fetched)
    }

    /// # Errors
    /// [`crate::fault::Fault::KeysUnavailable`] until the first set, and once the last one is older than `max_stale`.
    pub fn keys(&self, now: Monotonic) -> Result<&KeySet, Denial> {
        match &self.held {
            None => Err(Denial::new(Cause::KeysNeverFetched)),
            Some(held) if now.since(held.fetched) > self.settings.max_stale => Err(Denial::new(Cause::KeysTooOld)),
            Some(held) => Ok(&held.keys),
        }
    }

    /// When to fetch next.
    pub fn due(&self) -> Monotonic {
        self.next
    }

    /// Is it time to fetch? Whether another virtual machine does so already is the caller's to find out.
    pub fn is_due(&self, now: Monotonic) -> bool {
        self.under_way.is_none() && self.next <= now
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// The longest that one fetch takes, discovery included: the lease of whoever fetches lasts as long.
    pub fn longest_fetch(&self) -> Duration {
        let stages = if self.settings.discovery.is_some() { 2 } else { 1 };
        self.settings.timeout.saturating_mul(stages).saturating_add(Duration::from_millis(500))
    }

    pub fn start(&mut self, now: Monotonic) -> Fetch {
        let stage = if self.settings.discovery.is_some() { Stage::Discovery } else { Stage::Keys };
        self.under_way = Some(UnderWay { started: now, stage });
        Fetch { url: self.settings.url.clone() }
    }

    /// The reply to the fetch under way: `Ok` is a status and a body.
    pub fn on_reply(
        &mut self,
        reply: Result<(u16, &[u8]), &str>,
        cache_control: Option<&str>,
        now: Monotonic,
        jitter: u64,
    ) -> Progress {
        let Some(under_way) = self.under_way.take() else { return Progress::Failed("no fetch is under way".into()) };
        let body = match reply {
            Ok((200, body)) => body,
            Ok((status, _)) => return self.failed(format!("status {status}"), now, jitter),
            Err(why) => return self.failed(why.to_owned(), now, jitter),
        };
        if let (Stage::Discovery, Some(issuer)) = (under_way.stage, &self.settings.discovery) {
            return match jwks::parse_discovery(body, issuer) {
                Ok(url) => {
                    self.under_way = Some(UnderWay { started: under_way.started, stage: Stage::Keys });
                    Progress::Continue(Fetch { url })
                }
                Err(refused) => self.failed(refused.to_string(), now, jitter),
            };
        }
        // An answer that was long on its way must not bring back a key that has left since.
        if self.fetched().is_some_and(|held| held > under_way.started) {
            return Progress::Overtaken;
        }
        match self.install(body, under_way.started) {
            Ok(left_out) => {
                let asked = cache_control.and_then(jwks::max_age).unwrap_or(self.settings.refresh);
                let refresh = asked.max(REFRESH_LEAST).min(self.settings.refresh);
                self.next = now.plus(spread(refresh, jitter));
                Progress::Installed { left_out }
            }
            Err(refused) => self.failed(refused.to_string(), now, jitter),
        }
    }

    /// Takes over a set that another virtual machine fetched, unless a newer one is held. Returns whether it is new.
    /// `due` is when the other one will look again, by what the answer allowed: if it still does, it comes first.
    pub fn adopt(&mut self, text: &[u8], fetched: Monotonic, due: Monotonic, now: Monotonic, jitter: u64) -> bool {
        if self.fetched().is_some_and(|held| held >= fetched) {
            return false;
        }
        // What the other one would not have kept is not taken from it either.
        if self.install(text, fetched).is_err() {
            return false;
        }
        let latest = fetched.plus(self.settings.refresh);
        self.next = due.min(latest).plus(spread(STAND_BY, jitter)).max(now);
        true
    }

    /// Another virtual machine fetches, or has failed a moment ago: look again then.
    pub fn leave_to_another(&mut self, until: Monotonic) {
        self.next = until;
    }

    /// An unknown key id caused a fetch at this time, here or elsewhere.
    pub fn note_unknown_fetch(&mut self, at: Monotonic) {
        self.unknown_fetch = self.unknown_fetch.max(Some(at));
    }

    /// A token names a key id that no key answers to. However many such tokens come, they cause one fetch in each
    /// cool-down. So a key id that was seen before its key was published is refused for one cool-down at most, whatever
    /// other key ids were seen meanwhile.
    pub fn on_unknown_kid(&self, now: Monotonic) -> Unknown {
        if self.held.is_none() {
            return Unknown::Absent;
        }
        if self.under_way.is_some() {
            return Unknown::Worthwhile;
        }
        match self.unknown_fetch {
            Some(at) if now.since(at) < self.settings.cool_down => Unknown::Absent,
            _ => Unknown::Worthwhile,
        }
    }

    /// What was left out, if that is news.
    fn install(&mut self, text: &[u8], fetched: Monotonic) -> Result<Option<String>, jwks::Refused> {
        let parsed = jwks::parse(text, &self.settings.algorithms, self.settings.symmetric)?;
        let is_same = self.held.as_ref().is_some_and(|held| {
            let prints = |set: &KeySet| set.keys().iter().map(|key| *key.thumbprint()).collect::<Vec<_>>();
            prints(&held.keys) == prints(&parsed.keys)
        });
        if !is_same {
            self.generation = self.generation.wrapping_add(1);
        }
        let left_out = parsed.summary();
        self.held = Some(Held { keys: parsed.keys, fetched });
        self.failures = 0;
        let is_said = self.left_out == left_out;
        self.left_out.clone_from(&left_out);
        Ok(left_out.filter(|_| !is_said))
    }

    fn failed(&mut self, why: String, now: Monotonic, jitter: u64) -> Progress {
        self.failures = self.failures.saturating_add(1);
        let pause = match &self.held {
            None => RETRY_WITHOUT_KEYS,
            Some(held) => {
                let doubled = 1u32.checked_shl(self.failures.min(6)).unwrap_or(64);
                let trusted = self.settings.max_stale.saturating_sub(now.since(held.fetched));
                RETRY_WITHOUT_KEYS.saturating_mul(doubled).min(RETRY_MOST).min(trusted).max(RETRY_WITHOUT_KEYS)
            }
        };
        self.next = now.plus(spread(pause, jitter));
        Progress::Failed(why)
    }
}

/// Between three quarters of the interval and all of it, so that many proxies do not ask at once.
fn spread(interval: Duration, jitter: u64) -> Duration {
    let quarter = interval.checked_div(4).unwrap_or_default();
    let share = u32::try_from(jitter.checked_rem(1000).unwrap_or(0)).unwrap_or(0);
    interval.saturating_sub(quarter.saturating_mul(share).checked_div(1000).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;
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
            max_stale: Duration::from_secs(3600),
            cool_down: Duration::from_secs(30),
            symmetric: false,
            algorithms: Algorithm::ALL.to_vec(),
        })
    }

    fn set(kids: &[&str]) -> Vec<u8> {
        let keys: Vec<serde_json::Value> = kids
            .iter()
            .map(|kid| {
                let mut jwk = serde_json::Value::Object(vectors::public_jwk(crate::alg::Family::P256));
                jwk["kid"] = (*kid).into();
                jwk
            })
            .collect();
        serde_json::json!({ "keys": keys }).to_string().into_bytes()
    }

    fn fetched(source: &mut KeySource, kids: &[&str], now: Monotonic) {
        source.start(now);
        let progress = source.on_reply(Ok((200, &set(kids))), None, now, 0);
        assert_eq!(progress, Progress::Installed { left_out: None });
    }

    #[test]
    fn without_a_set_nothing_can_be_told_and_retries_come_every_second() {
        let mut source = source(false);
        assert_eq!(source.keys(at(0)).unwrap_err().fault, Fault::KeysUnavailable);
        for second in 0..100 {
            assert!(source.is_due(at(second)), "{second}");
            source.start(at(second));
            assert!(!source.is_due(at(second)));
            assert!(matches!(source.on_reply(Err("refused"), None, at(second), 0), Progress::Failed(_)));
        }
    }

    #[test]
    fn the_last_good_set_serves_until_max_stale_and_not_a_moment_longer() {
        let mut source = source(false);
        fetched(&mut source, &["a"], at(10));
        source.start(at(310));
        assert!(matches!(source.on_reply(Ok((200, b"<html>")), None, at(310), 0), Progress::Failed(_)));
        assert!(matches!(source.on_reply(Ok((500, b"")), None, at(310), 0), Progress::Failed(_)));
        assert!(source.keys(at(10 + 3600)).is_ok());
        assert_eq!(source.keys(Monotonic((10 + 3600) * SECOND + 1)).unwrap_err().fault, Fault::KeysUnavailable);
    }

    #[test]
    fn retries_slow_down_while_an_older_set_serves_and_are_back_at_one_second_when_it_no_longer_does() {
        let mut source = source(false);
        fetched(&mut source, &["a"], at(0));
        let mut now = source.due();
        while now < at(3600) {
            source.start(now);
            source.on_reply(Err("refused"), None, now, 0);
            assert!(source.due() <= now.plus(RETRY_MOST));
            now = source.due();
        }
        assert!(now <= at(3601), "the pause before max_stale does not reach beyond it");
        source.start(now);
        source.on_reply(Err("refused"), None, now, 0);
        assert_eq!(source.due(), now.plus(RETRY_WITHOUT_KEYS));
    }

    #[test]
    fn an_answer_that_was_overtaken_brings_no_key_back() {
        let mut source = source(false);
        fetched(&mut source, &["old"], at(0));
        source.start(at(10));
        assert!(source.adopt(&set(&[]), at(11), at(300), at(11), 0));
        assert_eq!(source.on_reply(Ok((200, &set(&["old"]))), None, at(12), 0), Progress::Overtaken);
        assert!(source.keys(at(12)).unwrap().keys().is_empty());
    }

    #[test]
    fn a_short_max_age_is_honoured_down_to_ten_seconds_and_a_long_one_only_up_to_refresh() {
        for (cache_control, due) in
            [(None, 300), (Some("max-age=60"), 60), (Some("max-age=1"), 10), (Some("max-age=9999"), 300)]
        {
            let mut source = source(false);
            source.start(at(0));
            source.on_reply(Ok((200, &set(&["a"]))), cache_control, at(0), 0);
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
        source.start(at(1));
        assert_eq!(source.on_unknown_kid(at(1)), Unknown::Worthwhile, "it waits for the fetch under way");
        source.on_reply(Ok((200, &set(&["a"]))), None, at(1), 0);
        assert_eq!(source.on_unknown_kid(at(30)), Unknown::Absent);
        assert_eq!(source.on_unknown_kid(at(31)), Unknown::Worthwhile);
    }

    // Once, a forged token that named the next key before it was published kept it refused until the set changed.
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
                // Every second a forged token comes, now with the next key's id and now with another one's.
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
    fn discovery_leads_to_the_key_set_and_only_for_its_own_issuer() {
        let mut source = source(true);
        source.start(at(0));
        let document = br#"{"issuer":"https://idp.example","jwks_uri":"https://keys.example/k"}"#;
        let progress = source.on_reply(Ok((200, document)), None, at(0), 0);
        assert_eq!(progress, Progress::Continue(Fetch { url: Url::parse("https://keys.example/k").unwrap() }));
        assert_eq!(source.on_reply(Ok((200, &set(&["a"]))), None, at(1), 0), Progress::Installed { left_out: None });

        source.start(at(400));
        let other = br#"{"issuer":"https://evil.example","jwks_uri":"https://keys.example/k"}"#;
        assert!(matches!(source.on_reply(Ok((200, other)), None, at(400), 0), Progress::Failed(_)));
        assert!(source.keys(at(400)).is_ok());
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
            source.start(at(now));
            match source.on_reply(Ok((200, &with(bad))), None, at(now), 0) {
                Progress::Installed { left_out } => left_out.map(|why| why[..18].to_owned()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(said(2, 0).as_deref(), Some("2 of 3 keys left o"));
        assert_eq!(said(2, 300), None);
        assert_eq!(said(3, 600).as_deref(), Some("3 of 4 keys left o"));
        assert_eq!(said(0, 900), None);
        assert_eq!(said(2, 1200).as_deref(), Some("2 of 3 keys left o"));
        // Another virtual machine has said it.
        assert!(source.adopt(&with(5), at(1500), at(1800), at(1500), 0));
        source.start(at(1800));
        let progress = source.on_reply(Ok((200, &with(5))), None, at(1800), 0);
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
}
