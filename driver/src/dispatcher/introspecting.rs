//! Introspection: which request waits for which answer, and how answers change the cached tokens.
use std::collections::HashMap;
use std::sync::Arc;

use authn::decide::Verified;
use authn::introspection::{Failure, MAX_REPLY_BYTES, Reply, Unanswered};
use authn::policy::Policy;
use authn::reject::{Cause, RejectReason, Rejection};
use authn::revocation::RevocationQuery;
use authn::time::{Monotonic, Now};

use super::{Dispatcher, Owner};
use crate::counts::microseconds;
use crate::host::{Callout, CalloutReply, Host, StreamId};
use crate::introspections::{Introspections, Over, QueryId, Refusals, TokenHistory};
use crate::metrics::Metric;
use crate::state::Core;
use crate::wake::Wake;

pub struct Introspecting {
    /// By issuer.
    servers: HashMap<usize, Introspections>,
    refusals: Refusals,
    waiting: HashMap<StreamId, Waits>,
}

struct Waits {
    issuer: usize,
    /// The verified token, if it is a JWT.
    jwt: Option<Arc<Verified>>,
}

/// A question about a token.
pub(crate) struct Introspect<'t> {
    pub issuer: usize,
    pub token: &'t [u8],
    /// It was active when its issuer was last asked.
    pub was_active: bool,
    /// The verified token, if it is a JWT.
    pub jwt: Option<&'t Arc<Verified>>,
    /// The revocation query that the request will make, as far as it is known before the answer.
    pub next: Option<Arc<RevocationQuery>>,
}

/// A server's answer about a token, if there is one.
type Answer = Result<Result<Arc<Verified>, Rejection>, Unanswered>;

impl Introspecting {
    /// `seed` is random.
    pub fn new(policy: &Policy, seed: u64) -> Self {
        let limit = policy.limits().waiting_requests;
        let servers = policy
            .introspected_issuers()
            .filter_map(|issuer| Some((issuer, Introspections::new(limit, policy.introspection(issuer)?.timeout))))
            .collect();
        Self { servers, refusals: Refusals::new(seed), waiting: HashMap::new() }
    }

