//! The members of a public key as a JWK (RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2).
use serde_json::{Map, Value};

use super::{Curve, KeyError, PublicKey};
use crate::alg::Algorithm;
use crate::base64url;

/// RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1; RFC 8037 section 2.
pub const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

pub(super) struct Members {
    pub(super) public: PublicKey,
    pub(super) kid: Option<String>,
    pub(super) alg: Option<Algorithm>,
    pub(super) issuer: Option<Box<str>>,
}

pub(super) fn read(jwk: &Map<String, Value>) -> Result<Members, KeyError> {
    let kind = string(jwk, "kty")?.ok_or(KeyError::Missing("kty"))?;
    if kind == "oct" {
        return Err(KeyError::SecretJwk);
    }
    for member in PRIVATE_MEMBERS {
        if jwk.contains_key(member) {
            return Err(KeyError::PrivateMember(member));
        }
    }
    is_for_verifying(jwk)?;
    let alg = match string(jwk, "alg")? {
        Some(name) => Some(Algorithm::from_name(name).ok_or(KeyError::UnknownAlgorithm)?),
        None => None,
    };
    Ok(Members {
        kid: string(jwk, "kid")?.map(str::to_owned),
        alg,
        public: public_key(jwk, kind)?,
        issuer: string(jwk, "issuer")?.map(Into::into),
    })
}

fn public_key(jwk: &Map<String, Value>, kind: &str) -> Result<PublicKey, KeyError> {
    match kind {
        "RSA" => PublicKey::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?),
        "EC" => {
            let crv = string(jwk, "crv")?.ok_or(KeyError::Missing("crv"))?;
            let curve = Curve::from_name(crv);
            let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
            PublicKey::ec(curve.ok_or(KeyError::UnknownCurve)?, &x, &y)
        }
        "OKP" => match string(jwk, "crv")?.ok_or(KeyError::Missing("crv"))? {
            "Ed25519" => PublicKey::ed25519(&bytes(jwk, "x")?),
            _ => Err(KeyError::UnknownCurve),
        },
        _ => Err(KeyError::UnknownKeyType),
    }
}

/// RFC 7517 sections 4.2 and 4.3.
///
/// # Errors
/// `use` or `key_ops` is for something else, or of the wrong type.
pub fn is_for_verifying(jwk: &Map<String, Value>) -> Result<(), KeyError> {
    if string(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(KeyError::NotForVerifying("use"));
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(KeyError::NotForVerifying("key_ops")),
        Some(_) => Err(KeyError::WrongType("key_ops", "an array")),
    }
}

fn string<'j>(jwk: &'j Map<String, Value>, member: &'static str) -> Result<Option<&'j str>, KeyError> {
    jwk.get(member).map(|value| value.as_str().ok_or(KeyError::WrongType(member, "a string"))).transpose()
}

fn bytes(jwk: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, KeyError> {
    let text = string(jwk, member)?.ok_or(KeyError::Missing(member))?;
    base64url::decode(text).map_err(|_| KeyError::NotBase64Url(member))
}
