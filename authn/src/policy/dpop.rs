//! DPoP, compiled: the document's settings and what each rule asks.
use jose::Algorithm;
use jose::dpop::Origin;
use wire::{DerivedKeys, Secret};

use crate::config;
use crate::config::{Access, ConfigDuration, DpopReplay, Environment, Invalid, RuleDpop, secret_from, whole_seconds};
use crate::dpop::{Dpop, SCHEME};
use crate::revocation::Revocation;

const MAX_ORIGINS: usize = 16;

pub(super) fn compile_dpop(
    document: &config::Dpop,
    revocation: Option<&Revocation>,
    environment: Environment<'_>,
) -> Result<Dpop, Invalid> {
    let seconds = ConfigDuration::from_secs;
    let nonce_lifetime = match &document.nonce {
        None => None,
        Some(nonce) => Some(whole_seconds(nonce.lifetime, seconds(10), seconds(3600), "dpop.nonce.lifetime")?),
    };
    if !(1024..=524_288).contains(&document.remembered_proofs) {
        return Err(Invalid::new("dpop.remembered_proofs", "is not within 1024 to 524288"));
    }
    let derived = match (&document.secret_env, revocation) {
        (Some(name), _) => {
            let at = "dpop.secret_env";
            let secret = secret_from(environment, name, config::SecretEncoding::Raw, at)?;
            Secret::new(&secret).map_err(|error| Invalid::new(at, error.to_string()))?.derive()
        }
        (None, Some(revocation)) => DerivedKeys::clone(&revocation.derived),
        (None, None) => return Err(Invalid::new("dpop.secret_env", "is needed without `revocation`")),
    };
    Ok(Dpop {
        origins: origins(&document.origins)?,
        algorithms: algorithms(&document.algorithms)?,
        max_age: whole_seconds(document.max_age, seconds(1), seconds(600), "dpop.max_age")?,
        future_iat_tolerance: whole_seconds(
            document.future_iat_tolerance,
            seconds(0),
            seconds(60),
            "dpop.future_iat_tolerance",
        )?,
        nonce_lifetime,
        remembered_proofs: document.remembered_proofs,
        derived,
    })
}

/// The places of tokens, with the scheme of bound tokens among them.
pub(super) fn with_scheme(document: &config::Sources) -> config::Sources {
    let mut sources = document.clone();
    let is_dpop =
        |source: &config::HeaderSource| source.scheme.as_deref().is_some_and(|it| it.eq_ignore_ascii_case(SCHEME));
    if !sources.headers.iter().any(is_dpop) {
        sources
            .headers
            .push(config::HeaderSource { name: "authorization".to_owned(), scheme: Some(SCHEME.to_owned()) });
    }
    sources
}

/// What a rule asks; `None` if it reads no token, or the document has no `dpop`.
pub(super) fn rule_dpop(
    document: &config::Rule,
    settings: RuleSettings,
    at: &str,
) -> Result<Option<RuleDpop>, Invalid> {
    let at = format!("{at}.dpop");
    let reads_no_token = matches!(document.access, Access::Public | Access::Probe);
    match &document.dpop {
        Some(_) if !settings.has_dpop => Err(Invalid::new(at, "the document has no `dpop`")),
        Some(asked) if reads_no_token => {
            let RuleDpop { required, replay, forward_proof } = asked;
            let is_effective =
                *forward_proof && !required && *replay == DpopReplay::Process && document.access == Access::Public;
            let message = "this rule reads no token: only `forward_proof: true` of a public rule has an effect";
            if is_effective { Ok(Some(asked.clone())) } else { Err(Invalid::new(at, message)) }
        }
        Some(asked) if asked.replay == DpopReplay::Fleet && !settings.has_service => {
            let message = "`fleet` needs `revocation`: the session service remembers the proofs";
            Err(Invalid::new(format!("{at}.replay"), message))
        }
        Some(asked) => Ok(Some(asked.clone())),
        None => Ok((settings.has_dpop && !reads_no_token).then(RuleDpop::default)),
    }
}

/// What the document has beside its rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuleSettings {
    pub(super) has_dpop: bool,
    pub(super) has_service: bool,
}

fn origins(document: &[String]) -> Result<Vec<Origin>, Invalid> {
    if document.is_empty() || document.len() > MAX_ORIGINS {
        return Err(Invalid::new("dpop.origins", format!("1 to {MAX_ORIGINS} origins are needed")));
    }
    let mut origins: Vec<Origin> = Vec::new();
    for (index, text) in document.iter().enumerate() {
        let invalid = |message: &str| Invalid::new(format!("dpop.origins[{index}]"), message);
        let origin = Origin::parse(text).ok_or_else(|| invalid("is not http(s)://host[:port]"))?;
        if origins.iter().any(|other| other.host() == origin.host()) {
            return Err(invalid("has the host of an earlier one: a request would not say which of them it is for"));
        }
        origins.push(origin);
    }
    Ok(origins)
}

fn algorithms(document: &[String]) -> Result<Vec<Algorithm>, Invalid> {
    let mut algorithms = Vec::new();
    for (index, name) in document.iter().enumerate() {
        let invalid = |message: String| Invalid::new(format!("dpop.algorithms[{index}]"), message);
        let algorithm = name.parse::<Algorithm>().map_err(|error| invalid(error.to_string()))?;
        if algorithm.is_hmac() {
            return Err(invalid(
                "is symmetric: a proof is signed with a private key (RFC 9449 section 4.2)".to_owned(),
            ));
        }
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    if algorithms.is_empty() {
        return Err(Invalid::new("dpop.algorithms", "name at least one algorithm"));
    }
    Ok(algorithms)
}
