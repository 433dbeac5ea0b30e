//! The configuration document as written: names, defaults and types, by section. `policy` compiles it.
//!
//! Every struct denies unknown fields, so that a misspelt field is an error and not a silent default.
use serde::Deserialize;

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

mod binding;
mod browser;
mod defaults;
mod dpop;
mod duration;
mod expose;
mod faults;
mod forward;
mod introspection;
mod invalid;
mod issuer;
mod keys;
mod limits;
mod mode;
mod one_or_many;
mod revocation;
mod rule;
mod sds;
mod sightings;
mod sources;
mod step_up;
mod streams;
mod tree;
mod values;

pub use binding::{AddressBinding, AddressPrefix, AgentBinding, Binding, CertificateBinding, ClientAddress};
pub use browser::{
    Browser, CacheControl, CookieAction, ReferrerPolicy, SameSite, SetCookieRule, StrictTransportSecurity,
};
pub use dpop::{Dpop, DpopNonce, DpopReplay, RuleDpop};
pub use duration::ConfigDuration;
pub use expose::{Expose, ExposedClaim, SubjectForm};
pub use faults::{Faults, RefusalLog, Statuses};
pub use forward::{Encoding, Forward, ForwardClaim, TokenForwarding};
pub use introspection::{ClientAuth, IntrospectedTokens, Introspection, OpaqueFormat, TokenAlphabet, TokenShape};
pub use invalid::Invalid;
pub use issuer::{Audiences, ClaimNames, Issuer, OfflineSessions, Provider, RevocationClaims, Tenants, TokenKind};
pub use keys::{Jwks, Key, SecretEncoding};
pub use limits::Limits;
pub use mode::Mode;
pub use one_or_many::OneOrMany;
pub use revocation::{OnExceeded, Revocation, RevocationKind, RevocationMode};
pub use rule::{Access, Condition, CorsPreflight, Match, PathMatch, Route, Rule, Scalar, Scopes};
pub use sds::SdsSecret;
pub use sightings::Sightings;
pub use sources::{ChunkSeparator, CookieSource, HeaderSource, Sources, WebsocketEncoding, WebsocketSource};
pub use step_up::{Demanded, StepUp};
pub use streams::{EndOn, Streams};
pub use values::Environment;
pub(crate) use values::{check_range, claim_path, name_or, secret_from, whole_seconds};

use defaults::default_true;

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
        /// Whether rules are enforced. `report` makes all of them report (docs/rollout.md). Default: `enforce`.
        #[serde(default)]
        pub mode: Mode,
        /// How revocations are checked. Absent: no rule may check revocations, and none are checked.
        pub revocation: Option<Revocation>,
        /// Tokens that are bound to a key of their client. Absent: a token with `cnf.jkt` is refused.
        pub dpop: Option<Dpop>,
        /// What is forwarded to the upstream about the token, unless a rule says otherwise.
        #[serde(default)]
        pub forward: Forward,
        /// What the proxy's other filters and its access log may read about a request. Default: nothing.
        #[serde(default)]
        pub expose: Expose,
        /// How the client's address is determined, for bindings. Default: as Envoy does, by `use_remote_address` and
        /// `xff_num_trusted_hops` of its connection manager.
        pub client_address: Option<ClientAddress>,
        /// What the service is told about the clients of sessions. Default: nothing.
        pub sightings: Option<Sightings>,
        /// What answers to browsers have, unless a rule says otherwise. Default: what the upstream sets.
        pub browser: Option<Browser>,
        /// Secrets that the proxy gets by SDS. Only the dynamic module in Envoy 1.40 and later has them (docs/secrets.md).
        /// At most 16.
        #[serde(default)]
        pub sds: Vec<SdsSecret>,
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
}

impl Document {
    /// # Errors
    /// What is wrong with its form, with the field.
    pub fn from_json(text: &[u8]) -> Result<Self, Invalid> {
        let document: Self = tree::from_json(text)?;
        SdsSecret::check_all(&document.sds)?;
        Ok(document)
    }
}

/// The value `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum AnyWord {
    Any,
}
