//! One issuer's published keys over time: when to fetch, what to trust meanwhile, and when to stop. No host call and no
//! clock: times and replies in, actions out.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jose::jwks::{self, JwksError};

use crate::engine::KeySet;
use crate::keys::answer::{Answer, Failure};
use crate::keys::discovery::{self, Url};
use crate::reject::{Cause, Rejection};
use crate::time::Monotonic;

mod fetch;

pub use fetch::{Fetch, Occasion, Progress, Settings, Unknown};

#[derive(Debug, Clone)]
pub struct KeySource {
    settings: Settings,
    held: Option<Held>,
    discovered: Option<Discovered>,
    /// Counts the sets so far: a token verified under an earlier one is verified again.
    generation: u32,
    next: Monotonic,
    failures: Failures,
    /// The provider asked not to be contacted until then.
    not_before: Monotonic,
    /// When the pause began that ends at `next`.
    paused: Monotonic,
    /// A request needed keys, and there were none to trust. All copies share it.
    wanted: Arc<AtomicBool>,
    under_way: Option<UnderWay>,
    /// When an unknown key id last caused a fetch, in any VM. The key id is not remembered: an issuer may publish it at
    /// any time.
    unknown_fetch: Option<Monotonic>,
    /// The skipped keys of the current set, as last logged: they are logged once.
    left_out: Option<String>,
}

#[derive(Debug, Clone)]
struct Held {
    keys: Arc<KeySet>,
    fetched: Monotonic,
    etag: Option<String>,
}

/// The content of the discovery document.
#[derive(Debug, Clone)]
struct Discovered {
    url: Url,
    read: Monotonic,
    tried: Monotonic,
    /// A fetch from this URL failed.
    is_doubtful: bool,
}

/// Consecutive failed attempts. Those while an older set is in use are counted separately from those without any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    pub count: u32,
    pub while_serving: bool,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    started: Monotonic,
    stage: Stage,
    occasion: Occasion,
    /// The answer may be that the set of this time is still the newest.
    conditional: Option<Monotonic>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Discovery,
    Keys,
}

/// The first pause after a failure; each further one is twice as long, up to `refresh`.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Requests that need keys do not cut shorter pauses.
const WANTED_LEAST: Duration = Duration::from_secs(30);
/// An older discovery document is read again before the next set is fetched.
const DISCOVERY_REFRESH: Duration = Duration::from_secs(3600);
/// How long after the last fetching VM another VM takes over.
const STAND_BY: Duration = Duration::from_secs(1);

impl KeySource {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            held: None,
            discovered: None,
            generation: 0,
            next: Monotonic(0),
            failures: Failures::default(),
            not_before: Monotonic(0),
            paused: Monotonic(0),
            wanted: Arc::default(),
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
    /// [`crate::reject::RejectReason::KeysUnavailable`] until the first set, and once the last one is older than `max_stale`.
    pub fn keys(&self, now: Monotonic) -> Result<&KeySet, Rejection> {
        let why = match &self.held {
            None => Cause::KeysNeverFetched,
            Some(held) if now.since(held.fetched) > self.settings.max_stale => Cause::KeysTooOld,
            Some(held) => return Ok(&held.keys),
        };
        self.wanted.store(true, Ordering::Relaxed);
        Err(Rejection::new(why))
    }

    /// When to fetch next.
    pub fn due(&self) -> Monotonic {
        self.next
    }

    /// Until when the provider asked not to be contacted.
    pub fn not_before(&self) -> Monotonic {
        self.not_before
    }

    pub fn failures(&self) -> Failures {
        self.failures
    }

    /// Is it time to fetch? The caller checks whether another VM does so already.
    pub fn is_due(&self, now: Monotonic) -> bool {
        self.under_way.is_none() && self.next <= now
    }

