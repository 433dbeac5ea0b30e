//! What is printed of each step. The driver takes the steps; these are the words for them.
use std::sync::Arc;

use authn::config::{Document, EndOn, Mode, OneOrMany, RevocationMode};
use authn::credentials::Source;
use authn::decide::{Admission, Asking, Entered, Verified};
use authn::engine::Portable;
use authn::introspection::Reply;
use authn::revocation::{RevocationQuery, Verdict};
use authn::time::{Monotonic, Now, UnixSeconds};
use driver::{Core, Stage, Wake};
use jose::json::{Json, Number, Object};
use jose::{Family, base64url};

use super::Answer;
use crate::instant::date;

/// The monotonic clock does not move while a request is explained.
pub const NOW: Monotonic = Monotonic(1_000_000_000_000);

pub struct Steps<'e> {
    pub core: Arc<Core>,
    pub document: &'e Document,
    /// Secrets with a placeholder.
    pub assumed: &'e [String],
    pub at: UnixSeconds,
    /// The service's, if it is asked. `None`: the option is not given.
    pub answer: Option<Answer>,
    /// The real servers are asked.
    pub is_live: bool,
    pub show_claims: bool,
    pub taken: Vec<(&'static str, String)>,
    progress: Progress,
}

/// What the earlier steps were about.
#[derive(Default)]
struct Progress {
    rule: Option<usize>,
    verified: Option<Arc<Verified>>,
    /// The revocation query, once it is sent.
    asked: Option<Arc<RevocationQuery>>,
}

impl<'e> Steps<'e> {
    pub fn new(explain: &super::Explain, core: Arc<Core>, document: &'e Document, assumed: &'e [String]) -> Self {
        let super::Explain { at, answer, live, show_claims, .. } = *explain;
        let (taken, progress) = (Vec::new(), Progress::default());
        Self { core, document, assumed, at, answer, is_live: live, show_claims, taken, progress }
    }

    pub fn step(&mut self, step: &'static str, says: impl Into<String>) {
        self.taken.push((step, says.into()));
    }

    /// The service was needed, and nothing is known of its answer.
    pub fn asked_in_vain(&self) -> bool {
        self.progress.asked.is_some() && self.answer.is_none() && !self.is_live
    }

    pub fn on_stage(&mut self, stage: Stage<'_>) {
        match stage {
            Stage::Entered(entered) => self.entered(entered),
            Stage::Verified(verified) => self.verified(verified),
            Stage::Accepted => self.accepted(),
            Stage::Introspecting { issuer } => self.introspecting(issuer),
            Stage::Asking(asking) => self.asking(asking),
            Stage::Claiming { verified, query } => self.asked(verified, Arc::clone(query)),
            Stage::Woken(wake) => self.woken(wake),
            Stage::Admitted(admission) => self.admitted(admission),
            Stage::Open { rule } => {
                self.rule(rule);
                self.step("token", "none is looked at");
            }
            Stage::Answered { rule } => {
                self.rule(rule);
                self.step("token", "none is looked at");
                self.step("answer", "200, from the filter itself; nothing is forwarded");
            }
            Stage::Reported { rule, rejection } => {
                if let Some(rule) = rule {
                    self.rule(rule);
                }
                let code = rejection.reason.code();
                self.step("reported", format!("{code}: {rejection}; it is not enforced, and no identity is forwarded"));
            }
            Stage::Refused { rule, .. } => {
                if let Some(rule) = rule {
                    self.rule(rule);
                }
            }
        }
    }

    /// The response of an introspection server.
    pub fn introspected(&mut self, reply: &Reply<'_>) {
        if let Ok(Ok(Json::Object(claims))) = reply.read() {
            self.claims(&claims);
        }
    }

    fn entered(&mut self, entered: &Entered<'_>) {
        self.rule(entered.rule());
        self.step("token", format!("{} bytes, in {}", entered.token().len(), self.source(entered.source())));
        if self.core.policy.introspecting(entered.rule(), entered.token()).is_none() {
            self.signature(entered.token());
        }
    }

    fn verified(&mut self, verified: &Arc<Verified>) {
        let lifetime = self.document.issuers.get(verified.issuer()).map_or_else(String::new, |issuer| {
            format!(
                ", its lifetime is at most {:?} and its clock may differ by {:?}",
                issuer.max_lifetime.0, issuer.skew.0
            )
        });
        let kind = if verified.is_opaque() { "kind" } else { "typ, kind" };
        self.step("claims", format!("{kind}, aud, required claims and times are accepted{lifetime}"));
        let window = verified.window();
        let until = window.until.0.min(window.login_until.0);
        let (from, until) = (self.relative(window.from.0), self.relative(until));
        self.step("window", format!("counts from {from} until {until}, clock skew included"));
        self.progress.verified = Some(Arc::clone(verified));
    }

