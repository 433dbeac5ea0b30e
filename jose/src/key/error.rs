//! Why a key is not taken.
use super::MIN_RSA_BITS;
use crate::alg::Algorithm;
use crate::jws::MAX_KID_BYTES;

/// Names members, never values that could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the JWK has no `{0}`")]
    Missing(&'static str),
    #[error("the JWK's `{0}` is not {1}")]
    WrongType(&'static str, &'static str),
    #[error("the JWK's `{0}` is not base64url without padding")]
    NotBase64Url(&'static str),
    #[error("the JWK has the private member `{0}`; give the public key only, and treat this key as exposed")]
    PrivateMember(&'static str),
    #[error(
        "the JWK's `kty` is oct, a shared secret; secrets are named by `secret_env` and never written in the configuration"
    )]
    SecretJwk,
    #[error("the JWK's `kty` is none of RSA, EC, OKP")]
    UnknownKeyType,
    #[error("the JWK's `crv` is none of P-256, P-384 and P-521 (EC), Ed25519 (OKP)")]
    UnknownCurve,
    #[error("the JWK's `{0}` says that the key is not for verifying signatures")]
    NotForVerifying(&'static str),
    #[error("the JWK's `alg` is none of those that are known here")]
    UnknownAlgorithm,
    #[error("the JWK's `alg` is {jwk}, and the configured `alg` is {configured}")]
    AlgorithmConflict { jwk: Algorithm, configured: Algorithm },
    #[error("`alg` is {0}, which is not among the issuer's `algorithms`")]
    AlgorithmNotAllowed(Algorithm),
    #[error("`alg` is {0}, which is for another kind of key")]
    AlgorithmMismatch(Algorithm),
    #[error("none of the issuer's `algorithms` is for this kind of key")]
    NoAlgorithmFits,
    #[error("the key id (`kid`) has more than {MAX_KID_BYTES} bytes")]
    KidTooLong,
    #[error("the RSA modulus (`n`) has {0} bits, and at least {MIN_RSA_BITS} are needed")]
    RsaTooSmall(usize),
    #[error("the RSA modulus (`n`) has {bits} bits, and at most {most} are taken")]
    RsaTooLarge { bits: usize, most: usize },
    #[error("the RSA exponent (`e`) is not 65537")]
    RsaExponent,
    #[error("the RSA modulus (`n`) is even")]
    RsaModulus,
    #[error("the point (`x`, `y`) is not on the curve {0}, or has not the curve's length")]
    NotOnCurve(&'static str),
    #[error("`x` is no Ed25519 public key: not 32 bytes, not a point, not canonical, or of small order")]
    WeakEd25519,
    #[error("the secret has {has} bytes, and {algorithm} needs at least {needs} (RFC 7518 section 3.2)")]
    SecretTooShort { algorithm: Algorithm, has: usize, needs: usize },
    #[error("`pem` is not one PEM block with base64 between its lines")]
    PemMalformed,
    #[error("`pem` holds a private key ({0}); give the public key only, and treat this key as exposed")]
    PemPrivate(String),
    #[error("`pem` holds a {0}, not a PUBLIC KEY")]
    PemLabel(String),
    #[error("`pem` is not a SubjectPublicKeyInfo in plain DER (RFC 5280; EC points uncompressed)")]
    PemNotSpki,
    #[error("`pem` holds a key of a kind that is none of RSA, EC P-256, P-384 or P-521, Ed25519")]
    PemUnknownKind,
    #[error("it is no single X.509 certificate in PEM and DER")]
    CertificateMalformed,
    #[error("the certificate's key usage has no digitalSignature")]
    CertificateNotForSignatures,
}
