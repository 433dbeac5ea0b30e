//! The form of refusals.
use std::collections::BTreeMap;

use serde::Deserialize;

document! {
    /// The form of refusals.
    #[derive(Default)]
    pub struct Faults {
        /// The status of each code.
        #[serde(default)]
        pub statuses: Statuses,
        /// Status by code, 400 to 599.
        #[serde(default)]
        pub overrides: BTreeMap<String, u16>,
        /// The `realm` of the challenge (RFC 6750 section 3). Default: none.
        pub realm: Option<String>,
    }
}

choice! {
    /// The statuses of refusals.
    #[derive(Default)]
    pub enum Statuses {
        /// 401 if the token is invalid, 403 if it is not allowed to do this.
        #[default]
        Distinct,
        /// 401 wherever RFC 6750 says `invalid_token`, for clients that request a new token on 401.
        Rfc6750,
    }
}
