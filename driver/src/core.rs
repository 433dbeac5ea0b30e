//! The shared state of one configuration, made once: the compiled policy, the engine that checks signatures, the
//! verified tokens and the newest key sets.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use authn::decide::Verified;
use authn::engine::Engine;
use authn::keys::rings::Keyrings;
use authn::policy::Policy;

use crate::dispatcher::Dispatcher;
use crate::host::{ChosenEngine, Host, HostError, Level, Setup};
use crate::metrics::Metric;
use crate::tokens::Tokens;
use crate::{document, missing_settings};

/// An active configuration. `Send` and `Sync`: one for each configuration of the process, or of a VM.
pub struct Core {
    pub policy: Policy,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) tokens: Tokens,
    pub(crate) keys: KeyBoard,
}

/// The key sets that the dispatcher published last. Threads look for a newer one with one atomic read.
pub(crate) struct KeyBoard {
    version: AtomicU64,
    rings: Mutex<Arc<Keyrings>>,
}

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
    let policy = Policy::from_json(&text, &|name| host.secret(name)).map_err(|error| error.to_string())?;
    activate(host, policy)
}

/// Makes the state of a compiled configuration.
///
/// # Errors
/// What the host lacks, as text for the log.
pub fn activate<S: Setup + Host>(host: &mut S, policy: Policy) -> Result<Configured, String> {
    let random = host.random().map_err(|HostError(status)| format!("the host gives no randomness: status {status}"))?;
    let ChosenEngine { engine, name } = host.engine(policy.engine())?;
    host.log(Level::Info, format_args!("portcullis: signatures are verified by engine={name}"));
    host.record(Metric::Engine, &[name], 1);
    let now = host.now().map_err(|HostError(status)| format!("the host gives no time: status {status}"))?;
    missing_settings::prepare(host);
    let [a, b, c, d, e, f, g, h, rest @ ..] = random;
    let limits = policy.limits();
    let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let core = Arc::new(Core {
        engine,
        tokens: Tokens::new(limits.cached_tokens, limits.cached_token_bytes, seed, host.token_shards()),
        keys: KeyBoard::new(policy.keyrings()),
        policy,
    });
    let dispatcher = Dispatcher::new(Arc::clone(&core), host, rest, now);
    Ok(Configured { core, dispatcher })
}

impl Core {
    /// The key sets as they are now.
    pub fn keyrings(&self) -> Arc<Keyrings> {
        self.keys.newest().1
    }

    pub(crate) fn rule_name(&self, rule: usize) -> &str {
        self.policy.rules().get(rule).map_or("none", |rule| rule.name.as_str())
    }

    pub(crate) fn issuer_name(&self, issuer: usize) -> &str {
        self.policy.issuer_name(issuer).unwrap_or("none")
    }

    /// The cached state of a token, if it was active when its issuer was last asked.
    pub(crate) fn active_token(&self, token: &[u8], issuer: usize) -> Option<Arc<Verified>> {
        self.tokens.find(token).filter(|earlier| earlier.was_active() && earlier.issuer() == issuer)
    }
}

impl KeyBoard {
    fn new(rings: Keyrings) -> Self {
        Self { version: AtomicU64::new(0), rings: Mutex::new(Arc::new(rings)) }
    }

    pub fn publish(&self, rings: &Keyrings) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rings.clone());
        self.version.fetch_add(1, Ordering::Release);
    }

    pub fn newest(&self) -> (u64, Arc<Keyrings>) {
        // Reads the version first: a set that is published in between is then read once more.
        let version = self.version.load(Ordering::Acquire);
        (version, Arc::clone(&self.rings.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
