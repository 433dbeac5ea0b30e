//! Issuers, and the requirements for their tokens.
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{AnyWord, ConfigDuration, Introspection, Jwks, Key, OneOrMany};

document! {
    /// An issuer, and the requirements for its tokens.
    pub struct Issuer {
        /// The name in rules, logs and metrics: letters, digits, `-`, `_`. Default: by the issuer's index, `issuer-0`
        /// and so on.
        pub name: Option<String>,
        /// The provider of these tokens. It sets the defaults of the fields below. docs/providers has a page for each.
        pub provider: Option<Provider>,
        /// The exact `iss` (RFC 7519 section 4.1.1), compared byte by byte. One segment of its path may be `{tenant}`,
        /// as in `https://login.microsoftonline.com/{tenant}/v2.0`: then each tenant's `iss` is an issuer of its own.
        pub issuer: String,
        /// The allowed values of `{tenant}`: a list of 1 to 1024, or `any`. Each is 1 to 128 characters of A-Z, a-z,
        /// 0-9, `-`, `.`, `_`, `~`, compared byte by byte. Required with `{tenant}`.
        pub tenants: Option<Tenants>,
        /// The accepted values of `aud`, or `any`.
        pub audiences: Audiences,
        /// The accepted algorithms (RFC 7518 section 3.1; RFC 8037; `Ed25519` of RFC 9864 is EdDSA). At least one,
        /// unless all of its tokens are opaque.
        #[serde(default)]
        pub algorithms: Vec<String>,
        /// Configured keys. Exactly one of `keys` and `jwks`, or neither if the issuer has only `introspection`.
        #[serde(default)]
        pub keys: Vec<Key>,
        /// Keys that the issuer publishes. Exactly one of `keys` and `jwks`, or neither if the issuer has only
        /// `introspection`.
        pub jwks: Option<Jwks>,
        /// The introspection server for the issuer's tokens (RFC 7662). By default it is asked only about opaque
        /// tokens, not about JWTs.
        pub introspection: Option<Introspection>,
        /// The tolerance after `exp`, and before `nbf`; whole seconds, at most 300s. The tolerance for an `iat` or
        /// `auth_time` in the future is `revocation.future_iat_tolerance`.
        #[serde(default = "default_skew")]
        pub skew: ConfigDuration,
        /// The longest time from a token's issue (`iat`, otherwise `auth_time`) to its `exp`; whole seconds, 1s to
        /// 366d. At most the service's `--max-lifetime`: revocations of single tokens are kept this long.
        #[serde(default = "default_max_lifetime")]
        pub max_lifetime: ConfigDuration,
        /// The longest time from a login (`auth_time`) to the last use of one of its tokens; whole seconds, 1s to 366d.
        /// At most the service's `--max-session`: revocations of sessions, users, clients and issuers are kept this
        /// long. Tokens without `auth_time` have no such bound.
        #[serde(default = "default_max_session")]
        pub max_session: ConfigDuration,
        /// The accepted values of the header `typ`, case-insensitive and without `application/`. Default: `JWT` and
        /// `at+jwt`, and an absent `typ`. If set, an absent `typ` is refused.
        pub types: Option<Vec<String>>,
        /// The accepted types of tokens of this issuer. A logout, refresh or other token is always refused, by its
        /// claims `typ`, `token_use`, `token_type` and `events`. Default: the provider's, otherwise `access`.
        pub token_kinds: Option<Vec<TokenKind>>,
        /// Further values of the claims `typ`, `token_use` and `token_type` that mark an access token, besides the
        /// usual ones; case-insensitive.
        #[serde(default)]
        pub access_types: Vec<String>,
        /// Claims of which each access token of this issuer has at least one, and no ID token has any. A token without
        /// any of them, and without a type, counts as an ID token. So does one with a `nonce` that has its `azp`, its
        /// `client_id` or the value of such a claim in its `aud`. Default: the provider's, otherwise none.
        pub access_claims: Option<Vec<String>>,
        /// The claims that identify a token, its session, its user and its client, for revocation.
        pub revocation_claims: Option<RevocationClaims>,
        /// Whether tokens with the scope `offline_access` belong to a session of their own, with the id `offline:`
        /// followed by the session's id. For providers that give an offline session the id of the browser's. Default:
        /// the provider's, otherwise `together`.
        pub offline_sessions: Option<OfflineSessions>,
        /// The issuer pads the segments of its tokens (`=`), contrary to RFC 7515 section 2. Then all of its JWTs must
        /// be padded.
        #[serde(default)]
        pub padded: bool,
        /// Members of the token's header that must have this string, or one of these: at most 16.
        #[serde(default)]
        pub required_header: BTreeMap<String, OneOrMany<String>>,
        /// Claims that a token of this issuer must have, with any value; null counts as absent, and so does an
        /// `auth_time` of 0. With `auth_time` here, a revocation of a user, client or issuer also ends refreshed
        /// tokens: a token without it counts by its `iat`.
        #[serde(default)]
        pub required_claims: Vec<String>,
    }

    /// The claims that a revocation is compared with. Of several, the first that the token has counts.
    pub struct RevocationClaims {
        /// Default: `jti`, `uti`. For others, configure the service too (`serve --token-claims`), or `revoke token` has
        /// no effect. A token without any of them is identified by a digest of its signed part.
        pub token: Option<ClaimNames>,
        /// Default: the provider's, otherwise `sid`, `session_state`, `origin_jti`.
        pub session: Option<ClaimNames>,
        /// Default: the provider's, otherwise `sub`.
        pub user: Option<ClaimNames>,
        /// Default: the provider's, otherwise `client_id`, `azp`, `cid`, `appid`.
        pub client: Option<ClaimNames>,
    }
}

