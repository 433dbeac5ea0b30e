//! The life of a request as types, each the only way to the next: entered, verified, accepted, admitted. What was not
//! checked cannot be forwarded, because only an [`Admission`] says what to forward.
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use wire::{Kind, RevocationKey};

use crate::binding::{self, Cidr};
use crate::claims;
use crate::config::{Access, BindingMode, Encoding, RevocationMode};
use crate::credentials::{Presented, Source};
use crate::engine::Engine;
use crate::fault::{Denial, Fault};
use crate::headers;
use crate::host::Host;
use crate::json::{Json, Object};
use crate::jws::Unverified;
use crate::policy::{Forward, Policy, Rule};
use crate::request::Request;
use crate::revocation::{self, Ask, Verdict};
use crate::time::{Monotonic, Now};

pub use crate::claims::Window;

/// What the rules say of a request before any token is looked into.
#[derive(Debug)]
pub enum Entry<'r> {
    /// Forwarded without identity: a public rule, an optional one without a token, or a CORS preflight that may pass.
    Open {
        rule: usize,
        /// The new `:path`, where a query parameter had a token that nobody looked at: URLs end up in logs.
        path: Option<Vec<u8>>,
    },
    Denied {
        rule: Option<usize>,
        denial: Denial,
    },
    Token(Entered<'r>),
}

/// A request with one token, on a rule that looks at it.
#[derive(Debug)]
pub struct Entered<'r> {
    rule: usize,
    presented: Presented<'r>,
    removal: Removal,
    user_agent: Option<&'r [u8]>,
}

/// How the upstream is kept from seeing the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    Nothing,
    Header(Vec<u8>),
    /// The Cookie header's new value; `None` removes it.
    Cookie(Option<Vec<u8>>),
    /// The new `:path`.
    Path(Vec<u8>),
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
}

/// A token whose signature and registered claims hold. Kept in the cache; what depends on the request or on time is
/// judged again at every use.
#[derive(Debug)]
pub struct Verified {
    token: Box<[u8]>,
    payload: Box<[u8]>,
    issuer: usize,
    thumbprint: [u8; 32],
    window: Window,
    questions: Questions,
    /// The judgement of the rule that saw it last.
    judged: RefCell<Option<Rc<Judged>>>,
    verdict: Cell<Option<(Monotonic, Verdict)>>,
}

/// What can be asked about a token.
#[derive(Debug)]
enum Questions {
    /// The document has no `revocation`.
    None,
    Ask(Rc<Ask>),
    /// No revocation could be compared with it: refused by the rules that ask, admitted by those that do not.
    Unaskable(Denial),
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
    verified: Rc<Verified>,
    judged: Rc<Judged>,
    removal: Removal,
    mismatch_reported: bool,
}

/// Where an accepted request stands.
#[derive(Debug)]
pub enum Standing {
    Admitted(Admission),
    /// Nothing fresh is known: ask, and come back with the answer.
    MustAsk(Asking),
}

/// An accepted request that waits for a verdict.
#[derive(Debug)]
pub struct Asking {
    accepted: Accepted,
    ask: Rc<Ask>,
    passes_when_unavailable: bool,
}

/// Leave to forward, and how. Only this module makes one.
#[derive(Debug)]
pub struct Admission {
    judged: Rc<Judged>,
    removal: Removal,
    rule: usize,
    pub mismatch_reported: bool,
    /// Admitted though nothing could tell whether its session still lives: the rule says so in so many words.
    pub unchecked: bool,
}

