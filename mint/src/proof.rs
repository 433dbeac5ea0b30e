//! DPoP proofs (RFC 9449 section 4.2).
use aws_lc_rs::digest;
use serde_json::{Value, json};

use crate::{KeyError, SigningKey, random_id, to_base64url};

/// What a proof is about.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'p> {
    pub method: &'p str,
    /// The URL of the request. Query and fragment are left out.
    pub url: &'p str,
    /// The access token that it goes with; none for a token request.
    pub token: Option<&'p str>,
    /// From the header `DPoP-Nonce` of an answer.
    pub nonce: Option<&'p str>,
    /// Unix seconds.
    pub iat: u64,
}

/// The claim `ath` for an access token: its SHA-256 in base64url.
pub fn ath(token: &str) -> String {
    to_base64url(digest::digest(&digest::SHA256, token.as_bytes()))
}

impl SigningKey {
    /// The header of a proof: with the public key, and nothing else that names a key.
    ///
    /// # Errors
    /// An HMAC key has no public half.
    pub fn proof_header(&self) -> Result<Value, KeyError> {
        let mut jwk = self.public_jwk()?;
        for member in ["kid", "alg", "use"] {
            jwk.remove(member);
        }
        Ok(json!({ "typ": "dpop+jwt", "alg": self.alg().name(), "jwk": jwk }))
    }

    /// A new proof, with a random `jti`.
    ///
    /// # Errors
    /// An HMAC key has no public half.
    pub fn prove(&self, proof: &Proof<'_>) -> Result<String, KeyError> {
        let url = proof.url.split(['?', '#']).next().unwrap_or_default();
        let mut claims = json!({ "jti": random_id(), "htm": proof.method, "htu": url, "iat": proof.iat });
        if let Some(token) = proof.token {
            claims["ath"] = json!(ath(token));
        }
        if let Some(nonce) = proof.nonce {
            claims["nonce"] = json!(nonce);
        }
        Ok(self.sign(&self.proof_header()?.to_string(), &claims.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Alg;

    #[test]
    fn a_proof_is_read_back_by_jose() {
        let key = SigningKey::generate(Alg::ES256, "k1");
        let proof = Proof { method: "GET", url: "https://a.example/b?c", token: Some("t"), nonce: Some("n"), iat: 7 };
        let text = key.prove(&proof).unwrap();
        let read = jose::dpop::Proof::parse(text.as_bytes(), &[Alg::ES256]).unwrap();
        assert_eq!(to_base64url(read.thumbprint()), key.thumbprint());
        let claims = read.claims();
        assert_eq!((claims.htm.as_str(), claims.htu.as_str(), claims.iat), ("GET", "https://a.example/b", 7));
        assert_eq!(claims.ath.map(to_base64url), Some(ath("t")));
        assert_eq!(claims.nonce.as_deref(), Some("n"));
        assert!(SigningKey::generate(Alg::HS256, "k1").prove(&proof).is_err());
    }
}
