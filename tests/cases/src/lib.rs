//! The table of cases that the core and the real proxy must answer alike: read, and made into requests at a given time.
//!
//! ```
//! use std::path::Path;
//!
//! # fn main() -> anyhow::Result<()> {
//! let table = cases::Table::read(Path::new(env!("CARGO_MANIFEST_DIR")))?;
//! let now = 1_700_000_000;
//! let case = table.cases.iter().find(|case| case.name == "A token signed with HS256 passes").unwrap();
//! // Tokens are signed and placeholders are filled in.
//! let request = table.ready(case, now)?;
//! assert!(request.headers.iter().any(|(name, value)| name == "authorization" && value.contains(&request.token)));
//! # Ok(())
//! # }
//! ```
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests: a case that cannot be built is a failed test"
)]
use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use mint::{Alg, SigningKey};
use serde::Deserialize;
use serde_json::{Map, Value, json};

mod provider_page;

pub use mint::SigningKey as ProviderKey;
pub use provider_page::{ProviderPage, ProviderToken, provider_key};

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
    /// What the introspection server says of the token. Without it, the server says of every token that it is active: a
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
    /// What is done to the signed token.
    #[serde(default)]
    pub then: Vec<Then>,
    /// The token's text as it is: nothing is signed.
    pub raw: Option<String>,
    /// An opaque token that begins so, and is of this case and moment alone.
    pub opaque: Option<String>,
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
    /// `token`, `session`, `user`, `client`, `key` or `issuer`.
    pub kind: String,
    #[serde(default = "default_issuer")]
    pub issuer: String,
    /// The claim's value; for `key`, the name of a signing key.
    #[serde(default)]
    pub id: String,
    /// For kinds that end what was issued before a time: that time relative to now, as the native runner answers it.
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
        /// What the upstream must receive, by lower-case name.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// What it must not receive.
        #[serde(default)]
        absent: Vec<String>,
        /// The path that it must receive, where it differs.
        path: Option<String>,
    },
    Refuse {
        code: String,
        status: u16,
    },
}

/// The table with its configurations and keys.
pub struct Table {
    pub cases: Vec<Case>,
    pub configs: BTreeMap<String, Value>,
    keys: BTreeMap<String, SigningKey>,
}

/// A case at a moment: ready to send.
#[derive(Debug, Clone)]
pub struct Ready {
    pub method: String,
    pub path: String,
    pub authority: String,
    pub headers: Vec<(String, String)>,
    pub token: String,
    pub introspection: Introspection,
}

/// What the introspection server says to whoever asks about the case's token.
#[derive(Debug, Clone)]
pub struct Introspection {
    /// Only under this path, where there is one.
    pub path: Option<String>,
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

pub const ISSUER: &str = "https://issuer.example";
/// The VM's environment, apart from the secret shared with the service.
pub const SHARED_SECRET_ENV: &str = "PORTCULLIS_SECRET";
/// Who the filter is to the introspection server.
pub const CLIENT_ID: &str = "gateway";
pub const CLIENT_SECRET_ENV: &str = "CLIENT_SECRET";
pub const CLIENT_SECRET: &str = "a client secret of the tests";
pub const SHARED_SECRET: &str = "a secret of the tests, and of nothing else, long enough";

impl Table {
    /// Reads `cases/*.yaml` and `configs/*.yaml` below `folder`, and makes the keys that they name.
    ///
    /// # Errors
    /// A file that cannot be read, a name used twice, a configuration that a case names and that is not there.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut cases: Vec<Case> = Vec::new();
        for file in yaml_files(&folder.join("cases"))? {
            let text = std::fs::read_to_string(&file)?;
            let more: Vec<Case> = serde_norway::from_str(&text).with_context(|| file.display().to_string())?;
            cases.extend(more);
        }
        let keys = make_keys();
        let mut configs = BTreeMap::new();
        for file in yaml_files(&folder.join("configs"))? {
            let text = std::fs::read_to_string(&file)?;
            let mut config: Value = serde_norway::from_str(&text).with_context(|| file.display().to_string())?;
            fill_keys(&mut config, &keys)?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            configs.insert(name, config);
        }
        let mut names = std::collections::HashSet::new();
        for case in &cases {
            if !names.insert(case.name.clone()) {
                bail!("two cases are named `{}`", case.name);
            }
            if !configs.contains_key(&case.config) {
                bail!("`{}` names the configuration `{}`, which is not there", case.name, case.config);
            }
        }
        Ok(Self { cases, configs, keys })
    }

