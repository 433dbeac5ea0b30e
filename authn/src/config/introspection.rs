//! An issuer's introspection server, and the format of its opaque tokens.
use serde::Deserialize;

use super::ConfigDuration;
use super::defaults::{default_check_timeout, default_freshness};

document! {
    /// The introspection server (RFC 7662), and the tokens that it is asked about.
    pub struct Introspection {
        /// The tokens that it is asked about. It is asked about a JWT after the JWT is verified and the rule accepts
        /// it.
        #[serde(default)]
        pub of: IntrospectedTokens,
        /// The Envoy cluster of the introspection server. Only TLS in this cluster protects the answers.
        pub cluster: String,
        /// The `:authority` of the request, a host name with or without a port. Default: the cluster's name; for a
        /// cluster that Istio names `direction|port|subset|host`, its host.
        pub authority: Option<String>,
        /// The path of its introspection endpoint, for example `/oauth2/introspect`.
        pub path: String,
        /// How the filter authenticates.
        #[serde(default)]
        pub client_auth: ClientAuth,
        /// The filter's client id at the server. Required, unless `client_auth` is `none`.
        pub client_id: Option<String>,
        /// The environment variable of the VM that holds the client's secret. Required, unless `client_auth` is `none`.
        pub client_secret_env: Option<String>,
        /// The format of the issuer's opaque tokens. Of the issuers that a rule accepts, at most one may match a given
        /// token. Required, unless `of` is `jwt`.
        pub format: Option<OpaqueFormat>,
        /// The longest time to wait for an answer, including connecting and queueing; 10ms to 5s.
        #[serde(default = "default_check_timeout")]
        pub timeout: ConfigDuration,
        /// How long an answer counts, positive or negative, from when the request was sent; 1s to 5s. Up to 60s for our own
        /// service (`format: portcullis`) with `revocation.feed`: an active token's answer then counts for so long on rules
        /// that check revocations, while the feed proves that the token was not revoked, and every other answer for 5s.
        #[serde(default = "default_freshness")]
        pub freshness: ConfigDuration,
    }

    /// The format of opaque tokens. A token of another format is never introspected.
    pub struct TokenShape {
        /// The prefix of each token; at most 64 characters. Default: none.
        #[serde(default)]
        pub prefix: String,
        /// The shortest length, including the prefix; 8 characters or more.
        #[serde(default = "default_shape_min")]
        pub min_length: usize,
        /// The longest length, including the prefix; at most 4096 characters, and at most `limits.token_bytes`.
        #[serde(default = "default_shape_max")]
        pub max_length: usize,
        /// The characters after the prefix.
        #[serde(default)]
        pub alphabet: TokenAlphabet,
    }
}

choice! {
    /// How the filter authenticates at an introspection server (RFC 6749 section 2.3.1).
    #[derive(Default)]
    pub enum ClientAuth {
        /// `Authorization: Basic`, with id and secret each form-encoded before they are joined.
        #[default]
        Basic,
        /// `client_id` and `client_secret` in the body.
        Post,
        /// No authentication: for a server that only the cluster can reach.
        None,
    }

    /// The tokens that an introspection server is asked about.
    #[derive(Default)]
    pub enum IntrospectedTokens {
        /// Opaque tokens: those of the `format`.
        #[default]
        Opaque,
        /// The issuer's JWTs, after all other checks.
        Jwt,
        /// Both.
        Both,
    }

    /// The characters of an opaque token after its prefix.
    #[derive(Default)]
    pub enum TokenAlphabet {
        /// 0–9, a–f, A–F.
        Hex,
        /// 0–9, a–z, A–Z.
        Alphanumeric,
        /// 0–9, a–z, A–Z, `-`, `_`.
        #[default]
        Base64url,
        /// The characters of RFC 6750 section 2.1: 0–9, a–z, A–Z, `-`, `.`, `_`, `~`, `+`, `/`, and `=` at the end. A
        /// token with two dots still counts as a JWT.
        B64token,
    }
}

/// The value `portcullis`, or a shape.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpaqueFormat {
    /// The tokens of `portcullis serve`: `pcs_`, with a checksum that detects mistyped ones.
    Portcullis,
    /// Tokens of this shape.
    Shape(TokenShape),
}

fn default_shape_min() -> usize {
    20
}

fn default_shape_max() -> usize {
    256
}
