//! A private key or secret bound to one algorithm, and signing with it.
use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding};
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::{Alg, from_base64url, to_base64url};

/// A key that signs with one algorithm. Prints without its secret half.
pub struct SigningKey {
    alg: Alg,
    kid: Option<String>,
    material: Material,
}

enum Material {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{0} has no such key: its key is a shared secret")]
    IsHmac(Alg),
    #[error("{0} does not sign with a shared secret")]
    IsNotHmac(Alg),
    #[error("no RSA key of {0} bits can be made: 2048, 3072, 4096 or 8192")]
    RsaBits(usize),
    #[error("not a `{0}` in PEM")]
    Pem(&'static str),
    #[error("not a PKCS#8 private key for {alg}: {why}")]
    Pkcs8 { alg: Alg, why: String },
    #[error("the secret is not base64url")]
    Secret,
    #[error("the cryptographic library failed")]
    Library,
}

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

impl SigningKey {
    /// A new key: RSA of 2048 bits, secrets of the hash's length (RFC 7518 section 3.2).
    ///
    /// # Panics
    /// The system has no randomness.
    pub fn generate(alg: Alg, kid: &str) -> Self {
        let material = match alg {
            Alg::HS256 => Material::Secret(random(32)),
            Alg::HS384 => Material::Secret(random(48)),
            Alg::HS512 => Material::Secret(random(64)),
            Alg::ES256 | Alg::ES384 | Alg::ES512 => {
                Material::Ec(EcdsaKeyPair::generate(curve(alg)).expect("randomness"))
            }
            Alg::EdDSA => Material::Ed(Ed25519KeyPair::generate().expect("randomness")),
            Alg::RS256 | Alg::RS384 | Alg::RS512 | Alg::PS256 | Alg::PS384 | Alg::PS512 => {
                Material::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness"))
            }
        };
        Self { alg, kid: Some(kid.to_owned()), material }
    }

    /// # Errors
    /// An algorithm other than RS or PS, or a size that aws-lc does not support. It supports none below 2048 bits.
    pub fn generate_rsa(alg: Alg, kid: &str, bits: usize) -> Result<Self, KeyError> {
        rsa_padding(alg).ok_or_else(|| KeyError::Pkcs8 { alg, why: "not an RSA algorithm".to_owned() })?;
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            8192 => KeySize::Rsa8192,
            _ => return Err(KeyError::RsaBits(bits)),
        };
        let pair = RsaKeyPair::generate(size).map_err(|_| KeyError::Library)?;
        Ok(Self { alg, kid: Some(kid.to_owned()), material: Material::Rsa(pair) })
    }

    /// # Errors
    /// `alg` is not an HMAC algorithm. Secrets of any length are accepted.
    pub fn from_secret(alg: Alg, kid: Option<&str>, secret: &[u8]) -> Result<Self, KeyError> {
        if !alg.is_hmac() {
            return Err(KeyError::IsNotHmac(alg));
        }
        Ok(Self { alg, kid: kid.map(str::to_owned), material: Material::Secret(secret.to_vec()) })
    }

