//! Checks: from a revocation query to a verdict, from the service or from another worker.
use std::sync::Arc;

use authn::decide::Unavailable;
use authn::policy::Policy;
use authn::reject::Cause;
use authn::revocation::{Revocation, RevocationQuery, Verdict};
use authn::time::{Monotonic, Now, UnixSeconds};
use wire::DerivedKeys;
use wire::check::{self, Claimed, Needs, Question, QuestionError, Reply, StoreError, UsedProof};

use super::{Dispatcher, Owner};
use crate::checks::{Batch, BatchId, Checks, Resolved, Trigger};
use crate::claims::Claims;
use crate::counts::{CheckFailure, Counter, microseconds};
use crate::host::{CallId, Callout, CalloutReply, Host, PutError, StreamId};
use crate::metrics::Metric;
use crate::shared::{Namespace, SharedVerdicts};
use crate::streams::Urgency;
use crate::wake::Wake;

/// How often another worker may change a slot between our read and our write before we give up.
const CAS_TRIES: u32 = 3;
/// For Envoy's router: an instance that cannot be reached, or that resets the connection, is no answer. A 503 is not retried:
/// it is the service's own statement about its store.
pub const RETRY_ON: &[u8] = b"connect-failure,refused-stream,reset";
/// Retries of one callout, all within its timeout: enough until Envoy ejects a dead instance.
pub const RETRIES: &[u8] = b"6";

pub struct Checking {
    checks: Checks,
    claims: Claims,
    shared: Option<SharedVerdicts>,
    nonces: Nonces,
}

/// Values that never repeat: random for each dispatcher, then counted.
struct Nonces {
    random: [u8; 8],
    count: u64,
}

impl Checking {
    pub fn new(policy: &Policy, revocation: &Revocation, random: [u8; 8]) -> Self {
        let limits = policy.limits();
        Self {
            checks: Checks::new(limits.waiting_requests, revocation.timeout, revocation.shared_answers_serve()),
            claims: Claims::new(limits.waiting_requests, revocation.timeout),
            shared: SharedVerdicts::new(Namespace::new(&revocation.derived, policy.digest()), limits.shared_verdicts),
            nonces: Nonces { random, count: 0 },
        }
    }

    pub fn waiting(&self) -> usize {
        self.checks.waiting().saturating_add(self.claims.waiting())
    }

    /// The next batch of keys, with the proofs that wait.
    fn next_batch(&mut self, trigger: Trigger, now: Monotonic) -> Option<(Batch, Vec<UsedProof>)> {
        let batch = self.checks.next_batch(trigger, self.claims.are_queued(), now)?;
        let proofs = self.claims.take(batch.id);
        Some((batch, proofs))
    }

    pub fn next_nonce(&mut self) -> [u8; 16] {
        self.nonces.next()
    }

    /// Asks about the session of an open stream. False if there is no room for the question now.
    pub fn ask_about_stream(&mut self, query: &Arc<RevocationQuery>, urgency: Urgency) -> bool {
        let query = Arc::clone(query);
        match urgency {
            Urgency::AtOnce => self.checks.anticipate(query),
            Urgency::Soon => self.checks.refresh(query),
        }
    }

    /// The feed has brought revocations.
    pub fn forget_answers(&mut self, now: Monotonic) {
        self.checks.forget_answers(now);
    }

    pub fn leave(&mut self, stream: StreamId) {
        self.checks.leave(stream);
        self.claims.leave(stream);
    }
}

impl Dispatcher {
    /// A request needs a verdict, and its token has no fresh one. `None`: it waits.
    pub(crate) fn check(
        &mut self,
        host: &mut impl Host,
        stream: StreamId,
        (query, not_before): (&Arc<RevocationQuery>, Monotonic),
        now: Now,
    ) -> Option<Wake> {
        let shared = self.fresh_shared_verdict(host, query, now).filter(|(sent, _)| *sent >= not_before);
        let Some((sent, verdict)) = shared else {
            self.counts.count(Counter::SharedMiss);
            let joined = self.checking.as_mut().map(|it| it.checks.join(stream, Arc::clone(query), now.monotonic));
            if !matches!(joined, Some(Ok(()))) {
                return Some(Wake::CannotTell(Unavailable::Overload, Cause::ChecksFull));
            }
            let is_ready = self.checking.as_ref().is_some_and(|it| it.checks.may_send());
            if is_ready && !host.sends_checks_later() {
                self.send_checks(host, Trigger::Waiters, now);
            }
            // The host may refuse the callout at once.
            return self.take(stream);
        };
        self.counts.count(Counter::SharedHit);
        Some(Wake::Verdict { sent, verdict })
    }