    fn introspecting(&mut self, issuer: usize) {
        let server = self.server(issuer);
        if let Some(verified) = self.progress.verified.clone() {
            self.step("introspect", format!("{server} is asked about it too"));
            // The service is asked at the same time.
            let now = Now { wall: self.at, monotonic: NOW };
            let rule = self.progress.rule.unwrap_or_default();
            if let Some(query) = self.core.policy.worth_asking(&verified, rule, None, now) {
                self.asked(&verified, query);
            }
        } else {
            let name = self.core.policy.issuer_name(issuer).unwrap_or_default();
            self.step("opaque", format!("has the format of {name}; {server} is asked about it"));
        }
    }

    fn asking(&mut self, asking: &Asking) {
        self.asked(asking.verified(), Arc::clone(asking.query()));
    }

    fn asked(&mut self, verified: &Verified, query: Arc<RevocationQuery>) {
        if self.progress.asked.replace(query).is_none() {
            self.revocation_keys(verified);
            self.feed();
        }
    }

    /// No feed is followed here, so the token is asked about.
    fn feed(&mut self) {
        if let Some(feed) = self.core.policy.revocation().and_then(|revocation| revocation.feed) {
            let lag = feed.lag;
            self.step(
                "feed",
                format!(
                    "with a proof that is not older than {lag:?}, and if none of these keys may be revoked, the token \
                     passes without a check; otherwise the service is asked, as here"
                ),
            );
        }
    }

