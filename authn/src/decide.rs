//! The life of a request as types, each the only way to the next: entered, verified, accepted, admitted. What was not
//! checked cannot be forwarded, because only an [`Admission`] says what to forward.
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use jose::json::{Json, Object};
use jose::{Padding, Unverified};
use wire::{Cidr, Kind, RevocationKey};

use crate::claims::identifiers::Identifiers;
use crate::config::{Access, BindingMode, Encoding, RevocationMode};
use crate::credentials::{Presented, Source};
use crate::engine::{Engine, KeySet};
use crate::keys::rings::Keyrings;
use crate::policy::{Forward, Issuer, Policy, Rule};
use crate::reject::{Cause, Rejection};
use crate::request::host::Host;
use crate::request::path::PlainPath;
use crate::request::{Request, headers};
use crate::revocation::{self, RevocationQuery, Verdict, Whose};
use crate::time::{Monotonic, Now};
use crate::{binding, claims};

pub use crate::claims::Window;

pub mod clear;
mod confirmed;
mod introspected;
mod judgements;
mod refusal;

use judgements::Judgements;

/// What the rules say of a request before any token is looked into.
#[derive(Debug)]
pub enum Entry<'r> {
    /// Forwarded without identity: a public rule, an optional one without a token, or a CORS preflight that may pass. Or
    /// not forwarded at all, and answered: see [`Policy::answers`].
    Open {
        rule: usize,
        /// Tokens that nobody looked at: an upstream must not take them for checked.
        removals: Vec<Removal>,
    },
    Denied {
        rule: Option<usize>,
        rejection: Rejection,
    },
    Token(Entered<'r>),
}

/// A request with one token, on a rule that looks at it.
#[derive(Debug)]
pub struct Entered<'r> {
    rule: usize,
    presented: Presented<'r>,
    removal: Removal,
    user_agent: Option<Cow<'r, [u8]>>,
}

/// How the upstream is kept from seeing the token. One in the query is gone already ([`Policy::clear`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    Nothing,
    Header(Arc<[u8]>),
    /// The Cookie header's new value; `None` removes it.
    Cookie(Option<Vec<u8>>),
    /// The new value of Sec-WebSocket-Protocol; `None` removes it.
    Subprotocols(Option<Vec<u8>>),
}

/// What only the host knows of the client; asked for when a rule binds to it.
pub trait Peer {
    /// The address of the client, as the proxy trusts it.
    fn address(&self) -> Option<IpAddr>;
    /// The SHA-256 of the client's certificate in hexadecimal; `None` without a certificate.
    fn certificate_sha256(&self) -> Option<Vec<u8>>;
}

/// Whose key signed a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer {
    /// The issuer's place in the document.
    pub issuer: usize,
    /// RFC 7638 thumbprint of the key.
    pub thumbprint: [u8; 32],
    /// Which of the issuer's key sets in a row holds it.
    generation: u32,
}

/// A token whose signature and registered claims hold. Kept in the cache; what depends on the request or on time is
/// judged again at every use.
#[derive(Debug)]
pub struct Verified {
    token: Box<[u8]>,
    payload: Box<[u8]>,
    issuer: usize,
    thumbprint: [u8; 32],
    /// The last of the issuer's key sets that was seen to hold the key.
    generation: AtomicU32,
    window: Window,
    questions: Questions,
    /// For an opaque token, in the place of key and signature.
    introspected: Option<introspected::Introspected>,
    /// For a JWT that is introspected too: the answer.
    confirmation: Mutex<Option<confirmed::Confirmation>>,
    judged: Judgements,
}

/// What can be asked about a token.
#[derive(Debug)]
enum Questions {
    /// The document has no `revocation`.
    None,
    Query(Arc<RevocationQuery>),
    /// No revocation could be compared with it: refused by the rules that ask, admitted by those that do not.
    Unaskable(Rejection),
}

/// A token that cannot be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverifiable {
    pub rejection: Rejection,
    /// No key of this issuer's published set, as it was last fetched, verifies it: a newer one may.
    pub awaits_keys_of: Option<usize>,
    /// It is opaque, and this issuer is to be asked about it.
    pub introspect: Option<usize>,
}

/// A token that a rule accepts, apart from binding and revocation, and what is then forwarded.
#[derive(Debug)]
struct Judged {
    rule: usize,
    headers: Vec<(String, String)>,
    bound: Bound,
}

