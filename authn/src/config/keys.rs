//! The keys of an issuer: configured, or fetched.
use serde::Deserialize;

use super::ConfigDuration;

document! {
    /// One key, in exactly one of three forms.
    pub struct Key {
        /// The key id (RFC 7515 section 4.1.4). Default: the JWK's own `kid`.
        pub kid: Option<String>,
        /// The only algorithm of this key. Default: the JWK's `alg`, otherwise every algorithm that the issuer lists
        /// and that fits the key.
        pub alg: Option<String>,
        /// A public key as a JWK (RFC 7517): RSA, EC P-256, P-384 or P-521, OKP Ed25519.
        pub jwk: Option<serde_json::Map<String, serde_json::Value>>,
        /// A public key as PEM (SubjectPublicKeyInfo, RFC 7468).
        pub pem: Option<String>,
        /// The environment variable of the VM that holds an HMAC secret.
        pub secret_env: Option<String>,
        /// The encoding of that secret. Default: `raw`.
        #[serde(default)]
        pub secret_encoding: SecretEncoding,
    }

    /// A key set that is fetched periodically (RFC 7517 section 5).
    pub struct Jwks {
        /// The Envoy cluster to fetch from. It decides on addresses and TLS.
        pub cluster: String,
        /// The URL of the key set, or of a map of key ids to PEM; its host and path are sent to the cluster. Exactly
        /// one of `uri` and `discovery`.
        pub uri: Option<String>,
        /// Read the URL from `jwks_uri` of `<issuer>/.well-known/openid-configuration` (OpenID Connect Discovery 1.0),
        /// which must name this issuer. Both are fetched from `cluster`.
        #[serde(default)]
        pub discovery: bool,
        /// The longest time to wait for one answer; 100ms to 30s.
        #[serde(default = "default_jwks_timeout")]
        pub timeout: ConfigDuration,
        /// The longest time between two fetches, and between two attempts while they fail; 10s to 24h. A shorter
        /// `max-age` of the answer is honoured, down to `min_refresh`.
        #[serde(default = "default_jwks_refresh")]
        pub refresh: ConfigDuration,
        /// The shortest time between two fetches that a `max-age` can request; from 1s to `refresh`. Default: 10s, or
        /// three quarters of `refresh` if that is less. It does not apply to unknown key ids, which have `cool_down`.
        pub min_refresh: Option<ConfigDuration>,
        /// How long the last good set is trusted if no new one can be fetched; from `refresh` to 7d.
        #[serde(default = "default_jwks_max_stale")]
        pub max_stale: ConfigDuration,
        /// Tokens that no known key verifies, such as those with unknown key ids, cause at most one fetch in this time;
        /// 1s to 1h.
        #[serde(default = "default_jwks_cool_down")]
        pub cool_down: ConfigDuration,
        /// Also accept `oct` keys (shared secrets) from the set. Only for a set that no one else can read.
        #[serde(default)]
        pub symmetric: bool,
    }
}

choice! {
    /// The encoding of a secret.
    #[derive(Default)]
    pub enum SecretEncoding {
        /// The bytes of the variable are the secret.
        #[default]
        Raw,
        /// The variable holds the secret in base64url without padding.
        Base64url,
    }
}

fn default_jwks_timeout() -> ConfigDuration {
    ConfigDuration::from_secs(2)
}

fn default_jwks_refresh() -> ConfigDuration {
    ConfigDuration::from_secs(5 * 60)
}

fn default_jwks_max_stale() -> ConfigDuration {
    ConfigDuration::from_secs(24 * 60 * 60)
}

fn default_jwks_cool_down() -> ConfigDuration {
    ConfigDuration::from_secs(30)
}
