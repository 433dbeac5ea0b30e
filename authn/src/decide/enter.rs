//! First step: the rule, and the one token of the request.
use std::borrow::Cow;
use std::sync::Arc;

use wire::sightings::Client;

use crate::binding::ClientHeaders;
use crate::config::Access;
use crate::credentials::{Presented, Source};
use crate::dpop::{self, Shown};
use crate::policy::{Policy, Rule};
use crate::reject::{Cause, Rejection};
use crate::request::host::Host;
use crate::request::path::PlainPath;
use crate::request::{CONNECT, Request};

/// The result of the rules before any token is read.
#[derive(Debug)]
pub enum Entry<'r> {
    /// Forwarded without identity: a public rule, an optional one without a token, or a CORS preflight that may pass.
    /// Or answered by the filter and not forwarded: see [`Policy::answers`].
    Open {
        rule: usize,
        /// Unchecked tokens: an upstream must not treat them as checked.
        removals: Vec<Removal>,
    },
    Denied {
        rule: Option<usize>,
        rejection: Rejection,
    },
    Token(Entered<'r>),
}

/// A request with one token, on a rule that reads it.
#[derive(Debug)]
pub struct Entered<'r> {
    pub(super) rule: usize,
    pub(super) presented: Presented<'r>,
    pub(super) removal: Removal,
    pub(super) client: ClientHeaders<'r>,
    /// `None`: neither the scheme `DPoP` nor a proof, or the document has no `dpop`.
    pub(super) dpop: Option<Box<Shown<'r>>>,
    /// What is reported of its client. `None`: the document has no `sightings`.
    pub(super) sighted: Option<Box<Client>>,
}

/// How the token is hidden from the upstream. One in the query is removed already ([`Policy::clear`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    Nothing,
    Header(Arc<[u8]>),
    /// The Cookie header's new value; `None` removes it.
    Cookie(Option<Vec<u8>>),
    /// The new value of Sec-WebSocket-Protocol; `None` removes it.
    Subprotocols(Option<Vec<u8>>),
}

