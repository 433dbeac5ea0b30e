//! What is counted of signatures.
use prometheus_client::registry::Registry;

use super::{Failure, SignError};
use crate::base::metrics::{Counters, Gauge};

#[derive(Debug, Clone)]
pub struct Metrics {
    signatures: Counters,
    ready: Gauge,
}

/// How the signing of a JWT ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignResult {
    Done,
    Failed,
    TimedOut,
    /// Not tried: too many waited.
    Busy,
}

impl SignResult {
    const ALL: [SignResult; 4] = [SignResult::Done, SignResult::Failed, SignResult::TimedOut, SignResult::Busy];

    fn of(error: Option<SignError>) -> Self {
        match error {
            None => SignResult::Done,
            Some(SignError::NoKey | SignError::Failed | SignError::Token(Failure::Failed)) => SignResult::Failed,
            Some(SignError::Token(Failure::TimedOut)) => SignResult::TimedOut,
            Some(SignError::Token(Failure::Busy)) => SignResult::Busy,
        }
    }

    fn name(self) -> &'static str {
        match self {
            SignResult::Done => "done",
            SignResult::Failed => "failed",
            SignResult::TimedOut => "timed_out",
            SignResult::Busy => "busy",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let ready = Gauge::default();
        ready.set(1);
        Self { signatures: Counters::new("result", SignResult::ALL.map(SignResult::name)), ready }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.signatures.register(registry, "signatures", "JWTs signed, by how it ended");
        let help = "0 while the key that signs is in a token that does not";
        registry.register("signing_ready", help, self.ready.clone());
    }

    pub(super) fn signed(&self, error: Option<SignError>) {
        self.signatures.count(SignResult::of(error).name());
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.set(u64::from(ready));
    }
}
