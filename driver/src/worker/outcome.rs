//! What becomes of a request: it is forwarded, or it gets a reply of the filter's own.
use super::*;

impl Worker {
    pub(super) fn open<H: Host, E: Exchange, D: Dispatch>(
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
        self.conclude(call.exchange, Outcome::Open, Some(rule), &[], None, None);
        self.expect_answer(call.stream, Some(rule), Answer { nonce, ..Answer::default() });
        Action::Continue
    }

    /// Sets the headers for the upstream. A request must not be forwarded with only some of them.
    pub(super) fn forward<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        admission: &Admission,
        cookie_session: bool,
        now: Now,
    ) -> Action {
        if let (Some(proven), Some(proofs)) = (admission.proven(), &self.core.used_proofs)
            && let Err(cause) = proofs.use_up(call.host, proven, now.wall)
        {
            let refused = Refused::new(Some(admission.rule()), Rejection::new(cause));
            return match self.core.policy.only_reports(refused.rule) {
                true => self.forward_reported(call, &refused, std::slice::from_ref(admission.removal()), now),
                false => self.refuse(call, &refused, Some(now)),
            };
        }
        call.exchange.observe(Stage::Admitted(admission));
        let set = admission
            .headers()
            .iter()
            // The client's headers of these names were removed before the rules were matched.
            .try_for_each(|(name, value)| call.exchange.edit(Edit::Add(name.as_bytes(), value.as_bytes())));
        let removed = set.and_then(|()| remove(call.exchange, admission.removal())).and_then(|()| {
            let has_proof = admission.removes_proof();
            if has_proof { call.exchange.edit(Edit::Remove(dpop::HEADER.as_bytes())) } else { Ok(()) }
        });
        if removed.is_err() {
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
        // A rule that only reports ends nothing.
        let watched =
            self.core.policy.watched(admission).filter(|_| !self.core.policy.only_reports(Some(admission.rule())));
        let is_watched = watched.is_some();
        if let Some(watched) = watched {
            let entered = call.dispatch.with(|it| it.enter_stream(call.stream, admission.rule(), watched, now));
            if entered.is_err() {
                let refused = Refused::new(Some(admission.rule()), Rejection::new(Cause::StreamsFull));
                return self.refuse(call, &refused, Some(now));
            }
        }
        for rejection in admission.reported() {
            self.report_condition(call, admission.rule(), rejection, now);
        }
        let outcome = if admission.unchecked { Outcome::AdmittedUnchecked } else { Outcome::Admitted };
        self.conclude(call.exchange, outcome, Some(admission.rule()), admission.headers(), admission.exposed(), None);
        if let Some(sighting) = self.core.policy.sighting(admission, now.monotonic) {
            call.dispatch.with(|it| it.sighted(sighting, now));
        }
        let dpop_nonce = admission.proven().and_then(|proven| proven.next_nonce.clone());
        let answer = Answer {
            is_authenticated: true,
            is_cookie_session: cookie_session,
            nonce,
            dpop_nonce,
            ..Answer::default()
        };
        if is_watched {
            self.phases.insert(call.stream, Phase::Open { rule: admission.rule(), answer, is_answered: false });
        } else {
            self.expect_answer(call.stream, Some(admission.rule()), answer);
        }
        Action::Continue
    }

    /// The reply says that the filter is present and decides. It does not say whether callouts work: a probe that fails
    /// with the service or an issuer would take every proxy out of rotation at once.
    pub(super) fn answer_probe<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        rule: usize,
    ) -> Action {
        call.exchange.observe(Stage::Answered { rule });
        self.conclude(call.exchange, Outcome::Answered, Some(rule), &[], None, None);
        let headers: [Pair<'_>; 2] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")];
        let body = br#"{"portcullis":"ready"}"#;
        self.expect_answer(call.stream, Some(rule), Answer { is_ours: true, ..Answer::default() });
        let sent = call.exchange.reply(&LocalReply { status: 200, details: "PROBE_ANSWERED", headers: &headers, body });
        self.replied(call, sent)
    }

    pub(super) fn refuse<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        Refused { rule, rejection, token, nonce, .. }: &Refused,
        now: Option<Now>,
    ) -> Action {
        let rule = *rule;
        let policy = &self.core.policy;
        let request = call.exchange.with_headers(RequestFacts::of).unwrap_or_default();
        let mut refusal = policy.refusal(rejection.reason, rule, request.id.as_deref());
        refusal.headers.extend(nonce.clone().map(|nonce| (NONCE, nonce)));
        call.exchange.observe(Stage::Refused { rule, rejection });
        if let Some(level) = refusal_level(policy.refusal_log()) {
            self.log.rejected(call.host, level, now.map(|now| now.monotonic), || {
                let at = now.map(|now| now.wall);
                let token = token.as_ref().zip(at).map(|(token, at)| token.presented(policy, at));
                let rule = rule.map(|rule| self.core.rule_name(rule));
                RefusalLine { at, request: &request, rule, status: refusal.status, rejection, token }.text()
            });
        }
        let exposed = token.as_ref().and_then(RefusedToken::exposed);
        let outcome = Outcome::Rejected(rejection.reason);
        self.conclude(call.exchange, outcome, rule, &[], exposed.map(|it| &**it), Some(rejection.cause));
        self.expect_answer(call.stream, rule, Answer { is_ours: true, ..Answer::default() });
        let sent = send(call.exchange, &refusal, rejection.reason);
        self.replied(call, sent)
    }

    /// Counts what became of a request, and tells those who come after.
    pub(super) fn conclude(
        &mut self,
        exchange: &mut impl Exchange,
        outcome: Outcome,
        rule: Option<usize>,
        headers: &[(String, String)],
        token: Option<&Exposed>,
        cause: Option<Cause>,
    ) {
        self.counts.request(outcome, rule);
        let code = match outcome {
            Outcome::Rejected(reason) | Outcome::Reported(reason) => Some(reason.code()),
            Outcome::Open | Outcome::Admitted | Outcome::AdmittedUnchecked | Outcome::Answered => None,
        };
        let rule = rule.map(|rule| self.core.rule_name(rule));
        let to = self.core.policy.exposes_to();
        let cause = cause.map(Cause::text);
        exchange.conclude(&Conclusion { outcome: outcome.name(), code, cause, rule, headers, token, to });
    }

    fn replied<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        sent: Result<(), HostError>,
    ) -> Action {
        if sent.is_err() {
            // It stays paused until the proxy's own timeout, which fails closed. Its body must not release it.
            self.phases.insert(call.stream, Phase::Unanswered);
            call.host.log(Level::Error, format_args!("portcullis: the host would not send a reply"));
        }
        Action::Replied
    }
}

/// `None`: refusals are not logged.
pub(super) fn refusal_level(log: RefusalLog) -> Option<Level> {
    match log {
        RefusalLog::Warning => Some(Level::Warn),
        RefusalLog::Info => Some(Level::Info),
        RefusalLog::Off => None,
    }
}

pub(super) fn send(exchange: &mut impl Exchange, refusal: &Refusal, reason: RejectReason) -> Result<(), HostError> {
    let headers: Vec<Pair<'_>> =
        refusal.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let (status, details) = (refusal.status, reason.code());
    exchange.reply(&LocalReply { status, details, headers: &headers, body: refusal.body.as_bytes() })
}

pub(super) fn remove(exchange: &mut impl Exchange, removal: &Removal) -> Result<(), HostError> {
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
