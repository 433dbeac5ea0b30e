//! The login that a rule requires.
use serde::Deserialize;

use super::{ConfigDuration, Mode};

document! {
    /// How and when the user must have logged in (RFC 9470). Otherwise the challenge tells the client which login it needs
    /// (STEP_UP_REQUIRED). At least one of `acr_values` and `max_age`.
    pub struct StepUp {
        /// Accepted values of the claim `acr`, the preferred one first. At most 16. Default: any, or none.
        #[serde(default)]
        pub acr_values: Vec<String>,
        /// How long ago the user may have logged in, by the claim `auth_time`; 1s to 30d. The issuer's `skew` is not
        /// added. Default: any time.
        pub max_age: Option<ConfigDuration>,
        /// The effect of another login. Default: `enforce`.
        #[serde(default)]
        pub mode: Mode,
    }
}
