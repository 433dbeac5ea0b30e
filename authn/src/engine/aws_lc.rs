//! The engine of native builds: aws-lc-rs for RSA and ECDSA, and [`Portable`] for the rest.
use std::cell::RefCell;
use std::collections::HashMap;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};

use jose::Algorithm;

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

/// RFC 7518 sections 3.3 to 3.5: the salt of PSS is as long as the hash, and an ECDSA signature is r followed by s.
fn scheme(alg: Algorithm) -> Option<(&'static dyn VerificationAlgorithm, &'static digest::Algorithm)> {
    use digest::{SHA256, SHA384, SHA512};
    Some(match alg {
        Algorithm::RS256 => (&signature::RSA_PKCS1_2048_8192_SHA256, &SHA256),
        Algorithm::RS384 => (&signature::RSA_PKCS1_2048_8192_SHA384, &SHA384),
        Algorithm::RS512 => (&signature::RSA_PKCS1_2048_8192_SHA512, &SHA512),
        Algorithm::PS256 => (&signature::RSA_PSS_2048_8192_SHA256, &SHA256),
        Algorithm::PS384 => (&signature::RSA_PSS_2048_8192_SHA384, &SHA384),
        Algorithm::PS512 => (&signature::RSA_PSS_2048_8192_SHA512, &SHA512),
        Algorithm::ES256 => (&signature::ECDSA_P256_SHA256_FIXED, &SHA256),
        Algorithm::ES384 => (&signature::ECDSA_P384_SHA384_FIXED, &SHA384),
        Algorithm::ES512 => (&signature::ECDSA_P521_SHA512_FIXED, &SHA512),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 | Algorithm::EdDSA => return None,
    })
}
