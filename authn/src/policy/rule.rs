//! Rules of the document, compiled.
use wire::Kind;

use super::Issuer;
use super::binding::compile_binding;
use super::browser::compile_browser;
use super::condition::compile_condition;
use super::forward::{Forward, compile_forward};
use super::revocation::kind_of;
use super::step_up::compile_step_up;
use super::streams::{Streams, compile_streams};
use crate::binding::Binding;
use crate::browser::Browser;
use crate::claims::condition::Condition;
use crate::claims::step_up::StepUp;
use crate::config;
use crate::config::{Access, Environment, Invalid, RevocationMode, name_or};
use crate::introspection::{Format, Introspection};
use crate::request::origin::Origins;

#[derive(Debug)]
pub struct Rule {
    pub name: String,
    pub(crate) access: Access,
    /// It is not enforced.
    pub(crate) reports: bool,
    /// Only routes of the proxy select it.
    pub(crate) for_routes: bool,
    /// By issuer index; `None` admits all.
    pub(crate) issuers: Option<Vec<usize>>,
    /// Those with introspection for opaque tokens. No token matches two of them.
    pub(crate) introspecting: Vec<usize>,
    pub(crate) scopes: config::Scopes,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) binding: Binding,
    pub(crate) step_up: Option<StepUp>,
    pub(crate) revocation: RevocationMode,
    /// `None`: it reads no token, or the document has no `dpop`.
    pub(crate) dpop: Option<config::RuleDpop>,
    /// A token must have a claim for each of these.
    pub(crate) revocable_by: Vec<Kind>,
    /// `None`: streams end only by themselves.
    pub(crate) streams: Option<Streams>,
    pub(crate) forward: Forward,
    pub(crate) cors_preflight_passes: bool,
    pub(crate) cookie_origins: Origins,
    pub(crate) browser: Option<Browser>,
}

/// What all rules of a document are compiled with.
pub(super) struct Given<'d> {
    pub(super) issuers: &'d [Issuer],
    /// The kinds of revocations that are checked.
    pub(super) asked: Option<&'d [Kind]>,
    pub(super) default_forward: &'d config::Forward,
    pub(super) forwarded_for: Option<usize>,
    pub(super) environment: Environment<'d>,
}

impl Rule {
    pub(crate) fn forwards_proof(&self) -> bool {
        self.dpop.as_ref().is_some_and(|dpop| dpop.forward_proof)
    }
}

