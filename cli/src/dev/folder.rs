//! The files of the mesh: secrets, the issuer's key, the filter's configuration.
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ::mint::{Alg, SigningKey, random_id};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://issuer.dev.example";
const AUDIENCE: &str = "dev";
const KEY_ID: &str = "dev-1";
/// The filter's configuration allows no more.
pub const TOKEN_LIFETIME_SECONDS: u64 = 3600;

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    key: SigningKey,
    /// `None`: the folder was named, and stays.
    temporary: Option<tempfile::TempDir>,
}

/// A session of alice, with a token.
#[derive(Debug)]
pub struct Login {
    pub session: String,
    pub token: String,
}

impl Folder {
    pub fn open(named: Option<PathBuf>) -> Result<Self> {
        let (path, temporary) = match named {
            Some(path) => {
                let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
                made.with_context(|| format!("cannot make {}", path.display()))?;
                (fs::canonicalize(&path)?, None)
            }
            None => {
                let folder =
                    tempfile::Builder::new().prefix("portcullis-dev-").tempdir().context("a temporary folder")?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        for secret in ["shared-secret", "admin-token"] {
            once(&path.join(secret), || Ok(format!("{}{}", random_id(), random_id())))?;
        }
        let text = once(&path.join("key.pem"), || {
            SigningKey::generate(Alg::ES256, KEY_ID).to_file_text().context("a key of the issuer")
        })?;
        let key = SigningKey::from_file_text(Alg::ES256, Some(KEY_ID), &text).context("key.pem")?;
        Ok(Self { path, key, temporary })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn secret(&self) -> Result<String> {
        fs::read_to_string(self.file("shared-secret")).context("shared-secret")
    }

    /// Not removed at the end: somebody must read the logs.
    pub fn keep(self) {
        if let Some(folder) = self.temporary {
            eprintln!("portcullis: the logs stay in {}", folder.keep().display());
        }
    }

    /// A new session each time: one that was revoked in an earlier run stays revoked.
    pub fn login(&self) -> Login {
        let session: String = format!("alice-{}", random_id()).chars().take(14).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "sid": session, "jti": random_id(),
            "iat": now, "exp": now + TOKEN_LIFETIME_SECONDS,
        });
        Login { token: self.key.mint(&claims), session }
    }

    /// The filter's configuration.
    pub fn document(&self) -> Result<Value> {
        let jwk = self.key.public_jwk().context("the issuer's public key")?;
        Ok(json!({
            "issuers": [{
                "name": "dev", "issuer": ISSUER, "audiences": [AUDIENCE], "algorithms": ["ES256"], "max_lifetime": "1h",
                "keys": [{ "jwk": jwk }],
            }],
            "forward": { "claims": [{ "claim": "sub", "header": "x-user-id" }] },
            "rules": [
                { "name": "health", "match": { "path": { "exact": "/healthz" } }, "access": "public" },
                { "name": "all", "match": { "path": { "prefix": "/" } }, "access": "required" },
            ],
            "revocation": {
                "cluster": "session_service", "secret_env": "PORTCULLIS_SECRET", "freshness": "1s", "timeout": "500ms",
            },
        }))
    }
}

/// The contents of a file that only its owner can read, made by `make` if there is none.
fn once(path: &Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        read => return read.with_context(|| format!("cannot read {}", path.display())),
    }
    let text = make()?;
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_named_folder_is_used_again_and_nobody_else_can_read_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("mesh");
        let (first, again) = (Folder::open(Some(path.clone())).unwrap(), Folder::open(Some(path.clone())).unwrap());
        assert_eq!(first.secret().unwrap(), again.secret().unwrap());
        assert_eq!(first.document().unwrap(), again.document().unwrap());
        assert_ne!(first.login().session, again.login().session);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert!(["shared-secret", "admin-token", "key.pem"].iter().all(|name| mode(&path.join(name)) == 0o600));
    }

    #[test]
    fn the_filter_accepts_the_configuration() {
        let folder = Folder::open(None).unwrap();
        let document = folder.document().unwrap();
        authn::policy::Policy::from_json(document.to_string().as_bytes(), &|_| Some(vec![b'x'; 32])).unwrap();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists(), "a temporary folder is removed");
    }
}