impl Policy {
    /// The names, as the client sent them, of headers that only this filter may set. They are removed before anything
    /// else can end the request.
    pub fn spoofed<'r>(&self, request: &Request<'r>) -> impl Iterator<Item = &'r [u8]> + use<'r, '_> {
        request
            .headers()
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| self.clear.iter().any(|cleared| cleared.matches_loosely(name)))
    }

    pub fn enter<'r>(&self, request: &Request<'r>) -> Entry<'r> {
        let denied = |rule, denial| Entry::Denied { rule, denial };
        let (path, host) = match (request.plain_path(), Host::parse(request.authority())) {
            (Ok(path), Ok(host)) => (path, host),
            (Err(denial), _) | (_, Err(denial)) => return denied(None, denial),
        };
        let found = self.router.find(request.method(), &path, &host);
        let Some((place, rule)) = found.and_then(|place| Some((place, self.rules.get(place)?))) else {
            return denied(None, Denial::new(Fault::RouteUnmatched, "no rule matches the method, path and host"));
        };
        if rule.access == Access::Public || (rule.cors_preflight_passes && request.is_cors_preflight()) {
            return Entry::Open { rule: place, path: self.credentials.path_without_tokens(request.path()) };
        }
        let presented = match self.credentials.find(request, &path) {
            Err(denial) => return denied(Some(place), denial),
            Ok(Some(presented)) => presented,
            Ok(None) if rule.access == Access::Optional => return Entry::Open { rule: place, path: None },
            Ok(None) => return denied(Some(place), Denial::new(Fault::TokenMissing, "no source has a token")),
        };
        if let Source::Cookie(_) = presented.source
            && !rule.cookie_origins.admit(request)
        {
            return denied(
                Some(place),
                Denial::new(Fault::OriginNotAllowed, "a cookie on an unsafe method or upgrade needs a listed Origin"),
            );
        }
        let removal = self.removal(rule, request, &presented);
        let user_agent = rule.binding.user_agent.as_ref().and_then(|_| request.sole_value(b"user-agent"));
        Entry::Token(Entered { rule: place, presented, removal, user_agent })
    }

    fn removal(&self, rule: &Rule, request: &Request<'_>, presented: &Presented<'_>) -> Removal {
        match presented.source {
            // A token in a URL ends up in logs: it is removed whatever `forward.token` says.
            Source::Query(_) => Removal::Path(self.credentials.without_query_token(request.path())),
            _ if rule.forward.keep_token => Removal::Nothing,
            Source::Header(_) => match self.credentials.header_to_remove(presented.source) {
                Some(name) => Removal::Header(name.to_vec()),
                None => Removal::Nothing,
            },
            Source::Cookie(_) => {
                // Set as one header, in the place of all: a second one could carry the token on.
                let whole = request.header_values(b"cookie").collect::<Vec<_>>().join(b"; ".as_slice());
                Removal::Cookie(self.credentials.without_cookie_token(&whole))
            }
        }
    }

    /// Checks a token's signature and its registered claims.
    ///
    /// # Errors
    /// Why it is refused, and [`Fault::KeysUnavailable`] when its issuer's keys are not at hand.
    pub fn verify(&self, engine: &dyn Engine, token: &[u8], now: Now) -> Result<Verified, Denial> {
        let unverified = Unverified::parse(token, self.limits().token_bytes)?;
        let payload = unverified.parse_payload()?;
        let Json::Object(claims) = &payload else {
            return Err(Denial::new(Fault::TokenMalformed, "the payload is not an object"));
        };
        let Signer { issuer: place, thumbprint } = self.signer(engine, &unverified, claims)?;
        let issuer = self.issuers.get(place).ok_or_else(unknown_issuer)?;
        let iat_lead = self.revocation().map_or(DEFAULT_IAT_LEAD, |revocation| revocation.iat_lead);
        let times = claims::check_registered(issuer, iat_lead, unverified.header(), claims, now.wall)?;
        let questions = match self.revocation() {
            None => Questions::None,
            Some(revocation) => {
                let (name, input) = (&issuer.issuer, unverified.signing_input());
                match Ask::new(revocation, name, claims, input, &thumbprint, times.issued) {
                    Ok(ask) => Questions::Ask(Rc::new(ask)),
                    Err(denial) => Questions::Unaskable(denial),
                }
            }
        };
        Ok(Verified {
            token: token.into(),
            payload: unverified.payload().into(),
            issuer: place,
            thumbprint,
            window: times.window,
            questions,
            judged: RefCell::new(None),
            verdict: Cell::new(None),
        })
    }

    /// Whose key signed a token: the issuer that `iss` names, and the key of it that verifies the signature. Says nothing
    /// of what the token claims.
    ///
    /// # Errors
    /// Why there is no such issuer or key.
    pub fn signer(
        &self,
        engine: &dyn Engine,
        unverified: &Unverified<'_>,
        claims: &Object<'_>,
    ) -> Result<Signer, Denial> {
        let place = self.by_issuer.get(claims::unverified_issuer(claims)?).copied();
        let Some((place, issuer)) = place.and_then(|place| Some((place, self.issuers.get(place)?))) else {
            return Err(unknown_issuer());
        };
        let header = unverified.header();
        if !issuer.algorithms.contains(&header.alg) {
            return Err(Denial::new(Fault::AlgNotAllowed, "the issuer does not use this alg"));
        }
        for key in issuer.keys.candidates(header.kid.as_deref(), header.alg)? {
            if engine.verify(key, header.alg, unverified.signing_input(), unverified.signature()).is_ok() {
                return Ok(Signer { issuer: place, thumbprint: *key.thumbprint() });
            }
        }
        Err(Denial::new(Fault::SigMismatch, "no key of the issuer verifies the signature"))
    }

    /// What is asked about a token, each key with its kind, for people to read.
    ///
    /// # Errors
    /// Why nothing can be asked.
    pub fn revocation_keys(&self, verified: &Verified) -> Result<Vec<(Kind, RevocationKey)>, Denial> {
        let Some(revocation) = self.revocation() else { return Ok(Vec::new()) };
        let unverified = Unverified::parse(&verified.token, self.limits().token_bytes)?;
        let payload = unverified.parse_payload()?;
        let (Some(claims), Some(issuer)) = (payload.as_object(), self.issuers.get(verified.issuer)) else {
            return Err(unknown_issuer());
        };
        revocation::keys(revocation, &issuer.issuer, claims, unverified.signing_input(), &verified.thumbprint)
    }

    /// Judges a verified token by the request's rule, its time and its binding: at every use, cached or not.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn accept(
        &self,
        verified: Rc<Verified>,
        entered: Entered<'_>,
        now: Now,
        peer: &dyn Peer,
    ) -> Result<Accepted, Denial> {
        verified.window.check(now.wall)?;
        let rule =
            self.rules.get(entered.rule).ok_or_else(|| Denial::new(Fault::RouteUnmatched, "the rule is gone"))?;
        let remembered = verified.judged.try_borrow().ok().and_then(|judged| judged.clone());
        let judged = match remembered.filter(|judged| judged.rule == entered.rule) {
            Some(judged) => judged,
            None => {
                let judged = Rc::new(judge(rule, entered.rule, &verified)?);
                if let Ok(mut memory) = verified.judged.try_borrow_mut() {
                    *memory = Some(Rc::clone(&judged));
                }
                judged
            }
        };
        let mismatch_reported = check_binding(rule, &judged.bound, &entered, peer)?;
        Ok(Accepted { verified, judged, removal: entered.removal, mismatch_reported })
    }

    /// Where an accepted request stands by what the cache knows.
    ///
    /// # Errors
    /// [`Fault::SessionRevoked`] when a fresh verdict says so.
    pub fn standing(&self, accepted: Accepted, now: Now) -> Result<Standing, Denial> {
        let mode = self.rules.get(accepted.judged.rule).map_or(RevocationMode::Check, |rule| rule.revocation);
        if mode == RevocationMode::Off {
            return Ok(Standing::Admitted(accepted.admit(false)));
        }
        let (revocation, ask) = match (self.revocation(), &accepted.verified.questions) {
            (Some(revocation), Questions::Ask(ask)) => (revocation, Rc::clone(ask)),
            (_, Questions::Unaskable(denial)) => return Err(denial.clone()),
            // A rule that asks does not compile without `revocation`.
            (None, _) | (_, Questions::None) => {
                return Err(Denial::new(Fault::StoreUnavailable, "there is no service to ask"));
            }
        };
        if let Some((sent, verdict)) = accepted.verified.verdict.get()
            && now.monotonic.since(sent) < revocation.freshness
            && sent <= now.monotonic
        {
            return match verdict {
                Verdict::Live => Ok(Standing::Admitted(accepted.admit(false))),
                Verdict::Dead => Err(revoked()),
            };
        }
        let passes_when_unavailable = mode == RevocationMode::DangerouslyPassWhenUnavailable;
        Ok(Standing::MustAsk(Asking { accepted, ask, passes_when_unavailable }))
    }
}