pub(super) fn compile_rule(
    document: &config::Rule,
    index: usize,
    at: &str,
    given: &Given<'_>,
) -> Result<Rule, Invalid> {
    let Given { issuers, asked, default_forward, forwarded_for, environment } = *given;
    let name = name_or(document.name.as_deref(), "rule", index, at)?;
    let looks_at_no_token = match document.access {
        Access::Public => Some("public"),
        Access::Probe => Some("probe"),
        Access::Optional | Access::Required => None,
    };
    if let Some(word) = looks_at_no_token {
        let needless = [
            ("mode", document.mode != config::Mode::default()),
            ("issuers", document.issuers.is_some()),
            ("scopes", !document.scopes.all.is_empty() || !document.scopes.any.is_empty()),
            ("claims", !document.claims.is_empty()),
            (
                "binding",
                document.binding.certificate.is_some()
                    || document.binding.address.is_some()
                    || document.binding.user_agent.is_some(),
            ),
            ("step_up", document.step_up.is_some()),
            ("revocation", document.revocation.is_some()),
            ("revocable_by", !document.revocable_by.is_empty()),
            ("streams", document.streams.is_some()),
            ("forward", document.forward.is_some()),
        ];
        // A public rule with conditions was probably meant to be a required one: refuse rather than guess.
        if let Some((field, _)) = needless.iter().find(|(_, is_there)| *is_there) {
            return Err(Invalid::new(
                format!("{at}.{field}"),
                format!("a {word} rule reads no token, so this has no effect"),
            ));
        }
    }
    if document.for_routes {
        check_for_routes(document, at)?;
    }
    if document.access == Access::Probe && !matches!(document.matches.path, Some(config::PathMatch::Exact(_))) {
        // Without an exact path, a typo would make the filter answer a whole API.
        return Err(Invalid::new(
            format!("{at}.match.path"),
            "a probe rule needs an `exact` path: the filter answers every request that it matches",
        ));
    }
    let revocation = match (document.revocation, asked.is_some()) {
        (None, true) => RevocationMode::Check,
        (None | Some(RevocationMode::Off), false) => RevocationMode::Off,
        (Some(mode), true) => mode,
        (Some(_), false) => {
            return Err(Invalid::new(format!("{at}.revocation"), "the document has no `revocation`"));
        }
    };
    let accepted = match &document.issuers {
        None => None,
        Some(names) if names.is_empty() => {
            return Err(Invalid::new(format!("{at}.issuers"), "name at least one issuer, or leave the field out"));
        }
        Some(names) => {
            let mut accepted = Vec::new();
            for (i, wanted) in names.iter().enumerate() {
                let index = issuers.iter().position(|issuer| &issuer.name == wanted).ok_or_else(|| {
                    Invalid::new(format!("{at}.issuers[{i}]"), format!("no issuer is named `{wanted}`"))
                })?;
                accepted.push(index);
            }
            Some(accepted)
        }
    };
    for (field, scopes) in [("all", &document.scopes.all), ("any", &document.scopes.any)] {
        for (i, scope) in scopes.iter().enumerate() {
            // RFC 6749 section 3.3; also keeps the challenge's quoted string intact.
            if scope.is_empty() || !scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
                return Err(Invalid::new(
                    format!("{at}.scopes.{field}[{i}]"),
                    "is not a scope token (RFC 6749 section 3.3)",
                ));
            }
        }
    }
    let mut conditions = Vec::new();
    for (i, condition) in document.claims.iter().enumerate() {
        conditions.push(compile_condition(condition, &format!("{at}.claims[{i}]"))?);
    }
    let binding = compile_binding(&document.binding, forwarded_for, environment)
        .map_err(|invalid| invalid.within(format!("{at}.binding")))?;
    let step_up = document.step_up.as_ref().map(compile_step_up).transpose().map_err(|invalid| invalid.within(at))?;
    let cookie_origins = Origins::compile(&document.cookie_origins, document.cookie_same_origin)
        .map_err(|invalid| invalid.within(at))?;
    let browser = document.browser.as_ref().map(compile_browser).transpose();
    let browser = browser.map_err(|invalid| invalid.within(format!("{at}.browser")))?;
    let forward = match &document.forward {
        Some(forward) => compile_forward(forward, &format!("{at}.forward"))?,
        None => compile_forward(default_forward, "forward")?,
    };
    let introspecting = introspecting(accepted.as_deref(), document.access, at, issuers)?;
    let streams = document.streams.as_ref();
    let streams = streams.map(|it| compile_streams(it, revocation, &format!("{at}.streams"))).transpose()?;
    let revocable_by = revocable_by(document, revocation, asked, at)?;
    for (index, kind) in revocable_by.iter().enumerate() {
        let mut of_rule = issuers
            .iter()
            .enumerate()
            .filter(|(index, _)| accepted.as_ref().is_none_or(|accepted| accepted.contains(index)));
        if of_rule.all(|(_, issuer)| issuer.identifiers.names(*kind).is_empty()) {
            return Err(Invalid::new(
                format!("{at}.revocable_by[{index}]"),
                format!("no token has a claim for the {kind}: name one in the issuer's `revocation_claims`"),
            ));
        }
    }
    Ok(Rule {
        name,
        access: document.access,
        reports: document.mode == config::Mode::Report,
        for_routes: document.for_routes,
        issuers: accepted,
        introspecting,
        scopes: document.scopes.clone(),
        conditions,
        binding,
        step_up,
        revocation,
        dpop: None,
        revocable_by,
        streams,
        forward,
        cors_preflight_passes: document.cors_preflight == config::CorsPreflight::Pass,
        cookie_origins,
        browser,
    })
}

