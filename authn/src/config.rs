//! The configuration document as it is written: names, defaults and shapes. What it means is compiled in `policy`.
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
        /// Who may issue tokens: 1 to 256.
        pub issuers: Vec<Issuer>,
        /// Where tokens are looked for. Default: the Authorization header, scheme Bearer.
        #[serde(default)]
        pub tokens: Sources,
        /// What each request needs; the first rule that matches decides, and a request that matches none is refused.
        pub rules: Vec<Rule>,
        /// How ended sessions are asked for. Absent: no rule may ask for revocation, and none is checked.
        pub revocation: Option<Revocation>,
        /// What the upstream is told about the token, unless a rule says otherwise.
        #[serde(default)]
        pub forward: Forward,
        /// Remove request headers by which some backends take another host, path, prefix, method or scheme than that of the
        /// request: X-Forwarded-Host, X-Original-URL, X-HTTP-Method-Override and those that docs/overrides.md lists.
        /// Default true.
        #[serde(default = "default_true")]
        pub remove_override_headers: bool,
        /// Those of them that stay: headers that a trusted proxy in front of this one sets itself, whatever the client sent.
        #[serde(default)]
        pub keep_override_headers: Vec<String>,
        /// Parameters that are removed from the query of every request, in every spelling that a backend could take for the
        /// same name: those by which a backend takes another method or path than that of the request line, such as _method.
        /// At most 16.
        #[serde(default)]
        pub remove_query_parameters: Vec<String>,
        /// How refusals look.
        #[serde(default)]
        pub faults: Faults,
        /// Bounds on what is read and kept.
        #[serde(default)]
        pub limits: Limits,
        /// What verifies signatures. Default: `auto`.
        #[serde(default)]
        pub engine: Engine,
    }

    /// Who issues tokens, and what its tokens must look like.
    pub struct Issuer {
        /// The name in rules, logs and metrics: letters, digits, `-`, `_`. Default: the issuer's place, `issuer-0` and so on.
        pub name: Option<String>,
        /// Whose tokens these are: sets what is known of them, wherever the fields below do not say otherwise. docs/providers
        /// has a page for each.
        pub provider: Option<Provider>,
        /// The exact `iss` (RFC 7519 section 4.1.1), compared byte by byte. One segment of its path may be `{tenant}`, as in
        /// `https://login.microsoftonline.com/{tenant}/v2.0`: then each tenant's `iss` is an issuer of its own.
        pub issuer: String,
        /// What `{tenant}` may be: a list of 1 to 1024, or `any` in so many words. Each is 1 to 128 characters of A-Z, a-z, 0-9,
        /// `-`, `.`, `_`, `~`, compared byte by byte. Required with `{tenant}`.
        pub tenants: Option<Tenants>,
        /// The values of `aud` that are accepted, or `any` in so many words.
        pub audiences: Audiences,
        /// The algorithms accepted from this issuer (RFC 7518 section 3.1; RFC 8037; `Ed25519` of RFC 9864 is EdDSA). At least
        /// one, unless all of its tokens are opaque.
        #[serde(default)]
        pub algorithms: Vec<String>,
        /// Keys written here. Exactly one of `keys` and `jwks`, or neither where `introspection` stands alone.
        #[serde(default)]
        pub keys: Vec<Key>,
        /// Keys that the issuer publishes. Exactly one of `keys` and `jwks`, or neither where `introspection` stands alone.
        pub jwks: Option<Jwks>,
        /// The issuer is asked about its opaque tokens (RFC 7662). It may have JWTs beside them; those are never asked about.
        pub introspection: Option<Introspection>,
        /// How long after `exp`, and before `nbf`, a token is still taken for valid; whole seconds, at most 300s. A future
        /// `iat` or `auth_time` is capped by `revocation.future_iat_tolerance` instead.
        #[serde(default = "default_skew")]
        pub skew: ConfigDuration,
        /// The longest time from a token's issue (`iat`, else `auth_time`) to its `exp`; whole seconds, 1s to 366d. At most
        /// the service's `--max-lifetime`: revocations of single tokens are kept this long.
        #[serde(default = "default_max_lifetime")]
        pub max_lifetime: ConfigDuration,
        /// The longest time from a login (`auth_time`) to the last use of a token of it; whole seconds, 1s to 366d. At most
        /// the service's `--max-session`: revocations of sessions, users, clients and issuers are kept this long. Tokens
        /// without `auth_time` have no such bound.
        #[serde(default = "default_max_session")]
        pub max_session: ConfigDuration,
        /// The values of the header `typ` that are accepted, without regard to case and without `application/`. Default:
        /// `JWT` and `at+jwt`, and an absent `typ`. When given, an absent `typ` is refused.
        pub types: Option<Vec<String>>,
        /// The kinds of tokens that are taken from this issuer. A logout, refresh or other token is refused in any case, by
        /// its claims `typ`, `token_use`, `token_type` and `events`. Default: the provider's, else `access`.
        pub token_kinds: Option<Vec<TokenKind>>,
        /// What the claims `typ`, `token_use` and `token_type` say of an access token, besides the usual words; without
        /// regard to case.
        #[serde(default)]
        pub access_types: Vec<String>,
        /// Claims of which each access token of this issuer has one at least, and no ID token has any. A token without any,
        /// and without a word for its kind, is taken for an ID token, as is one with a `nonce` that has its `azp`, its
        /// `client_id` or the value of such a claim in its `aud`. Default: the provider's, else none.
        pub access_claims: Option<Vec<String>>,
        /// The claims that name a token, its session, its user and its client, for revocation.
        pub revocation_claims: Option<RevocationClaims>,
        /// Whether tokens with the scope `offline_access` are of a session of their own, which is revoked as `offline:` and
        /// its id. For providers that give an offline session the id of the browser's. Default: the provider's, else
        /// `together`.
        pub offline_sessions: Option<OfflineSessions>,
        /// The issuer pads the segments of its tokens (`=`), against RFC 7515 section 2. Then all of its JWTs must be so.
        #[serde(default)]
        pub padded: bool,
        /// Members of the header that must be this string, or one of these: at most 16.
        #[serde(default)]
        pub required_header: BTreeMap<String, OneOrMany<String>>,
        /// Claims that a token of this issuer must have, whatever their value; null is none, and an `auth_time` of 0 is none.
        /// With `auth_time` here, a revocation of a user, client or issuer ends refreshed tokens as well: a token without it
        /// counts by its `iat`.
        #[serde(default)]
        pub required_claims: Vec<String>,
    }

    /// The claims by which tokens are found that a revocation ends. Of several, the first that the token has counts.
    pub struct RevocationClaims {
        /// Default: `jti`, `uti`. The service must be told of others (`serve --token-claims`), or `revoke token` ends nothing.
        /// Without any, a token is named by a digest of what was signed.
        pub token: Option<ClaimNames>,
        /// Default: the provider's, else `sid`, `session_state`, `origin_jti`.
        pub session: Option<ClaimNames>,
        /// Default: the provider's, else `sub`.
        pub user: Option<ClaimNames>,
        /// Default: the provider's, else `client_id`, `azp`, `cid`, `appid`.
        pub client: Option<ClaimNames>,
    }

    /// One key, in exactly one of three forms.
    pub struct Key {
        /// The key id (RFC 7515 section 4.1.4). A JWK's own `kid` is used when this is absent.
        pub kid: Option<String>,
        /// The one algorithm that this key is used with. Default: the JWK's `alg`, else every algorithm that the issuer
        /// lists and that fits the key.
        pub alg: Option<String>,
        /// A public key as a JWK (RFC 7517): RSA, EC P-256, P-384 or P-521, OKP Ed25519.
        pub jwk: Option<serde_json::Map<String, serde_json::Value>>,
        /// A public key as PEM (SubjectPublicKeyInfo, RFC 7468).
        pub pem: Option<String>,
        /// The environment variable of the VM that holds an HMAC secret.
        pub secret_env: Option<String>,
        /// How that secret is written. Default: `raw`.
        #[serde(default)]
        pub secret_encoding: SecretEncoding,
    }

    /// A key set that is fetched, and fetched again (RFC 7517 section 5).
    pub struct Jwks {
        /// The Envoy cluster to fetch from. It decides on addresses and TLS.
        pub cluster: String,
        /// The URL of the key set, or of a map of key ids to PEM; its host and path are sent to the cluster. Exactly one of
        /// `uri` and `discovery`.
        pub uri: Option<String>,
        /// Take the URL from `jwks_uri` of `<issuer>/.well-known/openid-configuration` (OpenID Connect Discovery 1.0), which
        /// must name this issuer. Both are fetched from `cluster`.
        #[serde(default)]
        pub discovery: bool,
        /// The longest time to wait for one answer; 100ms to 30s.
        #[serde(default = "default_jwks_timeout")]
        pub timeout: ConfigDuration,
        /// The longest time between two fetches, and between two attempts while they fail; 10s to 24h. A shorter `max-age` of the
        /// answer is honoured, down to `min_refresh`.
        #[serde(default = "default_jwks_refresh")]
        pub refresh: ConfigDuration,
        /// The shortest time between two fetches that a `max-age` can ask for; from 1s to `refresh`. Default: 10s, or three
        /// quarters of a `refresh` that leaves less. Unknown key ids are `cool_down`'s.
        pub min_refresh: Option<ConfigDuration>,
        /// How long the last good set is trusted while no new one can be had; from `refresh` to 7d.
        #[serde(default = "default_jwks_max_stale")]
        pub max_stale: ConfigDuration,
        /// Tokens that no held key verifies, with unknown key ids above all, cause at most one fetch in this time; 1s to 1h.
        #[serde(default = "default_jwks_cool_down")]
        pub cool_down: ConfigDuration,
        /// Take `oct` keys, shared secrets, from the set as well: only for a set that nobody else can read.
        #[serde(default)]
        pub symmetric: bool,
    }

    /// Whom to ask about tokens (RFC 7662), and which tokens those are.
    pub struct Introspection {
        /// About which tokens it is asked. A JWT is asked about once it is verified, and its rule accepts it.
        #[serde(default)]
        pub of: IntrospectedTokens,
        /// The Envoy cluster of the introspection server. Only TLS in this cluster protects the answers.
        pub cluster: String,
        /// The `:authority` sent to it, a host name with or without a port. Default: the cluster's name; of a cluster that
        /// Istio names `direction|port|subset|host`, its host.
        pub authority: Option<String>,
        /// The path of its introspection endpoint, as in `/oauth2/introspect`.
        pub path: String,
        /// How the filter says who it is.
        #[serde(default)]
        pub client_auth: ClientAuth,
        /// The client id that the server knows the filter by. Required, unless `client_auth` is `none`.
        pub client_id: Option<String>,
        /// The environment variable of the VM that holds the client's secret. Required, unless `client_auth` is `none`.
        pub client_secret_env: Option<String>,
        /// What the issuer's opaque tokens look like. Of the issuers that a rule accepts, at most one may fit a token.
        /// Required, unless `of` is `jwt`.
        pub format: Option<OpaqueFormat>,
        /// The longest time to wait for an answer, connecting and queueing included; 10ms to 5s.
        #[serde(default = "default_check_timeout")]
        pub timeout: ConfigDuration,
        /// How long an answer counts, yes or no, from the moment the question was sent; 1s to 5s.
        #[serde(default = "default_freshness")]
        pub freshness: ConfigDuration,
    }

    /// What opaque tokens look like. What does not look so is never asked about.
    pub struct TokenShape {
        /// How each of them begins; at most 64 characters. Default: in no special way.
        #[serde(default)]
        pub prefix: String,
        /// The shortest of them, prefix included; 8 characters or more.
        #[serde(default = "default_shape_min")]
        pub min_length: usize,
        /// The longest of them, prefix included; at most 4096 characters, and at most `limits.token_bytes`.
        #[serde(default = "default_shape_max")]
        pub max_length: usize,
        /// The characters after the prefix.
        #[serde(default)]
        pub alphabet: TokenAlphabet,
    }

    /// Where tokens are looked for. More than one token in a request is refused.
    pub struct Sources {
        /// Request headers, at most 16. Default: `authorization` with the scheme `Bearer`.
        #[serde(default = "default_headers")]
        pub headers: Vec<HeaderSource>,
        /// Cookies, at most 16. On unsafe methods and upgrades they count only with an Origin from the rule's `cookie_origins`.
        #[serde(default)]
        pub cookies: Vec<CookieSource>,
        /// Query parameters, at most 16, removed from the path before it is forwarded. They end up in logs: prefer a header.
        #[serde(default)]
        pub query: Vec<String>,
        /// Subprotocols in `Sec-WebSocket-Protocol` that are tokens, at most 16, removed before the request is forwarded.
        #[serde(default)]
        pub websocket: Vec<WebsocketSource>,
    }

    /// How a token is written as a subprotocol of a WebSocket.
    pub struct WebsocketSource {
        /// How the subprotocol begins. The rest is the token. Default: that of Kubernetes' API server.
        #[serde(default = "default_websocket_prefix")]
        pub prefix: String,
        /// How the token is written after the prefix.
        #[serde(default)]
        pub encoding: WebsocketEncoding,
    }

    /// A request header that may carry a token.
    pub struct HeaderSource {
        /// The header's name, without regard to case.
        pub name: String,
        /// The authentication scheme before the token, without regard to case; absent: the value is the token.
        pub scheme: Option<String>,
    }

    /// A cookie that may carry a token.
    pub struct CookieSource {
        /// The cookie's name; case matters (RFC 6265).
        pub name: String,
        /// The token may also be in up to 16 cookies, numbered from 0, in any order. Default: in one cookie only.
        pub chunks: Option<ChunkSeparator>,
    }

    /// Which requests, and what they need.
    pub struct Rule {
        /// The name in logs and metrics: letters, digits, `-`, `_`. Default: the rule's place, `rule-0` and so on.
        pub name: Option<String>,
        /// Absent fields match everything.
        #[serde(default, rename = "match")]
        pub matches: Match,
        /// Who is admitted.
        pub access: Access,
        /// Names of the issuers accepted here. Default: all.
        pub issuers: Option<Vec<String>>,
        /// Scopes that the token must have (`scope` as a string per RFC 8693 section 4.2 or an array, or `scp`).
        #[serde(default)]
        pub scopes: Scopes,
        /// Conditions on claims, all of which must hold; else CLAIM_INSUFFICIENT.
        #[serde(default)]
        pub claims: Vec<Condition>,
        /// What the token is bound to.
        #[serde(default)]
        pub binding: Binding,
        /// Kinds by which a token must be revocable here: it has a claim that names each. `session`, `user`, `client`. One
        /// that has not is CLAIM_INSUFFICIENT.
        #[serde(default)]
        pub revocable_by: Vec<RevocationKind>,
        /// Whether ended sessions are asked for. Default: `check` where the document has `revocation`, else `off`.
        pub revocation: Option<RevocationMode>,
        /// Replaces the document's `forward` for this rule.
        pub forward: Option<Forward>,
        /// What to do with a CORS preflight (an OPTIONS with Origin and Access-Control-Request-Method): `pass` lets it
        /// through unauthenticated and without identity headers. Default: `check` treats it as any other request.
        #[serde(default)]
        pub cors_preflight: CorsPreflight,
        /// Origins (`scheme://host[:port]`) from which a token in a cookie is accepted on unsafe methods and upgrades.
        #[serde(default)]
        pub cookie_origins: Vec<String>,
    }

    /// Which requests a rule is for. All of the fields that are given must match.
    #[derive(Default)]
    pub struct Match {
        /// The path, plain and with regard to case.
        pub path: Option<PathMatch>,
        /// Methods, in upper case.
        pub methods: Option<Vec<String>>,
        /// Hosts, compared in lower case, without port and trailing dot; `*.example.com` matches every name below.
        pub hosts: Option<Vec<String>>,
    }

    /// Scopes that a token must have.
    #[derive(Default)]
    pub struct Scopes {
        /// Every one of these.
        #[serde(default)]
        pub all: Vec<String>,
        /// At least one of these, when there are any.
        #[serde(default)]
        pub any: Vec<String>,
    }

    /// A condition on one claim. Exactly one of `equals`, `one_of`, `contains`, `contains_any`, `present`.
    pub struct Condition {
        /// The claim: a name, or a list of names that leads into nested objects.
        pub claim: OneOrMany<String>,
        /// The claim is this string, number or boolean.
        pub equals: Option<Scalar>,
        /// The claim is one of these.
        pub one_of: Option<Vec<Scalar>>,
        /// The claim is an array with this member (or a string of words separated by spaces with this word).
        pub contains: Option<Scalar>,
        /// As `contains`, for at least one of these.
        pub contains_any: Option<Vec<Scalar>>,
        /// The claim is there (true) or not there (false), whatever its value. One that is null is not there.
        pub present: Option<bool>,
    }

    /// What a token is bound to. Absent fields bind it to nothing.
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
        /// What a mismatch does.
        pub mode: BindingMode,
        /// Refuse a token without `cnf.x5t#S256`. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
    }

    /// How a claim is compared with the client.
    pub struct ClaimBinding {
        /// What a mismatch does.
        pub mode: BindingMode,
        /// The claim: a name, or a list of names that leads into nested objects.
        pub claim: OneOrMany<String>,
        /// Refuse a token without the claim. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
    }

    /// The service that knows which sessions were ended.
    pub struct Revocation {
        /// The Envoy cluster of the session service.
        pub cluster: String,
        /// The `:authority` sent to it, a host name with or without a port. Default: the cluster's name; of a cluster that
        /// Istio names `direction|port|subset|host`, its host.
        pub authority: Option<String>,
        /// The environment variable of the VM that holds the secret shared with the service (32 bytes or more).
        pub secret_env: String,
        /// The longest time to wait for an answer, connecting included; 10ms to 5s.
        #[serde(default = "default_check_timeout")]
        pub timeout: ConfigDuration,
        /// How long an answer counts, from the moment the question was sent; 1s to 5s.
        #[serde(default = "default_freshness")]
        pub freshness: ConfigDuration,
        /// Whether an answer that is in use is asked for anew in the last two fifths of its freshness, so that no request
        /// of an active session waits. Default: true.
        #[serde(default = "default_refresh_ahead")]
        pub refresh_ahead: bool,
        /// What is asked about each token. Default: all of them.
        #[serde(default = "default_kinds")]
        pub kinds: Vec<RevocationKind>,
        /// The most that an issuer's clock may run ahead of ours: caps a future `iat` or `auth_time`. At most the service's
        /// `--future-iat-tolerance`, and at most 60s.
        #[serde(default = "default_future_iat_tolerance")]
        pub future_iat_tolerance: ConfigDuration,
    }

    /// What the upstream is told.
    #[derive(Default)]
    pub struct Forward {
        /// Claims to request headers.
        #[serde(default)]
        pub claims: Vec<ForwardClaim>,
        /// A header that carries the payload as in the token (base64url JSON).
        pub payload_header: Option<String>,
        /// Whether the upstream sees the token. Default: `remove`.
        #[serde(default)]
        pub token: TokenForwarding,
    }

    /// One claim as a request header.
    pub struct ForwardClaim {
        /// The claim: a name, or a list of names that leads into nested objects.
        pub claim: OneOrMany<String>,
        /// The request header. Whatever the client sent under this name is removed, on every route.
        pub header: String,
        /// How the value is written. Default: `plain`.
        #[serde(default)]
        pub encoding: Encoding,
    }

    /// How refusals look.
    #[derive(Default)]
    pub struct Faults {
        /// Which status each fault has.
        #[serde(default)]
        pub statuses: Statuses,
        /// Status by fault code, 400 to 599.
        #[serde(default)]
        pub overrides: BTreeMap<String, u16>,
        /// The `realm` of the challenge (RFC 6750 section 3). Default: none.
        pub realm: Option<String>,
    }

    /// Bounds on what is read and kept, so that no client can make the filter grow.
    pub struct Limits {
        /// The longest token; 256 to 65536 bytes. Envoy takes 60 KiB of headers in all, unless `max_request_headers_kb`
        /// says otherwise.
        #[serde(default = "default_token_bytes")]
        pub token_bytes: usize,
        /// Tokens kept in each virtual machine (one per worker thread); 0 to 65536.
        #[serde(default = "default_cached_tokens")]
        pub cached_tokens: usize,
        /// The memory that these tokens take together in each virtual machine, about; 65536 to 268435456 bytes. A token of
        /// over a 64th of it is verified each time.
        #[serde(default = "default_cached_token_bytes")]
        pub cached_token_bytes: usize,
        /// Verdicts kept for all workers of a process; 0 to 65536.
        #[serde(default = "default_shared_verdicts")]
        pub shared_verdicts: usize,
        /// Requests that wait for an answer of the service at once, in each virtual machine; 1 to 16384. One more is
        /// refused. As many may wait for keys, and for each introspection server.
        #[serde(default = "default_waiting")]
        pub waiting_requests: usize,
    }
}