    /// Have requests failed for lack of keys for so long that the next attempt should not wait until it is due? At most
    /// once in 30 s and in each cool-down, shared with unknown key ids, and not while the provider asked not to be
    /// contacted.
    pub fn is_wanted(&self, now: Monotonic) -> bool {
        self.wanted.load(Ordering::Relaxed)
            && self.under_way.is_none()
            && self.trusted_for(now).is_none()
            && self.not_before <= now
            && now.since(self.paused) >= self.settings.cool_down.max(WANTED_LEAST)
            && !self.is_cooling_down(now)
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// The longest time of one fetch, including discovery; the lease of the fetching VM lasts as long.
    pub fn longest_fetch(&self) -> Duration {
        let stages = if self.settings.discovery.is_some() { 2 } else { 1 };
        self.settings.timeout.saturating_mul(stages).saturating_add(Duration::from_millis(500))
    }

    /// The longest pause between attempts.
    pub fn longest_pause(&self) -> Duration {
        self.settings.refresh
    }

    pub fn start(&mut self, occasion: Occasion, now: Monotonic) -> Fetch {
        self.wanted.store(false, Ordering::Relaxed);
        let under_way = UnderWay { started: now, stage: Stage::Keys, occasion, conditional: None };
        match &self.discovered {
            _ if self.settings.discovery.is_none() => self.fetch_keys(under_way, self.settings.url.clone()),
            Some(discovered) if !self.is_discovery_due(discovered, occasion, now) => {
                self.fetch_keys(under_way, discovered.url.clone())
            }
            _ => {
                self.under_way = Some(UnderWay { stage: Stage::Discovery, ..under_way });
                Fetch { url: self.settings.url.clone(), if_none_match: None }
            }
        }
    }

    /// Rarely: the document hardly ever changes. But if a key is not found, the issuer may have moved its set.
    fn is_discovery_due(&self, discovered: &Discovered, occasion: Occasion, now: Monotonic) -> bool {
        let retry = match occasion {
            Occasion::UnknownKid | Occasion::Wanted => self.settings.cool_down,
            Occasion::Schedule => self.settings.refresh,
        };
        let is_old = now.since(discovered.read) >= DISCOVERY_REFRESH || occasion != Occasion::Schedule;
        discovered.is_doubtful || (is_old && now.since(discovered.tried) >= retry)
    }

    fn fetch_keys(&mut self, under_way: UnderWay, url: Url) -> Fetch {
        let tagged = self.held.as_ref().and_then(|held| Some((held.etag.clone()?, held.fetched)));
        let conditional = tagged.as_ref().map(|(_, fetched)| *fetched);
        self.under_way = Some(UnderWay { stage: Stage::Keys, conditional, ..under_way });
        Fetch { url, if_none_match: tagged.map(|(etag, _)| etag) }
    }

    /// The reply to the fetch in flight.
    pub fn on_reply(&mut self, reply: Result<Answer<'_>, &str>, now: Monotonic, jitter: u64) -> Progress {
        let Some(under_way) = self.under_way.take() else { return Progress::Failed("no fetch is under way".into()) };
        let answer = match reply {
            Ok(answer) => answer,
            Err(why) => {
                let failure = Failure { why: why.to_owned(), retry_after: None, is_of_url: false };
                return self.failed(under_way, failure, now, jitter);
            }
        };
        match under_way.stage {
            Stage::Discovery => self.on_document(under_way, answer, now, jitter),
            Stage::Keys => self.on_keys(under_way, answer, now, jitter),
        }
    }

    fn on_document(&mut self, under_way: UnderWay, answer: Answer<'_>, now: Monotonic, jitter: u64) -> Progress {
        let issuer = self.settings.discovery.as_deref().unwrap_or_default();
        let read = answer.content().and_then(|body| {
            discovery::parse(body, issuer).map_err(|refused| answer.failure(refused.to_string(), true))
        });
        match (read, &mut self.discovered) {
            (Ok(url), discovered) => {
                *discovered = Some(Discovered { url: url.clone(), read: now, tried: now, is_doubtful: false });
                Progress::Continue { fetch: self.fetch_keys(under_way, url), warning: None }
            }
            // The last document is trusted like the keys from there, and for as long.
            (Err(failure), Some(discovered))
                if !discovered.is_doubtful && now.since(discovered.read) <= self.settings.max_stale =>
            {
                discovered.tried = now;
                let url = discovered.url.clone();
                let warning =
                    format!("the discovery document cannot be fetched, the last one is used: {}", failure.why);
                Progress::Continue { fetch: self.fetch_keys(under_way, url), warning: Some(warning) }
            }
            (Err(failure), _) => self.failed(under_way, failure, now, jitter),
        }
    }

    fn on_keys(&mut self, under_way: UnderWay, answer: Answer<'_>, now: Monotonic, jitter: u64) -> Progress {
        // A delayed answer must not bring back a key that has been removed since.
        if self.fetched().is_some_and(|held| held > under_way.started) {
            return Progress::Overtaken;
        }
        if let (304, Some(since), Some(held)) = (answer.status, under_way.conditional, &mut self.held) {
            // Another set is still the newest.
            if held.fetched != since {
                return Progress::Overtaken;
            }
            held.fetched = under_way.started;
            self.succeeded(answer, now, jitter);
            return Progress::Unchanged { since };
        }
        let installed = answer.content().and_then(|body| {
            self.install(body, under_way.started).map_err(|refused| answer.failure(refused.to_string(), true))
        });
        match installed {
            Ok(left_out) => {
                if let Some(held) = &mut self.held {
                    held.etag = answer.etag().map(str::to_owned);
                }
                self.succeeded(answer, now, jitter);
                Progress::Installed { left_out }
            }
            Err(failure) => {
                if let Some(discovered) = &mut self.discovered {
                    discovered.is_doubtful |= failure.is_of_url;
                }
                self.failed(under_way, failure, now, jitter)
            }
        }
    }

    fn succeeded(&mut self, answer: Answer<'_>, now: Monotonic, jitter: u64) {
        let Settings { refresh, min_refresh, .. } = self.settings;
        let interval = answer.max_age().unwrap_or(refresh).max(min_refresh).min(refresh);
        // Not less than the minimum, and not at the same moment for all proxies.
        let share = min_refresh.saturating_sub(spread(min_refresh, jitter)).checked_div(25).unwrap_or_default();
        let least = min_refresh.saturating_add(share).min(refresh);
        self.next = now.plus(spread(interval, jitter).max(least));
        self.failures = Failures::default();
        self.not_before = Monotonic(0);
    }

    /// Installs a set that another VM fetched, unless the current one is newer. Returns whether it is new. `due` is
    /// when the other VM will fetch again, according to the answer: if it still does, it comes first.
    pub fn adopt(&mut self, text: &[u8], fetched: Monotonic, due: Monotonic, now: Monotonic, jitter: u64) -> bool {
        if self.fetched().is_some_and(|held| held >= fetched) {
            return false;
        }
        // A set that the other VM would not have kept is not accepted from it either.
        if self.install(text, fetched).is_err() {
            return false;
        }
        self.failures = Failures::default();
        self.not_before = Monotonic(0);
        let latest = fetched.plus(self.settings.refresh);
        self.next = due.min(latest).plus(spread(STAND_BY, jitter)).max(now);
        true
    }

    /// Another VM fetches, or has just failed: check again at that time.
    pub fn leave_to_another(&mut self, until: Monotonic, now: Monotonic) {
        self.next = until;
        self.paused = now;
    }

    /// The failures that another VM has seen.
    pub fn note_failures(&mut self, failures: Failures, not_before: Monotonic, now: Monotonic) {
        if failures.count > 0
            && (failures.while_serving != self.failures.while_serving || failures.count > self.failures.count)
        {
            self.failures = failures;
        }
        // A later one was not written by us, or not on this clock.
        self.not_before = self.not_before.max(not_before).min(now.plus(self.longest_pause()));
    }

    /// An unknown key id caused a fetch at this time, in any VM.
    pub fn note_unknown_fetch(&mut self, at: Monotonic) {
        self.unknown_fetch = self.unknown_fetch.max(Some(at));
    }

    /// A token has an unknown key id. However many such tokens arrive, they cause one fetch in each cool-down, whatever
    /// failed before. So a key id that was seen before its key was published is refused for at most one cool-down,
    /// whatever other key ids were seen meanwhile.
    pub fn on_unknown_kid(&self, now: Monotonic) -> Unknown {
        if self.held.is_none() {
            return Unknown::Absent;
        }
        if self.under_way.is_some() {
            return Unknown::Worthwhile;
        }
        if self.is_cooling_down(now) { Unknown::Absent } else { Unknown::Worthwhile }
    }

    fn is_cooling_down(&self, now: Monotonic) -> bool {
        self.unknown_fetch.is_some_and(|at| now.since(at) < self.settings.cool_down)
    }

    /// How long the current set may still be trusted; `None` if there is none to trust now.
    fn trusted_for(&self, now: Monotonic) -> Option<Duration> {
        let age = now.since(self.held.as_ref()?.fetched);
        self.settings.max_stale.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// The skipped keys, if they changed.
    fn install(&mut self, text: &[u8], fetched: Monotonic) -> Result<Option<String>, JwksError> {
        let parsed = jwks::parse(text, &self.settings.algorithms, self.settings.symmetric)?;
        let is_same = self.held.as_ref().is_some_and(|held| {
            let (held, parsed) = (held.keys.keys(), parsed.keys.keys());
            held.len() == parsed.len() && held.iter().zip(parsed).all(|(held, parsed)| held.is_same(parsed))
        });
        if !is_same {
            self.generation = self.generation.wrapping_add(1);
        }
        let left_out = parsed.summary();
        self.held = Some(Held { keys: Arc::new(parsed.keys), fetched, etag: None });
        let is_said = self.left_out == left_out;
        self.left_out.clone_from(&left_out);
        Ok(left_out.filter(|_| !is_said))
    }

    fn failed(&mut self, under_way: UnderWay, failure: Failure, now: Monotonic, jitter: u64) -> Progress {
        // Unauthenticated clients cause these, so they must not delay the schedule.
        if under_way.occasion == Occasion::UnknownKid {
            return Progress::Failed(failure.why);
        }
        let trusted = self.trusted_for(now);
        if self.failures.while_serving != trusted.is_some() {
            self.failures = Failures { count: 0, while_serving: trusted.is_some() };
        }
        let doubled = 1u32.checked_shl(self.failures.count.min(20)).unwrap_or(u32::MAX);
        self.failures.count = self.failures.count.saturating_add(1);
        // Once more, before the current set is too old.
        let most = self.settings.refresh.min(trusted.unwrap_or(Duration::MAX)).max(FIRST_RETRY);
        self.next = now.plus(spread(FIRST_RETRY.saturating_mul(doubled).min(most), jitter));
        self.paused = now;
        if let Some(asked) = failure.retry_after {
            self.not_before = now.plus(asked.min(most));
            self.next = self.next.max(self.not_before);
        }
        let seconds = self.next.since(now).as_secs_f64();
        Progress::Failed(format!("{}; retry in {seconds:.1} s", failure.why))
    }
}

/// Between three quarters of the interval and all of it, so that many proxies do not fetch at once.
fn spread(interval: Duration, jitter: u64) -> Duration {
    let quarter = interval.checked_div(4).unwrap_or_default();
    let share = u32::try_from(jitter.checked_rem(1000).unwrap_or(0)).unwrap_or(0);
    interval.saturating_sub(quarter.saturating_mul(share).checked_div(1000).unwrap_or_default())
}

#[cfg(test)]
mod tests;