    /// A proof must not have been used before at any proxy. `next`: the revocation query that follows, which goes with it.
    /// `None`: the request waits.
    pub(crate) fn claim(
        &mut self,
        host: &mut impl Host,
        stream: StreamId,
        proof: UsedProof,
        next: Option<Arc<RevocationQuery>>,
        now: Now,
    ) -> Option<Wake> {
        let shared = next.as_ref().and_then(|query| self.fresh_shared_verdict(host, query, now));
        if let (Some(query), Some((sent, verdict))) = (&next, shared) {
            query.learn(sent, verdict);
            if verdict != Verdict::Live {
                return Some(Wake::Claimed(Err(Cause::Revoked)));
            }
        }
        let joined = self.checking.as_mut().map(|it| it.claims.join(stream, proof, now.monotonic));
        if !matches!(joined, Some(Ok(()))) {
            return Some(Wake::Claimed(Err(Cause::ChecksFull)));
        }
        if let (Some(query), None, Some(checking)) = (next, shared, &mut self.checking) {
            checking.checks.anticipate(query);
        }
        let is_ready = self.checking.as_ref().is_some_and(|it| it.checks.may_send());
        if is_ready && !host.sends_checks_later() {
            self.send_checks(host, Trigger::Waiters, now);
        }
        self.take(stream)
    }

    /// A verdict in use will soon be stale. Takes a newer one of another worker, or asks the service again. No request
    /// waits for that.
    pub(crate) fn refresh(&mut self, host: &mut impl Host, query: &Arc<RevocationQuery>, now: Now) {
        if let Some((sent, verdict)) = self.shared_verdict(host, query.digest()) {
            query.learn(sent, verdict);
            let revocation = self.core.policy.revocation();
            if revocation.is_some_and(|revocation| revocation.is_young(sent, now.monotonic)) {
                self.counts.count(Counter::SharedHit);
                return;
            }
        }
        if let Some(checking) = &mut self.checking {
            checking.checks.refresh(Arc::clone(query));
        }
    }

    /// Asks in advance for the verdict that a request will need, while it waits for something else.
    pub(super) fn anticipate(&mut self, host: &mut impl Host, query: Arc<RevocationQuery>, now: Now) {
        if self.fresh_shared_verdict(host, &query, now).is_none()
            && let Some(checking) = &mut self.checking
        {
            checking.checks.anticipate(query);
            self.send_checks(host, Trigger::Waiters, now);
        }
    }

    /// Sends the checks that the host was told of by [`Host::sends_checks_later`].
    pub fn send_waiting(&mut self, host: &mut impl Host) {
        // Without the time, nothing is sent: the deadlines of the requests end their wait.
        if let Ok(now) = host.now() {
            self.send_checks(host, Trigger::Waiters, now);
        }
    }

    pub(super) fn send_checks(&mut self, host: &mut impl Host, trigger: Trigger, now: Now) {
        // An operator who sees a first token pass may want to revoke it at once.
        self.announce(host, now);
        while let Some((batch, proofs)) = self.checking.as_mut().and_then(|it| it.next_batch(trigger, now.monotonic)) {
            host.record(Metric::CheckTokens, &[], u64::try_from(batch.tokens).unwrap_or(u64::MAX));
            let owner = |question| Owner::Check { batch: batch.id, question };
            let asking = |derived: &DerivedKeys, nonce, needs| match proofs.as_slice() {
                [] => Question::new(derived, nonce, needs, &batch.keys),
                proofs => Question::with_proofs(derived, nonce, needs, &batch.keys, proofs),
            };
            if self.ask_service(host, asking, owner, now) {
                self.counts.count(Counter::CheckSent);
                (0..batch.refreshes).for_each(|_| self.counts.count(Counter::RefreshedAhead));
            } else {
                self.counts.count(Counter::CheckFailed(CheckFailure::NotSent));
                self.checks_failed(batch.id, Unavailable::OutOfReach, Cause::CheckNotSent);
            }
        }
    }

    /// Sends a check to the service. Returns false if it was not sent.
    pub(super) fn ask_service(
        &mut self,
        host: &mut impl Host,
        asking: impl FnOnce(&DerivedKeys, [u8; 16], Needs) -> Result<Question, QuestionError>,
        owner: impl FnOnce(Question) -> Owner,
        now: Now,
    ) -> bool {
        let core = Arc::clone(&self.core);
        let Some(revocation) = core.policy.revocation() else { return false };
        let Some((nonce, needs)) = self.next_message(now) else { return false };
        let Ok(question) = asking(&revocation.derived, nonce, needs) else { return false };
        let call = call_service(host, revocation, (check::PATH, check::CONTENT_TYPE), question.bytes());
        let Some(call) = call else { return false };
        self.calls.insert(call, owner(question), revocation.timeout, now);
        true
    }

