//! The pages of docs/providers as test data: a configuration, tokens with their results, and a table of the claims that
//! revocations use.
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use mint::{Alg, SigningKey};
use serde_json::{Value, json};

pub struct ProviderPage {
    /// As `provider` in a document.
    pub name: String,
    pub document: Value,
    pub tokens: Vec<ProviderToken>,
    /// By kind of revocation, the claims in order.
    pub claims: BTreeMap<String, Vec<String>>,
}

pub struct ProviderToken {
    /// `None`: it passes.
    pub refused: Option<String>,
    pub claims: Value,
}

impl ProviderPage {
    /// Every page of the folder, by name.
    ///
    /// # Errors
    /// A page that does not follow this structure.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let mut pages = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if name != "README" {
                let text = std::fs::read_to_string(&path)?;
                pages.push(Self::read(name, &text).with_context(|| path.display().to_string())?);
            }
        }
        pages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(pages)
    }

    fn read(name: String, text: &str) -> Result<Self> {
        let mut document = None;
        let mut tokens = Vec::new();
        for block in text.split("\n```").skip(1).step_by(2) {
            let (info, body) = block.split_once('\n').context("a block without end")?;
            match info.split(' ').collect::<Vec<_>>().as_slice() {
                ["yaml"] if document.is_none() => document = Some(serde_norway::from_str(body)?),
                ["json", "passes"] => tokens.push(ProviderToken { refused: None, claims: serde_json::from_str(body)? }),
                ["json", "refused", code] => {
                    let refused = Some((*code).to_owned());
                    tokens.push(ProviderToken { refused, claims: serde_json::from_str(body)? });
                }
                _ => bail!("a block with `{info}`"),
            }
        }
        let mut claims = BTreeMap::new();
        for line in text.lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [kind @ ("session" | "user" | "client"), names] = cells.as_slice() {
                let names =
                    names.split(", ").filter(|name| *name != "none").map(|name| name.trim_matches('`').to_owned());
                claims.insert((*kind).to_owned(), names.collect());
            }
        }
        Ok(Self { name, document: document.context("no document")?, tokens, claims })
    }
}

impl ProviderToken {
    pub fn issuer(&self) -> &str {
        self.claims["iss"].as_str().unwrap_or_default()
    }

    /// When it was issued.
    pub fn issued(&self) -> u64 {
        self.claims["iat"].as_u64().unwrap_or_default()
    }

    /// Signed by the key; all of its times are moved so that the page's `iat` becomes `now`.
    pub fn sign(&self, key: &SigningKey, now: u64) -> String {
        let mut claims = self.claims.clone();
        for name in ["iat", "exp", "nbf", "auth_time"] {
            if let Some(time) = claims[name].as_u64() {
                claims[name] = json!(now.wrapping_add(time).wrapping_sub(self.issued()));
            }
        }
        let header = json!({ "alg": key.alg().name(), "kid": "provider", "typ": "JWT" });
        key.sign(&header.to_string(), &claims.to_string())
    }

    /// The value of the first of these claims that is present.
    pub fn first(&self, claims: &[String]) -> Option<String> {
        // Kubernetes has a dot in the name of a claim.
        let nested = |name: &str| {
            let below = name.strip_prefix("kubernetes.io.")?;
            self.claims.get("kubernetes.io")?.pointer(&format!("/{}", below.replace('.', "/")))
        };
        let found = claims.iter().find_map(|name| self.claims.get(name).or_else(|| nested(name)));
        found.and_then(Value::as_str).map(str::to_owned)
    }
}

/// A key that represents every provider's.
pub fn provider_key() -> SigningKey {
    SigningKey::generate(Alg::RS256, "provider")
}