/// The claims that a rule's binding compares.
#[derive(Debug, Default)]
struct Bound {
    certificate: Option<String>,
    addresses: Option<Vec<Cidr>>,
    user_agent: Option<String>,
}

/// A request that its rule accepts, unless its session was ended.
#[derive(Debug)]
pub struct Accepted {
    verified: Arc<Verified>,
    judged: Arc<Judged>,
    removal: Removal,
    mismatch_reported: bool,
}

/// Where an accepted request stands.
#[derive(Debug)]
pub enum RevocationStatus {
    Admitted(Admission),
    /// Its issuer's server is to be asked about this JWT: ask, and judge the request anew.
    MustIntrospect(Accepted),
    /// Nothing fresh is known: ask, and come back with the answer.
    MustAsk(Asking),
}

/// An accepted request that waits for a verdict.
#[derive(Debug)]
pub struct Asking {
    accepted: Accepted,
    ask: Arc<RevocationQuery>,
    passes_when_unavailable: bool,
}

/// Why no verdict can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The service, or the store behind it, cannot be reached or does not answer in time.
    OutOfReach,
    /// There is an answer, and it must not be believed: not the service's, or from a store that is not ours.
    NotToBeTrusted,
    /// This proxy has too much to ask.
    Overload,
}

/// Leave to forward, and how. Only this module makes one.
#[derive(Debug)]
pub struct Admission {
    judged: Arc<Judged>,
    removal: Removal,
    rule: usize,
    pub mismatch_reported: bool,
    /// Admitted though nothing could tell whether its session still lives: the rule says so in so many words.
    pub unchecked: bool,
    refresh: Option<Arc<RevocationQuery>>,
}

