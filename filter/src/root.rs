//! One configuration at work: its policy, its caches, and the requests that wait under it.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use authn::cause::Cause;
use authn::checks::{Checks, Flight, Resolved, Waiter, Why};
use authn::clear::Edit;
use authn::decide::{
    Admission, Asking, Entered, Entry, Removal, RevocationStatus, Unavailable, Unverifiable, Verified,
};
use authn::engine::{Chosen, Engine, host_call};
use authn::fault::Rejection;
use authn::introspection::Failure;
use authn::introspections;
use authn::key_source::KeySource;
use authn::key_waits::{KeyWait, KeyWaits};
use authn::policy::{Policy, Revocation};
use authn::proxy_settings::missing_by_path;
use authn::request::Request;
use authn::revocation::{RevocationQuery, Verdict};
use authn::shared::{Namespace, SharedVerdicts};
use authn::time::{Monotonic, Now, UnixSeconds};
use authn::token_cache::TokenCache;
use wire::check::{self, NamedIssuer, Needs, Question, QuestionError, Reply, StoreError};
use wire::{DerivedKeys, Retention};

use crate::announcing::Announcing;
use crate::configuration;
use crate::host::{self, Clock, LogLevel, MapType};
use crate::introspecting::{Introspecting, Settled};
use crate::key_fetching::{KeyFetching, Outcome as KeyOutcome, Waiting};
use crate::metrics::{self, CheckFailure, Counter, Histogram, Metrics, Outcome, WaitsFor};
use crate::pairs;
use crate::peer::HostPeer;
use crate::proxy_settings::MissingSettings;

/// Often enough that a request's own deadline is kept to within this.
const TICK: Duration = Duration::from_millis(100);
/// Refusals logged with their cause in each tick; the rest are only counted.
const LOGGED_PER_TICK: u32 = 10;
/// Another worker may change a slot between our read and our write this many times before we leave it.
const CAS_TRIES: u32 = 3;
/// More attempts at one check, all within `revocation.timeout`: enough to last until Envoy leaves a dead instance out.
const CHECK_RETRIES: &[u8] = b"6";

pub struct Root {
    context: u32,
    policy: Policy,
    engine: Box<dyn Engine>,
    tokens: TokenCache,
    shared: Option<SharedVerdicts>,
    checks: Checks,
    paused: HashMap<Waiter, Paused>,
    /// Refused, and the host would not send the refusal.
    unanswered: HashSet<u32>,
    calls: HashMap<u32, Call>,
    announcing: Announcing,
    introspecting: Introspecting,
    keys: KeyFetching,
    /// Requests whose tokens a fetch under way may bring a key for. They are judged anew then.
    awaiting_keys: KeyWaits,
    /// The paths of requests that wait and will be judged anew, where a token was taken out of the path.
    paths_with_tokens: HashMap<u32, Vec<u8>>,
    nonces: Nonces,
    clock: Clock,
    metrics: Metrics,
    missing_settings: MissingSettings,
    logged: u32,
    unlogged: u64,
}

struct Paused {
    asking: Asking,
    cookie_session: bool,
}

/// May a request wait for its issuer?
#[derive(Debug, Clone, Copy)]
enum Patience<'v> {
    MayWait,
    /// It has waited for its issuer's keys: a key that is still unknown is not asked for again.
    HasWaited,
    /// It has waited for its introspection, and this is what came of it.
    Introspected(&'v Arc<Verified>),
}

struct Call {
    flight: Flight,
    question: Question,
    sent: Monotonic,
}

/// Values that never repeat: random for each virtual machine, then counted.
struct Nonces {
    random: [u8; 8],
    count: u64,
}

/// What the host is to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Continue,
    /// As [`Next::Continue`], and the answer is a cookie session's.
    ContinueCookieSession,
    /// It waits; [`Root`] resumes or answers it later.
    Wait,
    /// It was answered here.
    Answered,
}

impl Root {
    /// # Errors
    /// What is wrong with the configuration or the host, in words for the log.
    pub fn configure(context: u32, text: Vec<u8>) -> Result<Self, String> {
        let text = configuration::as_json(text);
        let policy = Policy::from_json(&text, &environment).map_err(|error| error.to_string())?;
        let mut seed = [0u8; 16];
        getrandom::fill(&mut seed).map_err(|error| format!("the host gives no randomness: {error}"))?;
        let Chosen { engine, kind } =
            authn::engine::choose(policy.engine(), host_verifies).map_err(|error| error.to_string())?;
        metrics::set_engine(kind);
        metrics::define_missing_settings();
        host::log(LogLevel::Info, &format!("portcullis: signatures are verified by engine={}", kind.name()));
        let (clock, now) = Clock::start().map_err(|error| format!("the host gives no time: status {}", error.0))?;
        host::set_tick_period(TICK).map_err(|error| format!("the host gives no ticks: status {}", error.0))?;
        let [a, b, c, d, e, f, g, h, random @ ..] = seed;
        let limits = policy.limits();
        let mut keys = KeyFetching::new(&policy, context, u64::from_le_bytes(random) | 1);
        keys.on_configured(now.monotonic);
        let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        Ok(Self {
            context,
            engine,
            tokens: TokenCache::new(limits.cached_tokens, limits.cached_token_bytes, seed),
            introspecting: Introspecting::new(&policy, context, seed),
            shared: policy.revocation().and_then(|revocation| {
                SharedVerdicts::new(Namespace::new(&revocation.derived, policy.digest()), limits.shared_verdicts)
            }),
            checks: Checks::new(
                limits.waiting_requests,
                policy.revocation().map_or(Duration::ZERO, |revocation| revocation.timeout),
                policy.revocation().map_or(Duration::ZERO, Revocation::shared_answers_serve),
            ),
            paused: HashMap::new(),
            unanswered: HashSet::new(),
            calls: HashMap::new(),
            announcing: Announcing::new(policy.issuers_asked_about(), now.monotonic),
            keys,
            awaiting_keys: KeyWaits::new(limits.waiting_requests),
            paths_with_tokens: HashMap::new(),
            nonces: Nonces { random, count: 0 },
            clock,
            metrics: Metrics::default(),
            missing_settings: MissingSettings::new(),
            logged: 0,
            unlogged: 0,
            policy,
        })
    }