    /// What each message to the service has.
    pub(super) fn next_message(&mut self, now: Now) -> Option<([u8; 16], Needs)> {
        let revocation = self.core.policy.revocation()?;
        Some((self.checking.as_mut()?.next_nonce(), needs(revocation, now.wall)))
    }

    pub(super) fn on_check_answered(
        &mut self,
        host: &mut impl Host,
        (batch, question, sent): (BatchId, &Question, Monotonic),
        reply: &impl CalloutReply,
        now: Now,
    ) {
        host.record(Metric::CheckMicroseconds, &[], microseconds(now.monotonic.since(sent)));
        let read = self.read_reply(question, reply);
        let regions = read.as_ref().ok().map(|reply| reply.regions);
        let may_count = regions.is_none_or(|regions| self.regions_allow(host, regions, sent, now));
        match read {
            Ok(reply) if may_count => {
                let Some(checking) = &mut self.checking else { return };
                let claims = checking.claims.answered(batch, &reply.claims);
                let answered = checking.checks.answered(batch, &reply);
                // What the service says of a token is known before the request that waits for its proof goes on.
                match answered {
                    Ok(resolved) => resolved.into_iter().for_each(|resolved| self.resolve(host, resolved)),
                    Err(waiters) => {
                        self.cannot_tell(waiters, Unavailable::NotToBeTrusted, Cause::CheckMismatch);
                    }
                }
                for (stream, claimed) in claims {
                    self.wakes.wake(stream, Wake::Claimed(outcome(claimed)));
                }
            }
            read => {
                let failure = read.err().unwrap_or(CheckFailure::Service(StoreError::RegionsBehind));
                self.counts.count(Counter::CheckFailed(failure));
                let (reason, cause) = meaning(failure);
                self.checks_failed(batch, reason, cause);
            }
        }
    }

    pub(super) fn read_reply(&self, question: &Question, reply: &impl CalloutReply) -> Result<Reply, CheckFailure> {
        let revocation = self.core.policy.revocation().ok_or(CheckFailure::NoProof)?;
        // Without a status, the reply was cut off.
        let status = reply.status().ok_or(CheckFailure::NoAnswer)?;
        let body = reply.body(check::MAX_REPLY_BYTES.saturating_add(1)).map_err(|_| CheckFailure::NoProof)?;
        match question.read_reply(&revocation.derived, status, &body) {
            Ok(reply) => reply.map_err(CheckFailure::Service),
            // Envoy's own reply for an upstream that is down or too slow.
            Err(_) if matches!(status, 503 | 504) => Err(CheckFailure::NoAnswer),
            Err(_) => Err(CheckFailure::NoProof),
        }
    }

    pub(super) fn tick_checks(&mut self, host: &mut impl Host, now: Now) {
        let late = self.checking.as_mut().map(|it| it.checks.expire(now.monotonic)).unwrap_or_default();
        self.cannot_tell(late, Unavailable::OutOfReach, Cause::CheckTimeout);
        let late = self.checking.as_mut().map(|it| it.claims.expire(now.monotonic)).unwrap_or_default();
        self.refuse_claims(late, Cause::ClaimUnanswered);
        self.drop_refreshes(host, now);
        self.send_checks(host, Trigger::Tick, now);
    }

    /// Several workers may queue a refresh of one token, each for its own tick. Those whose tick comes after the first
    /// answer take that answer.
    fn drop_refreshes(&mut self, host: &mut impl Host, now: Now) {
        let (Some(revocation), Some(checking)) = (self.core.policy.revocation(), &mut self.checking) else { return };
        let (Checking { checks, shared, .. }, streams) = (checking, &mut self.streams);
        let again_after = revocation.ask_again_after();
        checks.retain_refreshes(|query| {
            let Some((sent, verdict)) = shared_verdict(shared.as_ref(), host, query.digest()) else { return true };
            query.learn(sent, verdict);
            streams.learn(query.digest(), sent, verdict);
            if streams.needs_newer(query.digest(), sent, again_after, now.monotonic) {
                return true;
            }
            !revocation.is_young(sent, now.monotonic)
        });
    }

    pub(super) fn checks_failed(&mut self, batch: BatchId, reason: Unavailable, cause: Cause) {
        let waiters = self.checking.as_mut().map(|it| it.checks.failed(batch)).unwrap_or_default();
        self.cannot_tell(waiters, reason, cause);
        let claims = self.checking.as_mut().map(|it| it.claims.failed(batch)).unwrap_or_default();
        self.refuse_claims(claims, cause);
    }

    fn refuse_claims(&mut self, waiters: Vec<StreamId>, cause: Cause) {
        for stream in waiters {
            self.wakes.wake(stream, Wake::Claimed(Err(cause)));
        }
    }