impl Policy {
    pub fn enter<'r>(&self, request: &Request<'r>) -> Entry<'r> {
        let denied = |rule, rejection| Entry::Denied { rule, rejection };
        let (path, host) = match (request.plain_path(), Host::parse(request.authority())) {
            (Ok(path), Ok(host)) => (path, host),
            (Err(rejection), _) | (_, Err(rejection)) => return denied(None, rejection),
        };
        let found = self.router.find(request.method(), &path, &host);
        let Some((place, rule)) = found.and_then(|place| Some((place, self.rules.get(place)?))) else {
            return denied(None, Rejection::new(Cause::NoRule));
        };
        if rule.access == Access::Probe {
            return Entry::Open { rule: place, removals: Vec::new() };
        }
        if rule.access == Access::Public || (rule.cors_preflight_passes && self.is_bare_preflight(request, &path)) {
            return Entry::Open { rule: place, removals: self.unchecked_tokens(rule, request) };
        }
        let presented = match self.credentials.find(request, &path) {
            Err(rejection) => return denied(Some(place), rejection),
            Ok(Some(presented)) => presented,
            Ok(None) if rule.access == Access::Optional => return Entry::Open { rule: place, removals: Vec::new() },
            Ok(None) => return denied(Some(place), Rejection::new(Cause::NoToken)),
        };
        if let Source::Cookie(_) = presented.source
            && !rule.cookie_origins.admit(request)
        {
            return denied(Some(place), Rejection::new(Cause::OriginNotListed));
        }
        let removal = self.removal(rule, request, &presented);
        let user_agent =
            rule.binding.user_agent.as_ref().and_then(|_| request.sole_value(b"user-agent")).map(Cow::Borrowed);
        Entry::Token(Entered { rule: place, presented, removal, user_agent })
    }

    /// Does the filter itself answer what this rule matches?
    pub fn answers(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|rule| rule.access == Access::Probe)
    }

    /// A browser sends a preflight without credentials, without a body (Fetch standard, section 4.8) and never to become
    /// something else than HTTP: a request that has or does any of these is judged as any other one.
    fn is_bare_preflight(&self, request: &Request<'_>, path: &PlainPath<'_>) -> bool {
        request.is_cors_preflight()
            && !request.is_upgrade()
            && !request.may_have_body()
            && matches!(self.credentials.find(request, path), Ok(None))
    }

    /// What could be taken for a token, on a rule that looks at none.
    fn unchecked_tokens(&self, rule: &Rule, request: &Request<'_>) -> Vec<Removal> {
        let subprotocols = self.credentials.subprotocols_without_tokens(request).map(Removal::Subprotocols);
        let mut removals: Vec<Removal> = subprotocols.into_iter().collect();
        if rule.forward.keep_token {
            return removals;
        }
        removals.extend(self.credentials.token_headers(request).map(Removal::Header));
        if self.credentials.has_cookie_token(request) {
            removals.push(self.without_cookie(request));
        }
        removals
    }

    /// Set as one header, in the place of all: a second one could carry the token on.
    fn without_cookie(&self, request: &Request<'_>) -> Removal {
        let whole = request.header_values(b"cookie").collect::<Vec<_>>().join(b"; ".as_slice());
        Removal::Cookie(self.credentials.without_cookie_token(&whole))
    }

    fn removal(&self, rule: &Rule, request: &Request<'_>, presented: &Presented<'_>) -> Removal {
        match presented.source {
            // Removed whatever `forward.token` says.
            Source::Query(_) => Removal::Nothing,
            // A server that saw it could choose it, and so send the token back. Removed in every case too.
            Source::Websocket(_) => {
                self.credentials.subprotocols_without_tokens(request).map_or(Removal::Nothing, Removal::Subprotocols)
            }
            _ if rule.forward.keep_token => Removal::Nothing,
            Source::Header(_) => match self.credentials.header_to_remove(presented.source) {
                Some(name) => Removal::Header(name),
                None => Removal::Nothing,
            },
            Source::Cookie(_) => self.without_cookie(request),
        }
    }

    /// Takes a token apart. Padding is taken only where some issuer writes it, and compared with the token's own issuer by
    /// [`Policy::signer`].
    ///
    /// # Errors
    /// Why it is no token.
    pub fn unverified<'t>(&self, token: &'t [u8]) -> Result<Unverified<'t>, Rejection> {
        let parse = match self.issuers.iter().any(|issuer| issuer.padded) {
            true => Unverified::parse_perhaps_padded,
            false => Unverified::parse,
        };
        parse(token, self.limits().token_bytes).map_err(Rejection::from)
    }

    /// Checks a token's signature and its registered claims.
    ///
    /// # Errors
    /// Why it is refused, and `RejectReason::KeysUnavailable` when its issuer's keys are not at hand.
    pub fn verify(
        &self,
        engine: &dyn Engine,
        keyrings: &Keyrings,
        entered: &Entered<'_>,
        now: Now,
    ) -> Result<Verified, Unverifiable> {
        let token = entered.token();
        let unverified = self.unverified(token)?;
        let payload = unverified.parse_payload().map_err(Rejection::from)?;
        let Json::Object(claims) = &payload else {
            return Err(Rejection::new(Cause::PayloadNotObject).into());
        };
        let Signer { issuer: place, thumbprint, generation } =
            self.signer(engine, keyrings, &unverified, claims, now)?;
        let issuer = self.issuers.get(place).ok_or_else(unknown_issuer)?;
        for (name, values) in &issuer.required_header {
            if !unverified.header_has(name, values) {
                return Err(Rejection::with_detail(Cause::HeaderMemberNotRequired, name.clone()).into());
            }
        }
        let future_iat_tolerance =
            self.revocation().map_or(DEFAULT_FUTURE_IAT_TOLERANCE, |revocation| revocation.future_iat_tolerance);
        let times = claims::check_registered(issuer, future_iat_tolerance, unverified.header(), claims, now.wall)?;
        let questions = match self.revocation() {
            None => Questions::None,
            Some(revocation) => {
                let whose = Whose {
                    place,
                    issuer: claims::unverified_issuer(claims)?,
                    identifiers: &issuer.identifiers,
                    entry: &issuer.issuer,
                };
                let input = unverified.signing_input();
                match RevocationQuery::new(revocation, whose, claims, input, Some(&thumbprint), times.issued) {
                    Ok(ask) => Questions::Query(Arc::new(ask)),
                    Err(rejection) => Questions::Unaskable(rejection),
                }
            }
        };
        // While the payload is at hand in its parsed form. A rule that does not take the token says so in `accept`.
        let judged = self.rules.get(entered.rule).and_then(|rule| {
            let identifiers = &issuer.identifiers;
            let signed = Signed { issuer: place, identifiers, raw: unverified.payload(), payload: &payload };
            judge(rule, entered.rule, &signed).ok().map(Arc::new)
        });
        Ok(Verified {
            token: token.into(),
            payload: unverified.payload().into(),
            issuer: place,
            thumbprint,
            generation: AtomicU32::new(generation),
            window: times.window,
            questions,
            introspected: None,
            confirmation: Mutex::default(),
            judged: Judgements::of(judged),
        })
    }

    /// Is the key that verified this token still one of its issuer's, and for such tokens? A key that has left the set, or is
    /// now for another key id, algorithm or tenant, takes its tokens along, whatever the cache knows of them.
    ///
    /// # Errors
    /// `RejectReason::KeysUnavailable` when nobody can tell.
    pub fn still_trusts(&self, verified: &Verified, keyrings: &Keyrings, now: Now) -> Result<bool, Rejection> {
        let Some(issuer) = self.issuers.get(verified.issuer) else { return Ok(false) };
        if let Some(introspected) = &verified.introspected {
            return Ok(introspected.is_fresh(issuer, now));
        }
        let current = keyrings.current(&issuer.keys, verified.issuer, now.monotonic)?;
        if current.generation == verified.generation.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let holds = self.holds_key_of(verified, issuer, current.keys).unwrap_or(false);
        if holds {
            verified.generation.store(current.generation, Ordering::Relaxed);
        }
        Ok(holds)
    }

    /// Would the key that verified this token be tried again? What it is for may be narrower now.
    fn holds_key_of(&self, verified: &Verified, issuer: &Issuer, keys: &KeySet) -> Result<bool, Rejection> {
        let unverified = self.unverified(&verified.token)?;
        let payload = unverified.parse_payload().map_err(Rejection::from)?;
        let iss = claims::unverified_issuer(payload.as_object().ok_or(Cause::PayloadNotObject)?)?;
        let header = unverified.header();
        let mut candidates = keys.candidates(header.kid.as_deref(), header.alg)?;
        Ok(candidates.any(|key| *key.thumbprint() == verified.thumbprint && issuer.may_be_signed_by(key, iss)))
    }

    /// Whose key signed a token: the issuer that `iss` names, and the key of it that verifies the signature. Says nothing
    /// of what the token claims.
    ///
    /// # Errors
    /// Why there is no such issuer or key.
    pub fn signer(
        &self,
        engine: &dyn Engine,
        keyrings: &Keyrings,
        unverified: &Unverified<'_>,
        claims: &Object<'_>,
        now: Now,
    ) -> Result<Signer, Unverifiable> {
        let iss = claims::unverified_issuer(claims)?;
        let Some((place, issuer)) = self.by_issuer.find(iss).and_then(|place| Some((place, self.issuers.get(place)?)))
        else {
            return Err(unknown_issuer().into());
        };
        let header = unverified.header();
        if !issuer.algorithms.contains(&header.alg) {
            return Err(Rejection::new(Cause::AlgNotOfIssuer).into());
        }
        if unverified.padding() == if issuer.padded { Padding::Without } else { Padding::With } {
            return Err(Rejection::new(Cause::PaddingUnexpected).into());
        }
        let current = keyrings.current(&issuer.keys, place, now.monotonic)?;
        // Another key may have taken the place of one, under the same kid or under none.
        let awaiting = |rejection| {
            let awaits_keys_of = issuer.published.is_some().then_some(place);
            Unverifiable { rejection, awaits_keys_of, introspect: None }
        };
        let candidates =
            current.keys.candidates(header.kid.as_deref(), header.alg).map_err(|none| awaiting(none.into()))?;
        // Before the signature, which costs a thousand times as much: an expired token that is sent again and again must
        // not buy that work. Nothing is admitted on the strength of a claim that nobody has verified.
        claims::check_unexpired(issuer, claims, now.wall)?;
        for key in candidates {
            if !issuer.may_be_signed_by(key, iss) {
                continue;
            }
            if engine.verify(key, header.alg, unverified.signing_input(), unverified.signature()).is_ok() {
                let (thumbprint, generation) = (*key.thumbprint(), current.generation);
                return Ok(Signer { issuer: place, thumbprint, generation });
            }
        }
        Err(awaiting(Rejection::new(Cause::SignatureMismatch)))
    }

    /// What is asked about a token, each key with its kind, for people to read.
    ///
    /// # Errors
    /// Why nothing can be asked.
    pub fn revocation_keys(&self, verified: &Verified) -> Result<Vec<(Kind, RevocationKey)>, Rejection> {
        let Some(revocation) = self.revocation() else { return Ok(Vec::new()) };
        if verified.introspected.is_some() {
            return self.introspected_keys(revocation, verified);
        }
        let unverified = self.unverified(&verified.token)?;
        let payload = unverified.parse_payload().map_err(Rejection::from)?;
        let (Some(claims), Some(issuer)) = (payload.as_object(), self.issuers.get(verified.issuer)) else {
            return Err(unknown_issuer());
        };
        let (name, input) = (claims::unverified_issuer(claims)?, unverified.signing_input());
        let whose =
            Whose { place: verified.issuer, issuer: name, entry: &issuer.issuer, identifiers: &issuer.identifiers };
        revocation::keys(revocation, whose, claims, input, Some(&verified.thumbprint))
    }

    /// The claims by which an issuer's tokens are found for a revocation of this kind, in the order in which they count.
    pub fn revocation_claims(&self, issuer: usize, kind: Kind) -> Vec<String> {
        self.issuers.get(issuer).map(|issuer| issuer.identifiers.names(kind)).unwrap_or_default()
    }

    /// The kinds that are asked about, and by which this token cannot be revoked.
    ///
    /// # Errors
    /// As [`Policy::revocation_keys`].
    pub fn not_revocable_by(&self, verified: &Verified) -> Result<Vec<Kind>, Rejection> {
        let Some(revocation) = self.revocation() else { return Ok(Vec::new()) };
        let keys = self.revocation_keys(verified)?;
        let has = |kind: &Kind| keys.iter().any(|(other, _)| other == kind);
        Ok(revocation.kinds.iter().filter(|kind| !has(kind)).copied().collect())
    }

    /// Judges a verified token by the request's rule, its time and its binding: at every use, cached or not.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn accept(
        &self,
        verified: Arc<Verified>,
        entered: Entered<'_>,
        now: Now,
        peer: &dyn Peer,
    ) -> Result<Accepted, Rejection> {
        verified.window.check(now.wall)?;
        let rule = self.rules.get(entered.rule).ok_or_else(|| Rejection::new(Cause::RuleGone))?;
        let judged = match verified.judged.of_rule(entered.rule) {
            Some(judged) => judged,
            None => {
                let issuer = self.issuers.get(verified.issuer).ok_or_else(unknown_issuer)?;
                let judged = Arc::new(verified.judge(rule, entered.rule, &issuer.identifiers)?);
                verified.judged.remember(&judged);
                judged
            }
        };
        let mismatch_reported = check_binding(rule, &judged.bound, &entered, peer)?;
        Ok(Accepted { verified, judged, removal: entered.removal, mismatch_reported })
    }

    /// Judges a request again whose JWT was introspected meanwhile.
    ///
    /// # Errors
    /// The token expired while the request waited, or the answer ended it.
    pub fn status_after_introspection(&self, accepted: Accepted, now: Now) -> Result<RevocationStatus, Rejection> {
        accepted.verified.window.check(now.wall)?;
        self.revocation_status(accepted, now)
    }

    /// Where an accepted request stands by what the cache knows.
    ///
    /// # Errors
    /// `RejectReason::SessionRevoked` when a fresh verdict says so.
    pub fn revocation_status(&self, accepted: Accepted, now: Now) -> Result<RevocationStatus, Rejection> {
        if self.lacks_confirmation(&accepted.verified, now)? {
            return Ok(RevocationStatus::MustIntrospect(accepted));
        }
        self.status_by_verdict(accepted, now)
    }

    fn status_by_verdict(&self, accepted: Accepted, now: Now) -> Result<RevocationStatus, Rejection> {
        let mode = self.rules.get(accepted.judged.rule).map_or(RevocationMode::Check, |rule| rule.revocation);
        if mode == RevocationMode::Off {
            return Ok(RevocationStatus::Admitted(accepted.admit(false)));
        }
        let (revocation, ask) = match (self.revocation(), &accepted.verified.questions) {
            (Some(revocation), Questions::Query(ask)) => (revocation, ask),
            (_, Questions::Unaskable(rejection)) => return Err(rejection.clone()),
            // A rule that asks does not compile without `revocation`.
            (None, _) | (_, Questions::None) => {
                return Err(Rejection::new(Cause::NoService));
            }
        };
        if let Some((sent, verdict)) = ask.verdict()
            && revocation.is_fresh(sent, now.monotonic)
        {
            return match verdict {
                Verdict::Live => {
                    let refresh = ask.begins_refresh(revocation, sent, now.monotonic).then(|| Arc::clone(ask));
                    Ok(RevocationStatus::Admitted(Admission { refresh, ..accepted.admit(false) }))
                }
                Verdict::Dead => Err(revoked()),
            };
        }
        let ask = Arc::clone(ask);
        let passes_when_unavailable = mode == RevocationMode::DangerouslyPassWhenUnavailable;
        Ok(RevocationStatus::MustAsk(Asking { accepted, ask, passes_when_unavailable }))
    }
}