    pub fn on_request_headers(&mut self, stream: u32, ends: bool) -> Next {
        self.judge_with_body(stream, Patience::MayWait, !ends)
    }

    /// Judges a request that has waited.
    fn judge(&mut self, stream: u32, patience: Patience<'_>) -> Next {
        // Whether a body follows counts only for requests that do not wait.
        self.judge_with_body(stream, patience, true)
    }

    fn judge_with_body(&mut self, stream: u32, patience: Patience<'_>, body_follows: bool) -> Next {
        let Ok(now) = self.clock.now() else {
            return self.refuse(stream, None, &Rejection::new(Cause::NoTime));
        };
        let buffer = host::header_map(MapType::HttpRequestHeaders);
        let pairs = buffer.as_deref().ok().and_then(pairs::read);
        let Some(mut pairs) = pairs else {
            return self.refuse(stream, None, &Rejection::new(Cause::HeadersUnreadable));
        };
        let path_with_token =
            if self.paths_with_tokens.is_empty() { None } else { self.paths_with_tokens.remove(&stream) };
        if let Some(path) = &path_with_token {
            pairs.iter_mut().filter(|(name, _)| *name == b":path").for_each(|(_, value)| *value = path);
        }
        let request = match Request::from_pairs(&pairs) {
            Ok(request) => request.with_body_to_follow(body_follows),
            Err(rejection) => return self.refuse(stream, None, &rejection),
        };
        // Judged anew, it would be counted twice.
        if let Patience::MayWait = patience {
            self.missing_settings.on_request(self.policy.missing_proxy_settings(&request), &mut self.metrics);
        }
        // First of all, so that no way out of here leaves a header that only we may set.
        let mut cleared = Ok(());
        let mut token_was_in_path = false;
        let edits = self.policy.clear(&request);
        for edit in &edits {
            cleared = cleared.and(apply(edit));
            match edit {
                Edit::Remove(_) => self.metrics.count(Counter::SpoofedHeader),
                Edit::Set(":path", _) => token_was_in_path = true,
                Edit::Set(..) => {}
            }
        }
        // Routes can match the host, the path and any header.
        if !edits.is_empty() {
            cleared = cleared.and_then(|()| host::clear_route_cache());
        }
        if cleared.is_err() {
            return self.refuse(stream, None, &Rejection::new(Cause::HeaderUnchangeable));
        }
        if token_was_in_path {
            self.paths_with_tokens.insert(stream, request.path().to_vec());
        }
        let next = self.enter(stream, &request, patience, now);
        if token_was_in_path && !self.will_be_judged_anew(stream) {
            self.paths_with_tokens.remove(&stream);
        }
        next
    }

    fn will_be_judged_anew(&self, stream: u32) -> bool {
        self.awaiting_keys.is_waiting(stream) || self.introspecting.is_waiting(stream)
    }

    fn enter(&mut self, stream: u32, request: &Request<'_>, patience: Patience<'_>, now: Now) -> Next {
        match self.policy.enter(request) {
            Entry::Open { rule, .. } if self.policy.answers(rule) => self.answer_probe(stream, rule),
            Entry::Open { rule, removals } => {
                if removals.iter().any(|removal| remove(removal).is_err()) {
                    let rejection = Rejection::new(Cause::TokenUnremovable);
                    return self.refuse(stream, Some(rule), &rejection);
                }
                self.metrics.request(Outcome::Open, Some(rule));
                Next::Continue
            }
            Entry::Denied { rule, rejection } => {
                if rejection.reason == authn::fault::RejectReason::PathSuspicious {
                    self.missing_settings.on_request(missing_by_path(request.path()), &mut self.metrics);
                }
                self.refuse(stream, rule, &rejection)
            }
            Entry::Token(entered) => self.on_token(stream, entered, patience, now),
        }
    }