/// Those of the accepted issuers with introspection for opaque tokens, if no token could match two of them.
fn introspecting(
    accepted: Option<&[usize]>,
    access: Access,
    at: &str,
    issuers: &[Issuer],
) -> Result<Vec<usize>, Invalid> {
    if matches!(access, Access::Public | Access::Probe) {
        return Ok(Vec::new());
    }
    let mut found: Vec<(usize, &str, &Format)> = Vec::new();
    for (index, issuer) in issuers.iter().enumerate() {
        let Some(format) = issuer.introspection.as_ref().and_then(Introspection::format) else { continue };
        if accepted.is_some_and(|accepted| !accepted.contains(&index)) {
            continue;
        }
        // Asking both would show each server the other's tokens, and the first to say yes would decide.
        if let Some((_, other, _)) = found.iter().find(|(.., other)| other.overlaps(format)) {
            return Err(Invalid::new(
                format!("{at}.issuers"),
                format!(
                    "an opaque token could match `{other}` or `{}`: make their `introspection.format` distinct, or name only one of them here",
                    issuer.name
                ),
            ));
        }
        found.push((index, &issuer.name, format));
    }
    Ok(found.into_iter().map(|(index, ..)| index).collect())
}

fn revocable_by(
    document: &config::Rule,
    mode: RevocationMode,
    asked: Option<&[Kind]>,
    at: &str,
) -> Result<Vec<Kind>, Invalid> {
    let mut kinds = Vec::new();
    for (index, kind) in document.revocable_by.iter().map(|kind| kind_of(*kind)).enumerate() {
        let invalid = |message: &str| Err(Invalid::new(format!("{at}.revocable_by[{index}]"), message));
        if !matches!(kind, Kind::Session | Kind::User | Kind::Client) {
            return invalid("use session, user or client: every token can be revoked by the other kinds");
        }
        if mode == RevocationMode::Off {
            return invalid("the rule does not check revocations");
        }
        if !asked.is_some_and(|asked| asked.contains(&kind)) {
            return invalid("`revocation.kinds` does not have this kind");
        }
        if kinds.contains(&kind) {
            return invalid("is there twice");
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

/// A route must not be a way to turn the check off, and its rule must not apply to any other request.
fn check_for_routes(document: &config::Rule, at: &str) -> Result<(), Invalid> {
    if document.access != Access::Required {
        let message = "needs `access: required`: a route of the proxy must not turn the check off";
        return Err(Invalid::new(format!("{at}.for_routes"), message));
    }
    if document.name.is_none() {
        return Err(Invalid::new(
            format!("{at}.name"),
            "a rule `for_routes` needs a name: routes select it by the name",
        ));
    }
    if document.matches != config::Match::default() {
        let message = "has no effect: the rule applies to the requests whose route selects it";
        return Err(Invalid::new(format!("{at}.match"), message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;

    fn compiled(rules: &str) -> Result<Policy, String> {
        let issuer = r#"{"issuer":"i","audiences":"any","algorithms":["HS256"],"keys":[{"secret_env":"S"}]}"#;
        let text = format!(r#"{{"issuers":[{issuer}],"rules":{rules}}}"#);
        Policy::from_json(text.as_bytes(), &|_| Some(vec![1; 32])).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn only_a_rule_for_routes_can_be_selected_by_one() {
        let rules = r#"[{"name":"all","access":"required"},{"name":"admin","access":"required","for_routes":true}]"#;
        let policy = compiled(rules).unwrap();
        assert_eq!(policy.rule_for_routes("admin"), Some(1));
        assert_eq!(policy.rule_for_routes("all"), None);
        assert!(policy.is_rule_of_route(0, None) && policy.is_rule_of_route(1, Some("admin")));
        assert!(!policy.is_rule_of_route(1, None), "the document never matches it");
        assert!(!policy.is_rule_of_route(0, Some("admin")) && !policy.is_rule_of_route(0, Some("all")));
    }

    #[test]
    fn a_rule_for_routes_cannot_turn_the_check_off() {
        for (rule, error) in [
            (r#"{"name":"a","access":"public","for_routes":true}"#, "rules[0].for_routes: needs"),
            (r#"{"name":"a","access":"optional","for_routes":true}"#, "rules[0].for_routes: needs"),
            (r#"{"access":"required","for_routes":true}"#, "rules[0].name: a rule"),
            (
                r#"{"name":"a","access":"required","for_routes":true,"match":{"path":{"prefix":"/"}}}"#,
                "rules[0].match: has no effect",
            ),
        ] {
            let refused = compiled(&format!("[{rule}]")).unwrap_err();
            assert!(refused.starts_with(error), "{rule}: {refused}");
        }
    }
}