    /// The environment of the VM.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![
            (SHARED_SECRET_ENV.to_owned(), SHARED_SECRET.to_owned()),
            (CLIENT_SECRET_ENV.to_owned(), CLIENT_SECRET.to_owned()),
        ];
        for (name, key) in &self.keys {
            if let Some(secret) = key.secret() {
                environment.push((format!("KEY_{}", name.to_uppercase()), mint::to_base64url(secret)));
            }
        }
        environment
    }

    /// What identifies a revocation's id in bytes of text: for keys, the RFC 7638 thumbprint.
    pub fn revoked_id(&self, revoked: &RevokedSpec) -> Result<String> {
        if revoked.kind == "key" {
            return Ok(self.key(&revoked.id)?.thumbprint());
        }
        Ok(revoked.id.clone())
    }

    pub fn ready(&self, case: &Case, now: u64) -> Result<Ready> {
        let token = self.token(case, &case.token, now).with_context(|| case.name.clone())?;
        let other = case.other.as_ref().map(|other| self.token(case, other, now)).transpose()?.unwrap_or_default();
        let encoded = mint::to_base64url(token.as_bytes());
        let fill = |text: &str| {
            let text = text.replace("{token}", &token).replace("{other}", &other).replace("{encoded}", &encoded);
            // Cut at places that no alphabet has a reason to prefer.
            let cuts = [0, token.len() / 3, token.len() / 2, token.len()];
            (0..3).fold(text, |text, at| text.replace(&format!("{{chunk{at}}}"), &token[cuts[at]..cuts[at + 1]]))
        };
        Ok(Ready {
            method: case.request.method.clone(),
            path: fill(&case.request.path),
            authority: case.request.authority.clone(),
            headers: case.request.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            introspection: introspection(case.introspection.as_ref(), now),
            token,
        })
    }

    fn token(&self, case: &Case, spec: &TokenSpec, now: u64) -> Result<String> {
        if let Some(raw) = &spec.raw {
            return Ok(at(raw, now));
        }
        if let Some(prefix) = &spec.opaque {
            let part = |part: u64| {
                let mut hash = std::hash::DefaultHasher::new();
                (&case.name, now, part).hash(&mut hash);
                format!("{:016x}", hash.finish())
            };
            return Ok(format!("{prefix}{}", (0..3).map(part).collect::<String>()));
        }
        let name = spec.key.as_deref().unwrap_or("rs256");
        let key = self.key(name)?;
        let header_text = match &spec.header_text {
            Some(text) => at(text, now),
            None => {
                let mut header = json!({ "alg": key.alg().name(), "kid": name, "typ": "JWT" });
                merge(&mut header, &spec.header, now);
                header.to_string()
            }
        };
        let payload_text = match &spec.payload_text {
            Some(text) => at(text, now),
            None => {
                let mut claims = json!({
                    "iss": ISSUER, "aud": "api", "sub": "alice", "sid": "s-1", "jti": "t-1",
                    "iat": now, "exp": now + 600, "scope": "read write",
                });
                merge(&mut claims, &spec.claims, now);
                if let Some(many) = &spec.many {
                    claims[&many.claim] = many.value();
                }
                claims.to_string()
            }
        };
        let mut token = match spec.padded {
            false => key.sign(&header_text, &payload_text),
            true => {
                let pad = |bytes: &[u8]| {
                    let text = mint::to_base64url(bytes);
                    format!("{text}{}", "=".repeat(text.len().wrapping_neg() % 4))
                };
                let input = format!("{}.{}", pad(header_text.as_bytes()), pad(payload_text.as_bytes()));
                format!("{input}.{}", pad(&key.signature(input.as_bytes())))
            }
        };
        for then in &spec.then {
            token = then.apply(&token)?;
        }
        Ok(token)
    }

    fn key(&self, name: &str) -> Result<&SigningKey> {
        self.keys.get(name).with_context(|| format!("there is no key `{name}`"))
    }
}

impl ManySpec {
    fn value(&self) -> Value {
        let values = (0..self.count).map(|at| format!("{at:0>width$}", width = self.length));
        match self.form {
            ManyForm::Array => values.map(Value::String).collect(),
            ManyForm::Object => Value::Object(values.map(|name| (name, json!(0))).collect()),
        }
    }
}

impl Then {
    fn apply(&self, token: &str) -> Result<String> {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let [header, payload, signature] = parts.as_mut_slice() else { bail!("`then` needs a token of three parts") };
        match self {
            Then::Append(text) => signature.push_str(text),
            Then::Signature(text) => *signature = text.clone(),
            Then::Payload(text) => *payload = text.clone(),
            Then::HeaderText(text) => *header = mint::to_base64url(text.as_bytes()),
            Then::FlipSignatureBit(at) => {
                let mut bytes = mint::from_base64url(signature).context("the signature is not base64url")?;
                *bytes.get_mut(*at).context("the signature is shorter")? ^= 1;
                *signature = mint::to_base64url(&bytes);
            }
            Then::LooseSignatureBits(_) => {
                let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                if signature.len() % 4 == 0 {
                    bail!("a signature of this length has no unused bits");
                }
                let last = signature.pop().context("no signature")?;
                let value = alphabet.find(last).context("not base64url")?;
                signature.push(alphabet.as_bytes()[value | 1] as char);
            }
        }
        Ok(parts.join("."))
    }
}