impl From<Rejection> for Unverifiable {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, awaits_keys_of: None, introspect: None }
    }
}

impl<'r> Entered<'r> {
    /// Freed from the request's headers, so that it can wait.
    pub fn into_owned(self) -> Entered<'static> {
        let Presented { token, source } = self.presented;
        Entered {
            rule: self.rule,
            presented: Presented { token: Cow::Owned(token.into_owned()), source },
            removal: self.removal,
            user_agent: self.user_agent.map(|agent| Cow::Owned(agent.into_owned())),
        }
    }

    pub fn token(&self) -> &[u8] {
        &self.presented.token
    }

    pub fn rule(&self) -> usize {
        self.rule
    }

    /// Where the token was found.
    pub fn source(&self) -> Source {
        self.presented.source
    }

    /// The token came in a cookie: a browser's session, whose answers must not be stored.
    pub fn is_cookie_session(&self) -> bool {
        matches!(self.presented.source, Source::Cookie(_))
    }
}

impl Verified {
    /// About how much memory it holds, what a rule adds to it included.
    pub fn bytes(&self) -> usize {
        // Forwarded headers are parts of the payload, at most doubled by encoding.
        size_of::<Self>().saturating_add(self.token.len()).saturating_add(self.payload.len().saturating_mul(3))
    }

