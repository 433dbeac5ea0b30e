//! The shared state of one configuration, made once: the compiled policy, the engine that checks signatures, the
//! verified tokens, the newest key sets and the newest picture of revocations.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use authn::decide::Verified;
use authn::engine::Engine;
use authn::keys::rings::Keyrings;
use authn::policy::Policy;

use crate::feed_board::FeedBoard;
use crate::tokens::Tokens;
use crate::used_proofs::UsedProofs;

/// An active configuration. `Send` and `Sync`: one for each configuration of the process, or of a VM.
pub struct Core {
    pub policy: Policy,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) tokens: Tokens,
    pub(crate) keys: KeyBoard,
    pub(crate) feed: FeedBoard,
    /// `None`: the document has no `dpop`.
    pub(crate) used_proofs: Option<UsedProofs>,
}

/// The key sets that the dispatcher published last. Threads look for a newer one with one atomic read.
pub(crate) struct KeyBoard {
    version: AtomicU64,
    rings: Mutex<Arc<Keyrings>>,
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
    pub fn new(rings: Keyrings) -> Self {
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
