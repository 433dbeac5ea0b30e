//! The table: its files, its keys, and each case as a request at a given time.
use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use mint::{Alg, SigningKey};
use serde_json::{Value, json};

use crate::times::{at, merge};
use crate::{
    CLIENT_SECRET, CLIENT_SECRET_ENV, Case, ISSUER, IntrospectionSpec, RevokedSpec, SHARED_SECRET, SHARED_SECRET_ENV,
    TokenSpec,
};

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

/// The reply of the introspection server about the case's token.
#[derive(Debug, Clone)]
pub struct Introspection {
    /// Only under this path, where there is one.
    pub path: Option<String>,
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl Ready {
    /// The headers as Envoy passes them to the filter with `use_remote_address`: it appends the client's address, which is
    /// the same for all cases.
    pub fn headers_in_envoy(&self) -> Vec<(String, String)> {
        let is_forwarded = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("x-forwarded-for");
        let mut headers: Vec<_> = self.headers.iter().filter(|header| !is_forwarded(header)).cloned().collect();
        let mut addresses: Vec<&str> = self.headers.iter().filter(is_forwarded).map(|(_, value)| &**value).collect();
        addresses.push("127.0.0.1");
        headers.push(("x-forwarded-for".to_owned(), addresses.join(",")));
        headers
    }
}

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

    /// The id of a revocation as text: for keys, the RFC 7638 thumbprint.
    pub fn revoked_id(&self, revoked: &RevokedSpec) -> Result<String> {
        if revoked.kind == "key" {
            return Ok(self.key(&revoked.id)?.thumbprint());
        }
        Ok(revoked.id.clone())
    }

    pub fn ready(&self, case: &Case, now: u64) -> Result<Ready> {
        self.ready_with(case, None, now)
    }

    /// `nonce`: for its proof.
    pub fn ready_with(&self, case: &Case, nonce: Option<&str>, now: u64) -> Result<Ready> {
        let token = self.token(case, &case.token, now).with_context(|| case.name.clone())?;
        let other = case.other.as_ref().map(|other| self.token(case, other, now)).transpose()?.unwrap_or_default();
        let proof = self.proof(case, [&token, &other], nonce, now).with_context(|| case.name.clone())?;
        let encoded = mint::to_base64url(token.as_bytes());
        let fill = |text: &str| {
            let text = text.replace("{token}", &token).replace("{other}", &other).replace("{encoded}", &encoded);
            let text = text.replace("{proof}", &proof);
            // Cut at places that no alphabet has a reason to prefer.
            let cuts = [0, token.len() / 3, token.len() / 2, token.len()];
            (0..3).fold(text, |text, at| text.replace(&format!("{{chunk{at}}}"), &token[cuts[at]..cuts[at + 1]]))
        };
        Ok(Ready {
            method: case.request.method.clone(),
            path: fill(&case.request.path),
            authority: case.request.authority.clone(),
            headers: case.request.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            introspection: {
                let says = introspection(case.introspection.as_ref(), now);
                Introspection { body: self.thumbprints(case, &says.body)?, ..says }
            },
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
                self.thumbprints(case, &claims.to_string())?
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

    pub(crate) fn key(&self, name: &str) -> Result<&SigningKey> {
        self.keys.get(name).with_context(|| format!("there is no key `{name}`"))
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
        ("es256-proof", Alg::ES256),
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

fn yaml_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    Ok(files)
}
