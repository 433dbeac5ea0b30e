//! Published keys and tokens, and the signatures that tests make with them.
use jose::{Algorithm, Family, base64url};
use jwt_simple::algorithms::{P256KeyPair, P384KeyPair, RS256KeyPair, RSAKeyPairLike};
use p256::ecdsa::signature::Signer as _;
use serde_json::{Map, Value, json};
use superboring::hash::MessageDigest;
use superboring::pkey::PKey;
use superboring::rsa::Padding;
use superboring::sign::Signer;

use crate::engine::Key;

/// RFC 7515 appendix A.1.1.
pub const A1_SECRET: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
pub const A1_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// RFC 7515 appendix A.2.1.
const A2_PRIVATE_JWK: &str = r#"{"kty":"RSA",
    "n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e":"AQAB",
    "d":"Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
    "p":"4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    "q":"uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    "dp":"BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    "dq":"h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    "qi":"IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U"}"#;
pub const A2_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1d\
    nZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwu\
    sC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/// RFC 7515 appendix A.3.1.
pub const A3_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
pub const A3_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
    DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

/// RFC 8037 appendices A.2 to A.4.
pub const RFC8037_JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
pub const RFC8037_THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
pub const RFC8037_TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
    hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

/// RFC 7638 section 3.1.
pub const RFC7638_JWK: &str = r#"{"kty":"RSA",
    "n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
pub const RFC7638_THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

pub fn jwk(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

/// The public half of the key that [`sign`] uses; no HMAC secret is there.
pub fn public_jwk(family: Family) -> Map<String, Value> {
    let text = match family {
        Family::Hmac => panic!("a secret has no public half"),
        Family::Rsa => {
            return jwk(A2_PRIVATE_JWK)
                .into_iter()
                .filter(|(name, _)| ["kty", "n", "e"].contains(&name.as_str()))
                .collect();
        }
        Family::P256 => ec_jwk("P-256", &p256_pair().public_key().to_bytes_uncompressed()),
        Family::P384 => ec_jwk("P-384", &p384_pair().public_key().to_bytes_uncompressed()),
        Family::P521 => ec_jwk("P-521", p521_pair().verifying_key().to_sec1_point(false).as_bytes()),
        Family::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url::encode(*ed25519_pair().pk)}),
    };
    text.as_object().unwrap().clone()
}

/// That key, for every algorithm that fits it.
pub fn key(family: Family) -> Key {
    match family {
        Family::Hmac => Key::from_secret(&secret(), None, None, &Algorithm::ALL).unwrap(),
        _ => Key::from_jwk(&public_jwk(family), None, None, &Algorithm::ALL).unwrap(),
    }
}

pub fn secret() -> Vec<u8> {
    base64url::decode(A1_SECRET).unwrap()
}

/// The same key each time for all algorithms of a family.
pub fn sign(alg: Algorithm, message: &[u8]) -> Vec<u8> {
    let rsa = |digest, padding| {
        let pair = RS256KeyPair::from_jwk(A2_PRIVATE_JWK).unwrap();
        let pkey = PKey::from_rsa(pair.key_pair().as_ref().clone()).unwrap();
        let mut signer = Signer::new(digest, &pkey).unwrap();
        signer.set_rsa_padding(padding).unwrap();
        signer.update(message).unwrap();
        signer.sign_to_vec().unwrap()
    };
    match alg {
        Algorithm::HS256 => hmac_sha2::<sha2::Sha256>(message),
        Algorithm::HS384 => hmac_sha2::<sha2::Sha384>(message),
        Algorithm::HS512 => hmac_sha2::<sha2::Sha512>(message),
        Algorithm::RS256 => rsa(MessageDigest::sha256(), Padding::PKCS1),
        Algorithm::RS384 => rsa(MessageDigest::sha384(), Padding::PKCS1),
        Algorithm::RS512 => rsa(MessageDigest::sha512(), Padding::PKCS1),
        Algorithm::PS256 => rsa(MessageDigest::sha256(), Padding::PKCS1_PSS),
        Algorithm::PS384 => rsa(MessageDigest::sha384(), Padding::PKCS1_PSS),
        Algorithm::PS512 => rsa(MessageDigest::sha512(), Padding::PKCS1_PSS),
        Algorithm::ES256 => {
            let signature: p256::ecdsa::Signature = p256_pair().as_ref().sign(message);
            signature.to_bytes().to_vec()
        }
        Algorithm::ES384 => {
            let signature: p384::ecdsa::Signature = p384_pair().as_ref().sign(message);
            signature.to_bytes().to_vec()
        }
        Algorithm::ES512 => {
            let signature: p521::ecdsa::Signature = p521_pair().sign(message);
            signature.to_bytes().to_vec()
        }
        Algorithm::EdDSA => ed25519_pair().sk.sign(message, None).to_vec(),
    }
}

fn hmac_sha2<D: hmac::EagerHash>(message: &[u8]) -> Vec<u8>
where
    hmac::Hmac<D>: hmac::KeyInit + hmac::Mac,
{
    use hmac::Mac as _;
    let mut mac = <hmac::Hmac<D> as hmac::KeyInit>::new_from_slice(&secret()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn ec_jwk(crv: &str, point: &[u8]) -> Value {
    let (x, y) = point[1..].split_at(point.len() / 2);
    json!({"kty": "EC", "crv": crv, "x": base64url::encode(x), "y": base64url::encode(y)})
}

fn p256_pair() -> P256KeyPair {
    P256KeyPair::from_bytes(&[7; 32]).unwrap()
}

fn p384_pair() -> P384KeyPair {
    P384KeyPair::from_bytes(&[7; 48]).unwrap()
}

fn p521_pair() -> p521::ecdsa::SigningKey {
    let mut scalar = [7; 66];
    // Below the order, which has 521 bits.
    scalar[0] = 0;
    p521::ecdsa::SigningKey::from_slice(&scalar).unwrap()
}

pub fn ed25519_pair() -> ed25519_compact::KeyPair {
    ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([7; 32]))
}

/// The same numbers in every run (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}