choice! {
    /// What verifies signatures.
    #[derive(Default)]
    pub enum Engine {
        /// The proxy's own verifier where it has one that answers rightly at start, else this filter's.
        #[default]
        Auto,
        /// The proxy's own verifier for the algorithms that it has; without it the configuration is refused.
        Host,
        /// This filter's, in Wasm, for every algorithm.
        Portable,
    }

    /// How the filter authenticates itself at an introspection server (RFC 6749 section 2.3.1).
    #[derive(Default)]
    pub enum ClientAuth {
        /// `Authorization: Basic`, with id and secret each form-encoded before they are joined.
        #[default]
        Basic,
        /// `client_id` and `client_secret` in the body.
        Post,
        /// Not at all: for a server that only the cluster can reach.
        None,
    }

    /// Which tokens an introspection server is asked about.
    #[derive(Default)]
    pub enum IntrospectedTokens {
        /// Opaque ones: those of the `format`.
        #[default]
        Opaque,
        /// The issuer's JWTs, after everything else about them has been judged.
        Jwt,
        /// Both.
        Both,
    }

    /// Which characters an opaque token has after its prefix.
    #[derive(Default)]
    pub enum TokenAlphabet {
        /// 0–9, a–f, A–F.
        Hex,
        /// 0–9, a–z, A–Z.
        Alphanumeric,
        /// 0–9, a–z, A–Z, `-`, `_`.
        #[default]
        Base64url,
        /// What RFC 6750 section 2.1 allows: 0–9, a–z, A–Z, `-`, `.`, `_`, `~`, `+`, `/`, and `=` at the end. A token with two
        /// dots is taken for a JWT all the same.
        B64token,
    }

    /// Who is admitted.
    pub enum Access {
        /// Everybody, without a token; identity headers are still cleared.
        Public,
        /// A token or none; one that is presented must be good.
        Optional,
        /// A token.
        Required,
        /// Nobody is forwarded: the filter itself answers 200, for a probe that must fail where no filter judges requests.
        /// The rule needs an exact path.
        Probe,
    }

    /// How a secret is written.
    #[derive(Default)]
    pub enum SecretEncoding {
        /// The bytes of the variable are the secret.
        #[default]
        Raw,
        /// The variable holds the secret in base64url without padding.
        Base64url,
    }

    /// What session a token with the scope `offline_access` is of.
    pub enum OfflineSessions {
        /// A session of its own, that outlives the browser's.
        Apart,
        /// A revocation of the session ends both.
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

    /// What a token is for.
    pub enum TokenKind {
        /// For APIs. What bears no mark of any kind is taken for one.
        Access,
        /// For the client that the user logged in to (OpenID Connect Core section 2): with `at_hash`, `c_hash`, `s_hash`, or
        /// a `nonce` where no word, type or claim says that it is an access token.
        Id,
    }

    /// What happens to a CORS preflight.
    #[derive(Default)]
    pub enum CorsPreflight {
        /// As any other request.
        #[default]
        Check,
        /// Through, without token and identity.
        Pass,
    }

    /// What stands between a cookie's name and the number of its chunk.
    pub enum ChunkSeparator {
        /// `name.0`, `name.1`, …
        Dot,
        /// `name_0`, `name_1`, …
        Underscore,
    }

    /// How a token is written after the prefix of its subprotocol.
    #[derive(Default)]
    pub enum WebsocketEncoding {
        /// In base64url without padding, as Kubernetes' API server takes it.
        #[default]
        Base64url,
        /// As it is.
        Plain,
    }

    /// What a mismatch does.
    pub enum BindingMode {
        /// The request is refused.
        Enforce,
        /// Only count and log what would have been refused.
        Report,
    }

    /// What a rule does about ended sessions.
    pub enum RevocationMode {
        /// Refuse with 503 what cannot be checked.
        Check,
        /// Let pass what cannot be checked, while the service or its store is out of reach. What was seen to be ended
        /// stays ended, and an answer that must not be believed, or an overload of the proxy, is still refused.
        DangerouslyPassWhenUnavailable,
        /// Do not ask.
        Off,
    }

    /// What a revocation can name.
    pub enum RevocationKind {
        /// This token: `iss` and `jti`, or what the issuer's `revocation_claims` name; without, a digest of what was signed.
        Token,
        /// `iss` and `sid`, or what the issuer's `revocation_claims` name.
        Session,
        /// `iss` and `sub`, or what the issuer's `revocation_claims` name.
        User,
        /// `iss` and `client_id`, else `azp`, or what the issuer's `revocation_claims` name.
        Client,
        /// The key that verified the signature, by its RFC 7638 thumbprint.
        Key,
        /// Everything from this `iss`.
        Issuer,
    }

    /// What happens to the token itself.
    #[derive(Default)]
    pub enum TokenForwarding {
        /// The upstream does not see it.
        #[default]
        Remove,
        /// The upstream sees it; a token in a query parameter is removed all the same.
        Keep,
    }

    /// How a claim's value is written into a header.
    #[derive(Default)]
    pub enum Encoding {
        /// As it is. A token whose value has bytes outside 0x20–0x7e, or a space at an end, is refused.
        #[default]
        Plain,
        /// Base64url without padding of its UTF-8, always: were only some values encoded, two users could share one.
        Base64url,
    }

    /// Which statuses refusals have.
    #[derive(Default)]
    pub enum Statuses {
        /// 401 for what is wrong with the token, 403 for what it may not do.
        #[default]
        Distinct,
        /// 401 wherever RFC 6750 says `invalid_token`, for clients that fetch a new token on 401.
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

/// A claim, or several in the order in which they are looked for. In a list, a list leads into nested objects.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(untagged, expecting = "expected a claim's name, or a list of names")]
pub enum ClaimNames {
    One(String),
    Several(Vec<OneOrMany<String>>),
}

/// The word `any`.
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

/// The word `portcullis`, or a shape.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OpaqueFormat {
    /// The tokens of `portcullis serve`: `pcs_`, and a checksum that tells a mistyped one.
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

/// Within what Envoy takes by default for all headers together (60 KiB).
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
