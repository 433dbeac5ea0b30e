//! Secrets that the proxy gets by its secret discovery service (SDS).
use serde::Deserialize;

use super::Invalid;

document! {
    /// A secret that the proxy gets by SDS, in place of an environment variable.
    pub struct SdsSecret {
        /// The name by which fields such as `secret_env` mean it.
        pub name: String,
        /// The name of the generic secret in SDS. Default: `name`.
        pub secret: Option<String>,
        /// Where the proxy gets it: a `ConfigSource` of Envoy. Default: a static secret of the bootstrap.
        pub source: Option<serde_json::Map<String, serde_json::Value>>,
    }
}

const MAX_SECRETS: usize = 16;

impl SdsSecret {
    /// Its name in SDS.
    pub fn secret(&self) -> &str {
        self.secret.as_deref().unwrap_or(&self.name)
    }

    /// Where Envoy gets it, as JSON.
    pub fn source_json(&self) -> Option<String> {
        Some(serde_json::Value::Object(self.source.clone()?).to_string())
    }

    pub(crate) fn check_all(secrets: &[Self]) -> Result<(), Invalid> {
        if secrets.len() > MAX_SECRETS {
            return Err(Invalid::new("sds", format!("at most {MAX_SECRETS}")));
        }
        for (index, secret) in secrets.iter().enumerate() {
            let invalid = |message: &str| Err(Invalid::new(format!("sds[{index}].name"), message));
            if secret.name.is_empty() || secret.secret().is_empty() {
                return invalid("is empty");
            }
            if secrets.iter().take(index).any(|other| other.name == secret.name) {
                return invalid("two secrets have this name");
            }
        }
        Ok(())
    }
}
