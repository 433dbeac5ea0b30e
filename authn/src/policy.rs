//! The configuration compiled: every name resolved, every bound checked. A request cannot meet an invalid value.
use std::collections::HashSet;

use sha2::{Digest as _, Sha256};
use wire::Kinds;
use wire::check::NamedIssuer;

use crate::browser::Browser;
use crate::claims::tenants::{Issuers, Pattern};
use crate::config;
use crate::config::{Access, Environment, Invalid, RevocationMode};
use crate::credentials::Credentials;
use crate::dpop::Dpop;
use crate::keys::rings::Keyrings;
use crate::request::headers::{HeaderName, HeaderNames};
use crate::request::overrides;
use crate::request::route::Router;
use crate::revocation::Revocation;
use crate::sightings::Sightings;

mod binding;
mod browser;
mod condition;
mod dpop;
mod expose;
mod faults;
mod forward;
mod issuer;
mod kept;
mod key;
mod limits;
mod revocation;
mod rule;
mod sightings;
mod step_up;
mod streams;

pub(crate) use expose::Exposure;
pub use expose::Targets;
pub(crate) use faults::Faults;
pub(crate) use forward::Forward;
pub(crate) use issuer::Issuer;
pub use rule::Rule;

#[derive(Debug)]
pub struct Policy {
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) by_issuer: Issuers,
    pub(crate) credentials: Credentials,
    pub(crate) router: Router,
    pub(crate) rules: Vec<Rule>,
    pub(crate) revocation: Option<Revocation>,
    pub(crate) dpop: Option<Dpop>,
    pub(crate) sightings: Option<Sightings>,
    pub(crate) faults: Faults,
    /// Of answers to requests without a rule, and of rules without a section of their own.
    pub(crate) browser: Option<Browser>,
    /// No rule is enforced.
    pub(crate) reports: bool,
    /// For requests without a rule.
    pub(crate) default_forward: Forward,
    /// `None` if nothing is exposed.
    pub(crate) exposure: Option<Exposure>,
    /// Every header that any rule may set, and headers that override what was matched: removed on every route.
    pub(crate) clear: HeaderNames,
    limits: config::Limits,
    engine: config::Engine,
    digest: [u8; 32],
}

impl Policy {
    /// Reads the document as JSON.
    ///
    /// # Errors
    /// The first error, with the path of its field.
    pub fn from_json(text: &[u8], environment: Environment<'_>) -> Result<Self, Invalid> {
        Self::from_document(&config::Document::from_json(text)?, text, environment)
    }

    /// The document that was read from this text.
    ///
    /// # Errors
    /// The first error, with the path of its field.
    pub fn from_document(
        document: &config::Document,
        text: &[u8],
        environment: Environment<'_>,
    ) -> Result<Self, Invalid> {
        Self::compile(document, environment, Sha256::digest(text).into())
    }

