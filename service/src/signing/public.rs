//! The public half of a signing key: the key that verifies, its thumbprint, its JWK.
use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alg {
    Rs256,
    Es256,
    EdDsa,
}

pub struct Public {
    alg: Alg,
    key: ParsedPublicKey,
    kid: String,
    jwk: Map<String, Value>,
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

impl Public {
    /// Big-endian, without leading zeros. `None`: not 2048 to 8192 bits, or no such numbers.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let components = RsaPublicKeyComponents { n: modulus, e: exponent };
        let key = components.to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256).ok()?;
        // The library takes a smaller key, with which nothing verifies.
        if !(2048 / 8..=8192 / 8).contains(&modulus.len()) {
            return None;
        }
        Self::of(Alg::Rs256, key, json!({ "e": encoded(exponent), "kty": "RSA", "n": encoded(modulus) }))
    }

    /// The uncompressed point: 4, x, y (SEC 1 section 2.3.3).
    pub fn p256(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4]).filter(|rest| rest.len() == 64)?.split_at_checked(32)?;
        let key = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).ok()?;
        Self::of(Alg::Es256, key, json!({ "crv": "P-256", "kty": "EC", "x": encoded(x), "y": encoded(y) }))
    }

    /// RFC 8032 section 5.1.2.
    pub fn ed25519(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 32] = bytes.try_into().ok()?;
        let key = ParsedPublicKey::new(&signature::ED25519, bytes).ok()?;
        Self::of(Alg::EdDsa, key, json!({ "crv": "Ed25519", "kty": "OKP", "x": encoded(bytes) }))
    }

    /// `names` are the members that RFC 7638 section 3.2 takes for the thumbprint.
    fn of(alg: Alg, key: ParsedPublicKey, names: Value) -> Option<Self> {
        let Value::Object(mut jwk) = names else { return None };
        // serde_json's map is sorted, as the thumbprint wants it.
        let canonical = serde_json::to_string(&jwk).ok()?;
        let kid = encoded(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        jwk.insert("alg".into(), alg.name().into());
        jwk.insert("kid".into(), kid.as_str().into());
        jwk.insert("use".into(), "sig".into());
        Some(Self { alg, key, kid, jwk })
    }

    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The RFC 7638 thumbprint. A revocation of it ends every token that this key signed.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// RFC 7517, with `alg`, `kid` and `use`.
    pub fn jwk(&self) -> &Map<String, Value> {
        &self.jwk
    }

    /// The signature in the form that JWS gives it (RFC 7518 section 3.4: r‖s for ECDSA).
    pub fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(input, signature).is_ok()
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Public({}, {})", self.alg.name(), self.kid)
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