    fn on_token(&mut self, stream: u32, entered: Entered<'_>, patience: Patience<'_>, now: Now) -> Next {
        let rule = entered.rule();
        let cookie_session = entered.is_cookie_session();
        let verified = match patience {
            Patience::Introspected(verified) => self.introspected(&entered, verified, now),
            Patience::MayWait | Patience::HasWaited => self.verified(&entered, now),
        };
        let verified = match verified {
            Ok(verified) => verified,
            Err(Unverifiable { introspect: Some(issuer), .. }) => {
                return self.introspect(stream, (issuer, rule), entered.token(), None, now);
            }
            Err(unverifiable) => return self.on_unverifiable(stream, rule, unverifiable, patience, now),
        };
        let revocation_status = self
            .policy
            .accept(verified, entered, now, &HostPeer)
            .and_then(|accepted| self.policy.revocation_status(accepted, now));
        match revocation_status {
            Ok(RevocationStatus::Admitted(admission)) => {
                if let Some(ask) = admission.refresh() {
                    self.refresh(ask, now);
                }
                self.forward(stream, &admission, cookie_session)
            }
            Ok(RevocationStatus::MustAsk(asking)) => self.ask(stream, asking, cookie_session, now),
            Ok(RevocationStatus::MustIntrospect(accepted)) => {
                if let Patience::Introspected(_) = patience {
                    return self.refuse(stream, Some(rule), &Rejection::new(Cause::IntrospectionTimeout));
                }
                let verified = accepted.verified();
                self.introspect(stream, (verified.issuer(), rule), verified.token(), Some(verified), now)
            }
            Err(rejection) => self.refuse(stream, Some(rule), &rejection),
        }
    }

    /// From this virtual machine's memory, or verified now.
    fn verified(&mut self, entered: &Entered<'_>, now: Now) -> Result<Arc<Verified>, Unverifiable> {
        if let Some(verified) = self.tokens.find(entered.token()) {
            let verified = Arc::clone(verified);
            if self.policy.is_for_rule(&verified, entered.rule())
                && self.policy.still_trusts(&verified, &self.keys.rings, now)?
            {
                self.metrics.count(Counter::TokenHit);
                return Ok(verified);
            }
        }
        self.metrics.count(Counter::TokenMiss);
        if let Some(issuer) = self.policy.introspecting(entered.rule(), entered.token()) {
            return Err(Unverifiable::opaque(issuer));
        }
        let verified = Arc::new(self.policy.verify(self.engine.as_ref(), &self.keys.rings, entered, now)?);
        self.tokens.insert(Arc::clone(&verified));
        Ok(verified)
    }

    /// Refuses, unless its key may be on its way.
    fn on_unverifiable(
        &mut self,
        stream: u32,
        rule: usize,
        unverifiable: Unverifiable,
        patience: Patience<'_>,
        now: Now,
    ) -> Next {
        let Unverifiable { rejection, awaits_keys_of, .. } = unverifiable;
        let Some(issuer) = awaits_keys_of else { return self.refuse(stream, Some(rule), &rejection) };
        if let Patience::HasWaited = patience {
            return self.refuse(stream, Some(rule), &rejection);
        }
        match self.keys.is_worth_waiting(&self.policy, issuer, now.monotonic) {
            Waiting::Yes if self.await_keys(stream, (issuer, rule), &rejection, now) => Next::Wait,
            Waiting::LookAgain => {
                self.wake(issuer);
                if host::make_effective(stream).is_err() {
                    return Next::Wait;
                }
                self.judge(stream, Patience::HasWaited)
            }
            Waiting::Yes | Waiting::No => {
                // A fetch that was started made the root effective.
                if host::make_effective(stream).is_err() {
                    return Next::Wait;
                }
                self.refuse(stream, Some(rule), &rejection)
            }
        }
    }

    /// Returns whether there was room.
    fn await_keys(&mut self, stream: u32, (issuer, rule): (usize, usize), rejection: &Rejection, now: Now) -> bool {
        let Some(source) = self.keys.rings.source(issuer) else { return false };
        let (deadline, generation) = (now.monotonic.plus(source.longest_fetch()), source.generation());
        let wait = KeyWait { issuer, rule, deadline, generation, rejection: rejection.clone() };
        self.awaiting_keys.join(stream, wait).is_ok()
    }

    /// Ends the waiting of all who wait for this issuer's keys.
    fn wake(&mut self, issuer: usize) {
        for stream in self.awaiting_keys.of(issuer) {
            self.wake_one(stream);
        }
    }

    fn wake_one(&mut self, stream: u32) {
        let Some(wait) = self.awaiting_keys.leave(stream) else { return };
        if host::make_effective(stream).is_err() {
            return;
        }
        // The same keys would judge no other way, at the price of as many signatures.
        let next = match wait.is_judged_anew(self.keys.rings.source(wait.issuer)) {
            true => self.judge(stream, Patience::HasWaited),
            false => self.refuse(stream, Some(wait.rule), &wait.rejection),
        };
        self.go_on(stream, next);
    }

    fn on_key_news(&mut self, issuer: usize, outcome: KeyOutcome) {
        let is_good = outcome == KeyOutcome::Renewed;
        self.metrics.key_fetch(issuer, self.policy.issuer_name(issuer).unwrap_or("none"), is_good);
        self.wake(issuer);
    }