    /// A private key as PKCS#8 in PEM (RFC 7468 section 10), without encryption.
    ///
    /// # Errors
    /// Not such a key, or not one for `alg`.
    pub fn from_pem(alg: Alg, kid: Option<&str>, pem: &str) -> Result<Self, KeyError> {
        let der = from_pem(PRIVATE_LABEL, pem)?;
        let rejected = |why: aws_lc_rs::error::KeyRejected| KeyError::Pkcs8 { alg, why: why.to_string() };
        let material = match alg {
            Alg::HS256 | Alg::HS384 | Alg::HS512 => return Err(KeyError::IsHmac(alg)),
            Alg::ES256 | Alg::ES384 | Alg::ES512 => {
                Material::Ec(EcdsaKeyPair::from_pkcs8(curve(alg), &der).map_err(rejected)?)
            }
            // OpenSSL writes version 1, which has no public key to check against.
            Alg::EdDSA => Material::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(rejected)?),
            Alg::RS256 | Alg::RS384 | Alg::RS512 | Alg::PS256 | Alg::PS384 | Alg::PS512 => {
                Material::Rsa(RsaKeyPair::from_pkcs8(&der).map_err(rejected)?)
            }
        };
        Ok(Self { alg, kid: kid.map(str::to_owned), material })
    }

    pub fn alg(&self) -> Alg {
        self.alg
    }

    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The shared secret of an HMAC key; none for the others.
    pub fn secret(&self) -> Option<&[u8]> {
        match &self.material {
            Material::Secret(secret) => Some(secret),
            Material::Rsa(_) | Material::Ec(_) | Material::Ed(_) => None,
        }
    }

    /// PKCS#8 in PEM. The result is secret.
    ///
    /// # Errors
    /// An HMAC key has none: see [`SigningKey::secret`].
    pub fn private_pem(&self) -> Result<String, KeyError> {
        let der = match &self.material {
            Material::Secret(_) => return Err(KeyError::IsHmac(self.alg)),
            Material::Rsa(pair) => AsDer::<Pkcs8V1Der>::as_der(pair).map(|der| der.as_ref().to_vec()),
            Material::Ec(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Material::Ed(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
        };
        Ok(to_pem(PRIVATE_LABEL, &der.map_err(|_| KeyError::Library)?))
    }

    /// The contents of a key file: PKCS#8 in PEM, or an HMAC secret in base64url. The result is secret.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn to_file_text(&self) -> Result<String, KeyError> {
        self.secret().map_or_else(|| self.private_pem(), |secret| Ok(format!("{}\n", to_base64url(secret))))
    }

    /// The reverse of [`SigningKey::to_file_text`].
    ///
    /// # Errors
    /// As [`SigningKey::from_pem`]; for an HMAC algorithm, text that is not base64url.
    pub fn from_file_text(alg: Alg, kid: Option<&str>, text: &str) -> Result<Self, KeyError> {
        if !alg.is_hmac() {
            return Self::from_pem(alg, kid, text);
        }
        let secret = from_base64url(text.trim()).ok_or(KeyError::Secret)?;
        Self::from_secret(alg, kid, &secret)
    }

    /// The SHA-256 thumbprint (RFC 7638) in base64url, which identifies the key in a revocation.
    pub fn thumbprint(&self) -> String {
        let member = |jwk: &Map<String, Value>, name: &str| jwk.get(name).cloned().unwrap_or_default().to_string();
        let names: &[&str] = match &self.material {
            Material::Secret(_) => &["k", "kty"],
            Material::Rsa(_) => &["e", "kty", "n"],
            Material::Ec(_) => &["crv", "kty", "x", "y"],
            Material::Ed(_) => &["crv", "kty", "x"],
        };
        let jwk = match &self.material {
            Material::Secret(secret) => Map::from_iter([
                ("k".to_owned(), Value::from(to_base64url(secret))),
                ("kty".to_owned(), Value::from("oct")),
            ]),
            Material::Rsa(_) | Material::Ec(_) | Material::Ed(_) => self.public_jwk().unwrap_or_default(),
        };
        let members: Vec<String> = names.iter().map(|name| format!("\"{name}\":{}", member(&jwk, name))).collect();
        let text = format!("{{{}}}", members.join(","));
        to_base64url(digest::digest(&digest::SHA256, text.as_bytes()))
    }

    /// SubjectPublicKeyInfo in PEM (RFC 7468 section 13).
    ///
    /// # Errors
    /// An HMAC key has no public half.
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let der = match &self.material {
            Material::Secret(_) => return Err(KeyError::IsHmac(self.alg)),
            Material::Rsa(pair) => AsDer::<PublicKeyX509Der>::as_der(pair.public_key()),
            Material::Ec(pair) => AsDer::<PublicKeyX509Der>::as_der(pair.public_key()),
            Material::Ed(pair) => AsDer::<PublicKeyX509Der>::as_der(pair.public_key()),
        };
        Ok(to_pem(PUBLIC_LABEL, der.map_err(|_| KeyError::Library)?.as_ref()))
    }

    /// The public key as a JWK (RFC 7517) with `alg`, `use` and, if the key has one, `kid`.
    ///
    /// # Errors
    /// An HMAC key has no public half.
    pub fn public_jwk(&self) -> Result<Map<String, Value>, KeyError> {
        let mut jwk = match &self.material {
            Material::Secret(_) => return Err(KeyError::IsHmac(self.alg)),
            Material::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": to_base64url(public.modulus().big_endian_without_leading_zero()),
                    "e": to_base64url(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Material::Ec(pair) => {
                // The uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = match self.alg {
                    Alg::ES512 => "P-521",
                    Alg::ES384 => "P-384",
                    _ => "P-256",
                };
                json!({ "kty": "EC", "crv": curve, "x": to_base64url(x), "y": to_base64url(y) })
            }
            Material::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": to_base64url(pair.public_key().as_ref()) })
            }
        };
        if let Some(kid) = &self.kid {
            jwk["kid"] = json!(kid);
        }
        jwk["alg"] = json!(self.alg.name());
        jwk["use"] = json!("sig");
        match jwk {
            Value::Object(members) => Ok(members),
            _ => Err(KeyError::Library),
        }
    }

    /// A compact JWS (RFC 7515 section 3.1) over the two texts exactly as given.
    pub fn sign(&self, header_json: &str, payload_json: &str) -> String {
        let input = format!("{}.{}", to_base64url(header_json), to_base64url(payload_json));
        let signature = to_base64url(self.signature(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// A token with the usual header: `alg`, `typ` JWT and, if the key has one, `kid`.
    pub fn mint(&self, claims: &Value) -> String {
        let mut header = json!({ "alg": self.alg.name(), "typ": "JWT" });
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// The raw signature over any bytes, in the JWS form (RFC 7518 section 3.4: r‖s for ECDSA).
    ///
    /// # Panics
    /// The system has no randomness.
    pub fn signature(&self, input: &[u8]) -> Vec<u8> {
        match &self.material {
            Material::Secret(secret) => {
                hmac::sign(&hmac::Key::new(hmac_hash(self.alg), secret), input).as_ref().to_vec()
            }
            Material::Rsa(pair) => {
                let padding = rsa_padding(self.alg).expect("an RSA key has an RSA algorithm");
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), input, &mut signature).expect("randomness");
                signature
            }
            Material::Ec(pair) => pair.sign(&SystemRandom::new(), input).expect("randomness").as_ref().to_vec(),
            Material::Ed(pair) => pair.sign(input).as_ref().to_vec(),
        }
    }
}

/// A new id for a `jti` or `sid`: 128 random bits in base64url.
///
/// # Panics
/// The system has no randomness.
pub fn random_id() -> String {
    to_base64url(random(16))
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, {})", self.alg, self.kid.as_deref().unwrap_or("no kid"))
    }
}