    /// The exact bytes that were verified.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    pub fn issuer(&self) -> usize {
        self.issuer
    }

    /// When it counts, skew included.
    pub fn window(&self) -> Window {
        self.window
    }

    /// RFC 7638 thumbprint of the key that verified it; of an opaque token, nothing.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    fn parse_payload(&self) -> Result<Json<'_>, Rejection> {
        Json::parse(&self.payload).map_err(|_| Rejection::new(Cause::PayloadNotJson))
    }

    fn judge(&self, rule: &Rule, place: usize, identifiers: &Identifiers) -> Result<Judged, Rejection> {
        let payload = self.parse_payload()?;
        judge(rule, place, &Signed { issuer: self.issuer, identifiers, raw: &self.payload, payload: &payload })
    }
}

impl Accepted {
    pub fn rule(&self) -> usize {
        self.judged.rule
    }

    fn admit(self, unchecked: bool) -> Admission {
        Admission {
            rule: self.judged.rule,
            judged: self.judged,
            removal: self.removal,
            mismatch_reported: self.mismatch_reported,
            unchecked,
            refresh: None,
        }
    }
}

impl Asking {
    pub fn query(&self) -> &Arc<RevocationQuery> {
        &self.ask
    }

    pub fn rule(&self) -> usize {
        self.accepted.judged.rule
    }

