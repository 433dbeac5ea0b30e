//! One filter configuration: what all of its requests share, on every worker.
use std::sync::Arc;

use authn::policy::Policy;

use crate::envoy::{Config, Metric};

/// What Envoy's configuration must name: `filter_name`.
const FILTER_NAME: &[u8] = b"portcullis";

pub struct Configuration {
    pub(crate) faults: Metric,
}

/// What came back from a callout that was answered, by whomever.
#[allow(dead_code, reason = "nothing is asked yet")]
pub struct Answer<'h> {
    pub headers: Vec<(&'h [u8], &'h [u8])>,
    /// The body in pieces.
    pub body: Vec<&'h [u8]>,
}

impl Configuration {
    /// # Errors
    /// What is wrong with the configuration, in words for the log.
    pub fn new(config: &mut Config<'_>, name: &[u8], document: &[u8]) -> Result<Arc<Self>, String> {
        if name != FILTER_NAME {
            let name = String::from_utf8_lossy(name);
            return Err(format!("filter_name is `{name}`: this module has the filter `portcullis` only"));
        }
        let environment = |name: &str| std::env::var_os(name).map(|value| value.into_encoded_bytes());
        Policy::from_json(document, &environment).map_err(|error| error.to_string())?;
        let faults = config
            .define_counter("portcullis_faults", &[])
            .map_err(|refused| format!("Envoy refuses the metric `portcullis_faults`: result {}", refused.0))?;
        Ok(Arc::new(Self { faults }))
    }

    /// Envoy has no use for it any more. Requests of it are over.
    pub fn retire(&self) {}

    pub fn on_event(&self, _config: &mut Config<'_>, _event: u64) {}

    pub fn on_answer(&self, _config: &mut Config<'_>, _callout: u64, _answer: Option<Answer<'_>>) {}

    /// A hook of this configuration panicked.
    pub fn on_fault(&self, config: &mut Config<'_>) {
        // Nothing more can be done about a metric that Envoy refuses.
        let _ = config.increment(self.faults, &[], 1);
    }
}