    /// Only for the token and the rule that were asked about: nothing else can have changed while the request waited.
    fn introspected(
        &self,
        entered: &Entered<'_>,
        verified: &Arc<Verified>,
        now: Now,
    ) -> Result<Arc<Verified>, Unverifiable> {
        if verified.token() == entered.token() && self.policy.is_for_rule(verified, entered.rule()) {
            self.policy.check_still_trusts(verified, &self.keys.rings, now)?;
            return Ok(Arc::clone(verified));
        }
        Err(Rejection::new(Cause::RequestChanged).into())
    }

    /// Nothing fresh is known of an opaque token, or of a `jwt` that is good by itself: its issuer's server is asked.
    fn introspect(
        &mut self,
        stream: u32,
        (issuer, rule): (usize, usize),
        token: &[u8],
        jwt: Option<&Arc<Verified>>,
        now: Now,
    ) -> Next {
        if let Some(rejection) = self.introspecting.refusal(&self.policy, issuer, token, now) {
            return self.refuse(stream, Some(rule), &rejection);
        }
        let earlier = self.tokens.find(token).filter(|earlier| earlier.was_active() && earlier.issuer() == issuer);
        let revocation_status = match earlier {
            Some(_) => introspections::TokenHistory::WasActive,
            None => introspections::TokenHistory::Unknown,
        };
        // What a JWT will be asked about is known before the answer.
        let earlier = jwt.or(earlier).map(Arc::clone);
        if let Err(full) = self.introspecting.join(stream, (issuer, rule), token, (revocation_status, jwt), now) {
            let name = self.policy.issuer_name(issuer).unwrap_or("none");
            self.metrics.introspection(issuer, name, Failure::Overload.name());
            return self.refuse(stream, Some(rule), &full.into());
        }
        self.send_introspections(issuer, now);
        if let Some(ask) = earlier.and_then(|earlier| self.policy.worth_asking(&earlier, rule, now))
            && self.shared_verdict(ask.digest).is_none_or(|(sent, _)| !self.is_fresh(sent, now))
        {
            self.checks.anticipate(ask);
            self.send(Why::Waiters, now);
        }
        // A host that refuses the call says so at once, and this request was then answered.
        if self.introspecting.is_waiting(stream) { Next::Wait } else { Next::Answered }
    }

    fn send_introspections(&mut self, issuer: usize, now: Now) {
        for settled in self.introspecting.send(&self.policy, &mut self.metrics, issuer, now) {
            self.on_introspected(settled);
        }
    }

    /// Ends the waiting of all who asked about one token.
    fn on_introspected(&mut self, Settled { waiters, issuer, token, outcome }: Settled) {
        if let Some(token) = token {
            let earlier = self.tokens.find(&token).filter(|earlier| earlier.issuer() == issuer);
            match &outcome {
                Ok(verified) => {
                    if let Some(earlier) = earlier {
                        verified.inherit(earlier);
                    }
                    self.tokens.insert(Arc::clone(verified));
                }
                Err(_) => earlier.into_iter().for_each(|earlier| earlier.end()),
            }
        }
        for (stream, rule) in waiters {
            if host::make_effective(stream).is_err() {
                continue;
            }
            let next = match &outcome {
                Ok(verified) => self.judge(stream, Patience::Introspected(verified)),
                Err(rejection) => self.refuse(stream, Some(rule), rejection),
            };
            self.go_on(stream, next);
        }
    }

    fn is_fresh(&self, sent: Monotonic, now: Now) -> bool {
        self.policy.revocation().is_some_and(|revocation| revocation.is_fresh(sent, now.monotonic))
    }

    /// Nothing fresh in this virtual machine: perhaps another worker knows, else the service is asked.
    fn ask(&mut self, stream: u32, asking: Asking, cookie_session: bool, now: Now) -> Next {
        if let Some((sent, verdict)) = self.shared_verdict(asking.ask().digest)
            && self.is_fresh(sent, now)
        {
            self.metrics.count(Counter::SharedHit);
            let rule = asking.rule();
            let judged = asking.on_verdict(&self.policy, sent, verdict, now);
            return self.conclude(stream, rule, judged, cookie_session);
        }
        self.metrics.count(Counter::SharedMiss);
        if self.checks.join(stream, Arc::clone(asking.ask()), now.monotonic).is_err() {
            let rule = asking.rule();
            let judged = asking.on_cannot_tell(Unavailable::Overload, Cause::ChecksFull);
            return self.conclude(stream, rule, judged, cookie_session);
        }
        self.paused.insert(stream, Paused { asking, cookie_session });
        self.send(Why::Waiters, now);
        // A host that refuses the call says so at once, and this request was then answered in `send`.
        match self.paused.contains_key(&stream) {
            true => Next::Wait,
            false => Next::Answered,
        }
    }

    /// An answer that is in use will soon be stale: perhaps another worker has a newer one, else the service is asked again,
    /// and nobody waits for that.
    fn refresh(&mut self, ask: &Arc<RevocationQuery>, now: Now) {
        if let Some((sent, verdict)) = self.shared_verdict(ask.digest) {
            ask.learn(sent, verdict);
            let is_young = self.policy.revocation().is_some_and(|revocation| revocation.is_young(sent, now.monotonic));
            if is_young {
                self.metrics.count(Counter::SharedHit);
                return;
            }
        }
        self.metrics.count(Counter::RefreshedAhead);
        self.checks.refresh(Arc::clone(ask));
    }