    pub fn verified(&self) -> &Arc<Verified> {
        &self.accepted.verified
    }

    /// A verdict has come, from the service or from another worker's memory.
    ///
    /// # Errors
    /// The session was ended, the token expired while it waited, or the verdict is no longer fresh.
    pub fn on_verdict(
        self,
        policy: &Policy,
        sent: Monotonic,
        verdict: Verdict,
        now: Now,
    ) -> Result<Admission, Rejection> {
        self.ask.learn(sent, verdict);
        self.accepted.verified.window.check(now.wall)?;
        // What is known by now may be newer than what has just come.
        match policy.status_by_verdict(self.accepted, now)? {
            RevocationStatus::Admitted(admission) => Ok(admission),
            RevocationStatus::MustAsk(_) | RevocationStatus::MustIntrospect(_) => {
                Err(Rejection::new(Cause::AnswerLate))
            }
        }
    }

    /// No verdict can be had.
    ///
    /// # Errors
    /// The fault of `cause`, unless the rule lets pass what cannot be checked while the service or its store is out of reach. Any
    /// other reason never passes: a client can cause an overload, and an impostor an answer that proves nothing.
    pub fn on_cannot_tell(self, reason: Unavailable, cause: Cause) -> Result<Admission, Rejection> {
        if self.passes_when_unavailable && reason == Unavailable::OutOfReach {
            // What was seen to be ended stays ended while nobody can say otherwise.
            return match self.ask.verdict() {
                Some((_, Verdict::Dead)) => Err(revoked()),
                Some((_, Verdict::Live)) | None => Ok(self.accepted.admit(true)),
            };
        }
        Err(cause.into())
    }
}