impl<'r> Entered<'r> {
    pub fn token(&self) -> &'r [u8] {
        self.presented.token
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

    /// RFC 7638 thumbprint of the key that verified it.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// Remembers a verdict, unless a newer one is known: an allow that was on its way must not overwrite a revocation
    /// that was asked for after it.
    pub fn learn(&self, sent: Monotonic, verdict: Verdict) {
        if self.verdict.get().is_none_or(|(known, _)| known <= sent) {
            self.verdict.set(Some((sent, verdict)));
        }
    }
}

impl Accepted {
    fn admit(self, unchecked: bool) -> Admission {
        Admission {
            rule: self.judged.rule,
            judged: self.judged,
            removal: self.removal,
            mismatch_reported: self.mismatch_reported,
            unchecked,
        }
    }
}

impl Asking {
    pub fn ask(&self) -> &Rc<Ask> {
        &self.ask
    }

    pub fn rule(&self) -> usize {
        self.accepted.judged.rule
    }

    pub fn verified(&self) -> &Rc<Verified> {
        &self.accepted.verified
    }

    /// A verdict has come, from the service or from another worker's memory.
    ///
    /// # Errors
    /// The session was ended, the token expired while it waited, or the verdict is no longer fresh.
    pub fn on_verdict(self, policy: &Policy, sent: Monotonic, verdict: Verdict, now: Now) -> Result<Admission, Denial> {
        self.accepted.verified.learn(sent, verdict);
        self.accepted.verified.window.check(now.wall)?;
        // What is known by now may be newer than what has just come.
        match policy.standing(self.accepted, now)? {
            Standing::Admitted(admission) => Ok(admission),
            Standing::MustAsk(asking) => {
                asking.on_cannot_tell(Fault::SessionStoreLatency, "the answer came too late to count")
            }
        }
    }