fn curve(alg: Alg) -> &'static EcdsaSigningAlgorithm {
    match alg {
        Alg::ES512 => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        Alg::ES384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
    }
}

fn hmac_hash(alg: Alg) -> hmac::Algorithm {
    match alg {
        Alg::HS512 => hmac::HMAC_SHA512,
        Alg::HS384 => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA256,
    }
}

fn rsa_padding(alg: Alg) -> Option<&'static dyn RsaEncoding> {
    Some(match alg {
        Alg::RS256 => &signature::RSA_PKCS1_SHA256,
        Alg::RS384 => &signature::RSA_PKCS1_SHA384,
        Alg::RS512 => &signature::RSA_PKCS1_SHA512,
        Alg::PS256 => &signature::RSA_PSS_SHA256,
        Alg::PS384 => &signature::RSA_PSS_SHA384,
        Alg::PS512 => &signature::RSA_PSS_SHA512,
        Alg::HS256 | Alg::HS384 | Alg::HS512 | Alg::ES256 | Alg::ES384 | Alg::ES512 | Alg::EdDSA => return None,
    })
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).expect("randomness");
    bytes
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines: Vec<_> = (0..encoded.len()).step_by(64).map(|at| &encoded[at..encoded.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn from_pem(label: &'static str, pem: &str) -> Result<Vec<u8>, KeyError> {
    let wrong = || KeyError::Pem(label);
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----")).ok_or_else(wrong)?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(wrong)?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};

    use super::*;

    /// Checks a token against the public PEM alone, as another party would.
    fn verifies(key: &SigningKey, token: &str) -> bool {
        let (input, signature) = token.rsplit_once('.').unwrap();
        let signature = from_base64url(signature).unwrap();
        let alg: &'static dyn VerificationAlgorithm = match key.alg() {
            Alg::HS256 | Alg::HS384 | Alg::HS512 => {
                let hmac_key = hmac::Key::new(hmac_hash(key.alg()), key.secret().unwrap());
                return hmac::verify(&hmac_key, input.as_bytes(), &signature).is_ok();
            }
            Alg::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Alg::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Alg::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Alg::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Alg::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Alg::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Alg::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Alg::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Alg::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
            Alg::EdDSA => &signature::ED25519,
        };
        let public = from_pem(PUBLIC_LABEL, &key.public_pem().unwrap()).unwrap();
        UnparsedPublicKey::new(alg, public).verify(input.as_bytes(), &signature).is_ok()
    }

    fn part(token: &str, index: usize) -> String {
        String::from_utf8(from_base64url(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn every_algorithm_signs_what_its_public_key_verifies() {
        for alg in Alg::ALL {
            let key = SigningKey::generate(alg, "k1");
            let token = key.mint(&json!({ "iss": "https://issuer.example", "exp": 1 }));
            assert!(verifies(&key, &token), "{alg}");
            let header: Value = serde_json::from_str(&part(&token, 0)).unwrap();
            assert_eq!(header, json!({ "alg": alg.name(), "typ": "JWT", "kid": "k1" }));

            let other = key.mint(&json!({ "exp": 2 }));
            let mixed = format!("{}.{}", other.rsplit_once('.').unwrap().0, token.rsplit_once('.').unwrap().1);
            assert!(!verifies(&key, &mixed), "{alg}");
        }
    }

    #[test]
    fn a_key_survives_pem() {
        for alg in [Alg::RS256, Alg::PS512, Alg::ES256, Alg::ES384, Alg::ES512, Alg::EdDSA] {
            let key = SigningKey::generate(alg, "k1");
            let again = SigningKey::from_pem(alg, Some("k1"), &key.private_pem().unwrap()).unwrap();
            assert_eq!(again.public_jwk().unwrap(), key.public_jwk().unwrap(), "{alg}");
            assert!(verifies(&key, &again.mint(&json!({}))), "{alg}");
        }
    }

    #[test]
    fn a_key_survives_its_file() {
        for alg in Alg::ALL {
            let key = SigningKey::generate(alg, "k1");
            let again = SigningKey::from_file_text(alg, Some("k1"), &key.to_file_text().unwrap()).unwrap();
            assert!(verifies(&key, &again.mint(&json!({}))), "{alg}");
        }
    }

    #[test]
    fn jwks_have_the_members_of_their_type() {
        let members = |alg| {
            let jwk = SigningKey::generate(alg, "k1").public_jwk().unwrap();
            let length = |name: &str| from_base64url(jwk[name].as_str().unwrap()).unwrap().len();
            assert_eq!((jwk["alg"].as_str(), jwk["kid"].as_str()), (Some(Alg::name(alg)), Some("k1")));
            match jwk["kty"].as_str().unwrap() {
                "RSA" => (length("n"), length("e")),
                "EC" => (length("x"), length("y")),
                _ => (length("x"), 0),
            }
        };
        assert_eq!(members(Alg::RS256), (256, 3));
        assert_eq!(members(Alg::ES256), (32, 32));
        assert_eq!(members(Alg::ES384), (48, 48));
        assert_eq!(members(Alg::ES512), (66, 66));
        assert_eq!(members(Alg::EdDSA), (32, 0));
    }

    #[test]
    fn signs_broken_texts_as_they_are() {
        let key = SigningKey::generate(Alg::ES256, "k1");
        let (header, payload) = (r#"{"alg":"none","alg":"ES256"}"#, "{\"exp\": 1e400,\n} ");
        let token = key.sign(header, payload);
        assert_eq!((part(&token, 0).as_str(), part(&token, 1).as_str()), (header, payload));
        assert!(verifies(&key, &token));
    }

    #[test]
    fn refuses_keys_of_another_kind_or_size() {
        let ec = SigningKey::generate(Alg::ES256, "k1").private_pem().unwrap();
        assert!(SigningKey::from_pem(Alg::ES384, None, &ec).is_err());
        assert!(SigningKey::from_pem(Alg::RS256, None, &ec).is_err());
        assert!(SigningKey::from_pem(Alg::HS256, None, &ec).is_err());
        assert!(SigningKey::from_secret(Alg::ES256, None, b"secret").is_err());
        assert!(SigningKey::generate(Alg::HS256, "k1").public_jwk().is_err());
        assert!(matches!(SigningKey::generate_rsa(Alg::RS256, "k1", 1024), Err(KeyError::RsaBits(1024))));
    }

    #[test]
    fn debug_tells_no_secret() {
        let key = SigningKey::from_secret(Alg::HS256, Some("k1"), b"tell nobody").unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey(HS256, k1)");
    }
}
