use aws_lc_rs::signature::{self, UnparsedPublicKey};
use jose::Family;

use super::*;
use crate::engine::{HostCannotVerify, Kind, choose};
use crate::{config, vectors};

const MESSAGE: &[u8] = b"header.payload";
const ASKED: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256, Algorithm::ES384, Algorithm::ES512];

/// Envoy's function by BoringSSL's sibling: as there, the key's kind alone decides the algorithm, and whatever is wrong
/// is answered with an error text.
pub(in crate::engine) fn host(argument: &[u8]) -> Option<Vec<u8>> {
    let [hash, spki, signature, text] = fields(argument).try_into().ok()?;
    // BoringSSL's EVP_PKEY takes the key's kind from its SPKI; aws-lc-rs takes it from us.
    let is_rsa = spki.windows(9).any(|at| at == [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]);
    let is_p256 = spki.windows(8).any(|at| at == [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let is_p521 = spki.windows(7).any(|at| at == [6, 5, 0x2b, 0x81, 4, 0, 0x23]);
    let verifies = |algorithm: &'static dyn signature::VerificationAlgorithm| {
        UnparsedPublicKey::new(algorithm, &spki).verify(&text, &signature).is_ok()
    };
    let verified = match (hash.as_slice(), is_rsa, is_p256) {
        (b"sha512", false, _) if is_p521 => verifies(&signature::ECDSA_P521_SHA512_ASN1),
        (b"sha256", true, _) => verifies(&signature::RSA_PKCS1_2048_8192_SHA256),
        (b"sha384", true, _) => verifies(&signature::RSA_PKCS1_2048_8192_SHA384),
        (b"sha512", true, _) => verifies(&signature::RSA_PKCS1_2048_8192_SHA512),
        (b"sha256", _, true) => verifies(&signature::ECDSA_P256_SHA256_ASN1),
        (b"sha384", _, false) => verifies(&signature::ECDSA_P384_SHA384_ASN1),
        _ => false,
    };
    Some(if verified { VERIFIED.to_vec() } else { b"\x12\x05wrong".to_vec() })
}

/// A reader of protobuf that has nothing in common with the writer: fields 1 to 4, each once.
fn fields(mut message: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = Vec::new();
    while let Some((&tag, rest)) = message.split_first() {
        assert_eq!(usize::from(tag), (fields.len() + 1) * 8 + 2);
        let end = rest.iter().position(|byte| byte & 0x80 == 0).unwrap();
        let length = rest[..=end].iter().rev().fold(0, |sum, byte| sum * 128 + usize::from(byte & 0x7f));
        let rest = &rest[end + 1..];
        fields.push(rest[..length].to_vec());
        message = &rest[length..];
    }
    fields
}

fn absent(_: &[u8]) -> Option<Vec<u8>> {
    None
}

fn signed(alg: Algorithm) -> (Key, Vec<u8>) {
    (vectors::key(alg.family()), vectors::sign(alg, MESSAGE))
}

fn der<const LENGTH: usize>(signature: &[u8], order: &[u8; LENGTH]) -> Option<Vec<u8>> {
    Der::default().write(signature, order).map(<[u8]>::to_vec)
}

#[test]
fn the_known_signatures_are_those_of_the_tests() {
    assert_eq!(KNOWN_SIGNATURES.len(), ASKED.len());
    for (&(alg, members, signature), asked) in KNOWN_SIGNATURES.iter().zip(ASKED) {
        assert_eq!(alg, asked);
        assert_eq!(base64url::decode(signature).unwrap(), vectors::sign(alg, KNOWN_MESSAGE), "{alg}");
        let public = vectors::public_jwk(alg.family());
        assert_eq!(members.len(), public.len());
        assert!(members.iter().all(|(name, value)| public[*name] == *value), "{alg}");
    }
}

#[test]
fn the_engine_is_chosen_by_known_answers() {
    fn kind(wanted: config::Engine, call: fn(&[u8]) -> Option<Vec<u8>>) -> Result<Kind, HostCannotVerify> {
        choose(wanted, call).map(|chosen| chosen.kind)
    }
    assert_eq!(kind(config::Engine::Auto, host), Ok(Kind::Host));
    assert_eq!(kind(config::Engine::Host, host), Ok(Kind::Host));
    assert_eq!(kind(config::Engine::Portable, host), Ok(Kind::Portable));
    let yes_to_all: fn(&[u8]) -> Option<Vec<u8>> = |_| Some(VERIFIED.to_vec());
    let no_to_all: fn(&[u8]) -> Option<Vec<u8>> = |_| Some(Vec::new());
    let only_rsa: fn(&[u8]) -> Option<Vec<u8>> =
        |argument| if argument.len() > 500 { host(argument) } else { Some(Vec::new()) };
    for useless in [absent, yes_to_all, no_to_all, only_rsa] {
        assert_eq!(kind(config::Engine::Auto, useless), Ok(Kind::Portable));
        assert_eq!(kind(config::Engine::Host, useless), Err(HostCannotVerify));
        assert_eq!(kind(config::Engine::Portable, useless), Ok(Kind::Portable));
    }
}

#[test]
fn a_host_without_p521_is_asked_about_everything_else() {
    let without: fn(&[u8]) -> Option<Vec<u8>> = |argument| {
        let is_p521 = argument.windows(7).any(|at| at == [6, 5, 0x2b, 0x81, 4, 0, 0x23]);
        if is_p521 { Some(b"\x12\x05wrong".to_vec()) } else { host(argument) }
    };
    let chosen = choose(config::Engine::Auto, without).unwrap();
    assert_eq!(chosen.kind, Kind::Host);
    for alg in ASKED {
        let (key, signature) = signed(alg);
        assert_eq!(chosen.engine.verify(&key, alg, MESSAGE, &signature), Ok(()), "{alg}");
        assert_eq!(chosen.engine.verify(&key, alg, b"another", &signature), Err(BadSignature), "{alg}");
    }
    // One that says yes to every P-521 signature is not believed either.
    let credulous: fn(&[u8]) -> Option<Vec<u8>> = |argument| {
        let is_p521 = argument.windows(7).any(|at| at == [6, 5, 0x2b, 0x81, 4, 0, 0x23]);
        if is_p521 { Some(VERIFIED.to_vec()) } else { host(argument) }
    };
    let chosen = choose(config::Engine::Auto, credulous).unwrap();
    let (key, signature) = signed(Algorithm::ES512);
    assert_eq!(chosen.engine.verify(&key, Algorithm::ES512, b"another", &signature), Err(BadSignature));
}

#[test]
fn writes_the_argument_that_the_host_reads() {
    for alg in ASKED {
        let (key, signature) = signed(alg);
        let argument = Argument::new(&key, alg, MESSAGE, &signature).unwrap();
        let written = fields(argument.bytes());
        let hash = format!("sha{}", &alg.name()[2..]);
        assert_eq!(
            (&written[0], &written[1], &written[3]),
            (&hash.into(), &key.spki().unwrap().into(), &MESSAGE.into())
        );
        assert_eq!(host(argument.bytes()), Some(VERIFIED.to_vec()), "{alg}");
        // A message whose length takes three bytes.
        let argument = Argument::new(&key, alg, &[b'x'; 20_000], &signature).unwrap();
        assert_eq!(fields(argument.bytes())[3], [b'x'; 20_000]);
    }
}

#[test]
fn only_these_two_bytes_mean_that_it_verifies() {
    let (key, signature) = signed(Algorithm::RS256);
    for result in [&b""[..], &[0x08], &[0x08, 0], &[0x08, 2], &[0x08, 1, 0], &[0x08, 1, 0x12, 0], b"\x12\x03no!", &[1]]
    {
        let engine = HostEngine::new(|_: &[u8]| Some(result.to_vec()));
        assert_eq!(engine.verify(&key, Algorithm::RS256, MESSAGE, &signature), Err(BadSignature), "{result:?}");
    }
    let engine = HostEngine::new(|_: &[u8]| Some(vec![0x08, 0x01]));
    assert_eq!(engine.verify(&key, Algorithm::RS256, b"whatever", &signature), Ok(()));
}

#[test]
fn without_an_answer_of_the_host_the_fallback_verifies() {
    let engine = HostEngine::new(absent);
    for alg in Algorithm::ALL {
        let (key, signature) = signed(alg);
        assert_eq!(engine.verify(&key, alg, MESSAGE, &signature), Ok(()), "{alg}");
        assert_eq!(engine.verify(&key, alg, b"another", &signature), Err(BadSignature), "{alg}");
    }
}

#[test]
fn the_host_is_asked_about_nothing_that_it_would_not_refuse_by_itself() {
    let never = HostEngine::new(|_: &[u8]| -> Option<Vec<u8>> { panic!("asked") });
    for alg in Algorithm::ALL {
        let (key, signature) = signed(alg);
        if !ASKED.contains(&alg) {
            assert_eq!(never.verify(&key, alg, MESSAGE, &signature), Ok(()), "{alg}");
        }
        for other in [&signature[1..], &[&signature[..], &[0]].concat(), &[]] {
            assert_eq!(never.verify(&key, alg, MESSAGE, other), Err(BadSignature), "{alg}");
        }
        for family in [Family::Hmac, Family::Rsa, Family::P256, Family::P384, Family::P521, Family::Ed25519] {
            if family != alg.family() {
                assert_eq!(never.verify(&vectors::key(family), alg, MESSAGE, &signature), Err(BadSignature), "{alg}");
            }
        }
    }
}

#[test]
fn der_integers_are_as_short_as_they_can_be_and_never_negative() {
    let pair = |r: &[u8], s: &[u8]| {
        let mut signature = [0; 64];
        signature[32 - r.len()..32].copy_from_slice(r);
        signature[64 - s.len()..].copy_from_slice(s);
        der(&signature, &P256_ORDER)
    };
    assert_eq!(pair(&[1], &[1]).unwrap(), [0x30, 6, 2, 1, 1, 2, 1, 1]);
    assert_eq!(pair(&[0x7f], &[0x80]).unwrap(), [0x30, 7, 2, 1, 0x7f, 2, 2, 0, 0x80]);
    assert_eq!(pair(&[1, 0], &[0xff, 0]).unwrap(), [0x30, 9, 2, 2, 1, 0, 2, 3, 0, 0xff, 0]);
    let mut largest = P256_ORDER;
    largest[31] -= 1;
    let longest = pair(&largest, &largest).unwrap();
    assert_eq!((longest.len(), &longest[..5]), (72, &[0x30, 70, 2, 33, 0][..]));
    assert_eq!(der(&[0x80; 96], &P384_ORDER).unwrap().len(), 104);
    // The length of more than 127 bytes takes two.
    let mut largest = P521_ORDER;
    largest[65] -= 1;
    let longest = der(&[largest, largest].concat(), &P521_ORDER).unwrap();
    assert_eq!((longest.len(), &longest[..6]), (MAX_DER, &[0x30, 0x81, 136, 2, 66, 1][..]));
    let mut signed = [0; 66];
    signed[1] = 0x80;
    let longest = der(&[signed, signed].concat(), &P521_ORDER).unwrap();
    assert_eq!((longest.len(), &longest[..7]), (MAX_DER, &[0x30, 0x81, 136, 2, 66, 0, 0x80][..]));
    // 127 bytes of content: 61 and 62 of the integers.
    let short = |length: usize| [vec![0; 66 - length], vec![1; length]].concat();
    let content = |r, s| der(&[short(r), short(s)].concat(), &P521_ORDER).unwrap();
    assert_eq!(&content(61, 62)[..3], [0x30, 127, 2]);
    assert_eq!(&content(62, 62)[..4], [0x30, 0x81, 128, 2]);
}

#[test]
fn an_integer_that_is_zero_or_not_below_the_order_has_no_der() {
    let one: Vec<u8> = [vec![0; 31], vec![1]].concat();
    let mut next = P256_ORDER;
    next[31] += 1;
    for bad in [[0; 32], P256_ORDER, next, [0xff; 32]] {
        assert_eq!(der(&[&bad[..], &one].concat(), &P256_ORDER), None);
        assert_eq!(der(&[&one, &bad[..]].concat(), &P256_ORDER), None);
    }
    for length in [0, 1, 32, 63, 65, 96, 128] {
        assert_eq!(der(&vec![1; length], &P256_ORDER), None, "{length}");
    }
    for bad in [[0; 48], P384_ORDER, [0xff; 48]] {
        assert_eq!(der(&[&bad[..], &[1; 48]].concat(), &P384_ORDER), None);
        assert_eq!(der(&[&[1; 48], &bad[..]].concat(), &P384_ORDER), None);
    }
    for bad in [[0; 66], P521_ORDER, [0xff; 66]] {
        assert_eq!(der(&[&bad[..], &[1; 66]].concat(), &P521_ORDER), None);
        assert_eq!(der(&[&[1; 66], &bad[..]].concat(), &P521_ORDER), None);
    }
    for length in [0, 64, 131, 133] {
        assert_eq!(der(&vec![1; length], &P521_ORDER), None, "{length}");
    }
}

#[test]
fn der_is_what_p256_p384_and_p521_write() {
    let mut random = vectors::Random::new(2);
    for _ in 0..2_000 {
        let mut raw = random.bytes(96);
        // Leading zeros in one half or both.
        for half in [0, 48] {
            let zeros = random.below(4);
            raw[half..half + zeros].fill(0);
        }
        let expected = p384::ecdsa::Signature::from_slice(&raw).ok().map(|raw| raw.to_der().as_bytes().to_vec());
        assert_eq!(der(&raw, &P384_ORDER), expected);
        let raw = &raw[16..80];
        let expected = p256::ecdsa::Signature::from_slice(raw).ok().map(|raw| raw.to_der().as_bytes().to_vec());
        assert_eq!(der(raw, &P256_ORDER), expected);
        let mut raw = random.bytes(132);
        for half in [0, 66] {
            raw[half] &= 1;
            let zeros = random.below(6);
            raw[half..half + zeros].fill(0);
        }
        let expected = p521::ecdsa::Signature::from_slice(&raw).ok().map(|raw| raw.to_der().as_bytes().to_vec());
        assert_eq!(der(&raw, &P521_ORDER), expected);
    }
}
