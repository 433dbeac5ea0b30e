//! One signing key: read from PEM, or in a token (HSM) that signs for us.
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SignError;
use super::pkcs11::TokenKey;
use super::public::Public;

const LABEL: &str = "PRIVATE KEY";

/// Secret.
pub struct SigningKey {
    material: Material,
    public: Arc<Public>,
}

enum Material {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Token(Arc<TokenKey>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is not one PEM block `{LABEL}` (PKCS#8)")]
    Pem,
    #[error("it is not an RSA key of 2048 to 8192 bits with the exponent 65537, P-256 key or Ed25519 key in PKCS#8")]
    Kind,
}

impl SigningKey {
    /// PKCS#8 in PEM (RFC 7468 section 10), unencrypted. The type of the key decides the algorithm.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = from_pem(pem)?;
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &der) {
            let public = Public::p256(pair.public_key().as_ref());
            return Self::of(Material::Ec(pair), public);
        }
        // Version 1 of PKCS#8, as OpenSSL writes it, has no public key to check against.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            let public = Public::ed25519(pair.public_key().as_ref());
            return Self::of(Material::Ed(pair), public);
        }
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(|_| KeyError::Kind)?;
        let (modulus, exponent) = (pair.public_key().modulus(), pair.public_key().exponent());
        let public = Public::rsa(modulus.big_endian_without_leading_zero(), exponent.big_endian_without_leading_zero());
        Self::of(Material::Rsa(pair), public)
    }

    pub fn from_token(key: Arc<TokenKey>) -> Self {
        let public = Arc::clone(key.public());
        Self { material: Material::Token(key), public }
    }

    fn of(material: Material, public: Option<Public>) -> Result<Self, KeyError> {
        Ok(Self { material, public: Arc::new(public.ok_or(KeyError::Kind)?) })
    }

    pub fn public(&self) -> &Public {
        &self.public
    }

    pub fn kid(&self) -> &str {
        self.public.kid()
    }

    /// A key in memory always can.
    pub fn can_sign(&self) -> bool {
        match &self.material {
            Material::Rsa(_) | Material::Ec(_) | Material::Ed(_) => true,
            Material::Token(key) => key.is_well(),
        }
    }

    /// In the JWS form (RFC 7518 section 3.4: r‖s for ECDSA).
    ///
    /// # Errors
    /// The library failed, or the token did not sign; the log says why.
    pub async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.material {
            Material::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature)
                    .map_err(|_| SignError::Failed)?;
                Ok(signature)
            }
            Material::Ec(pair) => {
                let signature = pair.sign(&SystemRandom::new(), input).map_err(|_| SignError::Failed)?;
                Ok(signature.as_ref().to_vec())
            }
            Material::Ed(pair) => Ok(pair.sign(input).as_ref().to_vec()),
            Material::Token(key) => key.sign(input).await.map_err(|error| SignError::Token(error.kind())),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, {})", self.public.algorithm().name(), self.kid())
    }
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
