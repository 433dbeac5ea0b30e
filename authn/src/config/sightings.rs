//! What the service is told about the clients of sessions.
use serde::Deserialize;

use super::ConfigDuration;

document! {
    /// What the service is told about the clients of live sessions, so that it can find hijacked ones (docs/hijack.md). Only
    /// requests that were admitted are reported, and no request waits for a report.
    pub struct Sightings {
        /// The share of sessions that are reported; 1 to 100. Of a session, all requests count or none. Default: 100.
        #[serde(default = "default_percent")]
        pub percent: u8,
        /// When a token that is used from the same place is reported again; 1s to 1h. A change is reported at once.
        #[serde(default = "default_again_after")]
        pub again_after: ConfigDuration,
        /// Whether the certificate of the connection counts as the client's. Not behind a proxy that ends the client's TLS.
        /// Default: false.
        #[serde(default)]
        pub certificate: bool,
        /// The request header that has the client's country, two letters. Envoy's geoip filter before this one sets it. The
        /// proxy must remove it from what clients send (docs/hijack.md). Default: none.
        pub country_header: Option<String>,
        /// Whether reports also have the issuer, the session's id and the user in clear, so that the service can name them in
        /// events for others (docs/sent-events.md). Reports are not encrypted: use TLS to the service. Default: false.
        #[serde(default)]
        pub names: bool,
    }
}

fn default_percent() -> u8 {
    100
}

fn default_again_after() -> ConfigDuration {
    ConfigDuration::from_secs(60)
}
