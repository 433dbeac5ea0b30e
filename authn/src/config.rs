//! The configuration document as written: names, defaults and types. `policy` compiles it.
//!
//! Every struct denies unknown fields, so that a misspelt field is an error and not a silent default.
use std::collections::BTreeMap;

use serde::Deserialize;

mod duration;
mod invalid;
mod one_or_many;
mod values;

pub use duration::ConfigDuration;
pub use invalid::Invalid;
pub use one_or_many::OneOrMany;
pub use values::Environment;
pub(crate) use values::{check_range, claim_path, name_or, secret_from, whole_seconds};

macro_rules! document {
    ($($item:item)+) => {
        $(
            #[derive(Debug, Clone, Deserialize)]
            #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
            #[serde(deny_unknown_fields)]
            $item
        )+
    };
}

macro_rules! choice {
    ($($item:item)+) => {
        $(
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
            #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
            #[serde(rename_all = "snake_case")]
            $item
        )+
    };
}

document! {
    /// The whole configuration of the filter.
    pub struct Document {
        /// The issuers of tokens: 1 to 256.
        pub issuers: Vec<Issuer>,
        /// Where tokens are read from. Default: the Authorization header, scheme Bearer.
        #[serde(default)]
        pub tokens: Sources,
        /// What each request needs. The first rule that matches decides, and a request that matches none is refused.
        pub rules: Vec<Rule>,
        /// How revocations are checked. Absent: no rule may check revocations, and none are checked.
        pub revocation: Option<Revocation>,
        /// What is forwarded to the upstream about the token, unless a rule says otherwise.
        #[serde(default)]
        pub forward: Forward,
        /// Remove request headers by which some backends take another host, path, prefix, method or scheme than that of
        /// the request: X-Forwarded-Host, X-Original-URL, X-HTTP-Method-Override and those that docs/overrides.md
        /// lists. Default true.
        #[serde(default = "default_true")]
        pub remove_override_headers: bool,
        /// Exceptions from that: headers that a trusted proxy before this one always sets itself, whatever the client
        /// sent.
        #[serde(default)]
        pub keep_override_headers: Vec<String>,
        /// Parameters that are removed from the query of every request, in every spelling that a backend could read as
        /// the same name. For parameters by which a backend takes another method or path than that of the request line,
        /// such as _method. At most 16.
        #[serde(default)]
        pub remove_query_parameters: Vec<String>,
        /// The form of refusals.
        #[serde(default)]
        pub faults: Faults,
        /// Bounds on input and caches.
        #[serde(default)]
        pub limits: Limits,
        /// The signature verifier. Default: `auto`.
        #[serde(default)]
        pub engine: Engine,
    }

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
        /// How long an answer counts, positive or negative, from when the request was sent; 1s to 5s.
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

    /// Where tokens are read from. More than one token in a request is refused.
    pub struct Sources {
        /// Request headers, at most 16. Default: `authorization` with the scheme `Bearer`.
        #[serde(default = "default_headers")]
        pub headers: Vec<HeaderSource>,
        /// Cookies, at most 16. On unsafe methods and upgrades they need an Origin from the rule's `cookie_origins`.
        #[serde(default)]
        pub cookies: Vec<CookieSource>,
        /// Query parameters, at most 16, removed from the path before it is forwarded. They end up in logs: prefer a
        /// header.
        #[serde(default)]
        pub query: Vec<String>,
        /// Subprotocols in `Sec-WebSocket-Protocol` that are tokens, at most 16, removed before the request is forwarded.
        #[serde(default)]
        pub websocket: Vec<WebsocketSource>,
    }

    /// The encoding of a token as a subprotocol of a WebSocket.
    pub struct WebsocketSource {
        /// The prefix of the subprotocol. The rest is the token. Default: that of Kubernetes' API server.
        #[serde(default = "default_websocket_prefix")]
        pub prefix: String,
        /// The encoding of the token after the prefix.
        #[serde(default)]
        pub encoding: WebsocketEncoding,
    }

    /// A request header that may carry a token.
    pub struct HeaderSource {
        /// The header's name, case-insensitive.
        pub name: String,
        /// The authentication scheme before the token, case-insensitive; absent: the value is the token.
        pub scheme: Option<String>,
    }

    /// A cookie that may carry a token.
    pub struct CookieSource {
        /// The cookie's name, case-sensitive (RFC 6265).
        pub name: String,
        /// The token may also be split into up to 16 cookies, numbered from 0, in any order. Default: one cookie only.
        pub chunks: Option<ChunkSeparator>,
    }

    /// The requests of a rule, and what they need.
    pub struct Rule {
        /// The name in logs and metrics: letters, digits, `-`, `_`. Default: by the rule's index, `rule-0` and so on.
        pub name: Option<String>,
        /// Absent fields match everything.
        #[serde(default, rename = "match")]
        pub matches: Match,
        /// Which requests are admitted.
        pub access: Access,
        /// Names of the issuers that are accepted here. Default: all.
        pub issuers: Option<Vec<String>>,
        /// Scopes that the token must have (`scope` as a string per RFC 8693 section 4.2 or an array, or `scp`).
        #[serde(default)]
        pub scopes: Scopes,
        /// Conditions on claims, all of which must hold; otherwise CLAIM_INSUFFICIENT.
        #[serde(default)]
        pub claims: Vec<Condition>,
        /// What the token must be bound to.
        #[serde(default)]
        pub binding: Binding,
        /// Kinds by which a token must be revocable here: it must have a claim for each. `session`, `user`, `client`.
        /// Otherwise it is CLAIM_INSUFFICIENT.
        #[serde(default)]
        pub revocable_by: Vec<RevocationKind>,
        /// Whether revocations are checked. Default: `check` if the document has `revocation`, otherwise `off`.
        pub revocation: Option<RevocationMode>,
        /// Replaces the document's `forward` for this rule.
        pub forward: Option<Forward>,
        /// How to treat a CORS preflight (an OPTIONS with Origin and Access-Control-Request-Method). `pass` admits it
        /// without authentication and without identity headers. Default: `check` treats it like any other request.
        #[serde(default)]
        pub cors_preflight: CorsPreflight,
        /// Origins (`scheme://host[:port]`) from which a token in a cookie is accepted on unsafe methods and upgrades.
        #[serde(default)]
        pub cookie_origins: Vec<String>,
    }

    /// The requests that a rule applies to. All fields that are given must match.
    #[derive(Default)]
    pub struct Match {
        /// The path, plain and case-sensitive.
        pub path: Option<PathMatch>,
        /// Methods, in upper case.
        pub methods: Option<Vec<String>>,
        /// Hosts, compared in lower case, without port and trailing dot; `*.example.com` matches every name below
        /// `example.com`.
        pub hosts: Option<Vec<String>>,
    }

    /// Scopes that a token must have.
    #[derive(Default)]
    pub struct Scopes {
        /// All of these.
        #[serde(default)]
        pub all: Vec<String>,
        /// At least one of these, if the list is not empty.
        #[serde(default)]
        pub any: Vec<String>,
    }

    /// A condition on one claim. Exactly one of `equals`, `one_of`, `contains`, `contains_any`, `present`.
    pub struct Condition {
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// The claim is this string, number or boolean.
        pub equals: Option<Scalar>,
        /// The claim is one of these.
        pub one_of: Option<Vec<Scalar>>,
        /// The claim is an array with this member (or a string of words separated by spaces with this word).
        pub contains: Option<Scalar>,
        /// Like `contains`, for at least one of these.
        pub contains_any: Option<Vec<Scalar>>,
        /// The claim is present (true) or absent (false), with any value. A null claim is absent.
        pub present: Option<bool>,
    }

    /// What a token must be bound to. An absent field requires no binding.
    #[derive(Default)]
    pub struct Binding {
        /// `cnf.x5t#S256` (RFC 8705 section 3.1) against the client's certificate.
        pub certificate: Option<CertificateBinding>,
        /// A claim with one address or CIDR, or an array of them, against the client's address.
        pub address: Option<ClaimBinding>,
        /// A claim with the base64url SHA-256 of the User-Agent header.
        pub user_agent: Option<ClaimBinding>,
    }

    /// How a token's certificate is compared with the client's.
    pub struct CertificateBinding {
        /// The effect of a mismatch.
        pub mode: BindingMode,
        /// Refuse a token without `cnf.x5t#S256`. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
    }

    /// How a claim is compared with the client.
    pub struct ClaimBinding {
        /// The effect of a mismatch.
        pub mode: BindingMode,
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// Refuse a token without the claim. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
    }

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
    }

    /// What is forwarded to the upstream.
    #[derive(Default)]
    pub struct Forward {
        /// Claims that become request headers.
        #[serde(default)]
        pub claims: Vec<ForwardClaim>,
        /// A header with the payload as in the token (base64url JSON).
        pub payload_header: Option<String>,
        /// Whether the token is forwarded. Default: `remove`.
        #[serde(default)]
        pub token: TokenForwarding,
    }

    /// One claim as a request header.
    pub struct ForwardClaim {
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// The request header. A client's header of this name is removed, on every route.
        pub header: String,
        /// The encoding of the value. Default: `plain`.
        #[serde(default)]
        pub encoding: Encoding,
    }

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

    /// Bounds on input and caches, so that no client can make the filter's memory grow.
    pub struct Limits {
        /// The longest token; 256 to 65536 bytes. Envoy accepts 60 KiB of headers in all, unless
        /// `max_request_headers_kb` says otherwise.
        #[serde(default = "default_token_bytes")]
        pub token_bytes: usize,
        /// Tokens cached in each VM (one per worker thread); 0 to 65536.
        #[serde(default = "default_cached_tokens")]
        pub cached_tokens: usize,
        /// The approximate memory of these tokens together in each VM; 65536 to 268435456 bytes. A token larger than a
        /// 64th of it is verified each time.
        #[serde(default = "default_cached_token_bytes")]
        pub cached_token_bytes: usize,
        /// Verdicts cached for all workers of a process; 0 to 65536.
        #[serde(default = "default_shared_verdicts")]
        pub shared_verdicts: usize,
        /// Requests that wait for an answer of the service at once, in each VM; 1 to 16384. Further ones are refused.
        /// As many may wait for keys, and for each introspection server.
        #[serde(default = "default_waiting")]
        pub waiting_requests: usize,
    }
}