    /// `digest` identifies this document: cached answers of another one are not used.
    ///
    /// # Errors
    /// The first error, with the path of its field.
    pub fn compile(
        document: &config::Document,
        environment: Environment<'_>,
        digest: [u8; 32],
    ) -> Result<Self, Invalid> {
        let limits = limits::check_limits(&document.limits)?;
        let (issuers, by_issuer) = issuer::compile_issuers(&document.issuers, &limits, environment)?;
        let revocation = document
            .revocation
            .as_ref()
            .map(|revocation| revocation::compile_revocation(revocation, &issuers, &document.limits, environment))
            .transpose()?;
        kept::check_kept(document, revocation.as_ref())?;
        let dpop = document
            .dpop
            .as_ref()
            .map(|dpop| dpop::compile_dpop(dpop, revocation.as_ref(), environment))
            .transpose()?;
        let forwarded_for = binding::forwarded_for(document.client_address.as_ref())?;
        let sightings = document.sightings.as_ref();
        let sightings = sightings
            .map(|document| sightings::compile_sightings(document, revocation.as_ref(), forwarded_for))
            .transpose()
            .map_err(|invalid| invalid.within("sightings"))?;
        let sources = if dpop.is_some() { dpop::with_scheme(&document.tokens) } else { document.tokens.clone() };
        let credentials = Credentials::compile(&sources)
            .map_err(|invalid| invalid.within("tokens"))?
            .removing_parameters(&document.remove_query_parameters)?;
        let default_forward = forward::compile_forward(&document.forward, "forward")?;
        let browser = document.browser.as_ref().map(browser::compile_browser).transpose();
        let browser = browser.map_err(|invalid| invalid.within("browser"))?;
        if document.rules.is_empty() {
            return Err(Invalid::new("rules", "at least one rule is needed: a request that matches none is refused"));
        }
        let given = rule::Given {
            issuers: &issuers,
            asked: revocation.as_ref().map(|revocation| revocation.kinds.as_slice()),
            default_forward: &document.forward,
            forwarded_for,
            environment,
        };
        let mut rules = Vec::with_capacity(document.rules.len());
        let mut names = HashSet::new();
        for (index, rule) in document.rules.iter().enumerate() {
            let at = format!("rules[{index}]");
            let compiled = rule::compile_rule(rule, index, &at, &given)?;
            let settings = dpop::RuleSettings { has_dpop: dpop.is_some(), has_service: revocation.is_some() };
            let compiled = Rule { dpop: dpop::rule_dpop(rule, settings, &at)?, ..compiled };
            if !names.insert(compiled.name.clone()) {
                return Err(Invalid::new(format!("{at}.name"), format!("two rules are named `{}`", compiled.name)));
            }
            rules.push(compiled);
        }
        let matches = document.rules.iter().map(|rule| (!rule.for_routes).then_some(&rule.matches));
        let router =
            Router::compile(matches).map_err(|(index, invalid)| invalid.within(format!("rules[{index}].match")))?;
        let mut clear = HeaderNames::default();
        for forward in rules.iter().map(|rule| &rule.forward).chain([&default_forward]) {
            for header in forward.claims.iter().map(|claim| &claim.header).chain(&forward.payload_header) {
                clear.insert(header.clone());
            }
        }
        let sections = rules.iter().filter_map(|rule| rule.browser.as_ref()).chain(&browser);
        let nonces: Vec<_> = sections.filter_map(|browser| browser.nonce_header.clone()).collect();
        // One header must not say two things.
        if let Some(both) = nonces.iter().find(|header| clear.has_loosely(header.as_bytes())) {
            let message = format!("`{}` is also set by `forward`", both.as_str());
            return Err(Invalid::new("browser.nonce_header", message));
        }
        nonces.into_iter().for_each(|header| clear.insert(header));
        overrides_to_remove(document)?.for_each(|name| clear.insert(name));
        for (index, header) in document.tokens.headers.iter().enumerate() {
            if clear.has_loosely(header.name.as_bytes()) {
                return Err(Invalid::new(
                    format!("tokens.headers[{index}].name"),
                    format!(
                        "`{}` is also set by the filter: the token would be cleared before it is read",
                        header.name
                    ),
                ));
            }
        }
        let faults = faults::compile_faults(&document.faults)?;
        let exposure = expose::compile_exposure(&document.expose).map_err(|invalid| invalid.within("expose"))?;
        Ok(Self {
            issuers,
            by_issuer,
            credentials,
            router,
            rules,
            revocation,
            dpop,
            sightings,
            faults,
            browser,
            reports: document.mode == config::Mode::Report,
            default_forward,
            exposure,
            clear,
            limits,
            engine: document.engine,
            digest,
        })
    }

    /// The section for answers to requests of this rule, or of no rule.
    pub(crate) fn browser_of(&self, rule: Option<usize>) -> Option<&Browser> {
        let own = rule.and_then(|rule| self.rules.get(rule)?.browser.as_ref());
        own.or(self.browser.as_ref())
    }

    /// Where facts about requests are exposed.
    pub fn exposes_to(&self) -> Option<Targets> {
        self.exposure.as_ref().map(|exposure| exposure.to)
    }

