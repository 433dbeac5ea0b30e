//! Makes the proofs of possession of the cases.
use std::hash::{Hash as _, Hasher as _};

use anyhow::Result;
use serde_json::json;

use crate::times::{at, merge};
use crate::{Case, NonceSpec, ProofSpec, Table};

const KEY: &str = "es256-proof";
const OTHER_KEY: &str = "es256-other";

impl ProofSpec {
    pub(crate) fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(KEY)
    }

    /// The same, by another key, without a nonce: to ask for one.
    pub(crate) fn asking(&self) -> Self {
        let key =
            if self.nonce == Some(NonceSpec::OfAnotherKey) { Some(OTHER_KEY.to_owned()) } else { self.key.clone() };
        Self { key, nonce: None, claims: self.claims.clone(), ..Self::default() }
    }
}

impl Table {
    pub(crate) fn proof(&self, case: &Case, tokens: [&str; 2], nonce: Option<&str>, now: u64) -> Result<String> {
        let spec = &case.proof;
        if let Some(raw) = &spec.raw {
            return Ok(at(raw, now));
        }
        let key = self.key(spec.key())?;
        let header_text = match &spec.header_text {
            Some(text) => text.clone(),
            None => {
                let named = self.key(spec.jwk_of.as_deref().unwrap_or(spec.key()))?;
                let mut header = match key.alg().is_hmac() {
                    true => json!({ "typ": "dpop+jwt", "alg": key.alg().name() }),
                    false => named.proof_header()?,
                };
                header["alg"] = json!(key.alg().name());
                merge(&mut header["jwk"], &spec.jwk, now);
                merge(&mut header, &spec.header, now);
                header.to_string()
            }
        };
        let payload_text = match &spec.payload_text {
            Some(text) => at(text, now),
            None => {
                let mut hash = std::hash::DefaultHasher::new();
                (&case.name, now, nonce, spec.key()).hash(&mut hash);
                let path = case.request.path.split(['?', '#']).next().unwrap_or_default();
                let mut claims = json!({
                    "jti": format!("{:016x}", hash.finish()), "htm": case.request.method,
                    "htu": format!("https://api.example{path}"), "iat": now, "ath": mint::ath(tokens[0]),
                });
                if let Some(nonce) = nonce {
                    claims["nonce"] = json!(nonce);
                }
                merge(&mut claims, &spec.claims, now);
                let text = claims.to_string().replace("{ath}", &mint::ath(tokens[0]));
                text.replace("{ath-other}", &mint::ath(tokens[1]))
            }
        };
        let mut proof = key.sign(&header_text, &payload_text);
        for then in &spec.then {
            proof = then.apply(&proof)?;
        }
        Ok(proof)
    }

    /// The request that asks the proxy for the nonce of this case's proof, if the proof needs one.
    ///
    /// # Errors
    /// The case cannot be made into a request.
    pub fn asking_for_nonce(&self, case: &Case, now: u64) -> Result<Option<crate::Ready>> {
        if case.proof.nonce.is_none() {
            return Ok(None);
        }
        let asking = Case { proof: case.proof.asking(), ..case.clone() };
        self.ready(&asking, now).map(Some)
    }

    /// `{jkt}` and `{jkt:NAME}` in a text.
    pub(crate) fn thumbprints(&self, case: &Case, text: &str) -> Result<String> {
        let mut out = text.replace("{jkt}", &self.key(case.proof.key())?.thumbprint());
        while let Some((before, rest)) = out.split_once("{jkt:") {
            let Some((name, after)) = rest.split_once('}') else { break };
            out = format!("{before}{}{after}", self.key(name)?.thumbprint());
        }
        Ok(out)
    }
}
