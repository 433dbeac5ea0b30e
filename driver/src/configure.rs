//! Makes a [`Core`] and a [`Dispatcher`] from the text of a configuration.
use std::sync::Arc;

use authn::config::{Document, Route, SdsSecret};
use authn::policy::Policy;

use crate::dispatcher::Dispatcher;
use crate::feed_board::FeedBoard;
use crate::host::{ChosenEngine, Host, HostError, Level, Setup};
use crate::metrics::{Metric, version_number};
use crate::state::Core;
use crate::state::KeyBoard;
use crate::tokens::Tokens;
use crate::used_proofs::UsedProofs;
use crate::{document, missing_settings};

/// A new configuration, ready for requests.
pub struct Configured {
    pub core: Arc<Core>,
    pub dispatcher: Dispatcher,
}

/// Compiles a configuration: JSON text, or a protobuf Struct as Envoy passes it.
///
/// # Errors
/// What is wrong with the configuration or the host, as text for the log.
pub fn configure<S: Setup + Host>(host: &mut S, text: Vec<u8>) -> Result<Configured, String> {
    let text = document::as_json(text);
    let document = Document::from_json(&text).map_err(|error| error.to_string())?;
    if !document.sds.is_empty() && !host.has_sds() {
        return Err("sds: only the dynamic module has secrets of SDS".to_owned());
    }
    let policy = Policy::from_document(&document, &text, &|name| host.secret(name));
    let policy = policy.map_err(|error| error.to_string())?;
    activate(host, policy)
}

/// Compiles a configuration with these secrets, to find what is wrong with it.
///
/// # Errors
/// What is wrong with the configuration, as text for the log.
pub fn compile(text: Vec<u8>, secret: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Policy, String> {
    Policy::from_json(&document::as_json(text), secret).map_err(|error| error.to_string())
}

/// The secrets that the document takes from SDS.
///
/// # Errors
/// What is wrong with the document, as text for the log.
pub fn sds_secrets(text: Vec<u8>) -> Result<Vec<SdsSecret>, String> {
    let document = Document::from_json(&document::as_json(text)).map_err(|error| error.to_string())?;
    Ok(document.sds)
}

/// The name of the rule that a route selects: JSON text, or a protobuf Struct as Envoy passes it.
///
/// # Errors
/// What is wrong with the route's configuration, as text for the log.
pub fn route_rule(text: Vec<u8>) -> Result<Arc<str>, String> {
    let route = Route::from_json(&document::as_json(text)).map_err(|error| error.to_string())?;
    // As for the names of rules, so that no other name comes into the log.
    let is_name =
        |text: &str| text.len() <= 64 && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    if route.rule.is_empty() || !is_name(&route.rule) {
        return Err("rule: must be the name of a rule, 1 to 64 letters, digits, `-` and `_`".to_owned());
    }
    Ok(route.rule.into())
}

/// Makes the state of a compiled configuration.
///
/// # Errors
/// What the host lacks, as text for the log.
pub fn activate<S: Setup + Host>(host: &mut S, policy: Policy) -> Result<Configured, String> {
    let random = host.random().map_err(|HostError(status)| format!("the host gives no randomness: status {status}"))?;
    let ChosenEngine { engine, name } = host.engine(policy.engine())?;
    host.log(Level::Info, format_args!("portcullis: signatures are verified by engine={name}"));
    // Of an earlier configuration, another one may be at 1.
    for kind in host.engines() {
        host.record(Metric::Engine, &[kind], u64::from(*kind == name));
    }
    host.record(Metric::Version, &[], version_number(env!("CARGO_PKG_VERSION")).unwrap_or_default());
    let now = host.now().map_err(|HostError(status)| format!("the host gives no time: status {status}"))?;
    missing_settings::prepare(host);
    let [a, b, c, d, e, f, g, h, rest @ ..] = random;
    let limits = policy.limits();
    let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let shares_feed = !host.is_the_only_dispatcher();
    let used_proofs = policy.dpop().map(UsedProofs::new);
    if let Some(proofs) = &used_proofs {
        let why = |HostError(status)| format!("dpop: the host keeps no used proofs: status {status}");
        proofs.prepare(host).map_err(why)?;
    }
    let core = Arc::new(Core {
        engine,
        tokens: Tokens::new(limits.cached_tokens, limits.cached_token_bytes, seed, host.token_shards()),
        keys: KeyBoard::new(policy.keyrings()),
        feed: FeedBoard::default(),
        used_proofs,
        policy,
    });
    let dispatcher = Dispatcher::new(Arc::clone(&core), host, rest, shares_feed, now);
    Ok(Configured { core, dispatcher })
}
