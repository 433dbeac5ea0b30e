//! Revocation: the service that is asked, how, and about which kinds.
use serde::Deserialize;

use super::defaults::{default_check_timeout, default_freshness};
use super::{ConfigDuration, Demanded};

document! {
    /// The service that stores revocations.
    pub struct Revocation {
        /// The Envoy cluster of the session service.
        pub cluster: String,
        /// The `:authority` of the request, a host name with or without a port. Default: the cluster's name; for a
        /// cluster that Istio names `direction|port|subset|host`, its host.
        pub authority: Option<String>,
        /// The environment variable of the VM that holds the secret shared with the service (32 bytes or more).
        pub secret_env: String,
        /// The longest time to wait for an answer, including connecting; 10ms to 5s.
        #[serde(default = "default_check_timeout")]
        pub timeout: ConfigDuration,
        /// How long an answer counts, from when the check was sent; 1s to 5s.
        #[serde(default = "default_freshness")]
        pub freshness: ConfigDuration,
        /// Whether a verdict in use is refreshed in the last two fifths of its freshness, so that no request of an
        /// active session waits. Default: true.
        #[serde(default = "default_refresh_ahead")]
        pub refresh_ahead: bool,
        /// The kinds that are checked for each token. Default: all of them.
        #[serde(default = "default_kinds")]
        pub kinds: Vec<RevocationKind>,
        /// How far an issuer's clock may run ahead of the filter's: bounds an `iat` or `auth_time` in the future. At
        /// most the service's `--future-iat-tolerance`, and at most 60s.
        #[serde(default = "default_future_iat_tolerance")]
        pub future_iat_tolerance: ConfigDuration,
        /// Follow the service's feed of revocations, so that only a token that may be revoked is asked about. Default:
        /// each token is asked about.
        pub feed: Option<Feed>,
        /// Whether the service knows the revocations of other regions (`serve --join`). Default: nothing is required.
        pub regions: Option<Regions>,
        /// Ask also whether the user of the session must log in again (docs/hijack.md). Default: not asked.
        pub step_up: Option<Demanded>,
    }

    /// What is required of the service's knowledge of other regions.
    pub struct Regions {
        /// The most that the service may lag behind any other region when it answers; 1s to 1d. An answer then counts for
        /// `freshness`, or the `lag` of the feed.
        pub max_lag: ConfigDuration,
        /// If it lags more, or cannot tell how much. Default: `report`.
        #[serde(default)]
        pub on_exceeded: OnExceeded,
    }

    /// How the feed of revocations is followed.
    pub struct Feed {
        /// The longest time from the acknowledgement of a revocation to the last admission of a token that it ends; 250ms
        /// to 5s. While the proxy cannot prove that it knows every revocation that is older, each token is asked about.
        #[serde(default = "default_feed_lag")]
        pub lag: ConfigDuration,
    }
}

choice! {
    /// How a rule checks revocations.
    pub enum RevocationMode {
        /// Refuse with 503 if the check fails.
        Check,
        /// Admit the request if the check fails because the service or its store is unreachable. A token that was seen
        /// as revoked stays refused. An answer that cannot be trusted, or an overload of the proxy, is still refused.
        DangerouslyPassWhenUnavailable,
        /// Do not check.
        Off,
    }

    /// What a lag between regions does.
    #[derive(Default)]
    pub enum OnExceeded {
        /// It is counted and logged.
        #[default]
        Report,
        /// The service's answers do not count: requests that need one are refused with 503.
        Close,
    }

    /// The kinds of revocations.
    pub enum RevocationKind {
        /// This token: `iss` and `jti`, or the claim in the issuer's `revocation_claims`; without one, a digest of its
        /// signed part.
        Token,
        /// `iss` and `sid`, or the claim in the issuer's `revocation_claims`.
        Session,
        /// `iss` and `sub`, or the claim in the issuer's `revocation_claims`.
        User,
        /// `iss` and `client_id`, otherwise `azp`, or the claim in the issuer's `revocation_claims`.
        Client,
        /// The key that verified the signature, by its RFC 7638 thumbprint.
        Key,
        /// All tokens of this `iss`.
        Issuer,
    }
}

fn default_feed_lag() -> ConfigDuration {
    ConfigDuration::from_secs(1)
}

fn default_refresh_ahead() -> bool {
    true
}

fn default_future_iat_tolerance() -> ConfigDuration {
    ConfigDuration::from_secs(5)
}

fn default_kinds() -> Vec<RevocationKind> {
    use RevocationKind::*;
    vec![Token, Session, User, Client, Key, Issuer]
}
