//! Asking introspection servers through the host. Which questions there are, and who waits for them, is
//! `authn::introspections`'; what a reply says of a token is `authn::introspection`'s.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use authn::cause::Cause;
use authn::checks::Waiter;
use authn::decide::Verified;
use authn::fault::{RejectReason, Rejection};
use authn::introspection::{Failure, MAX_REPLY_BYTES, Reply, Unanswered};
use authn::introspections::{Flight, Introspections, Over, Refusals, TokenHistory};
use authn::policy::Policy;
use authn::time::{Monotonic, Now};

use crate::host::{self, MapType};
use crate::metrics::{Histogram, Metrics};

pub struct Introspecting {
    root: u32,
    /// By issuer.
    servers: HashMap<usize, Introspections>,
    refusals: Refusals,
    calls: HashMap<u32, Call>,
    waiting: HashMap<Waiter, Waits>,
}

struct Call {
    issuer: usize,
    flight: Flight,
    sent: Monotonic,
}

struct Waits {
    issuer: usize,
    rule: usize,
    /// The token as it was verified, if it is a JWT.
    jwt: Option<Arc<Verified>>,
}

/// The end of some requests' waiting: what each is to be told, with the rule that it came under.
pub struct Settled {
    pub waiters: Vec<(Waiter, usize)>,
    pub issuer: usize,
    /// `None` where nothing was learnt of it.
    pub token: Option<Arc<[u8]>>,
    pub outcome: Result<Arc<Verified>, Rejection>,
}

impl Introspecting {
    /// `seed` is random.
    pub fn new(policy: &Policy, root: u32, seed: u64) -> Self {
        let limit = policy.limits().waiting_requests;
        let servers = policy
            .introspected_issuers()
            .filter_map(|issuer| Some((issuer, Introspections::new(limit, policy.introspection(issuer)?.timeout))))
            .collect();
        Self { root, servers, refusals: Refusals::new(seed), calls: HashMap::new(), waiting: HashMap::new() }
    }

    /// Why this token was refused a moment ago.
    pub fn refusal(&self, policy: &Policy, issuer: usize, token: &[u8], now: Now) -> Option<Rejection> {
        let (sent, rejection) = self.refusals.find(issuer, token)?;
        policy.introspection(issuer)?.is_fresh(sent, now.monotonic).then(|| rejection.clone())
    }

    /// The request waits for an answer about its token.
    ///
    /// # Errors
    /// There is no room: it must be refused.
    pub fn join(
        &mut self,
        stream: Waiter,
        (issuer, rule): (usize, usize),
        token: &[u8],
        (history, jwt): (TokenHistory, Option<&Arc<Verified>>),
        now: Now,
    ) -> Result<(), Unanswered> {
        let full = Unanswered::from(Failure::Overload);
        let server = self.servers.get_mut(&issuer).ok_or(full)?;
        server.join(stream, token, history, now.monotonic).map_err(|_| full)?;
        self.waiting.insert(stream, Waits { issuer, rule, jwt: jwt.map(Arc::clone) });
        Ok(())
    }

    /// Sends what may be sent to this issuer's server. The root is effective afterwards. What could not be sent is
    /// returned.
    pub fn send(&mut self, policy: &Policy, metrics: &mut Metrics, issuer: usize, now: Now) -> Vec<Settled> {
        let mut failed = Vec::new();
        let Some(settings) = policy.introspection(issuer) else { return failed };
        while let Some((flight, token)) =
            self.servers.get_mut(&issuer).and_then(|server| server.next_question(now.monotonic))
        {
            let question = settings.question(&token);
            let headers: Vec<(&[u8], &[u8])> =
                question.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            // A call belongs to the context that is effective when it is made, and its answer is lost when that one goes:
            // others may wait for this answer, so it must be the root's.
            let call = host::make_effective(self.root)
                .and_then(|()| host::call(&settings.cluster, &headers, question.body.as_bytes(), settings.timeout));
            match call {
                Ok(call) => {
                    self.calls.insert(call, Call { issuer, flight, sent: now.monotonic });
                }
                Err(_) => {
                    metrics.introspection(
                        issuer,
                        policy.issuer_name(issuer).unwrap_or("none"),
                        Failure::NotSent.name(),
                    );
                    if let Some(over) = self.servers.get_mut(&issuer).and_then(|server| server.over(flight)) {
                        failed.push(self.settle(issuer, over, Err(Failure::NotSent.into())));
                    }
                }
            }
        }
        failed
    }

