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
        /// The level at which the proxy's log has a line about each refused request, at most ten per 100 ms and worker.
        #[serde(default)]
        pub log: RefusalLog,
        /// The `realm` of the challenge (RFC 6750 section 3). Default: none.
        pub realm: Option<String>,
    }
}

choice! {
    /// The level of the lines about refused requests.
    #[derive(Default)]
    pub enum RefusalLog {
        /// Also in the log of Istio's proxies, whose level is `warning`.
        #[default]
        Warning,
        /// In the log of an Envoy with its own default level, which is `info`.
        Info,
        /// No lines.
        Off,
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
