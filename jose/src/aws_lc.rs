//! The names of the algorithms in aws-lc.
use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{self, VerificationAlgorithm};

use crate::Algorithm;

/// The scheme of an RSA or ECDSA algorithm, and its hash. RFC 7518 sections 3.3 to 3.5: the salt of PSS is as long as the
/// hash, and an ECDSA signature is r followed by s.
pub fn scheme(alg: Algorithm) -> Option<(&'static dyn VerificationAlgorithm, &'static digest::Algorithm)> {
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