fn introspection(spec: Option<&IntrospectionSpec>, now: u64) -> Introspection {
    let mut claims = json!({
        "active": true, "token_type": "Bearer", "aud": "api", "sub": "alice", "client_id": "app", "iat": now, "exp": now + 600,
        "scope": "read write",
    });
    merge(&mut claims, &spec.map(|spec| spec.claims.clone()).unwrap_or_default(), now);
    let body = spec.and_then(|spec| spec.body.as_ref()).map(|body| at(body, now));
    Introspection {
        path: spec.map(|spec| spec.path.clone()),
        status: spec.and_then(|spec| spec.status).unwrap_or(200),
        content_type: spec.and_then(|spec| spec.content_type.clone()).unwrap_or_else(|| "application/json".into()),
        body: body.unwrap_or_else(|| claims.to_string()),
    }
}

/// Keys by name; the name is the key id as well.
fn make_keys() -> BTreeMap<String, SigningKey> {
    let mut keys = BTreeMap::new();
    for alg in Alg::ALL {
        let name = alg.name().to_lowercase();
        keys.insert(name.clone(), SigningKey::generate(alg, &name));
    }
    // Keys that no issuer has, and keys that one case alone may end.
    for (name, alg) in [
        ("rs256-other", Alg::RS256),
        ("es256-other", Alg::ES256),
        ("rs256-doomed", Alg::RS256),
        ("es256-doomed", Alg::ES256),
    ] {
        keys.insert(name.to_owned(), SigningKey::generate(alg, name));
    }
    keys
}

/// Replaces `{ "$jwk": name }` by the public JWK of that key.
fn fill_keys(value: &mut Value, keys: &BTreeMap<String, SigningKey>) -> Result<()> {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(name)) = members.get("$jwk") {
                let key = keys.get(name).with_context(|| format!("there is no key `{name}`"))?;
                *value = Value::Object(key.public_jwk()?);
                return Ok(());
            }
            members.values_mut().try_for_each(|member| fill_keys(member, keys))
        }
        Value::Array(members) => members.iter_mut().try_for_each(|member| fill_keys(member, keys)),
        _ => Ok(()),
    }
}

fn merge(base: &mut Value, changes: &Map<String, Value>, now: u64) {
    let Value::Object(base) = base else { return };
    for (name, change) in changes {
        let mut change = change.clone();
        number_times(&mut change, now);
        match change {
            Value::Null => {
                base.remove(name);
            }
            // YAML's null takes a claim away; this stands for JSON's.
            Value::String(text) if text == "{null}" => {
                base.insert(name.clone(), Value::Null);
            }
            change => {
                base.insert(name.clone(), change);
            }
        }
    }
}

/// `"{now+60}"` becomes a number.
fn number_times(value: &mut Value, now: u64) {
    match value {
        Value::String(text) if text.starts_with("{now") && text.ends_with('}') => {
            if let Ok(number) = at(text, now).parse::<serde_json::Number>() {
                *value = Value::Number(number);
            }
        }
        Value::Array(members) => members.iter_mut().for_each(|member| number_times(member, now)),
        Value::Object(members) => members.values_mut().for_each(|member| number_times(member, now)),
        _ => {}
    }
}

/// Replaces `{now}`, `{now+60}`, `{now-60}`, and `{now+0.5}` with its fraction.
fn at(text: &str, now: u64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{now") {
        let Some(length) = rest[start..].find('}') else { break };
        let offset = &rest[start + 4..start + length];
        out.push_str(&rest[..start]);
        match offset.parse::<i64>() {
            _ if offset.is_empty() => out.push_str(&now.to_string()),
            Ok(offset) => out.push_str(&now.saturating_add_signed(offset).to_string()),
            Err(_) => {
                let offset: f64 = offset.parse().unwrap_or_else(|_| panic!("`{text}` has no offset after {{now"));
                out.push_str(&format!("{:.1}", now as f64 + offset));
            }
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    out
}

fn yaml_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    Ok(files)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_filled_in() {
        assert_eq!(at("{now}|{now+5}|{now-5}|{now+0.5}|x", 100), "100|105|95|100.5|x");
    }
}
