//! One key that signs: read from PEM, named by its thumbprint, described as a JWK.
use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

const LABEL: &str = "PRIVATE KEY";

/// Secret.
pub struct SigningKey {
    material: Material,
    /// SubjectPublicKeyInfo, or for Ed25519 the key itself.
    public: Vec<u8>,
    kid: String,
    jwk: Map<String, Value>,
}

enum Material {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alg {
    Rs256,
    Es256,
    EdDsa,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is not one PEM block `{LABEL}` (PKCS#8)")]
    Pem,
    #[error("it is no RSA key of 2048 to 8192 bits, P-256 key or Ed25519 key in PKCS#8")]
    Kind,
}

impl Alg {
    /// As in RFC 7518 section 3.1 and RFC 8037.
    pub fn name(self) -> &'static str {
        match self {
            Alg::Rs256 => "RS256",
            Alg::Es256 => "ES256",
            Alg::EdDsa => "EdDSA",
        }
    }
}

impl SigningKey {
    /// PKCS#8 in PEM (RFC 7468 section 10), unencrypted. The kind of key decides the algorithm.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = from_pem(pem)?;
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &der) {
            // The uncompressed point: 4, x, y.
            let point = pair.public_key().as_ref();
            let (x, y) = point.get(1..).and_then(|point| point.split_at_checked(32)).ok_or(KeyError::Kind)?;
            let names = json!({ "crv": "P-256", "kty": "EC", "x": encoded(x), "y": encoded(y) });
            let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).map_err(|_| KeyError::Kind)?;
            let public = public.as_ref().to_vec();
            return Self::of(Material::Ec(pair), public, names);
        }
        // Version 1 of PKCS#8, as OpenSSL writes it, has no public key to check against.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            let public = pair.public_key().as_ref().to_vec();
            let names = json!({ "crv": "Ed25519", "kty": "OKP", "x": encoded(&public) });
            return Self::of(Material::Ed(pair), public, names);
        }
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|_| KeyError::Kind)?;
        if pair.public_modulus_len() < KeySize::Rsa2048.len() {
            return Err(KeyError::Kind);
        }
        let key = pair.public_key();
        let names = json!({
            "e": encoded(key.exponent().big_endian_without_leading_zero()),
            "kty": "RSA",
            "n": encoded(key.modulus().big_endian_without_leading_zero()),
        });
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(key).map_err(|_| KeyError::Kind)?.as_ref().to_vec();
        Self::of(Material::Rsa(pair), public, names)
    }

    /// `names` are the members that RFC 7638 section 3.2 takes for the thumbprint.
    fn of(material: Material, public: Vec<u8>, names: Value) -> Result<Self, KeyError> {
        let Value::Object(mut jwk) = names else { return Err(KeyError::Kind) };
        // serde_json's map is sorted, as the thumbprint wants it.
        let canonical = serde_json::to_string(&jwk).map_err(|_| KeyError::Kind)?;
        let kid = encoded(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let mut key = Self { material, public, kid: kid.clone(), jwk: Map::new() };
        jwk.insert("alg".into(), key.alg().name().into());
        jwk.insert("kid".into(), kid.into());
        jwk.insert("use".into(), "sig".into());
        key.jwk = jwk;
        Ok(key)
    }

    pub fn alg(&self) -> Alg {
        match self.material {
            Material::Rsa(_) => Alg::Rs256,
            Material::Ec(_) => Alg::Es256,
            Material::Ed(_) => Alg::EdDsa,
        }
    }

    /// The RFC 7638 thumbprint: what ends everything that this key signed, when it is revoked.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half (RFC 7517), with `alg`, `kid` and `use`.
    pub fn jwk(&self) -> &Map<String, Value> {
        &self.jwk
    }

    /// In the form that JWS gives it (RFC 7518 section 3.4: r‖s for ECDSA). `None`: the library failed.
    pub fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        match &self.material {
            Material::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature).ok()?;
                Some(signature)
            }
            Material::Ec(pair) => Some(pair.sign(&SystemRandom::new(), input).ok()?.as_ref().to_vec()),
            Material::Ed(pair) => Some(pair.sign(input).as_ref().to_vec()),
        }
    }

    pub fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.alg() {
            Alg::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Alg::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Alg::EdDsa => &signature::ED25519,
        };
        UnparsedPublicKey::new(algorithm, &self.public).verify(input, signature).is_ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, {})", self.alg().name(), self.kid)
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn from_pem(pem: &str) -> Result<Vec<u8>, KeyError> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {LABEL}-----")).ok_or(KeyError::Pem)?;
    let (body, after) = rest.split_once(&format!("-----END {LABEL}-----")).ok_or(KeyError::Pem)?;
    if after.contains("-----BEGIN") {
        return Err(KeyError::Pem);
    }
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).map_err(|_| KeyError::Pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mint::{Alg as Minted, SigningKey as Mint};

    #[test]
    fn other_curves_small_keys_and_nonsense_are_refused() {
        let p384 = Mint::generate(Minted::ES384, "x").private_pem().unwrap();
        assert_eq!(SigningKey::from_pem(&p384).unwrap_err(), KeyError::Kind);
        for text in [
            "",
            "nonsense",
            "-----BEGIN PRIVATE KEY-----\n-----END RSA-----",
            &Mint::generate(Minted::ES256, "x").public_pem().unwrap(),
        ] {
            assert_eq!(SigningKey::from_pem(text).unwrap_err(), KeyError::Pem, "{text}");
        }
        let two = Mint::generate(Minted::ES256, "x").private_pem().unwrap().repeat(2);
        assert_eq!(SigningKey::from_pem(&two).unwrap_err(), KeyError::Pem);
    }
}