    /// No verdict can be had.
    ///
    /// # Errors
    /// `fault`, unless the rule lets pass what cannot be checked.
    pub fn on_cannot_tell(self, fault: Fault, cause: &'static str) -> Result<Admission, Denial> {
        if self.passes_when_unavailable && fault.is_cannot_tell() {
            return Ok(self.accepted.admit(true));
        }
        Err(Denial::new(fault, cause))
    }
}

impl Admission {
    /// Headers to set, name and value, each replacing all that the client sent under this name.
    pub fn headers(&self) -> &[(String, String)] {
        &self.judged.headers
    }

    pub fn removal(&self) -> &Removal {
        &self.removal
    }

    pub fn rule(&self) -> usize {
        self.rule
    }
}

const DEFAULT_IAT_LEAD: u64 = 1;

fn unknown_issuer() -> Denial {
    Denial::new(Fault::InvalidIssuer, "iss is not configured")
}

fn revoked() -> Denial {
    Denial::new(Fault::SessionRevoked, "the service says that it was ended")
}

fn judge(rule: &Rule, place: usize, verified: &Verified) -> Result<Judged, Denial> {
    let payload =
        Json::parse(&verified.payload).map_err(|_| Denial::new(Fault::TokenMalformed, "the payload is not JSON"))?;
    let Json::Object(claims) = &payload else {
        return Err(Denial::new(Fault::TokenMalformed, "the payload is not an object"));
    };
    if let Some(accepted) = &rule.issuers
        && !accepted.contains(&verified.issuer)
    {
        return Err(Denial::new(Fault::InvalidIssuer, "the rule does not accept this issuer"));
    }
    claims::check_scopes(&rule.scopes.all, &rule.scopes.any, claims)?;
    for condition in &rule.conditions {
        claims::check_condition(condition, &payload)?;
    }
    Ok(Judged { rule: place, headers: forwarded(&rule.forward, &payload, verified)?, bound: bound(rule, &payload)? })
}

fn forwarded(forward: &Forward, payload: &Json<'_>, verified: &Verified) -> Result<Vec<(String, String)>, Denial> {
    let mut forwarded = Vec::with_capacity(forward.claims.len().saturating_add(1));
    for claim in &forward.claims {
        let text = match payload.path(&claim.claim) {
            // An absent claim sets nothing, and what the client sent under the name is already gone.
            None | Some(Json::Null) => continue,
            Some(Json::String(text)) => text.clone().into_owned(),
            Some(other) => other.to_text(),
        };
        let value = match claim.encoding {
            Encoding::Base64url => crate::b64::encode(text.as_bytes()),
            Encoding::Plain if headers::is_safe_value(text.as_bytes()) => text,
            Encoding::Plain => {
                return Err(Denial::new(
                    Fault::InvalidClaim,
                    format!("the claim `{}` cannot be a header value", claim.claim.join(".")),
                ));
            }
        };
        forwarded.push((claim.header.as_str().to_owned(), value));
    }
    if let Some(header) = &forward.payload_header {
        forwarded.push((header.as_str().to_owned(), crate::b64::encode(&verified.payload)));
    }
    Ok(forwarded)
}