choice! {
    /// The signature verifier.
    #[derive(Default)]
    pub enum Engine {
        /// The proxy's own verifier if it has one that answers correctly at start, otherwise this filter's.
        #[default]
        Auto,
        /// The proxy's own verifier for the algorithms that it has; without it the configuration is refused.
        Host,
        /// This filter's own code, for every algorithm.
        Portable,
    }

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

    /// Which requests are admitted.
    pub enum Access {
        /// All requests, without a token; identity headers are still removed.
        Public,
        /// With or without a token; a token that is present must be valid.
        Optional,
        /// A token.
        Required,
        /// No request is forwarded: the filter itself answers 200, for a probe that must fail if no filter checks
        /// requests. The rule needs an exact path.
        Probe,
    }

    /// The encoding of a secret.
    #[derive(Default)]
    pub enum SecretEncoding {
        /// The bytes of the variable are the secret.
        #[default]
        Raw,
        /// The variable holds the secret in base64url without padding.
        Base64url,
    }

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

    /// What happens to a CORS preflight.
    #[derive(Default)]
    pub enum CorsPreflight {
        /// Like any other request.
        #[default]
        Check,
        /// It is admitted, without token and identity.
        Pass,
    }

    /// The separator between a cookie's name and the number of its chunk.
    pub enum ChunkSeparator {
        /// `name.0`, `name.1`, …
        Dot,
        /// `name_0`, `name_1`, …
        Underscore,
    }

    /// The encoding of a token after the prefix of its subprotocol.
    #[derive(Default)]
    pub enum WebsocketEncoding {
        /// Base64url without padding, as Kubernetes' API server expects it.
        #[default]
        Base64url,
        /// Unencoded.
        Plain,
    }

    /// The effect of a mismatch.
    pub enum BindingMode {
        /// The request is refused.
        Enforce,
        /// The mismatch is only counted and logged.
        Report,
    }

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

    /// Whether the token is forwarded.
    #[derive(Default)]
    pub enum TokenForwarding {
        /// The token is removed.
        #[default]
        Remove,
        /// The token is forwarded; a token in a query parameter is removed anyway.
        Keep,
    }

    /// The encoding of a claim's value in a header.
    #[derive(Default)]
    pub enum Encoding {
        /// Unencoded. A token whose value has bytes outside 0x20–0x7e, or a space at either end, is refused.
        #[default]
        Plain,
        /// Always base64url without padding of its UTF-8. If only some values were encoded, two users could share one
        /// value.
        Base64url,
    }

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

/// The value `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum AnyWord {
    Any,
}