    fn cannot_tell(&mut self, waiters: Vec<StreamId>, reason: Unavailable, cause: Cause) {
        for stream in waiters {
            self.wakes.wake(stream, Wake::CannotTell(reason, cause));
        }
    }

    fn resolve(&mut self, host: &mut impl Host, resolved: Resolved) {
        let Some(verdict) = resolved.verdict else {
            let failure = CheckFailure::Service(StoreError::RetentionTooShort);
            self.counts.count(Counter::CheckFailed(failure));
            let (reason, cause) = meaning(failure);
            return self.cannot_tell(resolved.waiters, reason, cause);
        };
        // Another worker may have learned of a revocation since: the newer of the two counts here too.
        let (sent, verdict) = self.share(host, resolved.query.digest(), (resolved.sent, verdict));
        resolved.query.learn(sent, verdict);
        self.streams.learn(resolved.query.digest(), sent, verdict);
        for stream in resolved.waiters {
            self.wakes.wake(stream, Wake::Verdict { sent, verdict });
        }
    }

    fn fresh_shared_verdict(
        &self,
        host: &mut impl Host,
        query: &RevocationQuery,
        now: Now,
    ) -> Option<(Monotonic, Verdict)> {
        let (sent, verdict) = self.shared_verdict(host, query.digest())?;
        self.core.policy.revocation()?.is_fresh(sent, now.monotonic).then_some((sent, verdict))
    }

    fn shared_verdict(&self, host: &mut impl Host, digest: &[u8; 16]) -> Option<(Monotonic, Verdict)> {
        shared_verdict(self.checking.as_ref()?.shared.as_ref(), host, digest)
    }

    /// Offers a verdict to the other workers, and returns theirs if it is newer.
    fn share(&self, host: &mut impl Host, digest: &[u8; 16], ours: (Monotonic, Verdict)) -> (Monotonic, Verdict) {
        let Some(shared) = self.checking.as_ref().and_then(|it| it.shared.as_ref()) else { return ours };
        let key = shared.key(digest);
        for _ in 0..CAS_TRIES {
            let Ok(found) = host.shared_get(&key) else { return ours };
            let (bytes, cas) = found.unwrap_or_default();
            if let Some(theirs) = shared.read(digest, &bytes)
                && theirs.0 > ours.0
            {
                return theirs;
            }
            match host.shared_put(&key, &shared.write(digest, ours.0, ours.1), cas) {
                Err(PutError::Changed) => {}
                Ok(()) | Err(PutError::Host(_)) => return ours,
            }
        }
        ours
    }
}

fn shared_verdict(
    shared: Option<&SharedVerdicts>,
    host: &mut impl Host,
    digest: &[u8; 16],
) -> Option<(Monotonic, Verdict)> {
    let (bytes, _) = host.shared_get(&shared?.key(digest)).ok()??;
    shared?.read(digest, &bytes)
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

fn outcome(claimed: Option<Claimed>) -> Result<(), Cause> {
    match claimed {
        Some(Claimed::First) => Ok(()),
        Some(Claimed::Again) => Err(Cause::ProofReplayed),
        Some(Claimed::Unknown) => Err(Cause::ClaimFailed),
        None => Err(Cause::CheckMismatch),
    }
}

/// Sends a message to the service.
pub(super) fn call_service(
    host: &mut impl Host,
    revocation: &Revocation,
    (path, content_type): (&str, &str),
    body: &[u8],
) -> Option<CallId> {
    let headers: [(&[u8], &[u8]); 7] = [
        (b":method", b"POST"),
        (b":path", path.as_bytes()),
        (b":authority", revocation.authority.as_bytes()),
        (b":scheme", b"http"),
        (b"content-type", content_type.as_bytes()),
        // Envoy's router removes them.
        (b"x-envoy-retry-on", RETRY_ON),
        (b"x-envoy-max-retries", RETRIES),
    ];
    let (cluster, timeout) = (revocation.cluster.as_str(), revocation.timeout);
    host.call(&Callout { cluster, headers: &headers, body, timeout }).ok()
}

pub(super) fn needs(revocation: &Revocation, wall: UnixSeconds) -> Needs {
    let needs = Needs {
        // The policy caps it far below.
        future_iat_tolerance_seconds: u16::try_from(revocation.future_iat_tolerance).unwrap_or(u16::MAX),
        now_seconds: wall.0,
    };
    if revocation.regions.is_some() { needs.asking_about_regions() } else { needs }
}

/// The result of a check without an answer, for the requests that wait for it.
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
                | StoreError::ClockBehind
                | StoreError::RegionsBehind => NotToBeTrusted,
            };
            (reason, error.into())
        }
    }
}