    fn woken(&mut self, wake: &Wake) {
        match wake {
            Wake::Verdict { verdict, .. } => self.verdict(*verdict),
            Wake::CannotTell(_, cause) if self.is_live => self.step("revocation", format!("no answer: {cause}")),
            Wake::CannotTell(..) => {
                let answered = match self.answer {
                    Some(Answer::Fails(error)) => error.name(),
                    Some(Answer::Service(_) | Answer::Unavailable) | None => "unavailable",
                };
                self.step("revocation", format!("taken for {answered}"));
            }
            Wake::Introspected(Ok(_)) if self.progress.verified.is_some() => {
                self.step("introspect", "active, and the answer does not contradict the token");
                if let Some((_, verdict)) = self.progress.asked.as_ref().and_then(|query| query.verdict()) {
                    self.verdict(verdict);
                }
            }
            Wake::Claimed(Ok(())) => {
                self.step("proof", "the service counts as not having seen it before".to_owned());
                if let Some((_, verdict)) = self.progress.asked.as_ref().and_then(|query| query.verdict()) {
                    self.verdict(verdict);
                }
            }
            Wake::Claimed(Err(cause)) => self.step("proof", cause.to_string()),
            Wake::Introspected(_) | Wake::Keys { .. } => {}
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        if self.is_live {
            return self.real_verdict(verdict);
        }
        if self.answer.is_none() {
            return self.step("revocation", "the service was not asked: use --live, or give its answer by --answer");
        }
        let answered = match self.answer.unwrap_or(Answer::Unavailable) {
            Answer::Service(wire::Answer::Live) => "live".to_owned(),
            Answer::Service(wire::Answer::Dead) => "dead".to_owned(),
            Answer::Service(wire::Answer::Before(time)) => format!("before:{time}"),
            Answer::Fails(error) => error.name().to_owned(),
            Answer::Unavailable => "unavailable".to_owned(),
        };
        let means = match verdict {
            Verdict::Live => "lives",
            Verdict::Dead { .. } => "was ended",
        };
        let issued = self.relative(self.progress.asked.as_ref().map_or(0, |query| query.issued.0));
        self.step("revocation", format!("taken for answered {answered} to each; issued {issued}, the token {means}"));
    }

    fn real_verdict(&mut self, verdict: Verdict) {
        let issued = self.relative(self.progress.asked.as_ref().map_or(0, |query| query.issued.0));
        let Verdict::Dead { by } = verdict else {
            return self
                .step("revocation", format!("the service says that none of the keys is revoked; issued {issued}"));
        };
        let position = by.get();
        let key = self.progress.asked.as_ref().and_then(|query| query.keys.get(position?).copied());
        let keys = self.progress.verified.as_ref().and_then(|it| self.core.policy.revocation_keys(it).ok());
        let found = key.and_then(|key| keys?.into_iter().find(|(_, other)| *other == key));
        let by = match found {
            Some((kind, key)) => format!("by {kind} {key}: see `portcullis revoke show {key}`"),
            None => "by one of the keys".to_owned(),
        };
        self.step("revocation", format!("the service says that it was revoked, {by}; issued {issued}"));
    }

    fn admitted(&mut self, admission: &Admission) {
        if let Some(proven) = admission.proven() {
            let until = self.relative(proven.until.0);
            self.step("proof", format!("proves the key that the token is bound to; it counts once, until {until}"));
        }
        if self.progress.asked.is_none() {
            self.step("revocation", "not asked for");
        }
        for rejection in admission.reported() {
            self.step("reported", format!("{}: {rejection}; the rule does not enforce this", rejection.reason.code()));
        }
        if admission.unchecked {
            self.step("revocation", "this rule admits requests that cannot be checked");
        }
        self.streams();
    }

    /// What ends the admitted request, if it is still open then.
    fn streams(&mut self) {
        let rule = self.progress.rule.and_then(|rule| self.document.rules.get(rule));
        let Some(streams) = rule.and_then(|rule| rule.streams.as_ref()) else { return };
        let mut says: Vec<&str> = Vec::new();
        for on in &streams.end_on {
            says.push(match on {
                EndOn::Revoked => "it is revoked",
                EndOn::Expired => "it or its login expires",
            });
        }
        let passes = rule.and_then(|rule| rule.revocation) == Some(RevocationMode::DangerouslyPassWhenUnavailable);
        let cannot_tell = match streams.end_on.contains(&EndOn::Revoked) && !passes {
            true => format!(", or nobody can tell for {:?} whether it was revoked", streams.cannot_tell_for.0),
            false => String::new(),
        };
        self.step("streams", format!("it is ended if it is still open when {}{cannot_tell}", says.join(" or ")));
    }

    fn rule(&mut self, place: usize) {
        if self.progress.rule.replace(place).is_some() {
            return;
        }
        let (Some(rule), Some(written)) = (self.core.policy.rules().get(place), self.document.rules.get(place)) else {
            return;
        };
        self.step("rule", format!("{} (rules[{place}]), access {}", rule.name, word(&written.access)));
    }

    fn source(&self, source: Source) -> String {
        let sources = &self.document.tokens;
        let found = match source {
            Source::Header(place) => sources.headers.get(place).map(|header| match &header.scheme {
                Some(scheme) => format!("the header {}, scheme {scheme}", header.name),
                None => format!("the header {}", header.name),
            }),
            Source::Cookie(place) => sources.cookies.get(place).map(|cookie| format!("the cookie {}", cookie.name)),
            Source::Websocket(place) => sources
                .websocket
                .get(place)
                .map(|websocket| format!("a WebSocket subprotocol that begins with {}", websocket.prefix)),
            Source::Query(place) => sources.query.get(place).map(|name| format!("the query parameter {name}")),
        };
        // Only the scheme of bound tokens is found without being written.
        found.unwrap_or_else(|| "the header authorization, scheme DPoP".to_owned())
    }

    /// The token's header, claims and signing key, as far as they can be read.
    fn signature(&mut self, token: &[u8]) -> Option<()> {
        let core = Arc::clone(&self.core);
        let policy = &core.policy;
        let unverified = policy.unverified(token).ok()?;
        let header = unverified.header();
        let quoted =
            |text: &Option<String>| text.as_ref().map_or_else(|| "absent".to_owned(), |text| format!("{text:?}"));
        self.step("header", format!("alg {}, kid {}, typ {}", header.alg, quoted(&header.kid), quoted(&header.typ)));
        let payload = unverified.parse_payload().ok()?;
        let Json::Object(claims) = &payload else { return None };
        self.claims(claims);
        let now = Now { wall: self.at, monotonic: NOW };
        let signer = policy.signer(&Portable, &core.keyrings(), &unverified, claims, now).ok()?;
        let name = policy.issuer_name(signer.issuer).unwrap_or_default();
        let iss = claims.get("iss").and_then(Json::as_str).unwrap_or_default();
        let written = self.document.issuers.get(signer.issuer).map(|issuer| issuer.issuer.as_str()).unwrap_or_default();
        let tenant = if written == iss { String::new() } else { format!(", a tenant of {written:?}") };
        self.step("issuer", format!("{name}, {iss:?}{tenant}"));
        // The thumbprint of a secret would allow others to test guesses of the secret.
        let key = match header.alg.family() {
            Family::Hmac => "a shared secret".to_owned(),
            Family::Rsa | Family::P256 | Family::P384 | Family::P521 | Family::Ed25519 => {
                format!("the key with thumbprint {}", base64url::encode(signer.thumbprint))
            }
        };
        self.step("signature", format!("verified with {key}"));
        Some(())
    }

    /// The server to ask about an issuer's tokens.
    fn server(&self, issuer: usize) -> String {
        let asked = self.document.issuers.get(issuer).and_then(|issuer| issuer.introspection.as_ref());
        asked.map_or_else(String::new, |asked| format!("{} of cluster {}", asked.path, asked.cluster))
    }

    fn claims(&mut self, claims: &Object<'_>) {
        for (name, value) in claims.iter() {
            let says = self.claim(name, value);
            self.step("says", says);
        }
    }

    fn claim(&self, name: &str, value: &Json<'_>) -> String {
        let shown = match value {
            _ if !REGISTERED.contains(&name) && !TIMES.contains(&name) && !self.show_claims => {
                return format!("{name:?} (its value with --show-claims)");
            }
            Json::Number(Number::Unsigned(seconds)) if TIMES.contains(&name) => self.relative(*seconds),
            Json::String(text) => format!("{text:?}"),
            other => other.to_text().escape_debug().to_string(),
        };
        format!("{name:?} {shown}")
    }

    /// As the token has it, as a date, and the distance from the time of the request.
    fn relative(&self, seconds: u64) -> String {
        let at = self.at.0;
        match seconds.checked_sub(at) {
            Some(0) => format!("{seconds} ({}, now)", date(seconds)),
            Some(ahead) => format!("{seconds} ({}, in {ahead}s)", date(seconds)),
            None => format!("{seconds} ({}, {}s ago)", date(seconds), at.saturating_sub(seconds)),
        }
    }

    /// The rule's requirements that the token meets.
    fn accepted(&mut self) {
        let Some(rule) = self.progress.rule.and_then(|place| self.document.rules.get(place)) else { return };
        // What is only reported follows with the verdict.
        if rule.scopes.mode == Mode::Enforce && !(rule.scopes.all.is_empty() && rule.scopes.any.is_empty()) {
            let mut wanted = Vec::new();
            for (how, scopes) in [("all of", &rule.scopes.all), ("one of", &rule.scopes.any)] {
                if !scopes.is_empty() {
                    wanted.push(format!("{how} {}", scopes.join(", ")));
                }
            }
            self.step("scopes", format!("has {}", wanted.join(" and ")));
        }
        for condition in rule.claims.iter().filter(|condition| condition.mode == Mode::Enforce) {
            self.step("condition", format!("the claim {} meets the rule's condition", path(&condition.claim)));
        }
        if rule.step_up.as_ref().is_some_and(|step_up| step_up.mode == Mode::Enforce) {
            self.step("step-up", "the login is of the kind and the age that the rule requires");
        }
        let binding = &rule.binding;
        if let Some(certificate) = &binding.certificate {
            self.step("binding", format!("certificate, {}", word(&certificate.mode)));
        }
        let address = binding.address.as_ref().map(|binding| ("address", &binding.claim, binding.mode));
        let agent = binding.user_agent.as_ref().map(|binding| ("user agent", &binding.claim, binding.mode));
        for (what, claim, mode) in address.into_iter().chain(agent) {
            self.step("binding", format!("{what} by the claim {}, {}", path(claim), word(&mode)));
        }
        self.step("accepted", "the rule accepts the token");
    }

    fn revocation_keys(&mut self, verified: &Verified) -> Option<()> {
        let core = Arc::clone(&self.core);
        let policy = &core.policy;
        let revocation = self.document.revocation.as_ref();
        let is_assumed = revocation.is_some_and(|revocation| self.assumed.contains(&revocation.secret_env));
        for (kind, key) in policy.revocation_keys(verified).ok()? {
            // Keys are derived from the secret: with a placeholder they would be meaningless.
            let key = if is_assumed { String::new() } else { format!(" {key}") };
            self.step("asks", format!("{kind}{key}"));
        }
        for kind in policy.not_revocable_by(verified).ok()? {
            let claims = policy.revocation_claims(verified.issuer(), kind);
            let why = match kind {
                wire::Kind::SigningKey => "no key has signed it".to_owned(),
                _ if claims.is_empty() => "this issuer's tokens have no claim for it".to_owned(),
                _ => format!("the token has none of {}", claims.join(", ")),
            };
            self.step("unreachable", format!("a revocation by {kind} does not end it: {why}"));
        }
        Some(())
    }
}

/// RFC 7519 section 4.1.
const REGISTERED: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];
const TIMES: [&str; 4] = ["exp", "nbf", "iat", "auth_time"];

/// As written in a configuration.
fn word(choice: &impl serde::Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn path(claim: &OneOrMany<String>) -> String {
    claim.as_slice().join(".")
}