choice! {
    /// The session of a token with the scope `offline_access`.
    pub enum OfflineSessions {
        /// A session of its own, which outlives the browser's.
        Apart,
        /// The browser's session: a revocation ends both.
        Together,
    }

    /// A well-known provider.
    pub enum Provider {
        /// Keycloak.
        Keycloak,
        /// Microsoft Entra ID, v1.0 and v2.0 tokens.
        Entra,
        /// Okta's custom authorization servers.
        Okta,
        /// Auth0, both token profiles.
        Auth0,
        /// Amazon Cognito user pools.
        Cognito,
        /// Google's ID tokens.
        Google,
        /// Firebase's ID tokens.
        Firebase,
        /// Tokens of Kubernetes' service accounts.
        Kubernetes,
    }

    /// The type of a token.
    pub enum TokenKind {
        /// For APIs. A token without any mark counts as one.
        Access,
        /// For the client that the user logged in to (OpenID Connect Core section 2): with `at_hash`, `c_hash`,
        /// `s_hash`, or with a `nonce` if no type or claim marks an access token.
        Id,
    }
}

/// `any`, or a list of at least one.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case", untagged, expecting = "expected the word `any`, or a list of audiences")]
pub enum Audiences {
    Any(AnyWord),
    These(Vec<String>),
}

/// `any`, or a list of at least one.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case", untagged, expecting = "expected the word `any`, or a list of tenants")]
pub enum Tenants {
    Any(AnyWord),
    These(Vec<String>),
}

/// A claim, or several in order of preference. In a list, a nested list selects a member of nested objects.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(untagged, expecting = "expected a claim's name, or a list of names")]
pub enum ClaimNames {
    One(String),
    Several(Vec<OneOrMany<String>>),
}

fn default_skew() -> ConfigDuration {
    ConfigDuration::from_secs(30)
}

fn default_max_lifetime() -> ConfigDuration {
    ConfigDuration::from_secs(24 * 60 * 60)
}

fn default_max_session() -> ConfigDuration {
    ConfigDuration::from_secs(30 * 24 * 60 * 60)
}