    pub fn leave(&mut self, stream: StreamId) {
        if let Some(waits) = self.waiting.remove(&stream)
            && let Some(server) = self.servers.get_mut(&waits.issuer)
        {
            server.leave(stream);
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Why this token was recently refused.
    fn refusal(&self, policy: &Policy, issuer: usize, token: &[u8], now: Now) -> Option<Rejection> {
        let (sent, rejection) = self.refusals.find(issuer, token)?;
        policy.introspection(issuer)?.is_fresh(sent, now.monotonic).then(|| rejection.clone())
    }
}

impl Dispatcher {
    /// There is no fresh answer for an opaque token, or for a JWT that is valid by itself. Asks its issuer's server.
    /// `None`: the request waits.
    pub(crate) fn introspect(
        &mut self,
        host: &mut impl Host,
        stream: StreamId,
        asked: Introspect<'_>,
        now: Now,
    ) -> Option<Wake> {
        let Introspect { issuer, token, was_active, jwt, next } = asked;
        let core = Arc::clone(&self.core);
        if let Some(rejection) = self.introspecting.refusal(&core.policy, issuer, token, now) {
            return Some(Wake::Introspected(Err(rejection)));
        }
        let history = if was_active { TokenHistory::WasActive } else { TokenHistory::Unknown };
        let server = self.introspecting.servers.get_mut(&issuer);
        let joined = server.map(|server| server.join(stream, token, history, now.monotonic));
        if !matches!(joined, Some(Ok(()))) {
            report(host, &core, issuer, Failure::Overload.name());
            return Some(Wake::Introspected(Err(Unanswered::from(Failure::Overload).into())));
        }
        self.introspecting.waiting.insert(stream, Waits { issuer, jwt: jwt.map(Arc::clone) });
        self.send_introspections(host, issuer, now);
        if let Some(query) = next {
            self.anticipate(host, query, now);
        }
        // The host may refuse the callout at once.
        self.take(stream)
    }

    pub(super) fn send_introspections(&mut self, host: &mut impl Host, issuer: usize, now: Now) {
        let core = Arc::clone(&self.core);
        let Some(settings) = core.policy.introspection(issuer) else { return };
        while let Some((query, token)) =
            self.introspecting.servers.get_mut(&issuer).and_then(|server| server.next_query(now.monotonic))
        {
            let question = settings.question(&token);
            let headers: Vec<(&[u8], &[u8])> =
                question.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let (cluster, body, timeout) = (settings.cluster.as_str(), question.body.as_bytes(), settings.timeout);
            match host.call(&Callout { cluster, headers: &headers, body, timeout }) {
                Ok(call) => self.calls.insert(call, Owner::Introspection { issuer, query }, timeout, now),
                Err(_) => {
                    report(host, &core, issuer, Failure::NotSent.name());
                    if let Some(over) = self.over(issuer, query) {
                        self.settle(issuer, over, Err(Failure::NotSent.into()));
                    }
                }
            }
        }
    }

    pub(super) fn on_introspection_answered(
        &mut self,
        host: &mut impl Host,
        issuer: usize,
        query: QueryId,
        sent: Monotonic,
        reply: &impl CalloutReply,
        now: Now,
    ) {
        host.record(Metric::IntrospectionMicroseconds, &[], microseconds(now.monotonic.since(sent)));
        // It may have been abandoned. Then no request waits, and its answer is too old to use.
        if let Some(over) = self.over(issuer, query) {
            self.on_answer(host, issuer, over, reply, now);
        }
        self.send_introspections(host, issuer, now);
    }

    fn on_answer(&mut self, host: &mut impl Host, issuer: usize, over: Over, reply: &impl CalloutReply, now: Now) {
        let core = Arc::clone(&self.core);
        let jwts: Vec<Arc<Verified>> =
            over.waiters.iter().filter_map(|waiter| self.introspecting.waiting.get(waiter)?.jwt.clone()).collect();
        // Without a waiting request, there is no verified JWT to store the answer with.
        if jwts.is_empty() && !core.policy.introspection(issuer).is_some_and(|server| server.is_opaque_of(&over.token))
        {
            return;
        }
        let answer = read(&core.policy, issuer, &over, &jwts, reply, now);
        let result = match &answer {
            Ok(Ok(_)) => "active",
            Ok(Err(rejection)) if rejection.reason == RejectReason::SessionUnknown => "inactive",
            Ok(Err(_)) => "not_accepted",
            Err(unanswered) => unanswered.failure.name(),
        };
        report(host, &core, issuer, result);
        if let Ok(Err(rejection)) = &answer {
            self.introspecting.refusals.remember(issuer, &over.token, over.sent, rejection.clone());
        }
        self.settle(issuer, over, answer);
    }

    /// Ends requests whose time is over, and sends questions that had to wait for their turn.
    pub(super) fn tick_introspections(&mut self, host: &mut impl Host, now: Now) {
        let core = Arc::clone(&self.core);
        for issuer in core.policy.introspected_issuers() {
            let Some(server) = self.introspecting.servers.get_mut(&issuer) else { continue };
            for stream in server.expire(now.monotonic) {
                self.introspecting.waiting.remove(&stream);
                let rejection = Rejection::new(Cause::IntrospectionTimeout);
                self.wakes.wake(stream, Wake::Introspected(Err(rejection)));
            }
            self.send_introspections(host, issuer, now);
        }
    }

    fn over(&mut self, issuer: usize, query: QueryId) -> Option<Over> {
        self.introspecting.servers.get_mut(&issuer)?.over(query)
    }

    /// Ends the wait of all requests with one token, and caches the answer.
    fn settle(&mut self, issuer: usize, over: Over, answer: Answer) {
        if let Ok(outcome) = &answer {
            let earlier = self.core.tokens.find(&over.token).filter(|earlier| earlier.issuer() == issuer);
            match outcome {
                Ok(verified) => {
                    if let Some(earlier) = earlier {
                        verified.inherit(&earlier);
                    }
                    self.core.tokens.insert(Arc::clone(verified));
                }
                Err(_) => earlier.into_iter().for_each(|earlier| earlier.end()),
            }
        }
        let outcome = answer.unwrap_or_else(|unanswered| Err(unanswered.into()));
        for stream in over.waiters {
            if self.introspecting.waiting.remove(&stream).is_some() {
                self.wakes.wake(stream, Wake::Introspected(outcome.clone()));
            }
        }
    }
}

fn report(host: &mut impl Host, core: &Core, issuer: usize, result: &str) {
    host.add(Metric::Introspections, &[core.issuer_name(issuer), result], 1);
}

/// `jwts` is the token as the waiting requests verified it, if it is a JWT.
fn read(
    policy: &Policy,
    issuer: usize,
    over: &Over,
    jwts: &[Arc<Verified>],
    reply: &impl CalloutReply,
    now: Now,
) -> Answer {
    // Without a status, the reply was cut off.
    let status = reply.status().ok_or(Failure::NoAnswer)?;
    let content_type = reply.header(b"content-type");
    let body = reply.body(MAX_REPLY_BYTES.saturating_add(1)).map_err(|_| Failure::NotUnderstood)?;
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
