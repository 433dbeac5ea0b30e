use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jose::{Algorithm, Family, KeyError, base64url};
use serde_json::{Value, json};

use super::*;
use crate::engine::Key;
use crate::vectors;

const ALL: &[Algorithm] = &Algorithm::ALL;

fn from_jwk(jwk: Value) -> Result<Key, KeyError> {
    Key::from_jwk(jwk.as_object().unwrap(), None, None, ALL)
}

/// The RSA key of the vectors with some members replaced, or removed where the value is null.
fn rsa_with(members: Value) -> Value {
    with(Family::Rsa, members)
}

fn with(family: Family, members: Value) -> Value {
    let mut jwk = vectors::public_jwk(family);
    for (name, value) in members.as_object().unwrap() {
        if value.is_null() {
            jwk.remove(name);
        } else {
            jwk.insert(name.clone(), value.clone());
        }
    }
    Value::Object(jwk)
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn modulus(bits: usize) -> String {
    // Odd, and not the product of two primes: nothing here needs it to be.
    let mut bytes = vec![0xff; bits.div_ceil(8)];
    bytes[0] = if bits.is_multiple_of(8) { 0xff } else { (1 << (bits % 8)) - 1 };
    base64url::encode(bytes)
}

#[test]
fn has_the_thumbprint_of_rfc7638() {
    let key = Key::from_jwk(&vectors::jwk(vectors::RFC7638_JWK), None, None, ALL).unwrap();
    assert_eq!(base64url::encode(key.thumbprint()), vectors::RFC7638_THUMBPRINT);
    assert_eq!(key.kid(), Some("2011-04-29"));
    assert_eq!(key.algorithms(), [Algorithm::RS256]);
    assert_eq!(key.rsa_bits(), Some(2048));
    let key = Key::from_jwk(&vectors::jwk(vectors::RFC8037_JWK), None, None, ALL).unwrap();
    assert_eq!(base64url::encode(key.thumbprint()), vectors::RFC8037_THUMBPRINT);
}

#[test]
fn has_the_thumbprint_that_jwt_simple_computes() {
    use jwt_simple::algorithms::{ES256PublicKey, ES384PublicKey, Ed25519PublicKey, RS256PublicKey};
    let text = |family| Value::Object(vectors::public_jwk(family)).to_string();
    for (family, expected) in [
        (Family::Rsa, RS256PublicKey::from_jwk(&text(Family::Rsa)).unwrap().jwk_thumbprint()),
        (Family::P256, ES256PublicKey::from_jwk(&text(Family::P256)).unwrap().jwk_thumbprint()),
        (Family::P384, ES384PublicKey::from_jwk(&text(Family::P384)).unwrap().jwk_thumbprint()),
        (Family::Ed25519, Ed25519PublicKey::from_jwk(&text(Family::Ed25519)).unwrap().jwk_thumbprint()),
    ] {
        assert_eq!(base64url::encode(vectors::key(family).thumbprint()), expected);
    }
}

#[test]
fn the_thumbprint_of_a_secret_covers_the_secret() {
    let secret = |bytes: &[u8]| *Key::from_secret(bytes, None, None, &[Algorithm::HS256]).unwrap().thumbprint();
    assert_eq!(secret(&[7; 32]), secret(&[7; 32]));
    assert_ne!(secret(&[7; 32]), secret(&[7; 33]));
}

#[test]
fn takes_every_allowed_algorithm_that_fits() {
    for (family, algorithms) in [
        (Family::Hmac, &ALL[0..3]),
        (Family::Rsa, &ALL[3..9]),
        (Family::P256, &ALL[9..10]),
        (Family::P384, &ALL[10..11]),
        (Family::P521, &ALL[11..12]),
        (Family::Ed25519, &ALL[12..13]),
    ] {
        assert_eq!(vectors::key(family).algorithms(), algorithms);
    }
    let narrowed = [Algorithm::PS256, Algorithm::ES256, Algorithm::RS256, Algorithm::RS256];
    let key = Key::from_jwk(&vectors::public_jwk(Family::Rsa), None, None, &narrowed).unwrap();
    assert_eq!(key.algorithms(), [Algorithm::RS256, Algorithm::PS256]);
}

#[test]
fn a_key_that_fits_no_allowed_algorithm_is_an_error() {
    let rsa = vectors::public_jwk(Family::Rsa);
    for allowed in [&[][..], &[Algorithm::HS256], &[Algorithm::ES256, Algorithm::EdDSA]] {
        assert_eq!(Key::from_jwk(&rsa, None, None, allowed).unwrap_err(), KeyError::NoAlgorithmFits);
    }
    let error = Key::from_secret(&[0; 64], None, None, &[Algorithm::RS256]).unwrap_err();
    assert_eq!(error, KeyError::NoAlgorithmFits);
}

#[test]
fn one_algorithm_of_the_jwk_or_of_the_configuration_narrows() {
    let ps256 = rsa_with(json!({"alg": "PS256"}));
    let jwk = ps256.as_object().unwrap();
    let take = |alg, allowed: &[Algorithm]| Key::from_jwk(jwk, None, alg, allowed).map(|key| key.algorithms().to_vec());
    assert_eq!(take(None, ALL), Ok(vec![Algorithm::PS256]));
    assert_eq!(take(Some(Algorithm::PS256), ALL), Ok(vec![Algorithm::PS256]));
    let (jwk, configured) = (Algorithm::PS256, Algorithm::RS256);
    assert_eq!(take(Some(configured), ALL), Err(KeyError::AlgorithmConflict { jwk, configured }));
    assert_eq!(take(None, &[Algorithm::RS256]), Err(KeyError::AlgorithmNotAllowed(Algorithm::PS256)));
    assert_eq!(from_jwk(rsa_with(json!({"alg": "ES256"}))).unwrap_err(), KeyError::AlgorithmMismatch(Algorithm::ES256));
    // An RSA key that says it is for HMAC: the confusion, tried through the key set.
    assert_eq!(from_jwk(rsa_with(json!({"alg": "HS256"}))).unwrap_err(), KeyError::AlgorithmMismatch(Algorithm::HS256));
    let okp = |alg: &str| from_jwk(with(Family::Ed25519, json!({"alg": alg})));
    for alg in ["EdDSA", "Ed25519"] {
        assert_eq!(okp(alg).unwrap().algorithms(), [Algorithm::EdDSA], "{alg}");
    }
    assert_eq!(okp("Ed448").unwrap_err(), KeyError::UnknownAlgorithm);
    let ed448 = with(Family::Ed25519, json!({"crv": "Ed448", "x": base64url::encode([7; 57])}));
    assert_eq!(from_jwk(ed448).unwrap_err(), KeyError::UnknownCurve);
    assert_eq!(
        from_jwk(rsa_with(json!({"alg": "Ed25519"}))).unwrap_err(),
        KeyError::AlgorithmMismatch(Algorithm::EdDSA)
    );
    for alg in ["RSA-OAEP", "none", "rs256", ""] {
        assert_eq!(from_jwk(rsa_with(json!({"alg": alg}))).unwrap_err(), KeyError::UnknownAlgorithm);
    }
}

#[test]
fn the_configured_kid_replaces_the_jwks_own() {
    let jwk = rsa_with(json!({"kid": "own"}));
    assert_eq!(from_jwk(jwk.clone()).unwrap().kid(), Some("own"));
    let key = Key::from_jwk(jwk.as_object().unwrap(), Some("configured".into()), None, ALL).unwrap();
    assert_eq!(key.kid(), Some("configured"));
    assert_eq!(from_jwk(rsa_with(json!({"kid": "k".repeat(256)}))).unwrap().kid().unwrap().len(), 256);
    assert_eq!(from_jwk(rsa_with(json!({"kid": "k".repeat(257)}))).unwrap_err(), KeyError::KidTooLong);
    assert_eq!(from_jwk(rsa_with(json!({"kid": 1}))).unwrap_err(), KeyError::WrongType("kid", "a string"));
}

#[test]
fn refuses_private_members_by_name() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        for value in [json!("AQAB"), json!(1), json!([])] {
            let error = from_jwk(rsa_with(json!({member: value}))).unwrap_err();
            assert_eq!(error, KeyError::PrivateMember(member));
            assert!(error.to_string().contains(&format!("`{member}`")));
        }
    }
    assert_eq!(from_jwk(json!({"kty": "oct", "k": "AAAA"})).unwrap_err(), KeyError::SecretJwk);
}