    /// Sends what may be sent. The root is effective afterwards, or a request that was refused on the way.
    fn send(&mut self, why: Why, now: Now) {
        // Whoever sees a first token pass may want to revoke it at once.
        self.announce(now);
        while let Some(batch) = self.checks.next_batch(why, now.monotonic) {
            self.metrics.record(Histogram::CheckTokens, u64::try_from(batch.tokens).unwrap_or(u64::MAX));
            match self.call(now.wall, |derived, nonce, needs| Question::new(derived, nonce, needs, &batch.keys)) {
                Some((call, question)) => {
                    self.metrics.count(Counter::CheckSent);
                    self.calls.insert(call, Call { flight: batch.flight, question, sent: now.monotonic });
                }
                None => {
                    self.metrics.count(Counter::CheckFailed(CheckFailure::NotSent));
                    let waiters = self.checks.failed(batch.flight);
                    self.fail(waiters, Unavailable::OutOfReach, Cause::CheckNotSent);
                }
            }
        }
    }

    /// Tells the service which issuers are asked about, now and then.
    fn announce(&mut self, now: Now) {
        let Some(issuers) = self.announcing.due(now.monotonic) else { return };
        let asking = |derived: &DerivedKeys, nonce, needs| Question::about_issuers(derived, nonce, needs, &issuers);
        match self.call(now.wall, asking) {
            Some((call, question)) => self.announcing.sent(call, question, issuers.len(), now.monotonic),
            None => self.announcing.not_told(now.monotonic),
        }
    }

    fn on_announced(&mut self, reply: Result<Reply, CheckFailure>, now: Now) {
        match reply {
            Ok(reply) => {
                for issuer in self.announcing.told(reply.keeps, now.monotonic) {
                    self.metrics.count(Counter::CheckFailed(CheckFailure::Service(StoreError::RetentionTooShort)));
                    host::log(LogLevel::Error, &too_short(&issuer, reply.keeps));
                }
            }
            Err(_) => self.announcing.not_told(now.monotonic),
        }
    }

    fn call(
        &mut self,
        wall: UnixSeconds,
        question: impl FnOnce(&DerivedKeys, [u8; 16], Needs) -> Result<Question, QuestionError>,
    ) -> Option<(u32, Question)> {
        let revocation = self.policy.revocation()?;
        let nonce = self.nonces.next();
        let needs = Needs {
            // The policy caps it far below.
            future_iat_tolerance_seconds: u16::try_from(revocation.future_iat_tolerance).unwrap_or(u16::MAX),
            now_seconds: wall.0,
        };
        let question = question(&revocation.derived, nonce, needs).ok()?;
        let headers: [(&[u8], &[u8]); 7] = [
            (b":method", b"POST"),
            (b":path", check::PATH.as_bytes()),
            (b":authority", revocation.authority.as_bytes()),
            (b":scheme", b"http"),
            (b"content-type", check::CONTENT_TYPE.as_bytes()),
            // To Envoy's router, which takes them out. An instance that cannot be reached, or breaks off, is no reason to
            // refuse while another one lives. A 503 is not among them: that is the service's own word, about Redis.
            (b"x-envoy-retry-on", b"connect-failure,refused-stream,reset"),
            (b"x-envoy-max-retries", CHECK_RETRIES),
        ];
        // A call belongs to the context that is effective when it is made, and its answer is lost when that one goes:
        // others may wait for this answer, so it must be the root's.
        host::make_effective(self.context).ok()?;
        let call = host::call(&revocation.cluster, &headers, question.bytes(), revocation.timeout).ok()?;
        Some((call, question))
    }

    pub fn on_call_answered(&mut self, call: u32) {
        let now = self.clock.set();
        if let Ok(now) = now
            && let Some(news) = self.keys.on_call_answered(&self.policy, call, now.monotonic)
        {
            if let Some((issuer, outcome)) = news {
                self.on_key_news(issuer, outcome);
            }
            return;
        }
        if let Ok(now) = now
            && let Some(settled) = self.introspecting.on_call_answered(&self.policy, &mut self.metrics, call, now)
        {
            if let Some(settled) = settled {
                let issuer = settled.issuer;
                self.on_introspected(settled);
                self.send_introspections(issuer, now);
            }
            return;
        }
        if let Ok(now) = now
            && let Some(question) = self.announcing.question(call)
        {
            let reply = self.read_answer(question);
            return self.on_announced(reply, now);
        }
        let Some(call) = self.calls.remove(&call) else { return };
        let Ok(now) = now else {
            let waiters = self.checks.failed(call.flight);
            return self.fail(waiters, Unavailable::NotToBeTrusted, Cause::NoTime);
        };
        let micros = u64::try_from(now.monotonic.since(call.sent).as_micros()).unwrap_or(u64::MAX);
        self.metrics.record(Histogram::CheckMicroseconds, micros);
        match self.read_answer(&call.question) {
            Ok(reply) => match self.checks.answered(call.flight, &reply) {
                Ok(resolved) => resolved.into_iter().for_each(|resolved| self.resolve(resolved, now)),
                Err(waiters) => self.fail(waiters, Unavailable::NotToBeTrusted, Cause::CheckMismatch),
            },
            Err(failure) => {
                self.metrics.count(Counter::CheckFailed(failure));
                let (reason, cause) = meaning(failure);
                let waiters = self.checks.failed(call.flight);
                self.fail(waiters, reason, cause);
            }
        }
        self.send(Why::Waiters, now);
    }

