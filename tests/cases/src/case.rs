//! A case as the YAML files write it.
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ISSUER;

/// One request and the verdict on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence.
    pub name: String,
    /// Which of the table's configurations judges it.
    #[serde(default = "default_config")]
    pub config: String,
    #[serde(default)]
    pub request: RequestSpec,
    /// `{token}` in the request.
    #[serde(default)]
    pub token: TokenSpec,
    /// `{other}` in the request.
    pub other: Option<TokenSpec>,
    /// `{proof}` in the request.
    #[serde(default)]
    pub proof: ProofSpec,
    /// The request is sent twice, and the second answer is judged.
    #[serde(default)]
    pub again: bool,
    /// The reply of the introspection server about the token. Without it, the server calls every token active: a
    /// case that expects a refusal then shows that it was not asked.
    pub introspection: Option<IntrospectionSpec>,
    /// Revoked before the request is sent.
    #[serde(default)]
    pub revoked: Vec<RevokedSpec>,
    /// The state of the store while the request is sent.
    #[serde(default)]
    pub store: Store,
    /// The real proxy is asked over HTTP/2: over HTTP/1.1 it refuses such a request itself, before any filter.
    #[serde(default)]
    pub http2: bool,
    /// Why the real proxy cannot be asked: it refuses such a request itself, before any filter.
    pub native_only: Option<String>,
    /// What the upstream answers. Default: 200 with the echo of the request.
    pub upstream: Option<UpstreamSpec>,
    pub expect: Expect,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSpec {
    #[serde(default = "default_method")]
    pub method: String,
    #[serde(default = "default_path")]
    pub path: String,
    #[serde(default = "default_authority")]
    pub authority: String,
    /// Name and value; `{token}` and `{other}` stand for the tokens, `{encoded}` for the first in base64url, and `{chunk0}`
    /// to `{chunk2}` for the first in three parts.
    #[serde(default = "default_headers")]
    pub headers: Vec<(String, String)>,
}

/// An answer of the upstream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSpec {
    #[serde(default = "default_status")]
    pub status: u16,
    /// Name, in lower case, and value.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// The name of the signing key; default `rs256`.
    pub key: Option<String>,
    /// Members of the header that differ from `alg`, `kid`, `typ: JWT`; null takes one away.
    #[serde(default)]
    pub header: Map<String, Value>,
    /// The header's text as it is, in the place of `header`.
    pub header_text: Option<String>,
    /// Claims that differ from the default ones; null takes one away.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// One more claim, of many values.
    pub many: Option<ManySpec>,
    /// The payload's text as it is, in the place of `claims`.
    pub payload_text: Option<String>,
    /// Header and payload are padded before they are signed, and the signature after.
    #[serde(default)]
    pub padded: bool,
    /// Changes to the signed token, in order.
    #[serde(default)]
    pub then: Vec<Then>,
    /// The token's text as it is: nothing is signed.
    pub raw: Option<String>,
    /// An opaque token that begins so, and is of this case and moment alone.
    pub opaque: Option<String>,
}

/// `{proof}` in a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofSpec {
    /// The name of the signing key; default `es256-proof`. `{jkt}` in claims of the token is its thumbprint, and
    /// `{jkt:NAME}` that of another.
    pub key: Option<String>,
    /// The name of the key in the header, if it is not the signing key.
    pub jwk_of: Option<String>,
    /// Members of the embedded key that differ; null takes one away.
    #[serde(default)]
    pub jwk: Map<String, Value>,
    /// Members of the header that differ; null takes one away.
    #[serde(default)]
    pub header: Map<String, Value>,
    pub header_text: Option<String>,
    /// Claims that differ; null takes one away. `{ath}` in a claim is the hash of the token, `{ath-other}` of the other.
    #[serde(default)]
    pub claims: Map<String, Value>,
    pub payload_text: Option<String>,
    #[serde(default)]
    pub then: Vec<Then>,
    pub raw: Option<String>,
    /// The nonce is asked for first, by a request without one.
    #[serde(default)]
    pub nonce: Option<NonceSpec>,
}