impl Admission {
    /// Headers to set, name and value, each replacing all that the client sent under this name.
    pub fn headers(&self) -> &[(String, String)] {
        &self.judged.headers
    }

    /// What is to be asked anew, though the verdict still counts: soon it will not.
    pub fn refresh(&self) -> Option<&Arc<RevocationQuery>> {
        self.refresh.as_ref()
    }

    pub fn removal(&self) -> &Removal {
        &self.removal
    }

    pub fn rule(&self) -> usize {
        self.rule
    }
}

const DEFAULT_FUTURE_IAT_TOLERANCE: u64 = 5;

fn unknown_issuer() -> Rejection {
    Rejection::new(Cause::IssUnknown)
}

fn revoked() -> Rejection {
    Rejection::new(Cause::Revoked)
}

/// What a verified signature stands for.
struct Signed<'s> {
    issuer: usize,
    identifiers: &'s Identifiers,
    raw: &'s [u8],
    payload: &'s Json<'s>,
}

fn judge(rule: &Rule, place: usize, signed: &Signed<'_>) -> Result<Judged, Rejection> {
    let payload = signed.payload;
    let Json::Object(claims) = payload else {
        return Err(Rejection::new(Cause::PayloadNotObject));
    };
    if let Some(accepted) = &rule.issuers
        && !accepted.contains(&signed.issuer)
    {
        return Err(Rejection::new(Cause::IssNotOfRule));
    }
    claims::check_scopes(&rule.scopes.all, &rule.scopes.any, claims)?;
    for condition in &rule.conditions {
        claims::check_condition(condition, payload)?;
    }
    for kind in &rule.revocable_by {
        if signed.identifiers.find(*kind, claims)?.is_none() {
            return Err(Rejection::with_detail(Cause::NotRevocable, kind.name()));
        }
    }
    Ok(Judged { rule: place, headers: forwarded(&rule.forward, signed)?, bound: bound(rule, payload)? })
}

fn forwarded(forward: &Forward, signed: &Signed<'_>) -> Result<Vec<(String, String)>, Rejection> {
    let mut forwarded = Vec::with_capacity(forward.claims.len().saturating_add(1));
    for claim in &forward.claims {
        let text = match signed.payload.path(&claim.claim) {
            // An absent claim sets nothing, and what the client sent under the name is already gone.
            None => continue,
            Some(Json::String(text)) => text.clone().into_owned(),
            Some(other) => other.to_text(),
        };
        let value = match claim.encoding {
            Encoding::Base64url => jose::base64url::encode(text.as_bytes()),
            Encoding::Plain if headers::is_safe_value(text.as_bytes()) => text,
            Encoding::Plain => {
                return Err(Rejection::with_detail(Cause::ClaimNotHeader, claim.claim.join(".")));
            }
        };
        forwarded.push((claim.header.as_str().to_owned(), value));
    }
    if let Some(header) = &forward.payload_header {
        forwarded.push((header.as_str().to_owned(), jose::base64url::encode(signed.raw)));
    }
    Ok(forwarded)
}