    fn read_answer(&self, question: &Question) -> Result<Reply, CheckFailure> {
        let revocation = self.policy.revocation().ok_or(CheckFailure::NoProof)?;
        let status = host::header(MapType::HttpCallResponseHeaders, b":status")
            .ok()
            .flatten()
            .and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok())
            // The answer broke off.
            .ok_or(CheckFailure::NoAnswer)?;
        let body = host::call_body(check::MAX_REPLY_BYTES.saturating_add(1)).map_err(|_| CheckFailure::NoProof)?;
        match question.read_reply(&revocation.derived, status, &body) {
            Ok(reply) => reply.map_err(CheckFailure::Service),
            // What Envoy itself answers for an upstream that is down, or too slow.
            Err(_) if matches!(status, 503 | 504) => Err(CheckFailure::NoAnswer),
            Err(_) => Err(CheckFailure::NoProof),
        }
    }

    fn resolve(&mut self, resolved: Resolved, now: Now) {
        let Some(verdict) = resolved.verdict else {
            let failure = CheckFailure::Service(StoreError::RetentionTooShort);
            self.metrics.count(Counter::CheckFailed(failure));
            let (reason, cause) = meaning(failure);
            return self.fail(resolved.waiters, reason, cause);
        };
        // Another worker may have learnt of a revocation since: the newer of the two counts here too.
        let (sent, verdict) = self.share(&resolved, verdict);
        resolved.ask.learn(sent, verdict);
        self.release(resolved.waiters, |policy, asking| asking.on_verdict(policy, sent, verdict, now));
    }

    fn fail(&mut self, waiters: Vec<Waiter>, reason: Unavailable, cause: Cause) {
        self.release(waiters, |_, asking| asking.on_cannot_tell(reason, cause));
    }

    /// Ends the waiting of all of these by the same judgement.
    fn release(&mut self, waiters: Vec<Waiter>, judge: impl Fn(&Policy, Asking) -> Result<Admission, Rejection>) {
        for stream in waiters {
            let Some(Paused { asking, cookie_session }) = self.paused.remove(&stream) else { continue };
            if host::make_effective(stream).is_err() {
                continue;
            }
            let rule = asking.rule();
            let judged = judge(&self.policy, asking);
            let next = self.conclude(stream, rule, judged, cookie_session);
            self.go_on(stream, next);
        }
    }

    fn conclude(
        &mut self,
        stream: u32,
        rule: usize,
        judged: Result<Admission, Rejection>,
        cookie_session: bool,
    ) -> Next {
        match judged {
            Ok(admission) => self.forward(stream, &admission, cookie_session),
            Err(rejection) => self.refuse(stream, Some(rule), &rejection),
        }
    }

    /// Lets a request that was paused go on, if it may.
    fn go_on(&mut self, stream: u32, next: Next) {
        match next {
            Next::Continue => {
                let _ = host::resume_request();
            }
            Next::ContinueCookieSession => {
                crate::vm::mark_cookie_session(stream);
                let _ = host::resume_request();
            }
            Next::Wait | Next::Answered => {}
        }
    }

    /// Writes what the upstream is told. If the host will not write it, the request must not go on half dressed.
    fn forward(&mut self, stream: u32, admission: &Admission, cookie_session: bool) -> Next {
        let map = MapType::HttpRequestHeaders;
        let mut written = Ok(());
        for (name, value) in admission.headers() {
            written = written.and_then(|()| host::set_header(map, name.as_bytes(), value.as_bytes()));
        }
        written = written.and_then(|()| remove(admission.removal()));
        if written.is_err() {
            let rejection = Rejection::new(Cause::HeaderUnwritable);
            return self.refuse(stream, Some(admission.rule()), &rejection);
        }
        if admission.mismatch_reported {
            self.metrics.count(Counter::BindingReported);
        }
        let outcome = if admission.unchecked { Outcome::AdmittedUnchecked } else { Outcome::Admitted };
        self.metrics.request(outcome, Some(admission.rule()));
        if cookie_session { Next::ContinueCookieSession } else { Next::Continue }
    }

    /// Says that the filter is there and judges. Whether it could ask anybody is not said: a probe that fails with the
    /// service or an issuer would take every proxy out at once.
    fn answer_probe(&mut self, stream: u32, rule: usize) -> Next {
        self.metrics.request(Outcome::Answered, Some(rule));
        let headers: [(&[u8], &[u8]); 2] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")];
        if host::answer(200, "PROBE_ANSWERED", &headers, br#"{"portcullis":"ready"}"#).is_err() {
            self.unanswered.insert(stream);
            host::log(LogLevel::Error, "portcullis: the host would not send an answer");
        }
        Next::Answered
    }

    fn refuse(&mut self, stream: u32, rule: Option<usize>, rejection: &Rejection) -> Next {
        self.metrics.request(Outcome::Refused(rejection.reason), rule);
        self.log_refusal(rule, rejection);
        let refusal = self.policy.refusal(rejection.reason, rule);
        let headers: Vec<(&[u8], &[u8])> =
            refusal.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let details = rejection.reason.code();
        if host::answer(refusal.status, details, &headers, refusal.body.as_bytes()).is_err() {
            // It stays paused until the proxy's own timeout: closed, if not politely. Its body must not release it.
            self.unanswered.insert(stream);
            host::log(LogLevel::Error, "portcullis: the host would not send a refusal");
        }
        Next::Answered
    }

    fn log_refusal(&mut self, rule: Option<usize>, rejection: &Rejection) {
        if self.logged >= LOGGED_PER_TICK {
            self.unlogged = self.unlogged.saturating_add(1);
            return;
        }
        self.logged = self.logged.saturating_add(1);
        let rule = rule.and_then(|rule| self.policy.rules().get(rule)).map_or("none", |rule| rule.name.as_str());
        let level = if rejection.reason.is_cannot_tell() { LogLevel::Warn } else { LogLevel::Info };
        let detail = rejection.detail.as_ref().map(|detail| format!(" detail={detail:?}")).unwrap_or_default();
        let (code, cause) = (rejection.reason.code(), rejection.cause);
        host::log(level, &format!("portcullis: refused code={code} rule={rule} cause=\"{cause}\"{detail}"));
    }

    pub fn on_tick(&mut self) {
        self.flush_metrics();
        if self.unlogged > 0 {
            host::log(LogLevel::Info, &format!("portcullis: {} more refusals were not logged", self.unlogged));
        }
        self.logged = 0;
        self.unlogged = 0;
        let Ok(now) = self.clock.set() else { return };
        for (issuer, outcome) in self.keys.on_tick(&self.policy, now.monotonic) {
            self.on_key_news(issuer, outcome);
        }
        for stream in self.awaiting_keys.overdue(now.monotonic) {
            self.wake_one(stream);
        }
        // Another virtual machine's fetch may have failed: nothing is on its way then. Asked in this order, since it shares
        // what it has found before it says that it is done.
        for issuer in self.awaiting_keys.issuers() {
            if !self.keys.is_under_way(issuer, now.monotonic) {
                self.keys.adopt(issuer, now.monotonic);
                self.wake(issuer);
            }
        }
        for settled in self.introspecting.on_tick(&self.policy, now) {
            self.on_introspected(settled);
        }
        let introspected: Vec<usize> = self.policy.introspected_issuers().collect();
        introspected.into_iter().for_each(|issuer| self.send_introspections(issuer, now));
        let late = self.checks.expire(now.monotonic);
        self.fail(late, Unavailable::OutOfReach, Cause::CheckTimeout);
        // The host answers every call, at the latest by its timeout. Were one ever lost, it must not be kept for ever.
        let patience =
            self.policy.revocation().map_or(Duration::ZERO, |revocation| revocation.timeout.saturating_mul(4));
        self.calls.retain(|_, call| now.monotonic.since(call.sent) < patience);
        self.send(Why::Tick, now);
        self.tell_levels(now);
    }

    fn tell_levels(&mut self, now: Now) {
        self.metrics.waiting(WaitsFor::Check, self.paused.len());
        self.metrics.waiting(WaitsFor::Introspection, self.introspecting.waiting());
        self.metrics.waiting(WaitsFor::Keys, self.awaiting_keys.len());
        for issuer in self.keys.rings.fetched() {
            if let (Some(fetched), Some(name)) =
                (self.keys.rings.source(issuer).and_then(KeySource::fetched), self.policy.issuer_name(issuer))
            {
                self.metrics.key_age(issuer, name, now.monotonic.since(fetched).as_secs());
            }
        }
    }

    /// This configuration is over.
    pub fn end_metrics(&mut self) {
        self.flush_metrics();
        self.metrics.end();
    }

    /// Counters reach the host with every tick, and when this configuration ends.
    pub fn flush_metrics(&mut self) {
        let rules = self.policy.rules();
        self.metrics.flush(|place| rules.get(place).map_or("none", |rule| rule.name.as_str()));
    }

    /// Some upstreams take a trailer for a header: those that only this filter may set go from there too, in every spelling.
    pub fn clear_trailers(&mut self) {
        let trailers = host::header_map(MapType::HttpRequestTrailers);
        let Some(pairs) = trailers.as_deref().ok().and_then(pairs::read) else {
            // They cannot be read: at least the names themselves go.
            for name in self.policy.cleared() {
                let _ = host::remove_header(MapType::HttpRequestTrailers, name.as_bytes());
            }
            return;
        };
        for (name, _) in pairs {
            if self.policy.is_cleared(name) {
                let _ = host::remove_header(MapType::HttpRequestTrailers, name);
            }
        }
    }

    /// The request is over, answered or not.
    pub fn on_stream_gone(&mut self, stream: u32) {
        // Most requests never wait, and to hash their number for each set costs more than to judge them.
        if !self.unanswered.is_empty() {
            self.unanswered.remove(&stream);
        }
        if !self.awaiting_keys.is_empty() {
            self.awaiting_keys.leave(stream);
        }
        if !self.paths_with_tokens.is_empty() {
            self.paths_with_tokens.remove(&stream);
        }
        self.introspecting.leave(stream);
        if !self.paused.is_empty() && self.paused.remove(&stream).is_some() {
            self.checks.leave(stream);
        }
    }

    /// It must not go on yet.
    pub fn is_held(&self, stream: u32) -> bool {
        self.paused.contains_key(&stream)
            || self.awaiting_keys.is_waiting(stream)
            || self.introspecting.is_waiting(stream)
            || self.unanswered.contains(&stream)
    }

    fn shared_verdict(&self, digest: [u8; 16]) -> Option<(Monotonic, Verdict)> {
        let shared = self.shared.as_ref()?;
        let (bytes, _) = host::shared(&shared.key(&digest)).ok()??;
        shared.read(&digest, &bytes)
    }

    /// Offers a verdict to the other workers, and returns theirs if it is newer.
    fn share(&self, resolved: &Resolved, verdict: Verdict) -> (Monotonic, Verdict) {
        let ours = (resolved.sent, verdict);
        let Some(shared) = &self.shared else { return ours };
        let digest = &resolved.ask.digest;
        let key = shared.key(digest);
        for _ in 0..CAS_TRIES {
            let Ok(found) = host::shared(&key) else { return ours };
            let (bytes, cas) = found.unwrap_or_default();
            if let Some(theirs) = shared.read(digest, &bytes)
                && theirs.0 > ours.0
            {
                return theirs;
            }
            match host::set_shared(&key, &shared.write(digest, ours.0, ours.1), cas) {
                Err(host::CAS_MISMATCH) => {}
                Ok(()) | Err(_) => return ours,
            }
        }
        ours
    }
}