/// Whose nonce a proof has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonceSpec {
    Own,
    /// It was given to the key `es256-other`.
    OfAnotherKey,
}

/// A claim of many values, as issuers write roles and groups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManySpec {
    pub claim: String,
    pub count: usize,
    pub form: ManyForm,
    /// The characters of each value.
    #[serde(default)]
    pub length: usize,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManyForm {
    Array,
    /// The values are the names of its members.
    Object,
}

/// A reply of the introspection server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionSpec {
    /// The path under which the server must be asked.
    #[serde(default = "default_introspection_path")]
    pub path: String,
    /// Members that differ from the default ones; null takes one away.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// The body as it is, in the place of `claims`.
    pub body: Option<String>,
    /// Default 200.
    pub status: Option<u16>,
    /// Default `application/json`.
    pub content_type: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Then {
    /// Text behind the token.
    Append(String),
    /// The signature's text, replaced.
    Signature(String),
    /// The payload's text (base64url), replaced after signing.
    Payload(String),
    /// The header's text (base64url of this), replaced after signing.
    HeaderText(String),
    /// The lowest bit of one byte of the decoded signature, counted from its start, turned.
    FlipSignatureBit(usize),
    /// The lowest of the unused bits of the signature's last character, set: another text of the same bytes.
    LooseSignatureBits(bool),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedSpec {
    /// `token`, `session`, `user`, `client`, `key`, `issuer` or `step_up`.
    pub kind: String,
    #[serde(default = "default_issuer")]
    pub issuer: String,
    /// The claim's value; for `key`, the name of a signing key.
    #[serde(default)]
    pub id: String,
    /// For kinds that end tokens issued before a time: that time relative to now, as the native runner answers it.
    /// The service decides it in the real one: now, rounded up, and a second.
    #[serde(default = "default_before")]
    pub before: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    #[default]
    Up,
    /// Redis is stopped: connections are refused.
    Refused,
    /// Redis is paused: connections open, and nothing answers.
    Slow,
    /// Redis was emptied.
    Flushed,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expect {
    Pass {
        /// Headers that the upstream must receive, by lower-case name.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Headers that it must not receive.
        #[serde(default)]
        absent: Vec<String>,
        /// The path that it must receive, where it differs.
        path: Option<String>,
        /// All values of headers of the answer, by lower-case name; an empty list if there must be none. `{nonce}` stands
        /// for what the upstream got in `x-csp-nonce`.
        #[serde(default)]
        answer: BTreeMap<String, Vec<String>>,
    },
    Refuse {
        code: String,
        status: u16,
        /// As above.
        #[serde(default)]
        answer: BTreeMap<String, Vec<String>>,
    },
}

impl Expect {
    /// What the answer must have, and has not.
    pub fn answer_difference(&self, nonce: &str, answer: &[(String, String)]) -> Option<String> {
        let (Expect::Pass { answer: expected, .. } | Expect::Refuse { answer: expected, .. }) = self;
        expected.iter().find_map(|(name, values)| {
            let values: Vec<String> = values.iter().map(|value| value.replace("{nonce}", nonce)).collect();
            let found: Vec<&String> =
                answer.iter().filter(|(other, _)| other == name).map(|(_, value)| value).collect();
            (values.iter().collect::<Vec<_>>() != found)
                .then(|| format!("expected {name}: {values:?} in the answer, found {found:?}"))
        })
    }
}

impl Default for RequestSpec {
    fn default() -> Self {
        Self {
            method: default_method(),
            path: default_path(),
            authority: default_authority(),
            headers: default_headers(),
        }
    }
}

fn default_config() -> String {
    "main".into()
}

fn default_status() -> u16 {
    200
}

fn default_introspection_path() -> String {
    "/introspect".into()
}

fn default_method() -> String {
    "GET".into()
}

fn default_path() -> String {
    "/api/things".into()
}

fn default_authority() -> String {
    "api.example".into()
}

fn default_headers() -> Vec<(String, String)> {
    vec![("authorization".into(), "Bearer {token}".into())]
}

fn default_issuer() -> String {
    ISSUER.into()
}

fn default_before() -> i64 {
    2
}