/// Takes out what the binding compares. A claim that is required and not there is a mismatch here already, and a `cnf`
/// with a member that nobody checks is one on every rule (RFC 7800: a bound token used as a bearer token).
fn bound(rule: &Rule, payload: &Json<'_>) -> Result<Bound, Rejection> {
    let mut bound = Bound::default();
    match payload.path(&["cnf".to_owned()]) {
        None => {}
        Some(Json::Object(cnf)) => {
            for (member, value) in cnf.iter() {
                match (member, value, &rule.binding.certificate) {
                    ("x5t#S256", Json::String(print), Some(_)) => bound.certificate = Some(print.clone().into_owned()),
                    (_, Json::Null, _) => {}
                    _ => return Err(Cause::CnfUnchecked.into()),
                }
            }
            if bound.certificate.is_none() {
                return Err(Cause::CnfEmpty.into());
            }
        }
        Some(_) => return Err(Rejection::new(Cause::CnfNotObject)),
    }
    if let Some(binding) = &rule.binding.certificate
        && binding.mode == BindingMode::Enforce
        && binding.required
        && bound.certificate.is_none()
    {
        return Err(Cause::NoCertificateClaim.into());
    }
    if let Some(binding) = &rule.binding.address {
        bound.addresses = match payload.path(binding.claim.as_slice()) {
            None => None,
            Some(Json::String(one)) => Some(parse_cidrs(binding.mode, [one.as_ref()])?),
            Some(Json::Array(many)) => {
                let mut texts = Vec::with_capacity(many.len());
                for one in many {
                    let Json::String(text) = one else {
                        return Err(Rejection::new(Cause::AddressMemberNotString));
                    };
                    texts.push(text.as_ref());
                }
                Some(parse_cidrs(binding.mode, texts)?)
            }
            Some(_) => {
                return Err(Rejection::new(Cause::AddressNotStrings));
            }
        };
        if bound.addresses.is_none() && binding.mode == BindingMode::Enforce && binding.required {
            return Err(Cause::NoAddressClaim.into());
        }
    }
    if let Some(binding) = &rule.binding.user_agent {
        bound.user_agent = match payload.path(binding.claim.as_slice()) {
            None => None,
            Some(Json::String(hash)) => Some(hash.clone().into_owned()),
            Some(_) => return Err(Rejection::new(Cause::AgentNotString)),
        };
        if bound.user_agent.is_none() && binding.mode == BindingMode::Enforce && binding.required {
            return Err(Cause::NoAgentClaim.into());
        }
    }
    Ok(bound)
}

/// One malformed block spoils the claim: it was to narrow the token's use, and nobody can tell how. Where mismatches are
/// only reported, it is one: no block at all.
fn parse_cidrs<'t>(mode: BindingMode, texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<Cidr>, Rejection> {
    let parsed: Option<Vec<Cidr>> = texts.into_iter().map(Cidr::parse).collect();
    match (parsed, mode) {
        (Some(blocks), _) => Ok(blocks),
        (None, BindingMode::Report) => Ok(Vec::new()),
        (None, BindingMode::Enforce) => Err(Rejection::new(Cause::AddressNotCidr)),
    }
}

/// Returns whether a mismatch was only reported.
fn check_binding(rule: &Rule, bound: &Bound, entered: &Entered<'_>, peer: &dyn Peer) -> Result<bool, Rejection> {
    let mut reported = false;
    let mut judge = |mode: BindingMode, compared: Result<(), Cause>| match (compared, mode) {
        (Ok(()), _) => Ok(()),
        (Err(_), BindingMode::Report) => {
            reported = true;
            Ok(())
        }
        (Err(cause), BindingMode::Enforce) => Err(Rejection::new(cause)),
    };
    // A token without the claim reaches this only where the claim is not required, or in report mode.
    let unbound = |required: bool| if required { Err(Cause::NoBindingClaim) } else { Ok(()) };
    if let Some(binding) = &rule.binding.certificate {
        judge(
            binding.mode,
            match &bound.certificate {
                Some(print) => {
                    binding::certificate_matches(print, peer.certificate_sha256().unwrap_or_default().as_slice())
                }
                None => unbound(binding.required),
            },
        )?;
    }
    if let Some(binding) = &rule.binding.address {
        judge(
            binding.mode,
            match (&bound.addresses, peer.address()) {
                (Some(blocks), Some(address)) if blocks.iter().any(|block| block.contains(address)) => Ok(()),
                (Some(_), Some(_)) => Err(Cause::OtherAddress),
                (Some(_), None) => Err(Cause::AddressUnknown),
                (None, _) => unbound(binding.required),
            },
        )?;
    }
    if let Some(binding) = &rule.binding.user_agent {
        judge(
            binding.mode,
            match &bound.user_agent {
                Some(hash) => binding::user_agent_matches(hash, entered.user_agent.as_deref()),
                None => unbound(binding.required),
            },
        )?;
    }
    Ok(reported)
}

#[cfg(test)]
mod tests;