    /// The level of the lines about refused requests.
    pub fn refusal_log(&self) -> config::RefusalLog {
        self.faults.log
    }

    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The configured signature verifier.
    pub fn engine(&self) -> config::Engine {
        self.engine
    }

    pub fn limits(&self) -> &config::Limits {
        &self.limits
    }

    pub fn dpop(&self) -> Option<&Dpop> {
        self.dpop.as_ref()
    }

    pub fn revocation(&self) -> Option<&Revocation> {
        self.revocation.as_ref()
    }

    /// The headers that are removed on every route.
    pub fn cleared(&self) -> impl Iterator<Item = &str> {
        self.clear.iter().map(HeaderName::as_str)
    }

    /// The index of the issuer with this `iss`, or with this pattern.
    pub fn issuer_index(&self, iss: &str) -> Option<usize> {
        let is_pattern = || self.issuers.iter().position(|issuer| issuer.issuer == iss);
        self.by_issuer.find(iss).or_else(is_pattern)
    }

    /// The name of the issuer at this index.
    pub fn issuer_name(&self, index: usize) -> Option<&str> {
        self.issuers.get(index).map(|issuer| issuer.name.as_str())
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule that routes of the proxy select by this name.
    pub fn rule_for_routes(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.for_routes && rule.name == name)
    }

    /// May a request that this rule has judged be forwarded on this route, which selects a rule by name or none?
    pub fn is_rule_of_route(&self, rule: usize, selected: Option<&str>) -> bool {
        match selected {
            Some(name) => self.rule_for_routes(name) == Some(rule),
            None => self.rules.get(rule).is_some_and(|rule| !rule.for_routes),
        }
    }

    /// The issuers whose tokens some rule checks, to be reported to the service.
    pub fn issuers_asked_about(&self) -> Vec<NamedIssuer> {
        let Some(revocation) = &self.revocation else { return Vec::new() };
        let asks = |index: usize| {
            let mut rules = self.rules.iter().filter(|rule| rule.revocation != RevocationMode::Off);
            rules.any(|rule| {
                !matches!(rule.access, Access::Public | Access::Probe)
                    && rule.issuers.as_ref().is_none_or(|issuers| issuers.contains(&index))
            })
        };
        let issuers = self.issuers.iter().zip(&revocation.needs).enumerate().filter(|(index, _)| asks(*index));
        let mut named = Vec::new();
        for (_, (issuer, needs)) in issuers {
            let kinds = revocation.kinds.iter().copied().filter(|kind| issuer.identifiers.can_name(*kind));
            let kinds = Kinds::of(kinds);
            match issuer.tenants.as_ref().and_then(Pattern::issuers) {
                Some(tenants) => named.extend(tenants.map(|issuer| NamedIssuer { issuer, needs: *needs, kinds })),
                None => named.push(NamedIssuer { issuer: issuer.issuer.clone(), needs: *needs, kinds }),
            }
        }
        named
    }

    /// The keys of all issuers before any fetch.
    pub fn keyrings(&self) -> Keyrings {
        Keyrings::new(self.issuers.iter().map(|issuer| issuer.published.clone()))
    }
}

/// Those that the document does not keep.
fn overrides_to_remove(document: &config::Document) -> Result<impl Iterator<Item = HeaderName>, Invalid> {
    let mut all: Vec<HeaderName> =
        overrides::ALL.iter().filter_map(|header| HeaderName::of_request(header.name)).collect();
    for (index, kept) in document.keep_override_headers.iter().enumerate() {
        let invalid = |message| Invalid::new(format!("keep_override_headers[{index}]"), message);
        if !document.remove_override_headers {
            return Err(invalid("has no effect: `remove_override_headers` is false, so all of them stay".to_owned()));
        }
        let before = all.len();
        all.retain(|name| !name.matches_loosely(kept.as_bytes()));
        if all.len() == before {
            return Err(invalid(format!(
                "`{kept}` is not in the list of removed headers, or is listed twice: see docs/overrides.md"
            )));
        }
    }
    Ok(all.into_iter().filter(|_| document.remove_override_headers))
}
