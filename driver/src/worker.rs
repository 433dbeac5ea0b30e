//! The requests of one thread, from their headers to a decision. The dispatcher does what they wait for.
use std::collections::HashMap;
use std::sync::Arc;

use authn::browser::Answer;
use authn::config::RefusalLog;
use authn::decide::{
    Accepted, Admission, Asking, BeforeClaim, Entered, Entry, Exposed, Refusal, Removal, RevocationStatus,
    Unverifiable, Verified, clear,
};
use authn::dpop;
use authn::keys::rings::Keyrings;
use authn::reject::{Cause, RejectReason, Rejection};
use authn::request::proxy_settings::{Settings, missing_by_path};
use authn::request::{Pair, Request};
use authn::revocation::Known;
use authn::time::Now;
use wire::check::UsedProof;

use crate::counts::{Counter, Counts, FeedAnswer, Outcome};
use crate::dispatcher::{Dispatch, Introspect, KeysWanted};
use crate::feed_board::FeedReader;
use crate::host::{Conclusion, Edit, Exchange, Host, HostError, Level, LocalReply, Stage, StreamId};
use crate::missing_settings::MissingSettings;
use crate::refusal_line::{RefusalLine, RequestFacts};
use crate::rejection_log::RejectionLog;
use crate::state::Core;
use crate::used_proofs::UsedProofs;
use crate::wake::Wake;

mod answering;
mod outcome;
mod phase;
mod step;

use outcome::{refusal_level, send};
use phase::{Introspected, Phase};
use step::{Refused, RefusedToken, Step};

/// What the host must do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Forward it, or resume it if it waited.
    Continue,
    /// Hold it, with headers, body and trailers. [`crate::Dispatcher::poll_wake`] names it when it is to be resumed.
    Pause,
    /// It has its reply, or will end at the proxy's own timeout. Nothing of it is forwarded.
    Replied,
}

/// One for each thread and configuration.
pub struct Worker {
    core: Arc<Core>,
    /// The last published key sets, and the number of that publication.
    keys: (u64, Arc<Keyrings>),
    /// The last published picture of revocations. `None`: the feed is not followed.
    feed: Option<FeedReader>,
    /// Requests that wait, and those that need work at their end. Most requests are never here.
    phases: HashMap<StreamId, Phase>,
    missing_settings: MissingSettings,
    log: RejectionLog,
    counts: Counts,
}

/// RFC 9449 section 8.1.
const NONCE: &str = "dpop-nonce";

/// One callback for one request.
struct Call<'c, H, E, D> {
    stream: StreamId,
    host: &'c mut H,
    exchange: &'c mut E,
    dispatch: &'c mut D,
}

impl Worker {
    pub fn new(core: Arc<Core>) -> Self {
        let keys = core.keys.newest();
        let feed = core.policy.revocation().and_then(|revocation| revocation.feed).map(|_| FeedReader::default());
        Self {
            core,
            keys,
            feed,
            phases: HashMap::new(),
            missing_settings: MissingSettings::default(),
            log: RejectionLog::default(),
            counts: Counts::default(),
        }
    }

