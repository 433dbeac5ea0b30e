//! Requests to end all sessions of a user (draft-parecki-oauth-global-token-revocation), as the providers file says it.
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Provider, ProvidersError, SECOND, bounded, duration, present, text};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalRevocation {
    /// The `aud` that the JWTs of these requests must have: the URL of the endpoint. None of the provider's other audiences,
    /// so that no other token of the provider serves here.
    pub audiences: Vec<String>,
    /// The `sub` that these JWTs must have. Absent: any.
    #[serde(default, deserialize_with = "present")]
    pub subject: Option<String>,
    /// The oldest accepted JWT, by its `iat`.
    #[serde(default = "max_age", with = "duration")]
    pub max_age: Duration,
    /// The issuer of the tokens that end, if it is not the provider.
    #[serde(default, deserialize_with = "present")]
    pub subject_issuer: Option<String>,
}

impl GlobalRevocation {
    pub(super) fn check(&self, provider: &Provider) -> Result<(), ProvidersError> {
        let field = |name: &str| format!("global_revocation.{name}");
        if self.audiences.is_empty() {
            return Err(ProvidersError::new(field("audiences"), "must name at least one"));
        }
        for (index, audience) in self.audiences.iter().enumerate() {
            let name = field(&format!("audiences[{index}]"));
            text(&name, audience)?;
            if provider.audiences.contains(audience) {
                let message = "is one of `audiences` too: an ID token or a logout token could serve as a request";
                return Err(ProvidersError::new(name, message));
            }
        }
        for (name, value) in [("subject", &self.subject), ("subject_issuer", &self.subject_issuer)] {
            value.as_ref().map_or(Ok(()), |value| text(&field(name), value))?;
        }
        bounded(&field("max_age"), self.max_age, SECOND, 3600 * SECOND)
    }
}

fn max_age() -> Duration {
    Duration::from_secs(120)
}
