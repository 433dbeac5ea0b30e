//! Every reason for which a request is refused, with the client's view of each.
/// Declares [`RejectReason`] with its wire code, default status, RFC 6750 status, RFC 6750 error, short text and
/// advice, so that no reason can be added without all of them. `docs/faults.md` is generated from this table.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $status:literal, $rfc6750:literal, $error:expr, $text:literal,
        $advice:literal;)+) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RejectReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl RejectReason {
            pub const ALL: &'static [RejectReason] = &[$(RejectReason::$name,)+];

            /// Its index in [`RejectReason::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The `code` of the problem document, the metric and the log word.
            pub const fn code(self) -> &'static str {
                match self { $(RejectReason::$name => $code,)+ }
            }

            /// The HTTP status under `statuses: distinct`.
            pub const fn distinct_status(self) -> u16 {
                match self { $(RejectReason::$name => $status,)+ }
            }

            /// The HTTP status under `statuses: rfc6750`: 401 wherever RFC 6750 section 3.1 says `invalid_token`.
            pub const fn rfc6750_status(self) -> u16 {
                match self { $(RejectReason::$name => $rfc6750,)+ }
            }

            /// The `error` attribute of the challenge (RFC 6750 section 3.1); none if the RFC defines none.
            pub const fn challenge_error(self) -> Option<&'static str> {
                match self { $(RejectReason::$name => $error,)+ }
            }

            /// The text for the client: without the cause, which would help to forge a better token.
            pub const fn text(self) -> &'static str {
                match self { $(RejectReason::$name => $text,)+ }
            }

            /// Advice for on-call, for `docs/faults.md`.
            pub const fn advice(self) -> &'static str {
                match self { $(RejectReason::$name => $advice,)+ }
            }

            /// When it happens, for `docs/faults.md`.
            pub const fn when(self) -> &'static str {
                match self { $(RejectReason::$name => concat!($($doc,)+),)+ }
            }
        }
    };
}

const TOKEN: Option<&str> = Some("invalid_token");
const PROOF: Option<&str> = Some("invalid_dpop_proof");
const REQUEST: Option<&str> = Some("invalid_request");

