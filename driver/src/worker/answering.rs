//! Answers on their way to the client: headers for browsers are added, cookies of the upstream are protected. Also requests
//! that are forwarded although they would be refused.
use super::outcome::remove;
use super::*;
use crate::host::Response;

impl Worker {
    /// The headers of the answer to this request have come.
    pub fn on_response_headers(&mut self, stream: StreamId, host: &mut impl Host, response: &mut impl Response) {
        if self.phases.is_empty() {
            return;
        }
        let (rule, answer) = match self.phases.get_mut(&stream) {
            Some(Phase::Answering { rule, answer }) => (*rule, &*answer),
            Some(Phase::Open { rule, answer, is_answered }) => {
                *is_answered = true;
                (Some(*rule), &*answer)
            }
            Some(_) | None => return,
        };
        let policy = &self.core.policy;
        let changes = match policy.changes_answers(rule) {
            // The same for every answer, so it need not be read.
            false => policy.changes(rule, answer, &[]),
            true => response.with_headers(|headers| policy.changes(rule, answer, headers)).unwrap_or_else(|_| {
                host.log(Level::Error, format_args!("portcullis: the host gives no headers of an answer"));
                policy.changes_unread(rule)
            }),
        };
        let dpop_nonce =
            answer.dpop_nonce.as_ref().map(|nonce| authn::browser::Edit::Set(NONCE, nonce.as_bytes().to_vec()));
        let mut is_changed = true;
        for edit in changes.edits.iter().chain(&dpop_nonce) {
            is_changed &= response.edit(edit).is_ok();
        }
        if !is_changed {
            host.log(Level::Error, format_args!("portcullis: the host did not change the headers of an answer"));
        }
        let is_ours = answer.is_ours;
        // An open stream is known until its end.
        if is_ours || (!policy.changes_trailers(rule) && !self.watches(stream)) {
            self.phases.remove(&stream);
        }
        (0..changes.repaired).for_each(|_| self.counts.count(Counter::CookieRepaired));
        (0..changes.removed).for_each(|_| self.counts.count(Counter::CookieRemoved));
    }

    /// True when this trailer must be removed from the answer to this request.
    pub fn removes_response_trailer(&self, stream: StreamId, name: &[u8]) -> bool {
        match self.phases.get(&stream) {
            Some(Phase::Answering { rule, .. }) => self.core.policy.removes_trailer(*rule, name),
            Some(Phase::Open { rule, .. }) => self.core.policy.removes_trailer(Some(*rule), name),
            Some(_) | None => false,
        }
    }

    /// Remembers a request whose answer must be changed.
    pub(super) fn expect_answer(&mut self, stream: StreamId, rule: Option<usize>, answer: Answer) {
        if answer.is_cookie_session || answer.dpop_nonce.is_some() || self.core.policy.changes_answers(rule) {
            self.phases.insert(stream, Phase::Answering { rule, answer });
        }
    }

    /// Gives the upstream a new nonce for its answer, if the rule has one.
    pub(super) fn give_nonce<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        rule: usize,
    ) -> Result<Option<String>, Cause> {
        let Some(header) = self.core.policy.nonce_header(rule) else { return Ok(None) };
        let nonce = jose::base64url::encode(call.host.nonce().map_err(|_| Cause::NoRandomness)?);
        // The client's headers of this name were removed before the rules were matched.
        let set = call.exchange.edit(Edit::Add(header.as_bytes(), nonce.as_bytes()));
        set.map(|()| Some(nonce)).map_err(|_| Cause::HeaderUnwritable)
    }

    /// Forwards a request without identity that would be refused if its rule were enforced.
    pub(super) fn forward_reported<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        refused: &Refused,
        removals: &[Removal],
        now: Now,
    ) -> Action {
        let (rule, rejection) = (refused.rule, &refused.rejection);
        call.exchange.observe(Stage::Reported { rule, rejection });
        if removals.iter().any(|removal| remove(call.exchange, removal).is_err()) {
            return self.refuse(call, &Refused::new(rule, Rejection::new(Cause::TokenUnremovable)), Some(now));
        }
        // A proof that does not count is not the upstream's.
        if self.core.policy.removes_proofs(rule) && call.exchange.edit(Edit::Remove(dpop::HEADER.as_bytes())).is_err() {
            return self.refuse(call, &Refused::new(rule, Rejection::new(Cause::TokenUnremovable)), Some(now));
        }
        let nonce = match rule.map_or(Ok(None), |rule| self.give_nonce(call, rule)) {
            Ok(nonce) => nonce,
            Err(cause) => return self.refuse(call, &Refused::new(rule, cause.into()), Some(now)),
        };
        // Another rule may be enforced.
        let selected = call.exchange.route_rule();
        let is_of_route = match rule {
            Some(rule) => self.core.policy.is_rule_of_route(rule, selected.as_deref()),
            None => self.core.policy.is_no_rule_of_route(selected.as_deref()),
        };
        if !is_of_route {
            return self.refuse(call, &Refused::new(rule, Rejection::new(Cause::RouteChanged)), Some(now));
        }
        self.log_reported(call, refused, now);
        let outcome = Outcome::Reported(rejection.reason);
        self.conclude(call.exchange, outcome, rule, &[], None, Some(rejection.cause));
        // Without it the client would never send what the rule asks for.
        let dpop_nonce = refused.nonce.clone();
        self.expect_answer(call.stream, rule, Answer { nonce, dpop_nonce, ..Answer::default() });
        Action::Continue
    }

    /// A condition that the rule does not enforce does not hold.
    pub(super) fn report_condition<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        rule: usize,
        rejection: &Rejection,
        now: Now,
    ) {
        if rejection.reason == RejectReason::BindingMismatch {
            self.counts.count(Counter::BindingReported);
        }
        self.counts.reported(rejection.reason, rule);
        self.log_reported(call, &Refused::new(Some(rule), rejection.clone()), now);
    }

    fn log_reported<H: Host, E: Exchange, D: Dispatch>(
        &mut self,
        call: &mut Call<'_, H, E, D>,
        Refused { rule, rejection, token, .. }: &Refused,
        now: Now,
    ) {
        let policy = &self.core.policy;
        let Some(level) = refusal_level(policy.refusal_log()) else { return };
        let request = call.exchange.with_headers(RequestFacts::of).unwrap_or_default();
        self.log.reported(call.host, level, now.monotonic, || {
            let token = token.as_ref().map(|token| token.presented(policy, now.wall));
            let status = policy.refusal(rejection.reason, *rule, None).status;
            let rule = rule.map(|rule| self.core.rule_name(rule));
            RefusalLine { at: Some(now.wall), request: &request, rule, status, rejection, token }.text()
        });
    }
}
