//! The login that a rule requires, and the one that is demanded of a single session.
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

document! {
    /// The login that counts when the service demands one for a session: its `auth_time` must be later than the demand.
    /// Otherwise the request is refused with STEP_UP_DEMANDED. A token without `auth_time` is refused until the demand is
    /// lifted or expires. Needs `session` in `kinds`.
    pub struct Demanded {
        /// Accepted values of the claim `acr`, the preferred one first. At most 16. Default: any, or none.
        #[serde(default)]
        pub acr_values: Vec<String>,
        /// The `max_age` that the challenge tells the client; 0s to 30d. It changes nothing about which login counts.
        /// Default: 0s, with which an OpenID provider asks the user in any case.
        #[serde(default = "default_max_age")]
        pub max_age: ConfigDuration,
    }
}

fn default_max_age() -> ConfigDuration {
    ConfigDuration::from_secs(0)
}
