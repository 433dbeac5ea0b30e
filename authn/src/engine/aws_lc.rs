//! The engine of native builds: aws-lc-rs for RSA and ECDSA, and [`Portable`] for the rest.
use std::cell::RefCell;
use std::collections::HashMap;

use aws_lc_rs::digest;
use aws_lc_rs::signature::ParsedPublicKey;

use jose::Algorithm;
use jose::aws_lc::scheme;

use super::{BadSignature, Engine, Key, Material, Portable};

/// How many parsed keys are kept. Beyond that, keys are parsed again from time to time.
const MAX_PARSED: usize = 256;

/// HMAC is as quick in [`Portable`], whose keyed states are ready. So is Ed25519, and there aws-lc takes signatures with an
/// R of small order, which no other engine takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

thread_local! {
    /// By the key's thumbprint and the algorithm. Parsing is a considerable part of the cost of a verification.
    static PARSED: RefCell<HashMap<([u8; 32], Algorithm), ParsedPublicKey>> = RefCell::default();
}

impl Engine for AwsLc {
    fn verify(&self, key: &Key, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let Some((scheme, hash)) = scheme(alg) else { return Portable.verify(key, alg, signing_input, signature) };
        if !key.verifies(alg) {
            return Err(BadSignature);
        }
        // aws-lc checks lengths too. This checks that the key is of the algorithm's family.
        match key.verifying() {
            Material::Rsa(modulus) if signature.len() == modulus.bytes() => {}
            Material::P256(_) | Material::P384(_) | Material::P521(_) => {}
            Material::Rsa(_) | Material::Hmac(_) | Material::Ed25519(_) => return Err(BadSignature),
        }
        let name = (*key.thumbprint(), alg);
        let verified = PARSED.with_borrow_mut(|parsed| {
            if !parsed.contains_key(&name) {
                let key = ParsedPublicKey::new(scheme, key.spki()?).ok()?;
                if parsed.len() >= MAX_PARSED {
                    parsed.clear();
                }
                parsed.insert(name, key);
            }
            // Hashed here: aws-lc's own hashing of a message copies its contexts, which takes nine more allocations.
            parsed.get(&name)?.verify_digest_sig(&digest::digest(hash, signing_input), signature).ok()
        });
        verified.ok_or(BadSignature)
    }
}
