//! Our client's secret at a provider that signs logout tokens with it (HS256 and the like): read once, and never public
//! data.
use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jose::Algorithm;
use serde_json::Value;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::providers::ProvidersError;

/// The shortest accepted secret, and the shortest without a warning (RFC 7518 section 3.2), in bytes.
const LEAST: usize = 16;
const ADVISED: usize = 32;

pub struct ClientSecret(Vec<u8>);

impl ClientSecret {
    /// # Errors
    /// It cannot be read, can be guessed, or is a public key.
    pub fn read(file: &Path) -> Result<Self, ProvidersError> {
        let text = std::fs::read(file)
            .map_err(|error| ProvidersError::new("secret_file", format!("cannot be read: {error}")))?;
        let secret = Self::new(&text).map_err(|why| ProvidersError::new("secret_file", why))?;
        if secret.0.len() < ADVISED {
            tracing::warn!(file = %file.display(), "a client's secret has less than {ADVISED} bytes: it could be guessed");
        }
        Ok(secret)
    }

    fn new(text: &[u8]) -> Result<Self, String> {
        // An editor adds it.
        let secret = text.trim_ascii();
        if secret.len() < LEAST {
            return Err(format!("must have at least {LEAST} bytes, and should have {ADVISED}"));
        }
        if is_public(secret) {
            return Err(
                "holds a key or certificate: whoever knows the public one could sign with it. It must hold the \
                        client's secret"
                    .to_owned(),
            );
        }
        Ok(Self(secret.to_vec()))
    }

    /// Compares in constant time. False for every algorithm of another family.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let mac = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512
            | Algorithm::ES256
            | Algorithm::ES384
            | Algorithm::ES512
            | Algorithm::EdDSA => return false,
        };
        hmac::verify(&hmac::Key::new(mac, &self.0), message, signature).is_ok()
    }
}

/// PEM, OpenSSH, a JWK or a set of them, or DER, as it is or in base64.
fn is_public(secret: &[u8]) -> bool {
    let holds = |part: &[u8]| secret.windows(part.len()).any(|window| window == part);
    let is_json = || {
        let read: Option<Value> = serde_json::from_slice(secret).ok();
        read.is_some_and(|value| value.get("kty").is_some() || value.get("keys").is_some())
    };
    let is_der = |bytes: &[u8]| SubjectPublicKeyInfo::from_der(bytes).is_ok();
    let lines: Vec<u8> = secret.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    holds(b"-----BEGIN ")
        || secret.starts_with(b"ssh-")
        || is_json()
        || is_der(secret)
        || STANDARD.decode(lines).is_ok_and(|bytes| is_der(&bytes))
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mint::{Alg, SigningKey};

    #[test]
    fn each_algorithm_is_its_own_and_no_other_key_has_one() {
        let secret = ClientSecret::new(b"a-client-secret-of-32-bytes-long\n").unwrap();
        let tag = |mac| hmac::sign(&hmac::Key::new(mac, b"a-client-secret-of-32-bytes-long"), b"input");
        let tags = [tag(hmac::HMAC_SHA256), tag(hmac::HMAC_SHA384), tag(hmac::HMAC_SHA512)];
        for algorithm in Algorithm::ALL {
            let good: Vec<usize> =
                (0..3).filter(|at| secret.verifies(algorithm, b"input", tags[*at].as_ref())).collect();
            let expected = match algorithm {
                Algorithm::HS256 => vec![0],
                Algorithm::HS384 => vec![1],
                Algorithm::HS512 => vec![2],
                _ => vec![],
            };
            assert_eq!(good, expected, "{algorithm:?}");
        }
        assert!(!secret.verifies(Algorithm::HS256, b"other", tags[0].as_ref()));
        assert!(!secret.verifies(Algorithm::HS256, b"input", &tags[0].as_ref()[..16]));
        assert!(!secret.verifies(Algorithm::HS256, b"input", b""));
    }

    #[test]
    fn what_is_public_or_short_is_no_secret() {
        let key = SigningKey::generate(Alg::RS256, "k");
        let pem = key.public_pem().unwrap();
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let jwk = Value::Object(key.public_jwk().unwrap());
        for public in [
            pem.clone().into_bytes(),
            format!("# ours\n{pem}").into_bytes(),
            base64.clone().into_bytes(),
            STANDARD.decode(&base64).unwrap(),
            jwk.to_string().into_bytes(),
            serde_json::json!({ "keys": [jwk] }).to_string().into_bytes(),
            b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE a@b".to_vec(),
        ] {
            assert!(ClientSecret::new(&public).is_err(), "{}", String::from_utf8_lossy(&public));
        }
        for short in ["", "\n", "secret", "fifteen-bytes-x\n"] {
            assert!(ClientSecret::new(short.as_bytes()).is_err(), "{short}");
        }
        assert!(ClientSecret::new(b"sixteen-bytes-xx").is_ok());
    }
}