impl Nonces {
    fn next(&mut self) -> [u8; 16] {
        self.count = self.count.wrapping_add(1);
        let mut nonce = [0u8; 16];
        for (to, from) in nonce.iter_mut().zip(self.random.iter().chain(&self.count.to_be_bytes())) {
            *to = *from;
        }
        nonce
    }
}

/// Once for each issuer and announcement: until it is mended, none of its tokens passes where revocation is asked.
fn too_short(issuer: &NamedIssuer, keeps: Retention) -> String {
    let NamedIssuer { issuer, needs, .. } = issuer;
    format!(
        "portcullis: the service keeps revocations for less time than tokens live, so tokens of issuer={issuer} are \
         refused cause=\"retention_too_short\": kept are {}s for a token and {}s for a login, needed are {}s and {}s; raise \
         --max-lifetime and --max-session of the service, or lower max_lifetime and max_session here",
        keeps.token, keeps.login, needs.token, needs.login
    )
}

/// What a check without an answer means for those who wait for it.
fn meaning(failure: CheckFailure) -> (Unavailable, Cause) {
    use Unavailable::{NotToBeTrusted, OutOfReach};
    match failure {
        CheckFailure::NotSent => (OutOfReach, Cause::CheckNotSent),
        CheckFailure::NoAnswer => (OutOfReach, Cause::CheckUnanswered),
        CheckFailure::NoProof => (NotToBeTrusted, Cause::CheckUnproven),
        CheckFailure::Service(error) => {
            let reason = match error {
                StoreError::StoreRefused | StoreError::StoreSlow | StoreError::StoreFailed => OutOfReach,
                StoreError::StoreChanged
                | StoreError::StoreUnsafe
                | StoreError::RetentionTooShort
                | StoreError::ToleranceTooShort
                | StoreError::ClockBehind => NotToBeTrusted,
            };
            (reason, error.into())
        }
    }
}

fn apply(edit: &Edit<'_>) -> Result<(), host::HostError> {
    match edit {
        Edit::Remove(name) => host::remove_header(MapType::HttpRequestHeaders, name),
        Edit::Set(name, value) => host::set_header(MapType::HttpRequestHeaders, name.as_bytes(), value),
    }
}

fn remove(removal: &Removal) -> Result<(), host::HostError> {
    let map = MapType::HttpRequestHeaders;
    match removal {
        Removal::Nothing => Ok(()),
        Removal::Header(name) => host::remove_header(map, name),
        Removal::Cookie(None) => host::remove_header(map, b"cookie"),
        Removal::Cookie(Some(rest)) => host::set_header(map, b"cookie", rest),
        Removal::Subprotocols(None) => host::remove_header(map, b"sec-websocket-protocol"),
        Removal::Subprotocols(Some(rest)) => host::set_header(map, b"sec-websocket-protocol", rest),
    }
}

fn host_verifies(argument: &[u8]) -> Option<Vec<u8>> {
    host::call_foreign(host_call::FUNCTION, argument).ok()
}

fn environment(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(|value| value.into_encoded_bytes())
}