#[test]
fn refuses_a_key_that_is_not_for_verifying() {
    for good in [json!({"use": "sig"}), json!({"key_ops": ["verify"]}), json!({"key_ops": ["sign", "verify"]})] {
        assert!(from_jwk(rsa_with(good)).is_ok());
    }
    for purpose in ["enc", "SIG", ""] {
        assert_eq!(from_jwk(rsa_with(json!({"use": purpose}))).unwrap_err(), KeyError::NotForVerifying("use"));
    }
    for operations in [json!([]), json!(["sign"]), json!([1])] {
        let error = from_jwk(rsa_with(json!({"key_ops": operations}))).unwrap_err();
        assert_eq!(error, KeyError::NotForVerifying("key_ops"));
    }
    let error = from_jwk(rsa_with(json!({"key_ops": "verify"}))).unwrap_err();
    assert_eq!(error, KeyError::WrongType("key_ops", "an array"));
}

#[test]
fn refuses_members_that_are_missing_mistyped_or_badly_encoded() {
    for (family, members) in [(Family::Rsa, &["n", "e"][..]), (Family::P256, &["x", "y"]), (Family::Ed25519, &["x"])] {
        for &member in members {
            let error = |value| from_jwk(with(family, json!({member: value}))).unwrap_err();
            assert_eq!(error(Value::Null), KeyError::Missing(member));
            assert_eq!(error(json!(1)), KeyError::WrongType(member, "a string"));
            for text in ["AQAB=", "AQ+B", "A", "AQ AB", "AQF"] {
                assert_eq!(error(json!(text)), KeyError::NotBase64Url(member), "{text}");
            }
        }
    }
    assert_eq!(from_jwk(rsa_with(json!({"kty": null}))).unwrap_err(), KeyError::Missing("kty"));
    assert_eq!(from_jwk(rsa_with(json!({"kty": "rsa"}))).unwrap_err(), KeyError::UnknownKeyType);
    assert_eq!(from_jwk(with(Family::P256, json!({"crv": null}))).unwrap_err(), KeyError::Missing("crv"));
    for (family, crv) in [(Family::P256, "secp256k1"), (Family::P256, "P-192"), (Family::Ed25519, "X25519")] {
        assert_eq!(from_jwk(with(family, json!({"crv": crv}))).unwrap_err(), KeyError::UnknownCurve);
    }
}