/// Takes out what the binding compares. A claim that is required and not there is a mismatch here already, and a `cnf`
/// with a member that nobody checks is one on every rule (RFC 7800: a bound token used as a bearer token).
fn bound(rule: &Rule, payload: &Json<'_>) -> Result<Bound, Denial> {
    let mismatch = |cause: &'static str| Denial::new(Fault::BindingMismatch, cause);
    let mut bound = Bound::default();
    match payload.path(&["cnf".to_owned()]) {
        None => {}
        Some(Json::Object(cnf)) => {
            for (member, value) in cnf.iter() {
                match (member, value, &rule.binding.certificate) {
                    ("x5t#S256", Json::String(print), Some(_)) => bound.certificate = Some(print.clone().into_owned()),
                    _ => return Err(mismatch("cnf has a member that this rule does not check")),
                }
            }
            if bound.certificate.is_none() {
                return Err(mismatch("cnf is empty"));
            }
        }
        Some(_) => return Err(Denial::new(Fault::InvalidClaim, "cnf is not an object")),
    }
    if let Some(binding) = &rule.binding.certificate
        && binding.mode == BindingMode::Enforce
        && binding.required
        && bound.certificate.is_none()
    {
        return Err(mismatch("the token is bound to no certificate"));
    }
    if let Some(binding) = &rule.binding.address {
        bound.addresses = match payload.path(binding.claim.as_slice()) {
            None => None,
            Some(Json::String(one)) => Some(parse_cidrs(binding.mode, [one.as_ref()])?),
            Some(Json::Array(many)) => {
                let mut texts = Vec::with_capacity(many.len());
                for one in many {
                    let Json::String(text) = one else {
                        return Err(Denial::new(
                            Fault::InvalidClaim,
                            "the address claim has a member that is no string",
                        ));
                    };
                    texts.push(text.as_ref());
                }
                Some(parse_cidrs(binding.mode, texts)?)
            }
            Some(_) => {
                return Err(Denial::new(Fault::InvalidClaim, "the address claim is neither a string nor an array"));
            }
        };
        if bound.addresses.is_none() && binding.mode == BindingMode::Enforce && binding.required {
            return Err(mismatch("the token is bound to no address"));
        }
    }
    if let Some(binding) = &rule.binding.user_agent {
        bound.user_agent = match payload.path(binding.claim.as_slice()) {
            None => None,
            Some(Json::String(hash)) => Some(hash.clone().into_owned()),
            Some(_) => return Err(Denial::new(Fault::InvalidClaim, "the user agent claim is not a string")),
        };
        if bound.user_agent.is_none() && binding.mode == BindingMode::Enforce && binding.required {
            return Err(mismatch("the token is bound to no user agent"));
        }
    }
    Ok(bound)
}

/// One malformed block spoils the claim: it was to narrow the token's use, and nobody can tell how. Where mismatches are
/// only reported, it is one: no block at all.
fn parse_cidrs<'t>(mode: BindingMode, texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<Cidr>, Denial> {
    let parsed: Option<Vec<Cidr>> = texts.into_iter().map(Cidr::parse).collect();
    match (parsed, mode) {
        (Some(blocks), _) => Ok(blocks),
        (None, BindingMode::Report) => Ok(Vec::new()),
        (None, BindingMode::Enforce) => {
            Err(Denial::new(Fault::InvalidClaim, "the address claim holds something that is neither address nor CIDR"))
        }
    }
}

/// Returns whether a mismatch was only reported.
fn check_binding(rule: &Rule, bound: &Bound, entered: &Entered<'_>, peer: &dyn Peer) -> Result<bool, Denial> {
    let mut reported = false;
    let mut judge = |mode: BindingMode, compared: Result<(), &'static str>| match (compared, mode) {
        (Ok(()), _) => Ok(()),
        (Err(_), BindingMode::Report) => {
            reported = true;
            Ok(())
        }
        (Err(cause), BindingMode::Enforce) => Err(Denial::new(Fault::BindingMismatch, cause)),
    };
    // A token without the claim reaches this only where the claim is not required, or in report mode.
    let unbound = |required: bool| if required { Err("the token has no such claim") } else { Ok(()) };
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
                (Some(_), Some(_)) => Err("the client's address is not among the claim's"),
                (Some(_), None) => Err("the client's address is unknown"),
                (None, _) => unbound(binding.required),
            },
        )?;
    }
    if let Some(binding) = &rule.binding.user_agent {
        judge(
            binding.mode,
            match &bound.user_agent {
                Some(hash) => binding::user_agent_matches(hash, entered.user_agent),
                None => unbound(binding.required),
            },
        )?;
    }
    Ok(reported)
}