impl Policy {
    /// By the first rule that matches.
    pub fn enter<'r>(&self, request: &Request<'r>) -> Entry<'r> {
        self.enter_by(request, None)
    }

    /// `selected`: the name of the rule that the request's route selects.
    pub fn enter_by<'r>(&self, request: &Request<'r>, selected: Option<&str>) -> Entry<'r> {
        let denied = |rule, rejection| Entry::Denied { rule, rejection };
        let (path, host) = match (request.plain_path(), Host::parse(request.authority())) {
            (Ok(path), Ok(host)) => (path, host),
            (Err(rejection), _) | (_, Err(rejection)) => return denied(None, rejection),
        };
        let found = match selected {
            Some(name) if request.method() != CONNECT => match self.rule_for_routes(name) {
                None => return denied(None, Rejection::new(Cause::RouteRuleUnknown)),
                found => found,
            },
            Some(_) | None => self.router.find(request.method(), &path, &host),
        };
        let Some((index, rule)) = found.and_then(|index| Some((index, self.rules.get(index)?))) else {
            return denied(None, Rejection::new(Cause::NoRule));
        };
        if rule.access == Access::Probe {
            return Entry::Open { rule: index, removals: Vec::new() };
        }
        if rule.access == Access::Public || (rule.cors_preflight_passes && self.is_bare_preflight(request, &path)) {
            let mut removals = self.unchecked_tokens(rule.forward.keep_token, request);
            removals.extend(self.unused_proof(rule, request));
            return Entry::Open { rule: index, removals };
        }
        let presented = match self.credentials.find(request, &path) {
            Err(rejection) => return denied(Some(index), rejection),
            Ok(Some(presented)) => presented,
            Ok(None) if rule.access == Access::Optional => {
                return Entry::Open { rule: index, removals: self.unused_proof(rule, request).into_iter().collect() };
            }
            Ok(None) => return denied(Some(index), Rejection::new(Cause::NoToken)),
        };
        if let Source::Cookie(_) = presented.source
            && !rule.cookie_origins.admit(request)
        {
            return denied(Some(index), Rejection::new(Cause::OriginNotListed));
        }
        let removal = self.removal(rule, request, &presented);
        let client = ClientHeaders::read(&rule.binding, request);
        let dpop = match &self.dpop {
            None => None,
            Some(dpop) => match dpop.show(request, &path, &host, self.credentials.is_dpop(presented.source)) {
                Ok(shown) => shown,
                Err(rejection) => return denied(Some(index), rejection),
            },
        };
        let sighted = self.sightings.as_ref().zip(self.revocation.as_ref());
        let sighted = sighted.map(|(sightings, revocation)| sightings.of_headers(&revocation.derived, request).into());
        Entry::Token(Entered { rule: index, presented, removal, client, dpop, sighted })
    }

    /// Does the filter itself answer requests of this rule?
    pub fn answers(&self, rule: usize) -> bool {
        self.rules.get(rule).is_some_and(|rule| rule.access == Access::Probe)
    }

    /// A browser sends a preflight without credentials, without a body (Fetch standard, section 4.8) and never to
    /// switch protocols. A request with any of these is judged like any other.
    fn is_bare_preflight(&self, request: &Request<'_>, path: &PlainPath<'_>) -> bool {
        request.is_cors_preflight()
            && !request.is_upgrade()
            && !request.may_have_body()
            && matches!(self.credentials.find(request, path), Ok(None))
    }

    /// Is a request of this rule, or of no rule, forwarded without identity where it would be refused?
    pub fn only_reports(&self, rule: Option<usize>) -> bool {
        self.reports || rule.and_then(|rule| self.rules.get(rule)).is_some_and(|rule| rule.reports)
    }

    /// How its tokens are hidden from the upstream then.
    pub fn reported_tokens(&self, rule: Option<usize>, request: &Request<'_>) -> Vec<Removal> {
        let forward = rule.and_then(|rule| self.rules.get(rule)).map_or(&self.default_forward, |rule| &rule.forward);
        self.unchecked_tokens(forward.keep_token, request)
    }

    /// May a request without a rule be forwarded on this route?
    pub fn is_no_rule_of_route(&self, selected: Option<&str>) -> bool {
        selected.is_none_or(|name| self.rule_for_routes(name).is_none())
    }

    /// Possible tokens of a request that are not checked.
    fn unchecked_tokens(&self, keep_token: bool, request: &Request<'_>) -> Vec<Removal> {
        let subprotocols = self.credentials.subprotocols_without_tokens(request).map(Removal::Subprotocols);
        let mut removals: Vec<Removal> = subprotocols.into_iter().collect();
        if keep_token {
            return removals;
        }
        removals.extend(self.credentials.token_headers(request).map(Removal::Header));
        if self.credentials.has_cookie_token(request) {
            removals.push(self.without_cookie(request));
        }
        removals
    }

    /// Is the header with a proof removed from requests of this rule, or of none, that are forwarded without identity?
    pub fn removes_proofs(&self, rule: Option<usize>) -> bool {
        let rule = rule.and_then(|rule| self.rules.get(rule));
        self.dpop.is_some() && !rule.is_some_and(Rule::forwards_proof)
    }

    /// A proof that was not judged.
    fn unused_proof(&self, rule: &Rule, request: &Request<'_>) -> Option<Removal> {
        let has_proof = self.dpop.is_some() && request.header_values(dpop::HEADER.as_bytes()).next().is_some();
        (has_proof && !rule.forwards_proof()).then(|| Removal::Header(dpop::HEADER.as_bytes().into()))
    }

    /// Set as one header that replaces all: a second one could carry the token.
    fn without_cookie(&self, request: &Request<'_>) -> Removal {
        let whole = request.header_values(b"cookie").collect::<Vec<_>>().join(b"; ".as_slice());
        Removal::Cookie(self.credentials.without_cookie_token(&whole))
    }

    fn removal(&self, rule: &Rule, request: &Request<'_>, presented: &Presented<'_>) -> Removal {
        match presented.source {
            // Removed whatever `forward.token` says.
            Source::Query(_) => Removal::Nothing,
            // A server that saw it could choose it and send the token back, so it is also removed in every case.
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
}

impl<'r> Entered<'r> {
    /// Freed from the request's headers, so that it can wait.
    pub fn into_owned(self) -> Entered<'static> {
        let Presented { token, source } = self.presented;
        Entered {
            rule: self.rule,
            presented: Presented { token: Cow::Owned(token.into_owned()), source },
            removal: self.removal,
            client: self.client.into_owned(),
            dpop: self.dpop.map(|shown| Box::new(shown.into_owned())),
            sighted: self.sighted,
        }
    }

    pub fn token(&self) -> &[u8] {
        &self.presented.token
    }

    pub fn rule(&self) -> usize {
        self.rule
    }

    pub fn removal(&self) -> &Removal {
        &self.removal
    }

    /// Where the token was found.
    pub fn source(&self) -> Source {
        self.presented.source
    }

    /// The token came in a cookie: a browser session, whose responses must not be stored.
    pub fn is_cookie_session(&self) -> bool {
        matches!(self.presented.source, Source::Cookie(_))
    }
}