#[test]
fn refuses_rsa_below_2048_and_above_4096_bits() {
    for (bits, expected) in [
        (1024, Err(KeyError::RsaTooSmall(1024))),
        (2047, Err(KeyError::RsaTooSmall(2047))),
        (2048, Ok(Some(2048))),
        (4096, Ok(Some(4096))),
        (4097, Err(KeyError::RsaTooLarge { bits: 4097, most: 4096 })),
        (16384, Err(KeyError::RsaTooLarge { bits: 16384, most: 4096 })),
    ] {
        let key = from_jwk(rsa_with(json!({"n": modulus(bits)})));
        assert_eq!(key.map(|key| key.rsa_bits()), expected);
    }
    assert_eq!(from_jwk(rsa_with(json!({"n": ""}))).unwrap_err(), KeyError::RsaTooSmall(0));
}

#[test]
fn refuses_rsa_exponents_other_than_65537_and_even_moduli() {
    for e in [&[][..], &[0], &[1], &[3], &[17], &[1, 0, 0], &[1, 0, 3], &[1, 0, 0, 0, 1]] {
        assert_eq!(from_jwk(rsa_with(json!({"e": base64url::encode(e)}))).unwrap_err(), KeyError::RsaExponent);
    }
    let mut even = vec![0xff; 256];
    even[255] = 0xfe;
    assert_eq!(from_jwk(rsa_with(json!({"n": base64url::encode(even)}))).unwrap_err(), KeyError::RsaModulus);
}

