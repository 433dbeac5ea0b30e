//! The proof JWT: header, embedded key, claims and signature.
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::ProofError;
use crate::alg::Algorithm;
use crate::base64url;
use crate::json::{Json, Number, Object};
use crate::jws::{JwsError, Unverified};
use crate::key::engine::VerifyingKey;
use crate::key::{Key, PublicKey};

/// The longest proof. One by RSA with 4096 bits has about 2500 bytes.
pub const MAX_PROOF_BYTES: usize = 8192;
/// The longest `jti`. RFC 9449 section 4.2 asks for 96 bits or more of randomness.
pub const MAX_JTI_BYTES: usize = 256;

/// Members by which a header can name a key other than `jwk` (RFC 7515 sections 4.1.2 to 4.1.8).
const OTHER_KEYS: [&str; 6] = ["kid", "jku", "x5u", "x5c", "x5t", "x5t#S256"];
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// A well-formed proof. Its signature counts only after [`Proof::verify`].
#[derive(Clone)]
pub struct Proof<'t> {
    jws: Unverified<'t>,
    key: PublicKey,
    thumbprint: [u8; 32],
    claims: Claims,
}

/// The claims of a proof (RFC 9449 section 4.2). Times are Unix seconds, rounded down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub jti: String,
    pub htm: String,
    pub htu: String,
    pub iat: u64,
    /// The SHA-256 of the access token.
    pub ath: Option<[u8; 32]>,
    pub nonce: Option<String>,
    pub exp: Option<u64>,
    pub nbf: Option<u64>,
}

impl<'t> Proof<'t> {
    /// `allowed`: the algorithms that may sign proofs. A symmetric one never may.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn parse(text: &'t [u8], allowed: &[Algorithm]) -> Result<Self, ProofError> {
        let jws = Unverified::parse(text, MAX_PROOF_BYTES).map_err(|error| match error {
            JwsError::TooLong => ProofError::TooLong,
            JwsError::AlgNone | JwsError::AlgUnknown => ProofError::Alg,
            error => ProofError::Jws(error),
        })?;
        let alg = jws.header().alg;
        if jws.header().typ.as_deref() != Some("dpop+jwt") {
            return Err(ProofError::Typ);
        }
        if alg.is_hmac() || !allowed.contains(&alg) {
            return Err(ProofError::Alg);
        }
        let key = embedded_key(jws.header_json())?;
        if alg.family() != key.family() {
            return Err(ProofError::AlgNotOfKey);
        }
        let payload = jws.parse_payload().map_err(ProofError::Jws)?;
        let claims = Claims::read(payload.as_object().ok_or(ProofError::Missing("jti"))?)?;
        Ok(Self { thumbprint: key.thumbprint(), key, claims, jws })
    }

    /// Its key, for the engine of the caller.
    ///
    /// # Errors
    /// The engine cannot use such a key, for example a point that is not on its curve.
    pub fn key<V: VerifyingKey>(&self) -> Result<Key<V>, ProofError> {
        Key::from_public(&self.key, None, Some(self.alg()), &[self.alg()]).map_err(ProofError::Jwk)
    }

    /// Checks its signature with its own key, by the engine `V`.
    ///
    /// # Errors
    /// [`ProofError::Signature`], or the key cannot be used.
    pub fn verify<V: VerifyingKey>(&self) -> Result<(), ProofError> {
        let verified = self.key::<V>()?.verify(self.alg(), self.signing_input(), self.signature());
        verified.map_err(|_| ProofError::Signature)
    }

    pub fn alg(&self) -> Algorithm {
        self.jws.header().alg
    }

    /// The RFC 7638 thumbprint of its key, to be compared with `cnf.jkt`.
    pub fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    pub fn signing_input(&self) -> &'t [u8] {
        self.jws.signing_input()
    }

    pub fn signature(&self) -> &[u8] {
        self.jws.signature()
    }

    /// Names this proof among all proofs of all keys: two proofs of one key with one `jti` are the same.
    pub fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(b"portcullis dpop proof 1");
        hash.update(self.thumbprint);
        hash.update(self.claims.jti.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = digest;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

impl Claims {
    fn read(claims: &Object<'_>) -> Result<Self, ProofError> {
        let jti = must(claims, "jti")?;
        if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
            return Err(ProofError::JtiLength);
        }
        Ok(Self {
            htm: must(claims, "htm")?.to_owned(),
            htu: must(claims, "htu")?.to_owned(),
            iat: time(claims, "iat")?.ok_or(ProofError::Missing("iat"))?,
            ath: text(claims, "ath")?.map(|text| digest(text).ok_or(ProofError::Wrong("ath"))).transpose()?,
            nonce: text(claims, "nonce")?.map(str::to_owned),
            exp: time(claims, "exp")?,
            nbf: time(claims, "nbf")?,
            jti: jti.to_owned(),
        })
    }
}

/// RFC 9449 section 4.2: `jwk` represents the public key, and must not contain a private one.
fn embedded_key(header: &[u8]) -> Result<PublicKey, ProofError> {
    let header = Json::parse(header).map_err(|error| ProofError::Jws(JwsError::Header(error.into())))?;
    let header = header.as_object().ok_or(ProofError::NoJwk)?;
    if let Some(name) = OTHER_KEYS.into_iter().find(|name| header.get(name).is_some()) {
        return Err(ProofError::OtherKey(name));
    }
    let Some(jwk @ Json::Object(_)) = header.get("jwk") else { return Err(ProofError::NoJwk) };
    // Duplicate members were refused when the header was read.
    let jwk: Map<String, Value> = serde_json::from_str(&jwk.to_text()).map_err(|_| ProofError::NoJwk)?;
    PublicKey::from_jwk(&jwk).map_err(ProofError::Jwk)
}

fn must<'c>(claims: &'c Object<'_>, name: &'static str) -> Result<&'c str, ProofError> {
    text(claims, name)?.ok_or(ProofError::Missing(name))
}

fn text<'c>(claims: &'c Object<'_>, name: &'static str) -> Result<Option<&'c str>, ProofError> {
    claims.get(name).map(|value| value.as_str().ok_or(ProofError::Wrong(name))).transpose()
}

fn time(claims: &Object<'_>, name: &'static str) -> Result<Option<u64>, ProofError> {
    let seconds = match claims.get(name) {
        None => return Ok(None),
        Some(Json::Number(Number::Unsigned(seconds))) => *seconds,
        Some(Json::Number(Number::Float(seconds))) if (0.0..=LAST_SECOND as f64).contains(seconds) => {
            seconds.floor() as u64
        }
        Some(_) => return Err(ProofError::Wrong(name)),
    };
    if seconds > LAST_SECOND { Err(ProofError::Wrong(name)) } else { Ok(Some(seconds)) }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    base64url::decode(text).ok()?.try_into().ok()
}
