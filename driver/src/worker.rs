//! The requests of one thread, from their headers to a decision. The dispatcher does what they wait for.
use std::collections::HashMap;
use std::sync::Arc;

use authn::browser::Answer;
use authn::decide::{
    Admission, Asking, Entered, Entry, Exposed, Removal, RevocationStatus, Unverifiable, Verified, clear,
};
use authn::keys::rings::Keyrings;
use authn::reject::{Cause, RejectReason, Rejection};
use authn::request::proxy_settings::{Settings, missing_by_path};
use authn::request::{Pair, Request};
use authn::revocation::Known;
use authn::time::Now;

use crate::counts::{Counter, Counts, FeedAnswer, Outcome};
use crate::dispatcher::{Dispatch, Introspect, KeysWanted};
use crate::feed_board::FeedReader;
use crate::host::{Conclusion, Edit, Exchange, Host, HostError, Level, LocalReply, Stage, StreamId};
use crate::missing_settings::MissingSettings;
use crate::rejection_log::RejectionLog;
use crate::state::Core;
use crate::wake::Wake;

mod answering;
mod phase;
mod step;

use phase::{Introspected, Phase};
use step::{Refused, Step};

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
        if !self.phases.is_empty() && self.phases.remove(&stream).is_some_and(|phase| phase.waits()) {
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

    /// Some upstreams take a trailer for a header. True when this trailer must be removed, because only this filter may
    /// set a header of its name, in any spelling.
    pub fn clears_trailer(&self, name: &[u8]) -> bool {
        self.core.policy.is_cleared(name)
    }

    /// The names of trailers to remove if trailers cannot be read.
    pub fn cleared(&self) -> impl Iterator<Item = &str> {
        self.core.policy.cleared()
    }

    /// Reports the counts, and the number of rejections that were not logged.
    pub fn flush(&mut self, host: &mut impl Host) {
        if let Ok(now) = host.now() {
            self.log.on_time(host, now.monotonic);
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

    fn open<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        rule: usize,
        removals: &[Removal],
        now: Now,
    ) -> Action {
        call.exchange.observe(Stage::Open { rule });
        // This token was not checked. An upstream must not take it for a checked one.
        if removals.iter().any(|removal| remove(call.exchange, removal).is_err()) {
            let refused = Refused::new(Some(rule), Rejection::new(Cause::TokenUnremovable));
            return self.refuse(call, &refused, Some(now));
        }
        let nonce = match self.give_nonce(call, rule) {
            Ok(nonce) => nonce,
            Err(cause) => return self.refuse(call, &Refused::new(Some(rule), cause.into()), Some(now)),
        };
        if !self.core.policy.is_rule_of_route(rule, call.exchange.route_rule().as_deref()) {
            let refused = Refused::new(Some(rule), Rejection::new(Cause::RouteChanged));
            return self.refuse(call, &refused, Some(now));
        }
        self.conclude(call.exchange, Outcome::Open, Some(rule), &[], None);
        self.expect_answer(call.stream, Some(rule), Answer { nonce, ..Answer::default() });
        Action::Continue
    }

    /// Sets the headers for the upstream. A request must not be forwarded with only some of them.
    fn forward<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        admission: &Admission,
        cookie_session: bool,
        now: Now,
    ) -> Action {
        call.exchange.observe(Stage::Admitted(admission));
        let set = admission
            .headers()
            .iter()
            // The client's headers of these names were removed before the rules were matched.
            .try_for_each(|(name, value)| call.exchange.edit(Edit::Add(name.as_bytes(), value.as_bytes())));
        if set.and_then(|()| remove(call.exchange, admission.removal())).is_err() {
            let refused = Refused::new(Some(admission.rule()), Rejection::new(Cause::HeaderUnwritable));
            return self.refuse(call, &refused, Some(now));
        }
        let nonce = match self.give_nonce(call, admission.rule()) {
            Ok(nonce) => nonce,
            Err(cause) => return self.refuse(call, &Refused::new(Some(admission.rule()), cause.into()), Some(now)),
        };
        // A header that was just set may lead to another route.
        if !self.core.policy.is_rule_of_route(admission.rule(), call.exchange.route_rule().as_deref()) {
            let refused = Refused::new(Some(admission.rule()), Rejection::new(Cause::RouteChanged));
            return self.refuse(call, &refused, Some(now));
        }
        for rejection in admission.reported() {
            self.report_condition(call.host, admission.rule(), rejection, now);
        }
        let outcome = if admission.unchecked { Outcome::AdmittedUnchecked } else { Outcome::Admitted };
        self.conclude(call.exchange, outcome, Some(admission.rule()), admission.headers(), admission.exposed());
        let answer = Answer { is_authenticated: true, is_cookie_session: cookie_session, nonce, ..Answer::default() };
        self.expect_answer(call.stream, Some(admission.rule()), answer);
        Action::Continue
    }

    /// The reply says that the filter is present and decides. It does not say whether callouts work: a probe that fails
    /// with the service or an issuer would take every proxy out of rotation at once.
    fn answer_probe<H: Host, E: Exchange, D: Dispatch>(&mut self, call: &mut Call<'_, H, E, D>, rule: usize) -> Action {
        call.exchange.observe(Stage::Answered { rule });
        self.conclude(call.exchange, Outcome::Answered, Some(rule), &[], None);
        let headers: [Pair<'_>; 2] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")];
        let body = br#"{"portcullis":"ready"}"#;
        self.expect_answer(call.stream, Some(rule), Answer { is_ours: true, ..Answer::default() });
        self.reply(call, &LocalReply { status: 200, details: "PROBE_ANSWERED", headers: &headers, body })
    }

    fn refuse<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        Refused { rule, rejection, exposed, .. }: &Refused,
        now: Option<Now>,
    ) -> Action {
        let rule = *rule;
        call.exchange.observe(Stage::Refused { rule, rejection });
        self.conclude(call.exchange, Outcome::Rejected(rejection.reason), rule, &[], exposed.as_deref());
        let rule_name = rule.map_or("none", |rule| self.core.rule_name(rule));
        self.log.rejected(call.host, rule_name, rejection, now.map(|now| now.monotonic));
        let refusal = self.core.policy.refusal(rejection.reason, rule);
        let headers: Vec<Pair<'_>> =
            refusal.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let (status, details) = (refusal.status, rejection.reason.code());
        self.expect_answer(call.stream, rule, Answer { is_ours: true, ..Answer::default() });
        self.reply(call, &LocalReply { status, details, headers: &headers, body: refusal.body.as_bytes() })
    }

    /// A rule does not enforce this.
    fn report_condition(&mut self, host: &mut impl Host, rule: usize, rejection: &Rejection, now: Now) {
        if rejection.reason == RejectReason::BindingMismatch {
            self.counts.count(Counter::BindingReported);
        }
        self.counts.reported(rejection.reason, rule);
        self.log.reported(host, self.core.rule_name(rule), rejection, now.monotonic);
    }

    /// Counts what became of a request, and tells those who come after.
    fn conclude(
        &mut self,
        exchange: &mut impl Exchange,
        outcome: Outcome,
        rule: Option<usize>,
        headers: &[(String, String)],
        token: Option<&Exposed>,
    ) {
        self.counts.request(outcome, rule);
        let code = match outcome {
            Outcome::Rejected(reason) | Outcome::Reported(reason) => Some(reason.code()),
            Outcome::Open | Outcome::Admitted | Outcome::AdmittedUnchecked | Outcome::Answered => None,
        };
        let rule = rule.map(|rule| self.core.rule_name(rule));
        let to = self.core.policy.exposes_to();
        exchange.conclude(&Conclusion { outcome: outcome.name(), code, rule, headers, token, to });
    }

    fn reply<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        reply: &LocalReply<'_>,
    ) -> Action {
        if call.exchange.reply(reply).is_err() {
            // It stays paused until the proxy's own timeout, which fails closed. Its body must not release it.
            self.phases.insert(call.stream, Phase::Unanswered);
            call.host.log(Level::Error, format_args!("portcullis: the host would not send a reply"));
        }
        Action::Replied
    }
}

fn owned(pairs: &[Pair<'_>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn remove(exchange: &mut impl Exchange, removal: &Removal) -> Result<(), HostError> {
    let edit = match removal {
        Removal::Nothing => return Ok(()),
        Removal::Header(name) => Edit::Remove(name),
        Removal::Cookie(None) => Edit::Remove(b"cookie"),
        Removal::Cookie(Some(rest)) => Edit::Set(b"cookie", rest),
        Removal::Subprotocols(None) => Edit::Remove(b"sec-websocket-protocol"),
        Removal::Subprotocols(Some(rest)) => Edit::Set(b"sec-websocket-protocol", rest),
    };
    exchange.edit(edit)
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