#[test]
fn a_leading_zero_in_rsa_integers_changes_nothing() {
    let key = vectors::key(Family::Rsa);
    let n = base64url::decode(vectors::public_jwk(Family::Rsa)["n"].as_str().unwrap()).unwrap();
    let padded =
        rsa_with(json!({"n": base64url::encode([&[0], &n[..]].concat()), "e": base64url::encode([0, 1, 0, 1])}));
    let padded = from_jwk(padded).unwrap();
    assert_eq!((padded.thumbprint(), padded.spki()), (key.thumbprint(), key.spki()));
}

#[test]
fn refuses_points_off_the_curve_or_of_another_length() {
    for (family, curve, length) in
        [(Family::P256, "P-256", 32), (Family::P384, "P-384", 48), (Family::P521, "P-521", 66)]
    {
        let y = base64url::decode(vectors::public_jwk(family)["y"].as_str().unwrap()).unwrap();
        let mut off = y.clone();
        off[length - 1] ^= 1;
        let longer = [&[0], &y[..]].concat();
        for bad in [off, longer, y[1..].to_vec(), vec![0; length], vec![0xff; length], vec![]] {
            let error = from_jwk(with(family, json!({"y": base64url::encode(&bad)}))).unwrap_err();
            assert_eq!(error, KeyError::NotOnCurve(curve));
        }
    }
    let zero = base64url::encode([0; 32]);
    assert_eq!(from_jwk(with(Family::P256, json!({"x": zero, "y": zero}))).unwrap_err(), KeyError::NotOnCurve("P-256"));
}

#[test]
fn refuses_ed25519_points_that_are_weak_or_no_points() {
    let mut one = [0; 32];
    one[0] = 1;
    let mut not_a_point = [0; 32];
    not_a_point[0] = 2;
    // p + 1: the neutral element written with a y that is not reduced.
    let mut not_reduced = [0xff; 32];
    (not_reduced[0], not_reduced[31]) = (0xee, 0x7f);
    for bad in [&[0; 32][..], &one, &not_a_point, &not_reduced, &[0xff; 32], &[7; 31], &[7; 33], &[]] {
        assert_eq!(
            from_jwk(with(Family::Ed25519, json!({"x": base64url::encode(bad)}))).unwrap_err(),
            KeyError::WeakEd25519
        );
    }
}

#[test]
fn a_secret_must_be_as_long_as_its_hash() {
    for (alg, needs) in [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
        let take = |length: usize, allowed| Key::from_secret(&vec![7; length], None, Some(alg), allowed);
        assert_eq!(take(needs, ALL).unwrap().algorithms(), [alg]);
        let too_short = KeyError::SecretTooShort { algorithm: alg, has: needs - 1, needs };
        assert_eq!(take(needs - 1, ALL).unwrap_err(), too_short);
        assert_eq!(take(needs, &[]).unwrap_err(), KeyError::AlgorithmNotAllowed(alg));
    }
    let too_short = KeyError::SecretTooShort { algorithm: Algorithm::HS384, has: 32, needs: 48 };
    assert_eq!(Key::from_secret(&[7; 32], None, None, ALL).unwrap_err(), too_short);
    let mismatch = Key::from_secret(&[7; 64], None, Some(Algorithm::RS256), ALL).unwrap_err();
    assert_eq!(mismatch, KeyError::AlgorithmMismatch(Algorithm::RS256));
}