    /// The headers of a request have come. `ends`: it has no body.
    pub fn begin<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        stream: StreamId,
        ends: bool,
        host: &mut H,
        exchange: &mut E,
        dispatch: &mut D,
    ) -> Action {
        let mut call = Call { stream, host, exchange, dispatch };
        let Ok(now) = call.host.now() else {
            return self.refuse(&mut call, &Refused::new(None, Rejection::new(Cause::NoTime)), None);
        };
        self.read_newest_keys();
        self.read_newest_feed(call.host, call.dispatch, now);
        let selected = call.exchange.route_rule();
        let judged = call.exchange.with_headers(|pairs| {
            let judged = self.judge(pairs, selected.as_deref(), !ends, &*call.exchange, now);
            // For a second judgement, which must see the request as received.
            let received = (!judged.edits.is_empty()).then(|| owned(pairs));
            (judged, received)
        });
        let Ok((mut judged, received)) = judged else {
            return self.refuse(&mut call, &Refused::new(None, Rejection::new(Cause::HeadersUnreadable)), Some(now));
        };
        self.missing_settings.on_request(call.host, judged.missing, &mut self.counts);
        // Before anything else, so that every exit removes the headers that only this filter may set.
        if self.clear(call.exchange, &judged.edits).is_err() {
            return self.refuse(&mut call, &Refused::new(None, Rejection::new(Cause::HeaderUnchangeable)), Some(now));
        }
        // What was removed may have led to the route. A route that the client chose so must not choose the rule.
        if let Some(received) = received {
            let route_rule = call.exchange.route_rule();
            if route_rule != selected {
                let pairs: Vec<Pair<'_>> = received.iter().map(|(name, value)| (&**name, &**value)).collect();
                judged = self.judge(&pairs, route_rule.as_deref(), !ends, &*call.exchange, now);
            }
        }
        self.advance(&mut call, judged.step, now)
    }

    /// The event that a request waited for has come.
    pub fn resume<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        stream: StreamId,
        host: &mut H,
        exchange: &mut E,
        dispatch: &mut D,
    ) -> Action {
        if !self.phases.get(&stream).is_some_and(Phase::waits) {
            return Action::Pause;
        }
        let Some(wake) = dispatch.with(|dispatcher| dispatcher.take(stream)) else { return Action::Pause };
        let Some(phase) = self.phases.remove(&stream) else { return Action::Pause };
        let mut call = Call { stream, host, exchange, dispatch };
        let Ok(now) = call.host.now() else {
            return self.refuse(&mut call, &Refused::new(phase.rule(), Rejection::new(Cause::NoTime)), None);
        };
        self.read_newest_keys();
        self.read_newest_feed(call.host, call.dispatch, now);
        let step = self.after(phase, wake, &*call.exchange, now);
        self.advance(&mut call, step, now)
    }

    /// The request is over, with or without a reply.
    pub fn gone(&mut self, stream: StreamId, dispatch: &mut impl Dispatch) {
        // Most requests never wait, and looking each of them up would cost more than deciding it.
        if !self.phases.is_empty()
            && self.phases.remove(&stream).is_some_and(|phase| phase.waits() || matches!(phase, Phase::Open { .. }))
        {
            dispatch.with(|dispatcher| dispatcher.leave(stream));
        }
    }

    /// False for most requests: nothing happens in [`Worker::on_response_headers`] and [`Worker::gone`] then.
    pub fn knows(&self, stream: StreamId) -> bool {
        !self.phases.is_empty() && self.phases.contains_key(&stream)
    }

    /// True when its body and trailers must be held.
    pub fn is_held(&self, stream: StreamId) -> bool {
        !self.phases.is_empty() && self.phases.get(&stream).is_some_and(Phase::is_held)
    }

    /// True for a stream that may have to be ended: it is named by [`crate::Dispatcher::poll_end`] then.
    pub fn watches(&self, stream: StreamId) -> bool {
        !self.phases.is_empty() && matches!(self.phases.get(&stream), Some(Phase::Open { .. }))
    }

    /// Ends a stream whose session or token has ended. A client that has no response yet gets the refusal.
    pub fn end<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        stream: StreamId,
        host: &mut H,
        exchange: &mut E,
        dispatch: &mut D,
    ) {
        let Some(Phase::Open { is_answered, .. }) = self.phases.get(&stream) else { return };
        let is_answered = *is_answered;
        let Some((rule, cause)) = dispatch.with(|it| it.ending(stream)) else { return };
        let ended = match is_answered {
            true => exchange.reset(),
            false => send(exchange, &self.core.policy.refusal(cause.reason(), Some(rule), None), cause.reason()),
        };
        if let Err(HostError(status)) = ended {
            // It is named again at the next tick.
            return host.log(Level::Error, format_args!("portcullis: the host did not end a stream: status {status}"));
        }
        self.phases.remove(&stream);
        if !is_answered {
            self.expect_answer(stream, Some(rule), Answer { is_ours: true, ..Answer::default() });
        }
        dispatch.with(|it| it.leave(stream));
        self.counts.count(Counter::StreamEnded(cause));
        if let Some(level) = refusal_level(self.core.policy.refusal_log()) {
            let now = host.now().ok().map(|now| now.monotonic);
            self.log.ended(host, self.core.rule_name(rule), cause, level, now);
        }
    }

    /// Some upstreams take a trailer for a header. True when this trailer must be removed, because only this filter may
    /// set a header of its name, in any spelling.
    pub fn clears_trailer(&self, name: &[u8]) -> bool {
        self.core.policy.is_cleared(name)
    }

    /// The names of trailers to remove if trailers cannot be read.
    pub fn cleared(&self) -> impl Iterator<Item = &str> {
        self.core.policy.cleared()
    }

    /// Reports the counts, and the number of refusals that were not logged.
    pub fn flush(&mut self, host: &mut impl Host) {
        if let Ok(now) = host.now()
            && let Some(level) = refusal_level(self.core.policy.refusal_log())
        {
            self.log.on_time(host, level, now.monotonic);
        }
        self.counts.flush(host, |rule| self.core.rule_name(rule));
    }

    /// How many requests wait here.
    pub fn waiting(&self) -> usize {
        self.phases.values().filter(|phase| phase.waits()).count()
    }

    fn read_newest_keys(&mut self) {
        if self.keys.0 != self.core.keys.version() {
            self.keys = self.core.keys.newest();
        }
    }

    fn read_newest_feed(&mut self, host: &mut impl Host, dispatch: &mut impl Dispatch, now: Now) {
        let Some(feed) = &mut self.feed else { return };
        feed.read(&self.core.feed);
        let lag = self.core.policy.revocation().and_then(|revocation| revocation.feed).map(|feed| feed.lag);
        if lag.is_some_and(|lag| !feed.known().is_fresh(lag, now.monotonic)) {
            dispatch.with(|dispatcher| dispatcher.catch_up(host, now));
            feed.read(&self.core.feed);
        }
    }

    fn known(&self) -> Option<Known<'_>> {
        self.feed.as_ref().map(FeedReader::known)
    }

    fn clear(&mut self, exchange: &mut impl Exchange, edits: &[OwnedEdit]) -> Result<(), HostError> {
        if edits.is_empty() {
            return Ok(());
        }
        let mut cleared = Ok(());
        for edit in edits {
            if let OwnedEdit::Remove(_) = edit {
                self.counts.count(Counter::SpoofedHeader);
            }
            // All of them are tried, so that as many as possible are removed.
            cleared = exchange.edit(edit.as_edit()).and(cleared);
        }
        // Routes can match the host, the path and any header.
        cleared.and_then(|()| exchange.choose_route_anew())
    }

    /// Advances a request as far as it goes now.
    fn advance<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        mut step: Step,
        now: Now,
    ) -> Action {
        loop {
            let stream = call.stream;
            let (wake, phase) = match step {
                Step::Refuse(refused) => {
                    return match &refused.reported {
                        Some(removals) => self.forward_reported(call, &refused, removals, now),
                        None => self.refuse(call, &refused, Some(now)),
                    };
                }
                Step::Open { rule, removals } => return self.open(call, rule, &removals, now),
                Step::Probe { rule } => return self.answer_probe(call, rule),
                Step::Admit { admission, cookie_session } => {
                    if let Some(query) = admission.refresh() {
                        call.dispatch.with(|dispatcher| dispatcher.refresh(call.host, query, now));
                    }
                    return self.forward(call, &admission, cookie_session, now);
                }
                Step::Check { asking, cookie_session } => {
                    call.exchange.observe(Stage::Asking(&asking));
                    let question = (asking.query(), asking.not_before());
                    let wake = call.dispatch.with(|it| it.check(call.host, stream, question, now));
                    (wake, Phase::Checking { asking, cookie_session })
                }
                Step::Claim { accepted, proof, cookie_session } => {
                    if let Err(cause) = self.may_be_used(call.host, &accepted, now) {
                        step = self.refused_verified(&accepted, cause.into());
                        continue;
                    }
                    let next = self.core.policy.worth_asking(accepted.verified(), accepted.rule(), self.known(), now);
                    if let Some(query) = &next {
                        call.exchange.observe(Stage::Claiming { verified: accepted.verified(), query });
                    }
                    let wake = call.dispatch.with(|it| it.claim(call.host, stream, proof, next, now));
                    (wake, Phase::Claiming { accepted, cookie_session })
                }
                Step::AwaitKeys { entered, issuer, rejection } => {
                    let generation = self.keys.1.source(issuer).map_or(0, |source| source.generation());
                    let is_mismatch = rejection.cause == Cause::SignatureMismatch;
                    let wanted = KeysWanted { issuer, generation, is_mismatch };
                    let wake = call.dispatch.with(|it| it.await_keys(call.host, stream, wanted, now));
                    self.read_newest_keys();
                    (wake, Phase::AwaitingKeys { entered, rejection })
                }
                Step::Introspect { issuer, subject } => {
                    call.exchange.observe(Stage::Introspecting { issuer });
                    let wake = self.introspect(call, issuer, &subject, now);
                    (wake, Phase::Introspecting { subject })
                }
            };
            match wake {
                Some(wake) => step = self.after(phase, wake, &*call.exchange, now),
                None => {
                    self.phases.insert(stream, phase);
                    return Action::Pause;
                }
            }
        }
    }

    /// What this process can tell of its proof alone.
    fn may_be_used(&self, host: &mut impl Host, accepted: &Accepted, now: Now) -> Result<(), Cause> {
        match (accepted.claim(&self.core.policy), &self.core.used_proofs) {
            (Some(proven), Some(proofs)) => proofs.may_be_used(host, proven, now.wall),
            (None, _) | (_, None) => Ok(()),
        }
    }

    fn introspect<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        issuer: usize,
        subject: &Introspected,
        now: Now,
    ) -> Option<Wake> {
        let (token, jwt) = (subject.token(), subject.jwt());
        // The revocation query of a JWT is known before the answer. That of an opaque token is known if an earlier
        // answer is.
        let earlier = self.core.active_token(token, issuer);
        let next = jwt.or(earlier.as_ref());
        let next = next.and_then(|known| self.core.policy.worth_asking(known, subject.rule(), self.known(), now));
        let asked = Introspect { issuer, token, was_active: earlier.is_some(), jwt, next };
        call.dispatch.with(|it| it.introspect(call.host, call.stream, asked, now))
    }
}

fn owned(pairs: &[Pair<'_>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Like [`Edit`], but owned: it does not borrow the headers.
enum OwnedEdit {
    Remove(Vec<u8>),
    Set(&'static str, Vec<u8>),
}

impl OwnedEdit {
    fn as_edit(&self) -> Edit<'_> {
        match self {
            OwnedEdit::Remove(name) => Edit::Remove(name),
            OwnedEdit::Set(name, value) => Edit::Set(name.as_bytes(), value),
        }
    }
}

impl From<clear::Edit<'_>> for OwnedEdit {
    fn from(edit: clear::Edit<'_>) -> Self {
        match edit {
            clear::Edit::Remove(name) => OwnedEdit::Remove(name.to_vec()),
            clear::Edit::Set(name, value) => OwnedEdit::Set(name, value),
        }
    }
}
