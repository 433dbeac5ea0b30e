//! Checks signatures of JWSs: the engine of `jose` in the service, by aws-lc.
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use jose::{Algorithm, BadSignature, PublicKey, VerifyingKey};

/// A public key, valid for aws-lc. It is parsed anew for each signature: the service checks few signatures with keys
/// that are not its own.
#[derive(Debug, Clone)]
pub struct AwsLcKey(PublicKey);

impl VerifyingKey for AwsLcKey {
    /// Larger keys would take too long for each signature.
    const MAX_RSA_BITS: usize = 8192;
    /// Every member that is read.
    const MAX_KEYS: usize = jose::jwks::MAX_MEMBERS;

    fn from_public(public: &PublicKey) -> Option<Self> {
        let algorithm = match public {
            PublicKey::Rsa { .. } => Algorithm::RS256,
            PublicKey::Ec { curve: jose::Curve::P256, .. } => Algorithm::ES256,
            PublicKey::Ec { curve: jose::Curve::P384, .. } => Algorithm::ES384,
            PublicKey::Ec { curve: jose::Curve::P521, .. } => Algorithm::ES512,
            // aws-lc checks only the length.
            PublicKey::Ed25519(point) if is_weak(point) => return None,
            PublicKey::Ed25519(_) => Algorithm::EdDSA,
        };
        parse(public, algorithm).map(|_| Self(public.clone()))
    }

    /// A client's secret is read by `provider_events`, and no key set has one.
    fn from_secret(_: &[u8], _: &[Algorithm]) -> Option<Self> {
        None
    }

    fn verify(&self, alg: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let key = parse(&self.0, alg).ok_or(BadSignature)?;
        key.verify_sig(signing_input, signature).map_err(|_| BadSignature)
    }
}

/// The key for one algorithm. `None`: it is unusable, or of another family.
pub fn parse(public: &PublicKey, alg: Algorithm) -> Option<ParsedPublicKey> {
    let scheme: &'static dyn VerificationAlgorithm = match alg {
        Algorithm::EdDSA => &signature::ED25519,
        _ => jose::aws_lc::scheme(alg)?.0,
    };
    if public.family() != alg.family() {
        return None;
    }
    ParsedPublicKey::new(scheme, public.to_spki()).ok()
}

/// The y coordinates of the points whose order divides 8, little-endian: 0, 1, -1 and the two of order 8. Anybody can
/// sign for such a key.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// Of small order, or with a y of 2^255 - 19 or more, which is a second spelling of another.
fn is_weak(point: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = point;
    // The highest bit is the sign of x.
    let high = high & 0x7f;
    let is_canonical = high != 0x7f || *low < 0xed || middle.iter().any(|byte| *byte != 0xff);
    let is_small = |y: &[u8; 32]| {
        let [least, between @ .., most] = y;
        (least, between, *most) == (low, middle, high)
    };
    !is_canonical || SMALL_ORDER.iter().any(is_small)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest;
    use mint::{Alg, SigningKey};

    fn public(key: &SigningKey) -> PublicKey {
        let jwk = key.public_jwk().unwrap();
        let bytes = |name: &str| jose::base64url::decode(jwk[name].as_str().unwrap()).unwrap();
        match jwk["kty"].as_str().unwrap() {
            "RSA" => PublicKey::rsa(&bytes("n"), &bytes("e")).unwrap(),
            "EC" => {
                let curve = jose::Curve::from_name(jwk["crv"].as_str().unwrap()).unwrap();
                PublicKey::ec(curve, &bytes("x"), &bytes("y")).unwrap()
            }
            _ => PublicKey::ed25519(&bytes("x")).unwrap(),
        }
    }

    #[test]
    fn a_signature_is_good_for_its_key_text_and_algorithm_only() {
        let public_key_algorithms = || Algorithm::ALL.into_iter().filter(|alg| !alg.is_hmac());
        for alg in public_key_algorithms() {
            let signing = SigningKey::generate(alg, "k");
            let key = AwsLcKey::from_public(&public(&signing)).unwrap();
            let good = signing.signature(b"input");
            for other in Algorithm::ALL {
                assert_eq!(key.verify(other, b"input", &good).is_ok(), other == alg, "{alg} as {other}");
            }
            let (_, short) = good.split_last().unwrap();
            assert!(key.verify(alg, b"other", &good).is_err(), "{alg}");
            for bad in [short.to_vec(), [good.as_slice(), &[0]].concat(), vec![0; good.len()], vec![]] {
                assert!(key.verify(alg, b"input", &bad).is_err(), "{alg} {bad:?}");
            }
            let another = AwsLcKey::from_public(&public(&SigningKey::generate(alg, "k"))).unwrap();
            assert!(another.verify(alg, b"input", &good).is_err(), "{alg}");
        }
    }

    #[test]
    fn an_even_modulus_and_a_point_off_its_curve_are_refused() {
        let PublicKey::Rsa { mut n, e } = public(&SigningKey::generate(Alg::RS256, "k")) else { panic!() };
        *n.last_mut().unwrap() &= 0xfe;
        assert!(AwsLcKey::from_public(&PublicKey::Rsa { n, e }).is_none());
        for alg in [Alg::ES256, Alg::ES384, Alg::ES512] {
            let PublicKey::Ec { curve, mut point } = public(&SigningKey::generate(alg, "k")) else { panic!() };
            *point.last_mut().unwrap() ^= 1;
            assert!(AwsLcKey::from_public(&PublicKey::Ec { curve, point }).is_none(), "{alg}");
        }
    }

    /// By a key of small order, a signature of zeros is good for about one text of eight, without any private key.
    #[test]
    fn an_ed25519_key_that_anybody_can_sign_for_is_refused() {
        let base = SigningKey::generate(Alg::EdDSA, "k");
        assert!(AwsLcKey::from_public(&public(&base)).is_some());
        let mut forged = 0;
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut point = y;
                point[31] |= sign;
                let key = PublicKey::Ed25519(point);
                assert!(AwsLcKey::from_public(&key).is_none(), "{point:?}");
                let unchecked = AwsLcKey(key);
                // R is the identity and S is zero.
                let mut signature = [0; 64];
                signature[0] = 1;
                forged += (0..64_u8)
                    .filter(|text| {
                        let text = digest::digest(&digest::SHA256, &[*text]);
                        unchecked.verify(Algorithm::EdDSA, text.as_ref(), &signature).is_ok()
                    })
                    .count();
            }
        }
        assert!(forged > 0, "otherwise this test proves nothing");
        // p + 1 is 1 in another spelling.
        let mut spelled_otherwise = [0xff; 32];
        (spelled_otherwise[0], spelled_otherwise[31]) = (0xee, 0x7f);
        assert!(AwsLcKey::from_public(&PublicKey::Ed25519(spelled_otherwise)).is_none());
    }
}
