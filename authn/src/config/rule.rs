//! Rules: the requests that they match, and their requirements.
use serde::Deserialize;

use super::tree::from_json;
use super::{
    Binding, Browser, Forward, Invalid, Mode, OneOrMany, RevocationKind, RevocationMode, RuleDpop, StepUp, Streams,
};

document! {
    /// The requests of a rule, and what they need.
    pub struct Rule {
        /// The name in logs and metrics: letters, digits, `-`, `_`. Default: by the rule's index, `rule-0` and so on.
        pub name: Option<String>,
        /// Absent fields match everything.
        #[serde(default, rename = "match")]
        pub matches: Match,
        /// Which requests are admitted.
        pub access: Access,
        /// Whether the rule is enforced. With `report`, a request that it would refuse is counted, logged and forwarded
        /// without identity (docs/rollout.md). Default: `enforce`.
        #[serde(default)]
        pub mode: Mode,
        /// This rule has no `match`. It applies to the requests whose Envoy route selects it by its name, in place of the
        /// first rule that matches (docs/routes.md). Needs `access: required` and a `name`. Only the dynamic module knows
        /// routes. Default false.
        #[serde(default)]
        pub for_routes: bool,
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
        /// What is asked of proofs of possession. Default: a bound token needs one, and others pass without.
        pub dpop: Option<RuleDpop>,
        /// How and when the user must have logged in. Default: any login.
        pub step_up: Option<StepUp>,
        /// Kinds by which a token must be revocable here: it must have a claim for each. `session`, `user`, `client`.
        /// Otherwise it is CLAIM_INSUFFICIENT.
        #[serde(default)]
        pub revocable_by: Vec<RevocationKind>,
        /// Whether revocations are checked. Default: `check` if the document has `revocation`, otherwise `off`.
        pub revocation: Option<RevocationMode>,
        /// When streams that are open are ended. Default: no stream is ended, a request is checked when it begins.
        pub streams: Option<Streams>,
        /// Replaces the document's `forward` for this rule.
        pub forward: Option<Forward>,
        /// How to treat a CORS preflight (an OPTIONS with Origin and Access-Control-Request-Method). `pass` admits it
        /// without authentication and without identity headers. Default: `check` treats it like any other request.
        #[serde(default)]
        pub cors_preflight: CorsPreflight,
        /// Origins (`scheme://host[:port]`) from which a token in a cookie is accepted on unsafe methods and upgrades.
        #[serde(default)]
        pub cookie_origins: Vec<String>,
        /// Also accept such a token if the browser says, by `Sec-Fetch-Site: same-origin` or `none`, that no other site caused
        /// the request. Default false.
        #[serde(default)]
        pub cookie_same_origin: bool,
        /// Replaces the document's `browser` for this rule.
        pub browser: Option<Browser>,
    }

    /// The requests that a rule applies to. All fields that are given must match.
    #[derive(Default, PartialEq, Eq)]
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
        /// The effect of a missing scope. Default: `enforce`.
        #[serde(default)]
        pub mode: Mode,
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
        /// The effect of a claim that does not meet this condition. Default: `enforce`.
        #[serde(default)]
        pub mode: Mode,
    }
}

document! {
    /// What one route of Envoy says to the filter.
    pub struct Route {
        /// The name of a rule with `for_routes`.
        pub rule: String,
    }
}

impl Route {
    /// # Errors
    /// What is wrong with it, with the field.
    pub fn from_json(text: &[u8]) -> Result<Self, Invalid> {
        from_json(text)
    }
}

choice! {
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

    /// What happens to a CORS preflight.
    #[derive(Default)]
    pub enum CorsPreflight {
        /// Like any other request.
        #[default]
        Check,
        /// It is admitted, without token and identity.
        Pass,
    }
}

/// Exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PathMatch {
    /// The whole path, without query.
    Exact(String),
    /// The path itself and everything below it: `/a` matches `/a` and `/a/b`, not `/ab`; `/` matches everything.
    Prefix(String),
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