faults! {
    /// No token on a rule that requires one.
    TokenMissing = "TOKEN_MISSING", 401, 401, None, "a token is required",
        "The client sends no token, or sends it in a place that `tokens` does not name. Look for a proxy that drops the header.";
    /// The presented token is not of any accepted kind.
    TokenMalformed = "TOKEN_MALFORMED", 401, 401, TOKEN, "the token is malformed",
        "Run `explain` on the token: the cause names what is wrong. Often an encrypted token, one truncated by a header limit, or an opaque one that matches no `introspection.format` of the rule's issuers.";
    /// The token is longer than `limits.token_bytes`.
    TokenTooLong = "TOKEN_TOO_LONG", 401, 401, TOKEN, "the token is too long",
        "Let the issuer put less into the token (often groups or roles), or raise `limits.token_bytes`, to at most 65536, together with Envoy's `max_request_headers_kb`.";
    /// The token's JSON is nested too deeply: more than 16 levels of objects and arrays.
    TokenTooDeep = "TOKEN_TOO_DEEP", 401, 401, TOKEN, "the token is nested too deeply",
        "No issuer needs this depth: find the claim with `explain`, and let the issuer flatten it. The bound is not configurable.";
    /// An object in the token's JSON has too many members: more than 1024.
    TokenTooManyMembers = "TOKEN_TOO_MANY_MEMBERS", 401, 401, TOKEN, "the token has an object with too many members",
        "The issuer writes a list as an object, often of roles: let it send an array, or fewer. Arrays are bounded by `limits.token_bytes` only. The bound is not configurable.";
    /// More than one token, or one source twice.
    TokenAmbiguous = "TOKEN_AMBIGUOUS", 400, 400, REQUEST, "more than one token was presented",
        "Find the source of the second token: often a browser's cookie beside an application's header.";
    /// A cookie token on an unsafe method or an upgrade, without an Origin that the rule lists.
    OriginNotAllowed = "ORIGIN_NOT_ALLOWED", 403, 403, None, "this origin may not use a session cookie here",
        "If the site is yours, add its origin to the rule's `cookie_origins`. Otherwise it is a forged request, and was stopped.";
    /// The token's algorithm is not allowed for its issuer's key.
    AlgNotAllowed = "ALG_NOT_ALLOWED", 401, 401, TOKEN, "the token's algorithm is not allowed",
        "If the issuer changed its algorithm, add it to `algorithms` with the new key. If it did not, this is probably an attack.";
    /// No key of the issuer has the token's key id.
    KeyUnknown = "KEY_UNKNOWN", 401, 401, TOKEN, "the token's key is unknown",
        "The issuer has probably changed its keys. With `keys`, add the new one; with `jwks`, run `portcullis jwks`. If it did not, this is probably an attack.";
    /// The signature does not match.
    SigMismatch = "SIG_MISMATCH", 403, 401, TOKEN, "the token's signature does not match",
        "Compare the configured key with the issuer's. A key that was replaced under the same `kid` causes this; so does a forgery.";
    /// `exp` has passed.
    JwtExpired = "JWT_EXPIRED", 401, 401, TOKEN, "the token has expired",
        "Normal from time to time. If it affects all clients, compare the clocks of Envoy's host and the issuer, and check whether clients refresh.";
    /// `nbf`, `iat` or `auth_time` is in the future.
    JwtNotYetValid = "JWT_NOT_YET_VALID", 401, 401, TOKEN, "the token is not valid yet",
        "Clocks differ: compare those of the issuer and of Envoy's host, then `skew` and `revocation.future_iat_tolerance`.";
    /// The token lives longer than its issuer may grant, or longer than revocations are kept.
    JwtTooLongLived = "JWT_TOO_LONG_LIVED", 401, 401, TOKEN, "the token lives too long",
        "The log says which bound. For `max_lifetime`: let the issuer grant shorter tokens, or raise it here and `--max-lifetime` of the service together. For `max_session`: the login is too old, so the user must log in again, or raise it and `--max-session` together.";
    /// `iss` is missing or not configured.
    InvalidIssuer = "INVALID_ISSUER", 401, 401, TOKEN, "the token's issuer is not accepted",
        "Compare `iss` byte by byte with `issuer` (a slash at the end is significant), and check which `issuers` the rule accepts.";
    /// `aud` is missing or is none of the issuer's `audiences`.
    InvalidAudience = "INVALID_AUDIENCE", 401, 401, TOKEN, "the token is not meant for this audience",
        "The token is for another service: compare its `aud` with the issuer's `audiences`.";
    /// A claim that every token of the issuer must have is missing or has another value, or a claim has the wrong type.
    InvalidClaim = "INVALID_CLAIM", 401, 401, TOKEN, "a claim of the token is not acceptable",
        "The log's cause names the claim. Compare the issuer's `required_claims`, `types`, `token_kinds` and `access_types` with what it sends.";
    /// The token lacks a scope that the rule requires.
    ScopeInsufficient = "SCOPE_INSUFFICIENT", 403, 403, Some("insufficient_scope"), "the token's scope is insufficient",
        "The challenge names the scopes that the rule requires: the client must request them, and the issuer must grant them.";
    /// The token is valid, but lacks what the rule's `claims` require (a role, a group, a tenant), or cannot be revoked
    /// by a kind in `revocable_by`.
    ClaimInsufficient = "CLAIM_INSUFFICIENT", 403, 403, None, "the token does not grant this",
        "A new token would not help: give the user or client the role, or change the rule. `explain` names the claim. No `error` is sent, since `insufficient_scope` would make clients ask for scopes.";
    /// The rule's `step_up` requires a login of another `acr`, or a more recent one (RFC 9470).
    StepUpRequired = "STEP_UP_REQUIRED", 401, 401, Some("insufficient_user_authentication"),
        "another or a more recent login is required",
        "The challenge names the accepted `acr` values and the age: the client must send the user to the issuer with them as `acr_values` and `max_age`. If users come back with the same login, check that the issuer puts `acr` and `auth_time` into the token.";
    /// The service demands that the user of this session logs in again, by hijack detection or by an operator (RFC 9470).
    StepUpDemanded = "STEP_UP_DEMANDED", 401, 401, Some("insufficient_user_authentication"),
        "a login is demanded of this session",
        "The challenge has `max_age` and the accepted `acr` values: the client must send the user to the issuer with them. If users come back and are refused again, check that the issuer puts a new `auth_time` into the token, and the `acr` of `revocation.step_up`. `portcullis revoke list --kind step_up` shows the demands with their reasons.";
    /// The token, or its session, user, client, key or issuer, was revoked.
    SessionRevoked = "SESSION_REVOKED", 403, 401, TOKEN, "the session was revoked",
        "It was revoked. `portcullis revoke list` shows each revocation with its caller and reason; `portcullis audit` also shows logouts and ended sessions. `portcullis revoke lift` undoes a revocation.";
    /// Introspection says that the token is not active.
    SessionUnknown = "SESSION_UNKNOWN", 401, 401, TOKEN, "the session is unknown",
        "The issuer no longer knows the token, or never did: the client must log in again. If it affects all clients, check the issuer, and whether `introspection` names the right server.";
    /// The client's address, user agent or certificate differs from the one that the token is bound to.
    BindingMismatch = "BINDING_MISMATCH", 403, 401, TOKEN, "the token is bound to another client",
        "For one client: a stolen token, or a change of network. For all clients: the proxy sees another address or certificate than the issuer; check `xff_num_trusted_hops`.";
    /// The token's binding to a key does not fit the request: a bound token as a bearer token, an unbound one under the
    /// scheme `DPoP`, or a proof of another key (RFC 9449 section 7.1).
    DpopBindingMismatch = "DPOP_BINDING_MISMATCH", 401, 401, TOKEN, "the token is not bound as this request shows it",
        "A stolen token, or a client that does not send bound tokens with the scheme `DPoP` and a proof. The log's cause says which.";
    /// The proof of possession is missing or does not count (RFC 9449 section 4.3).
    DpopProofInvalid = "DPOP_PROOF_INVALID", 401, 401, PROOF, "the DPoP proof is not acceptable",
        "The log's cause says why. For all clients: compare `dpop.origins` with the URL that clients use, and clocks for `iat`.";
    /// The proof was used before.
    DpopProofReplayed = "DPOP_PROOF_REPLAYED", 401, 401, PROOF, "the DPoP proof was used before",
        "A client that sends one proof with two requests or retries, or an attack. Each request needs a new `jti`.";
    /// The proof lacks a nonce of ours that counts (RFC 9449 section 9). The answer has one.
    DpopNonceRequired = "DPOP_NONCE_REQUIRED", 401, 401, Some("use_dpop_nonce"), "the DPoP proof needs a nonce of this server",
        "Normal for a client's first request and after a pause. If it never ends, the client ignores `DPoP-Nonce`, or proxies have different secrets.";
    /// No rule matches the request.
    RouteUnmatched = "ROUTE_UNMATCHED", 403, 403, None, "no rule admits this request",
        "No rule has this method, path and host. Run `explain` on the request, and add a rule if it should be admitted.";
    /// The path can be read in more than one way.
    PathSuspicious = "PATH_SUSPICIOUS", 400, 400, None, "the path is not in plain form",
        "An attack, or an application that builds unusual URLs. Set Envoy's `normalize_path` and `merge_slashes`; there is no option to admit these paths.";
    /// The request's headers cannot be read (not UTF-8 where needed, or too many).
    RequestMalformed = "REQUEST_MALFORMED", 400, 400, None, "the request's headers are malformed",
        "See the cause in the log. If it affects all clients, a proxy before this one adds unreadable headers.";
    /// The service could not connect to Redis.
    RedisConnRefused = "REDIS_CONN_REFUSED", 503, 503, None, "sessions cannot be checked now",
        "Redis is down or moved: start it, or fail over. The service reconnects automatically.";
    /// Redis answered too slowly.
    SessionStoreLatency = "SESSION_STORE_LATENCY", 503, 503, None, "sessions cannot be checked now",
        "Look at Redis's load, slow log and disk, and at the network between. Requests pass again once it is fast.";
    /// There is no answer that can be trusted: the service or introspection server is unreachable, slow, not ready, or
    /// another server answers.
    StoreUnavailable = "STORE_UNAVAILABLE", 503, 503, None, "sessions cannot be checked now",
        "The cause in the log says which of these it is, and so does the metric `checks_failed` by reason: docs/operations.md has a row for each. `/readyz` of the service reports the state of its store. It does not cover secrets, clusters, lifetimes or clocks, which filter and service compare with each check. An emptied Redis is refused on purpose. For opaque tokens, the cause says what the introspection server answered.";
    /// The issuer's keys could not be fetched, or are too old.
    KeysUnavailable = "KEYS_UNAVAILABLE", 503, 503, None, "the issuer's keys are not available now",
        "The issuer's key set cannot be fetched: check the issuer, and its cluster.";
}

impl RejectReason {
    /// The client must send bound tokens in another way: the scheme `Bearer` would not help.
    pub const fn is_about_dpop(self) -> bool {
        matches!(
            self,
            RejectReason::DpopBindingMismatch
                | RejectReason::DpopProofInvalid
                | RejectReason::DpopProofReplayed
                | RejectReason::DpopNonceRequired
        )
    }

    /// "Cannot tell" as opposed to "no": only these use the rule's failure policy.
    pub const fn is_cannot_tell(self) -> bool {
        matches!(
            self,
            RejectReason::RedisConnRefused
                | RejectReason::SessionStoreLatency
                | RejectReason::StoreUnavailable
                | RejectReason::KeysUnavailable
        )
    }
}