/// Exactly one of the two.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PathMatch {
    /// The whole path, without query.
    Exact(String),
    /// The path itself and everything below it: `/a` matches `/a` and `/a/b`, not `/ab`; `/` matches everything.
    Prefix(String),
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

/// A string, number or boolean.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(untagged, expecting = "expected a string, a number or a boolean")]
pub enum Scalar {
    Bool(bool),
    Number(serde_json::Number),
    String(String),
}

impl Default for Sources {
    fn default() -> Self {
        Self { headers: default_headers(), cookies: Vec::new(), query: Vec::new(), websocket: Vec::new() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            token_bytes: default_token_bytes(),
            cached_tokens: default_cached_tokens(),
            cached_token_bytes: default_cached_token_bytes(),
            shared_verdicts: default_shared_verdicts(),
            waiting_requests: default_waiting(),
        }
    }
}

fn default_true() -> bool {
    true
}

fn default_headers() -> Vec<HeaderSource> {
    vec![HeaderSource { name: "authorization".into(), scheme: Some("Bearer".into()) }]
}

fn default_websocket_prefix() -> String {
    "base64url.bearer.authorization.k8s.io.".into()
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

fn default_check_timeout() -> ConfigDuration {
    ConfigDuration::from_millis(500)
}

fn default_shape_min() -> usize {
    20
}

fn default_shape_max() -> usize {
    256
}

fn default_freshness() -> ConfigDuration {
    ConfigDuration::from_secs(2)
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

/// Within Envoy's default limit for all headers together (60 KiB).
fn default_token_bytes() -> usize {
    32 * 1024
}

fn default_cached_tokens() -> usize {
    4096
}

fn default_cached_token_bytes() -> usize {
    16 * 1024 * 1024
}

fn default_shared_verdicts() -> usize {
    8192
}

fn default_waiting() -> usize {
    1024
}
