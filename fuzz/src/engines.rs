//! Mutates the key, the message and the signature, and asserts that all engines say the same: jwt-simple, ours, and the
//! host's as aws-lc-rs, BoringSSL's sibling, would answer it.
use std::sync::LazyLock;

use authn::engine::{Engine, HostEngine, JwtSimple, Key, Portable};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use jose::{Algorithm, base64url};
use serde_json::{Map, Value, json};

const MESSAGE: &[u8] = b"header.payload";

struct Start {
    alg: Algorithm,
    jwk: Map<String, Value>,
    /// The member of the JWK that is mutated.
    member: &'static str,
    signature: Vec<u8>,
}

static STARTS: LazyLock<Vec<Start>> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // RSAPublicKey (RFC 8017 appendix A.1.1): two headers and a zero, 2048 bits of n, five bytes of e.
    let n = &rsa.public_key().as_ref()[9..265];
    let rsa_jwk = json!({"kty": "RSA", "e": "AQAB", "n": base64url::encode(n)});
    let rsa_start = |alg, encoding: &'static dyn signature::RsaEncoding| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(encoding, &random, MESSAGE, &mut signature).unwrap();
        Start { alg, jwk: rsa_jwk.as_object().unwrap().clone(), member: "n", signature }
    };
    let ec_start = |alg, crv, algorithm: &'static signature::EcdsaSigningAlgorithm| {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let jwk = json!({"kty": "EC", "crv": crv, "x": base64url::encode(x), "y": base64url::encode(y)});
        let signature = pair.sign(&random, MESSAGE).unwrap().as_ref().to_vec();
        Start { alg, jwk: jwk.as_object().unwrap().clone(), member: "y", signature }
    };
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url::encode(ed25519.public_key().as_ref())});
    vec![
        rsa_start(Algorithm::RS256, &signature::RSA_PKCS1_SHA256),
        rsa_start(Algorithm::RS384, &signature::RSA_PKCS1_SHA384),
        rsa_start(Algorithm::RS512, &signature::RSA_PKCS1_SHA512),
        rsa_start(Algorithm::PS256, &signature::RSA_PSS_SHA256),
        rsa_start(Algorithm::PS384, &signature::RSA_PSS_SHA384),
        rsa_start(Algorithm::PS512, &signature::RSA_PSS_SHA512),
        ec_start(Algorithm::ES256, "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        ec_start(Algorithm::ES384, "P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        ec_start(Algorithm::ES512, "P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        Start {
            alg: Algorithm::EdDSA,
            jwk: okp.as_object().unwrap().clone(),
            member: "x",
            signature: ed25519.sign(MESSAGE).as_ref().to_vec(),
        },
    ]
});

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    (0..STARTS.len() as u8).flat_map(|start| [vec![start], vec![start, 2, 0, 0, 1], vec![start, 0, 0, 9, 1]]).collect()
}

pub fn engines(input: &[u8]) {
    let [start, rest @ ..] = input else { return };
    let start = &STARTS[usize::from(*start) % STARTS.len()];
    let mut number = base64url::decode(start.jwk[start.member].as_str().unwrap()).unwrap();
    let mut message = MESSAGE.to_vec();
    let mut signature = start.signature.clone();
    for change in rest.chunks_exact(4) {
        let &[what, high, low, value] = change else { return };
        let bytes = match what % 8 {
            0 => &mut number,
            1 => &mut message,
            _ => &mut signature,
        };
        let at = usize::from(u16::from_be_bytes([high, low])) % bytes.len().max(1);
        match what / 8 % 6 {
            0 if at < bytes.len() => bytes[at] = value,
            1 if at < bytes.len() => bytes[at] ^= value,
            2 if at < bytes.len() => bytes[at..].fill(value),
            3 => bytes[..at].fill(value),
            4 => bytes.truncate(at),
            5 => bytes.insert(at, value),
            _ => {}
        }
    }
    let unchanged = message == MESSAGE && signature == start.signature;
    let mut jwk = start.jwk.clone();
    jwk.insert(start.member.into(), base64url::encode(&number).into());
    let Ok(key) = Key::from_jwk(&jwk, None, None, &[start.alg]) else { return };
    let says = |engine: &dyn Engine| engine.verify(&key, start.alg, &message, &signature).is_ok();
    let portable = says(&Portable);
    assert_eq!(portable, says(&JwtSimple), "{} by jwt-simple", start.alg);
    assert_eq!(portable, says(&HostEngine::new(host)), "{} by the host", start.alg);
    // A zero before the modulus changes the JWK and not the key.
    let own = Key::from_jwk(&start.jwk, None, None, &[start.alg]).unwrap();
    let unchanged = unchanged && own.thumbprint() == key.thumbprint();
    assert_eq!(portable, unchanged, "{}: forged", start.alg);
}

fn host(argument: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Vec::new();
    let mut rest = argument;
    while let Some((_, tail)) = rest.split_first() {
        let end = tail.iter().position(|byte| byte & 0x80 == 0)?;
        let length = tail[..=end].iter().rev().fold(0, |sum, byte| sum * 128 + usize::from(byte & 0x7f));
        let tail = &tail[end + 1..];
        fields.push(&tail[..length]);
        rest = &tail[length..];
    }
    let [hash, spki, signature, text] = fields.try_into().ok()?;
    let rsa = spki.windows(9).any(|at| at == [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]);
    let p256 = spki.windows(8).any(|at| at == [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let p521 = spki.windows(7).any(|at| at == [6, 5, 0x2b, 0x81, 4, 0, 0x23]);
    let algorithm: &'static dyn signature::VerificationAlgorithm = match (hash, rsa, p256) {
        (b"sha512", false, false) if p521 => &signature::ECDSA_P521_SHA512_ASN1,
        (b"sha256", true, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (b"sha384", true, _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (b"sha512", true, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (b"sha256", false, true) => &signature::ECDSA_P256_SHA256_ASN1,
        (b"sha384", false, false) => &signature::ECDSA_P384_SHA384_ASN1,
        _ => return Some(Vec::new()),
    };
    let verified = UnparsedPublicKey::new(algorithm, spki).verify(text, signature).is_ok();
    Some(if verified { vec![0x08, 0x01] } else { Vec::new() })
}