    /// Is the call one of these? Then its answer is read, and this is what came of it.
    pub fn on_call_answered(
        &mut self,
        policy: &Policy,
        metrics: &mut Metrics,
        call: u32,
        now: Now,
    ) -> Option<Option<Settled>> {
        let Call { issuer, flight, sent } = self.calls.remove(&call)?;
        let micros = u64::try_from(now.monotonic.since(sent).as_micros()).unwrap_or(u64::MAX);
        metrics.record(Histogram::IntrospectionMicroseconds, micros);
        // It may have been given up: then nobody waits, and its answer is too old to be of use.
        let Some(over) = self.servers.get_mut(&issuer).and_then(|server| server.over(flight)) else {
            return Some(None);
        };
        let jwts: Vec<Arc<Verified>> =
            over.waiters.iter().filter_map(|waiter| self.waiting.get(waiter)?.jwt.clone()).collect();
        // Without anybody who waits there is nothing that the answer about a JWT could be kept with.
        if jwts.is_empty() && !policy.introspection(issuer).is_some_and(|server| server.is_opaque_of(&over.token)) {
            return Some(None);
        }
        let answer = read(policy, issuer, &over, &jwts, now);
        let result = match &answer {
            Ok(Ok(_)) => "active",
            Ok(Err(rejection)) if rejection.reason == RejectReason::SessionUnknown => "inactive",
            Ok(Err(_)) => "not_accepted",
            Err(unanswered) => unanswered.failure.name(),
        };
        metrics.introspection(issuer, policy.issuer_name(issuer).unwrap_or("none"), result);
        if let Ok(Err(rejection)) = &answer {
            self.refusals.remember(issuer, &over.token, over.sent, rejection.clone());
        }
        Some(Some(self.settle(issuer, over, answer)))
    }

    /// Those whose time is over.
    pub fn on_tick(&mut self, policy: &Policy, now: Now) -> Vec<Settled> {
        let mut late = Vec::new();
        for issuer in policy.introspected_issuers() {
            let Some(server) = self.servers.get_mut(&issuer) else { continue };
            let waiters = server.expire(now.monotonic);
            if !waiters.is_empty() {
                let waiters = self.released(waiters);
                let rejection = Rejection::new(Cause::IntrospectionTimeout);
                late.push(Settled { waiters, issuer, token: None, outcome: Err(rejection) });
            }
        }
        // The host answers every call, at the latest by its timeout. Were one ever lost, it must not be kept for ever.
        let timeout = |call: &Call| policy.introspection(call.issuer).map_or(Duration::ZERO, |server| server.timeout);
        self.calls.retain(|_, call| now.monotonic.since(call.sent) < timeout(call).saturating_mul(4));
        late
    }

    pub fn leave(&mut self, stream: Waiter) {
        if !self.waiting.is_empty()
            && let Some(waits) = self.waiting.remove(&stream)
            && let Some(server) = self.servers.get_mut(&waits.issuer)
        {
            server.leave(stream);
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_waiting(&self, stream: Waiter) -> bool {
        !self.waiting.is_empty() && self.waiting.contains_key(&stream)
    }

    fn settle(&mut self, issuer: usize, over: Over, answer: Answer) -> Settled {
        let waiters = self.released(over.waiters);
        let learnt = answer.is_ok();
        let outcome = answer.unwrap_or_else(|unanswered| Err(unanswered.into()));
        Settled { waiters, issuer, token: learnt.then_some(over.token), outcome }
    }

    fn released(&mut self, waiters: Vec<Waiter>) -> Vec<(Waiter, usize)> {
        let rule = |waiter| Some((waiter, self.waiting.remove(&waiter)?.rule));
        waiters.into_iter().filter_map(rule).collect()
    }
}

/// What a server says of a token, if it says anything.
type Answer = Result<Result<Arc<Verified>, Rejection>, Unanswered>;

/// The answer to the call of the moment. `jwts` is the token as those who wait have verified it, if it is a JWT.
fn read(policy: &Policy, issuer: usize, over: &Over, jwts: &[Arc<Verified>], now: Now) -> Answer {
    let header = |name: &[u8]| host::header(MapType::HttpCallResponseHeaders, name).ok().flatten();
    let status = header(b":status").and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok());
    // Without one, the answer broke off.
    let status: u16 = status.ok_or(Failure::NoAnswer)?;
    let content_type = header(b"content-type");
    let body = host::call_body(MAX_REPLY_BYTES.saturating_add(1)).map_err(|_| Failure::NotUnderstood)?;
    if !policy.introspection(issuer).is_some_and(|server| server.is_fresh(over.sent, now.monotonic)) {
        return Err(Failure::NoAnswer.into());
    }
    let reply = Reply { status, content_type: content_type.as_deref(), body: &body };
    let mut confirmed = None;
    for jwt in jwts {
        match policy.confirm(jwt, &reply, over.sent, now)? {
            Ok(()) => confirmed = Some(Arc::clone(jwt)),
            Err(rejection) => return Ok(Err(rejection)),
        }
    }
    match confirmed {
        Some(jwt) => Ok(Ok(jwt)),
        None => Ok(policy.introspected(issuer, &over.token, &reply, over.sent, now)?.map(Arc::new)),
    }
}
