//! What is counted of requests to the OAuth 2.0 endpoints.
use prometheus_client::registry::Registry;

use super::error::OAuthError;
use crate::base::metrics::PairCounters;

const ENDPOINTS: [&str; 3] = ["introspect", "revoke", "token"];

#[derive(Debug, Clone)]
pub struct Metrics(PairCounters);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OAuthResult {
    Done,
    /// The client's fault.
    Refused,
    /// The store could not be asked.
    Trouble,
}

impl OAuthResult {
    const ALL: [OAuthResult; 3] = [OAuthResult::Done, OAuthResult::Refused, OAuthResult::Trouble];

    fn of(error: Option<&OAuthError>) -> Self {
        match error {
            None => OAuthResult::Done,
            Some(OAuthError::Unavailable(_) | OAuthError::SigningUnavailable | OAuthError::Internal) => {
                OAuthResult::Trouble
            }
            Some(_) => OAuthResult::Refused,
        }
    }

    fn name(self) -> &'static str {
        match self {
            OAuthResult::Done => "done",
            OAuthResult::Refused => "refused",
            OAuthResult::Trouble => "trouble",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self(PairCounters::new(["endpoint", "result"], ENDPOINTS, OAuthResult::ALL.map(OAuthResult::name)))
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        self.0.register(registry, "oauth", "Requests to the OAuth 2.0 endpoints by how they ended");
    }

    pub fn answered(&self, endpoint: &'static str, error: Option<&OAuthError>) {
        self.0.count(endpoint, OAuthResult::of(error).name());
    }
}
