//! Identifies the signing key for `portcullis revoke key`: its thumbprint, from whatever the operator has.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use authn::engine::{Engine as _, Key, ParsedSet, Portable};
use clap::{ArgGroup, Args};
use jose::{Algorithm, Unverified, base64url};
use serde_json::json;

use crate::jwks;
use crate::standard_input;

#[derive(Args)]
#[command(group = ArgGroup::new("key").required(true).args(["id", "jwk", "kid", "signed_token"]))]
pub struct SigningKeyArgs {
    /// Its RFC 7638 thumbprint with SHA-256, as `portcullis jwks` prints it: 43 characters of base64url. Not the key id
    /// (`kid`).
    // A thumbprint may begin with `-`.
    #[arg(long, value_name = "THUMBPRINT", allow_hyphen_values = true)]
    id: Option<String>,
    /// A file with the public key as a JWK.
    #[arg(long, value_name = "FILE")]
    jwk: Option<PathBuf>,
    /// The key set of the issuer, a URL or a file, for --kid and --signed-token.
    #[arg(long, value_name = "URL")]
    jwks: Option<String>,
    /// The key id (`kid`) of the key in --jwks.
    #[arg(long, value_name = "KID", requires = "jwks", allow_hyphen_values = true)]
    kid: Option<String>,
    /// A file with a token that the key signed, `-` for standard input. The key is the one in --jwks that verifies it.
    #[arg(long, value_name = "FILE", requires = "jwks")]
    signed_token: Option<PathBuf>,
    /// Trust the CAs in this PEM file for --jwks, instead of those that browsers trust.
    #[arg(long, value_name = "PATH", requires = "jwks")]
    ca_file: Option<PathBuf>,
}

impl SigningKeyArgs {
    /// # Errors
    /// There is no such key, or more than one.
    pub fn thumbprint(&self) -> Result<String> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        if let Some(file) = &self.jwk {
            let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let jwk: serde_json::Value =
                serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", file.display()))?;
            if jwk.get("keys").is_some() {
                bail!("{} is a key set: give it as --jwks, with --kid", file.display());
            }
            let set = json!({ "keys": [jwk] }).to_string();
            let parsed: ParsedSet =
                jose::jwks::parse(set.as_bytes(), &Algorithm::ALL, true).with_context(|| file.display().to_string())?;
            let [key] = parsed.keys.keys() else {
                bail!("{} is not a key that the filter would use: {}", file.display(), parsed.left_out.join("; "));
            };
            return Ok(printed(key));
        }
        let Some(source) = &self.jwks else { bail!("give --id, --jwk, or --jwks with --kid or --signed-token") };
        let parsed = jwks::read(source, self.ca_file.as_deref())?;
        let keys = || parsed.iter().flat_map(|alone| alone.keys.keys());
        let found: Vec<&Key> = match (&self.kid, &self.signed_token) {
            (Some(kid), _) => keys().filter(|key| key.kid() == Some(kid)).collect(),
            (None, Some(file)) => {
                let token = read(file)?;
                let unverified = Unverified::parse(token.as_bytes(), token.len())
                    .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
                let (alg, input, signature) =
                    (unverified.header().alg, unverified.signing_input(), unverified.signature());
                keys().filter(|key| Portable.verify(key, alg, input, signature).is_ok()).collect()
            }
            (None, None) => Vec::new(),
        };
        // A set may contain one key twice.
        let mut thumbprints: Vec<String> = found.into_iter().map(printed).collect();
        thumbprints.sort();
        thumbprints.dedup();
        match thumbprints.as_slice() {
            [one] => Ok(one.clone()),
            [] => bail!("no key of {source} {}", if self.kid.is_some() { "has this id" } else { "verifies the token" }),
            several => {
                bail!("{} keys of {source} fit: give one as --id: {}", several.len(), several.join(", "))
            }
        }
    }
}

fn printed(key: &Key) -> String {
    base64url::encode(key.thumbprint())
}

fn read(file: &Path) -> Result<String> {
    Ok(standard_input::read_file(file)?.trim_ascii().to_owned())
}