#[test]
fn pem_and_jwk_make_the_same_key() {
    for family in [Family::Rsa, Family::P256, Family::P384, Family::P521, Family::Ed25519] {
        let jwk = vectors::key(family);
        let text = pem("PUBLIC KEY", jwk.spki().unwrap());
        let windows = format!("\r\n{}  \r\n", text.replace('\n', "\r\n"));
        for text in [text, windows] {
            let key = Key::from_pem(&text, Some("k".into()), None, ALL).unwrap();
            assert_eq!(key.thumbprint(), jwk.thumbprint());
            assert_eq!(key.spki(), jwk.spki());
            assert_eq!(key.algorithms(), jwk.algorithms());
            assert_eq!(key.rsa_bits(), jwk.rsa_bits());
            assert_eq!(key.kid(), Some("k"));
        }
    }
}

#[test]
fn refuses_pem_of_anything_but_one_public_key() {
    let der = vectors::key(Family::Ed25519).spki().unwrap().to_vec();
    let good = pem("PUBLIC KEY", &der);
    let error = |text: &str| Key::from_pem(text, None, None, ALL).unwrap_err();
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"] {
        assert_eq!(error(&pem(label, &der)), KeyError::PemPrivate(label.into()));
    }
    for label in ["CERTIFICATE", "RSA PUBLIC KEY", "public key", ""] {
        assert_eq!(error(&pem(label, &der)), KeyError::PemLabel(label.into()));
    }
    for bad in [
        "".to_owned(),
        "-----BEGIN PUBLIC KEY-----".to_owned(),
        format!("subject=x\n{good}"),
        format!("{good}{good}"),
        format!("{good}x"),
        good.replace("END PUBLIC", "END PRIVATE"),
        good.replacen("MC", "M*", 1),
        STANDARD.encode(&der),
    ] {
        assert_eq!(error(&bad), KeyError::PemMalformed, "{bad}");
    }
}

#[test]
fn refuses_der_that_is_not_the_plain_spelling() {
    let error = |der: &[u8]| Key::from_pem(&pem("PUBLIC KEY", der), None, None, ALL).unwrap_err();
    let ed25519 = vectors::key(Family::Ed25519).spki().unwrap().to_vec();
    assert_eq!(error(&[&ed25519[..], &[0]].concat()), KeyError::PemNotSpki);
    assert_eq!(error(&ed25519[..40]), KeyError::PemNotSpki);
    assert_eq!(error(b""), KeyError::PemNotSpki);

    let point = vectors::key(Family::P256);
    let Material::P256(p256) = point.verifying() else { panic!() };
    let mut compressed = vec![0x30, 0x39, 0x30, 0x13];
    compressed.extend(&point.spki().unwrap()[4..23]);
    compressed.extend([0x03, 0x22, 0x00]);
    compressed.extend(p256.to_bytes());
    assert_eq!(error(&compressed), KeyError::PemNotSpki);

    // id-RSASSA-PSS (RFC 4055) would say more about the key than we would heed.
    let mut pss = vectors::key(Family::Rsa).spki().unwrap().to_vec();
    let oid = pss.windows(9).position(|at| at == [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]).unwrap();
    pss[oid + 8] = 0x0a;
    assert_eq!(error(&pss), KeyError::PemUnknownKind);
    // secp256k1 in place of P-256.
    let k1 = [0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x0a];
    let k1 = [&[0x30, 0x17][..], &k1, &[3, 3, 0, 4, 4]].concat();
    assert_eq!(error(&k1), KeyError::PemUnknownKind);
}

#[test]
fn prints_no_key_material() {
    let secret = Key::from_secret(&[0x41; 32], Some("k".into()), None, &[Algorithm::HS256]).unwrap();
    assert_eq!(format!("{secret:?}"), r#"Key { kid: Some("k"), algorithms: [HS256], family: Hmac, .. }"#);
}
