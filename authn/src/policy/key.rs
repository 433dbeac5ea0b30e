//! The keys of an issuer: written in the document, or where to fetch them.
use jose::Algorithm;
use sha2::{Digest as _, Sha256};

use crate::config;
use crate::config::{ConfigDuration, Environment, Invalid, check_range, secret_from};
use crate::engine::Key;
use crate::keys::discovery::Url;
use crate::keys::source::Settings;

pub(super) fn compile_jwks(
    document: &config::Jwks,
    at: &str,
    issuer: &str,
    algorithms: &[Algorithm],
) -> Result<Settings, Invalid> {
    if document.cluster.is_empty() {
        return Err(Invalid::new(format!("{at}.cluster"), "must not be empty"));
    }
    let (url, discovery) = match (&document.uri, document.discovery) {
        (Some(uri), false) => (Url::parse(uri).map_err(|why| Invalid::new(format!("{at}.uri"), why))?, None),
        (None, true) => {
            let url = Url::discovery(issuer);
            (url.map_err(|why| Invalid::new(format!("{at}.discovery"), why))?, Some(issuer.to_owned()))
        }
        _ => return Err(Invalid::new(at, "give exactly one of `uri` and `discovery: true`")),
    };
    let hours = |hours: u64| ConfigDuration::from_secs(hours.saturating_mul(3600));
    let seconds = ConfigDuration::from_secs;
    check_range(document.timeout, ConfigDuration::from_millis(100), seconds(30), &format!("{at}.timeout"))?;
    check_range(document.refresh, seconds(10), hours(24), &format!("{at}.refresh"))?;
    let usual = ConfigDuration(document.refresh.0.mul_f64(0.75)).min(seconds(10));
    let min_refresh = document.min_refresh.unwrap_or(usual);
    check_range(min_refresh, seconds(1), document.refresh, &format!("{at}.min_refresh"))?;
    check_range(document.max_stale, document.refresh, hours(7 * 24), &format!("{at}.max_stale"))?;
    check_range(document.cool_down, seconds(1), hours(1), &format!("{at}.cool_down"))?;
    let mut identity = Sha256::new();
    for part in [issuer, &document.cluster, &url.authority, &url.path, if discovery.is_some() { "d" } else { "u" }] {
        identity.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        identity.update(part);
    }
    Ok(Settings {
        identity: identity.finalize().into(),
        cluster: document.cluster.clone(),
        url,
        discovery,
        timeout: document.timeout.0,
        refresh: document.refresh.0,
        min_refresh: min_refresh.0,
        max_stale: document.max_stale.0,
        cool_down: document.cool_down.0,
        symmetric: document.symmetric,
        algorithms: algorithms.to_vec(),
    })
}

pub(super) fn compile_key(
    key: &config::Key,
    at: &str,
    allowed: &[Algorithm],
    environment: Environment<'_>,
) -> Result<Key, Invalid> {
    let alg = match &key.alg {
        None => None,
        Some(name) => Some(
            Algorithm::from_name(name)
                .ok_or_else(|| Invalid::new(format!("{at}.alg"), format!("`{name}` is not a supported algorithm")))?,
        ),
    };
    let kid = key.kid.clone();
    match (&key.jwk, &key.pem, &key.secret_env) {
        (Some(jwk), None, None) => {
            Key::from_jwk(jwk, kid, alg, allowed).map_err(|error| Invalid::new(format!("{at}.jwk"), error.to_string()))
        }
        (None, Some(pem), None) => {
            Key::from_pem(pem, kid, alg, allowed).map_err(|error| Invalid::new(format!("{at}.pem"), error.to_string()))
        }
        (None, None, Some(variable)) => {
            let field = format!("{at}.secret_env");
            let secret = secret_from(environment, variable, key.secret_encoding, &field)?;
            Key::from_secret(&secret, kid, alg, allowed).map_err(|error| Invalid::new(field, error.to_string()))
        }
        _ => Err(Invalid::new(at, "give exactly one of `jwk`, `pem` and `secret_env`")),
    }
}
