//! Certificates made by `openssl req -x509` and `openssl x509 -req`.
use super::*;
use crate::alg::{Algorithm, Family};
use crate::base64url;
use crate::key::engine::any::Any;

type Key = crate::key::Key<Any>;

fn read_pem(text: &str) -> Result<Key, KeyError> {
    Key::from_certificate(text, "k".into(), &Algorithm::ALL)
}

fn der(text: &str) -> Vec<u8> {
    pem::block(text, "CERTIFICATE").unwrap()
}

fn as_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[test]
fn the_key_of_a_certificate_is_the_one_that_openssl_sees() {
    let key = read_pem(P256).unwrap();
    assert_eq!((key.kid(), key.algorithms()), (Some("k"), [Algorithm::ES256].as_slice()));
    let bare = Key::from_pem(P256_PUBLIC_KEY, None, None, &Algorithm::ALL).unwrap();
    assert_eq!(key.thumbprint(), bare.thumbprint());
    assert_eq!(key.spki(), bare.spki());
}

#[test]
fn every_kind_of_key_is_taken_and_dates_names_and_versions_do_not_matter() {
    for (certificate, family) in [
        (RSA, Family::Rsa),
        (P256, Family::P256),
        (P384, Family::P384),
        (P521, Family::P521),
        (ED25519, Family::Ed25519),
        // Of version 1, without extensions, and good for one day of 2026.
        (VERSION_1, Family::P256),
    ] {
        assert_eq!(read_pem(certificate).unwrap().family(), family);
    }
    let crlf = RSA.replace('\n', "\r\n");
    assert_eq!(read_pem(&crlf).unwrap().thumbprint(), read_pem(RSA).unwrap().thumbprint());
    let only = Key::from_certificate(RSA, "k".into(), &[Algorithm::RS256, Algorithm::ES256]).unwrap();
    assert_eq!(only.algorithms(), [Algorithm::RS256]);
    let none = Key::from_certificate(RSA, "k".into(), &[Algorithm::ES256]).unwrap_err();
    assert_eq!(none, KeyError::NoAlgorithmFits);
}

#[test]
fn keys_that_must_not_verify_are_refused() {
    assert_eq!(read_pem(ENCIPHERMENT).unwrap_err(), KeyError::CertificateNotForSignatures);
    assert_eq!(read_pem(WEAK_RSA).unwrap_err(), KeyError::RsaTooSmall(1024));
    assert_eq!(read_pem(SECP256K1).unwrap_err(), KeyError::PemUnknownKind);
    let long = Key::from_certificate(P256, "k".repeat(257), &Algorithm::ALL).unwrap_err();
    assert_eq!(long, KeyError::KidTooLong);
}

#[test]
fn what_is_no_single_certificate_is_refused() {
    let malformed = |text: &str| assert_eq!(read_pem(text).unwrap_err(), KeyError::CertificateMalformed, "{text}");
    malformed("");
    malformed(P256_PUBLIC_KEY);
    malformed(&format!("{P256}{RSA}"));
    malformed(&P256.replace("END CERTIFICATE", "END PUBLIC KEY"));
    malformed(&as_pem(&[]));
    let spki = read_pem(P256).unwrap().spki().unwrap().to_vec();
    malformed(&as_pem(&spki));
    let mut trailing = der(P256);
    trailing.push(0);
    malformed(&as_pem(&trailing));
    // An indefinite length (BER), and one that is longer than necessary.
    malformed(&as_pem(&[0x30, 0x80, 0, 0]));
    malformed(&as_pem(&[0x30, 0x81, 0x03, 2, 1, 1]));
}

#[test]
fn no_byte_of_a_certificate_makes_it_panic_and_none_makes_another_key() {
    for text in [RSA, ED25519, ENCIPHERMENT, VERSION_1] {
        let whole = der(text);
        let good = read_pem(text).ok().map(|key| *key.thumbprint());
        let spki = read(&whole).unwrap().unwrap().spki.to_vec();
        for at in 0..whole.len() {
            assert!(read_pem(&as_pem(&whole[..at])).is_err(), "cut at {at}");
            for value in [0, 0xff, whole[at] ^ 1, whole[at] ^ 0x80] {
                let mut changed = whole.clone();
                changed[at] = value;
                // Another key is possible only if the bytes of the key itself change.
                if let Ok(key) = read_pem(&as_pem(&changed))
                    && read(&changed).unwrap().unwrap().spki == spki
                {
                    assert!(good.is_none_or(|good| good == *key.thumbprint()), "{value} at {at}");
                }
            }
        }
    }
}

#[test]
fn a_map_of_key_ids_to_pem_is_a_key_set() {
    use serde_json::json;

    use crate::MAX_KEYS;
    use crate::jwks::{self, JwksError, MAX_MEMBERS, Parsed};

    let parse = |map: &serde_json::Value| -> Result<Parsed<Any>, JwksError> {
        jwks::parse(map.to_string().as_bytes(), &Algorithm::ALL, false)
    };
    let parsed = parse(&json!({
        "a": RSA, "b": P256, "c": P256_PUBLIC_KEY, "enc\n": ENCIPHERMENT, "no": "-----BEGIN CERTIFICATE-----", "x": "y",
    }));
    let parsed = parsed.unwrap();
    let kids: Vec<_> = parsed.keys.keys().iter().filter_map(Key::kid).collect();
    assert_eq!(kids, ["a", "b", "c"]);
    assert_eq!(parsed.left_out.len(), 2, "{:?}", parsed.left_out);
    assert_eq!(parsed.left_out[0], "kid no: it is not a single X.509 certificate in PEM and DER");
    assert_eq!(parsed.for_encryption, ["kid enc?"]);

    let alone = |key: &str| parse(&json!({ "keys": key })).map(|parsed| parsed.keys.keys().len());
    assert_eq!(alone(P256), Ok(1), "a key id may be called keys");
    for other in [json!({}), json!({ "a": "b" }), json!({ "a": P256, "b": 7 }), json!({ "a": [P256] }), json!([P256])] {
        assert_eq!(parse(&other).unwrap_err(), JwksError::NoKeys, "{other}");
    }
    let map = |count: usize| -> serde_json::Value {
        (0..count).map(|at| (at.to_string(), json!(P256_PUBLIC_KEY))).collect::<serde_json::Map<_, _>>().into()
    };
    let many = parse(&map(MAX_KEYS + 2)).unwrap();
    assert_eq!((many.keys.keys().len(), many.left_out.len(), many.beyond), (MAX_KEYS, 2, 0));
    assert_eq!(parse(&map(MAX_MEMBERS + 1)).unwrap().beyond, 1);
    let twice = format!("{{\"a\":{0},\"a\":{0}}}", json!(P256));
    assert!(jwks::parse::<Any>(twice.as_bytes(), &Algorithm::ALL, false).is_err(), "a key id that is there twice");
    let thumbprint = base64url::encode(parsed.keys.keys()[1].thumbprint());
    assert_eq!(thumbprint, base64url::encode(read_pem(P256).unwrap().thumbprint()));
}

const RSA: &str = "\
-----BEGIN CERTIFICATE-----
MIIDMjCCAhqgAwIBAgIUdQL2GVqOTOR8mw2U8Gyz52e+mnQwDQYJKoZIhvcNAQEL
BQAwFjEUMBIGA1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTMxOTU2WhcNMzYx
MTI1MTMxOTU2WjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjCCASIwDQYJKoZIhvcN
AQEBBQADggEPADCCAQoCggEBALDoy+1i/+EG52azPNOnUYX4EHXHsg7AZVULwF5i
PPu8f7BzqeA0A/bHxUFIAn3y67vIHn6LKCyUVcKrU838x8kVOr0yX5kkQhK6JKCg
DTZXFutuPuGif90jUWR1DrnaqLsib3TOrWw1Ja4NBElncJuPYzM1b1SoSqK5ljG9
uc9zTFm/2yUE1CYKewYpzqyX437E+5aYpQcJHVV4sB6EUZUUTlIVhZ+ZC4GfuVDl
GC3UsngWfsWEcSMDYETvly1T3dl1sjA56OWd5pJWHrXZ14+PfJWoixmzNMoZWXdK
yH7ZsgaDiZPY4csyA/j7yh4Od4mKFUU8+ZdxLhIrmAIXY5UCAwEAAaN4MHYwHQYD
VR0OBBYEFDP+8AsgqzlQmD58Ss5vZxyr+6FsMB8GA1UdIwQYMBaAFDP+8AsgqzlQ
mD58Ss5vZxyr+6FsMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgeAMBMG
A1UdJQQMMAoGCCsGAQUFBwMCMA0GCSqGSIb3DQEBCwUAA4IBAQBpFz8y/3t8BE7D
chMKRgWFROwL0MwVromJ43JVDUFZaSw4KBw65SovuaRuo/UBq4TYPWzDDT4NXz6H
wFBaKcDEloOMttqIwnUCYYX0c9pS4eINUDAQHWNUWlV7QubkCxgb/LOs735jY+Du
eeoGFRHQEWlV1/21bP3vMjNd7ID+l6e8ukiR0WIRtrUO9rbXI2ETSXOa6Rb/jcbr
AltqnFWSIAdWbJcwQxPqd0X39HsL7PD0twv/X5uMhN60/4t8kjZXW7m62F1+ZwcZ
0CP+Tfd3EB7vBnOWBxg/lFjkxsnHnzKpjTRuorMV/05ePiUupeyrWO1RBOrxQ+NZ
+GqzUYg0
-----END CERTIFICATE-----
";
const P256: &str = "\
-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIURE/yKXHvLU+Wt2oRAHwieh2itgcwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTMxOTU2WhcNMzYxMTI1
MTMxOTU2WjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABO5GrxLRvQcOJ27XuXvu0NjWKZ0hat5ZbZGoShu6EqLqjBG6WT0w
QENm+BniOT6x8+k+4dnSH2m3bY1LBnAk552jUzBRMB0GA1UdDgQWBBSIt5AWS631
M+mfhattI3MF+B4LYjAfBgNVHSMEGDAWgBSIt5AWS631M+mfhattI3MF+B4LYjAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIB4yqZOT9A2NFaKY66/P
K2EbSKYjwSMVy3dBN3H43c2dAiEAvp4q6qnqcrbsGTO8XL8T48IIG4dCT8Gdry7K
FAnPnWA=
-----END CERTIFICATE-----
";
const P384: &str = "\
-----BEGIN CERTIFICATE-----
MIIBvzCCAUSgAwIBAgIUGPxRrVQcYlbNJpKizknFZXsO9dwwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTMxOTU2WhcNMzYxMTI1
MTMxOTU2WjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjB2MBAGByqGSM49AgEGBSuB
BAAiA2IABBvoJEvXLSCd+OROyjt6Aa7kDdG6as+VGurjaJah0mcY9DGGSDKjLI7w
mKDz/M97glJLMl2XtQXpHdgicVFg4adNgc6wD6YZKom4tN/nsklzk6U0TgQcZWMZ
Fzqph0WpHqNTMFEwHQYDVR0OBBYEFClcoxJ0spHDTh4eQv5gnq8pZcAXMB8GA1Ud
IwQYMBaAFClcoxJ0spHDTh4eQv5gnq8pZcAXMA8GA1UdEwEB/wQFMAMBAf8wCgYI
KoZIzj0EAwIDaQAwZgIxAKYdcQlQrALC3y8lmlZ/7NFSzS/UIy1WidEb4mZ3Rzwa
vnABjnTohi+MqccA+lTVJwIxAJ6bnw/CaS79b12yQJpHiLZgVQNpkqbaw/AL4al4
R2biW1DH3XCYUU7jIS4xlKgwVg==
-----END CERTIFICATE-----
";
const P521: &str = "\
-----BEGIN CERTIFICATE-----
MIICCDCCAWqgAwIBAgIUfPs4YSJCfw8KYu+mVxb4iDTDR7gwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTM0MzEyWhcNMzYxMTI1
MTM0MzEyWjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjCBmzAQBgcqhkjOPQIBBgUr
gQQAIwOBhgAEAZWdAbM/O0nRtACBlXdYzboAZo0P6Qf/mz6cjyeQykeISsdix8Vf
CvrYU2w0UqO2tSSvE/U/7L4BYdB/3O7HmUmLALDkQFTV6d+w+dCQXxPaWOUmiMfW
UcYrrkrs+K8c+XgafTya9UXEl2tH791l7ysXTqVu0vnznC3KIdw0P6Xw5nSgo1Mw
UTAdBgNVHQ4EFgQU6rB5VfCJWjgSaBM2BIn9R5lgbvUwHwYDVR0jBBgwFoAU6rB5
VfCJWjgSaBM2BIn9R5lgbvUwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgOB
iwAwgYcCQgCsWHdY1gUVtL5jkPIIXKe9JGhqh27k5YBUlSI8sigbLSzMncyL74Uf
K+v3SbA/nAoWAUHEUWW6NQ5VzyjPUGzmpQJBBGQWmLm7mlf7h2IUI8BgC+H+AgOl
t8PsiSZ4d4txZ0OaX7gP/ALqm0UEeKT60Ci3jIIumTa1ojDZU4330+Pz37g=
-----END CERTIFICATE-----
";
const ED25519: &str = "\
-----BEGIN CERTIFICATE-----
MIIBQDCB86ADAgECAhQQZ7wu67LZaUS0x3lh4EmJ7H5uoDAFBgMrZXAwFjEUMBIG
A1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTMxOTU2WhcNMzYxMTI1MTMxOTU2
WjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjAqMAUGAytlcAMhAPgRYhPV8WNGHdps
iIlJKu+mKg/NrSoTCZyHg+ytqmTDo1MwUTAdBgNVHQ4EFgQU9VOLeZtvnksQJVdv
CPrzWqqMj4AwHwYDVR0jBBgwFoAU9VOLeZtvnksQJVdvCPrzWqqMj4AwDwYDVR0T
AQH/BAUwAwEB/zAFBgMrZXADQQDQCRPDJn9aWn8NU/TWTpvSFmkzG6FoSJ/iH5Aw
ZGrYRne4lbRohyQq8GoZB8yAJ7XQ6YovtYste9G+21z/DWAK
-----END CERTIFICATE-----
";
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFTCBuwIULth1IY4NfWl1O8X7x8hFulJd9h8wCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwHhcNMjYxMTI4MTMyMDQwWhcNMjYxMTI5MTMyMDQwWjANMQswCQYD
VQQDDAJ2MTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPEy9069MTishZwaOfbH
yXK91wuS5uji0II2Gr+5B6sk/9UsLHzKlhZjKLnSHAKyex8STOe1iqPz1Tefiwk0
AbswCgYIKoZIzj0EAwIDSQAwRgIhANlCC4dymU6bPYmXUVHIZzwSqo1A1PjaWfm9
ib4R65jGAiEAxf5a3oYbCW2yhI6FY4Ab9jcefqevjqVPINlrvgqMoEs=
-----END CERTIFICATE-----
";
const ENCIPHERMENT: &str = "\
-----BEGIN CERTIFICATE-----
MIIDGjCCAgKgAwIBAgIUUoQv3YqYVPqcf43t5tpoyMJDCXcwDQYJKoZIhvcNAQEL
BQAwFjEUMBIGA1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTMxOTU3WhcNMzYx
MTI1MTMxOTU3WjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjCCASIwDQYJKoZIhvcN
AQEBBQADggEPADCCAQoCggEBAKwgApbzxAQ/ZT2JjUfpHIylo3Hpa37GJ7nL1FMk
OnMTs5ccUXp4M24PN8aTuQ6zPIp4P8A0eBimpBt8oLtH3o2U9+gv4CVmyOPXMDw7
DNpSDa1UO8Iata1el0Jbh+hrbD0yXENZGOdWBvJz61paxNAS0TuYmBgliTB1F3MG
pMlStBruf842/duo9sdRWWlM8A5tZiQ2RuC4KWgVpnssRUQsKw2lq0IBvUdfOwmj
OW7HJnOzPUUiKce9FiEdekyRpJealcfDYKW28bqIVMjkb89hivdsQIH7V43jY65S
woHmHC4iBtHG1pyL8+JJ1sE390l1uJ2LnStQrm8CyTf3/R8CAwEAAaNgMF4wHQYD
VR0OBBYEFO9Kv3IWYIEqvMLTwQy5Jvjg2EbEMB8GA1UdIwQYMBaAFO9Kv3IWYIEq
vMLTwQy5Jvjg2EbEMA8GA1UdEwEB/wQFMAMBAf8wCwYDVR0PBAQDAgUgMA0GCSqG
SIb3DQEBCwUAA4IBAQBFblAHAG1YbSwpSwb5CmHrfyRLUNtzCzenXYZIjd0+yGwh
nacNGij4VVOIDPXaxdrm55mA0FdLeLfYn+zGFoUdHkJNZFyZZqjklnpkWckaZkaW
yMWZKarRDnShT5g2c95YuHeosUc8AQvXlcxyd6NsbHjdi+0HmipgR97i6f3t6AV1
mmDEFDeThh9fYQyzoF82wFRGbf3CI0BfX6zQxIGBCExX4toOt59Fm2G59IKkpd/8
nWQaB8+daXYx7zNgYiXHq9x0ChOimCToQtyQyVUBKuwGHglltSZv3mmtjweYjUz9
JF+Zo+mFb17hB5ZGINtkzD60HHCwzlxCgyIzwgNp
-----END CERTIFICATE-----
";
const WEAK_RSA: &str = "\
-----BEGIN CERTIFICATE-----
MIICCDCCAXGgAwIBAgIUQPFoQENKzdywQ+APpLzBDKoTsrYwDQYJKoZIhvcNAQEL
BQAwFjEUMBIGA1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTMxOTU3WhcNMzYx
MTI1MTMxOTU3WjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjCBnzANBgkqhkiG9w0B
AQEFAAOBjQAwgYkCgYEA1Iq88f6pUS+Ase8tkZR4/317PILj8iNXyeZvTaFFYE7k
2KgYBd8qZnyXLRNXgFylripSWk4bfddzKM+YnOkiOJyKskOS5w20Wz5GBYIV2Xb2
ZD4dRCkNHtTyJyHxsoYa6lMojLVbni3D4vZ+UgxiIN/ITQxK+6SO37Ort3PBfQcC
AwEAAaNTMFEwHQYDVR0OBBYEFMGI1C3KvHLh1SJDfJbQhQDKGZl3MB8GA1UdIwQY
MBaAFMGI1C3KvHLh1SJDfJbQhQDKGZl3MA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZI
hvcNAQELBQADgYEAIrgFyPadXu72wxuE5+/NIPjdg3oewfN0ZZx0uWu5NtAYJX/N
viD+4vlnqesnb3x3pz6xndqRAPc+gm/IlsJnP5iEjGkRR3xlmQtG2rMcgUZsQgoo
ovscGDL/MJhwNwZa6QXIRpyTFeW0ri28jNbIvn4O20L+rmgzZ5gehQ0rTOI=
-----END CERTIFICATE-----
";
const SECP256K1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBfTCCASSgAwIBAgIUZyfgRtEUo+65CHMn7PHy1NwsBrQwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLc2VjdXJldG9rZW4wHhcNMjYxMTI4MTMxOTU3WhcNMzYxMTI1
MTMxOTU3WjAWMRQwEgYDVQQDDAtzZWN1cmV0b2tlbjBWMBAGByqGSM49AgEGBSuB
BAAKA0IABBJTxwlJPBvXgY/p9KwRD30igNBQiQazLe1OucOAeBDqG6lqwiM/8mst
KDkKPg9dbnsgRZ2Pgk0svEp7gi64KUCjUzBRMB0GA1UdDgQWBBT3aEzbgMlbe0qb
KlDBTYL0u9hK4DAfBgNVHSMEGDAWgBT3aEzbgMlbe0qbKlDBTYL0u9hK4DAPBgNV
HRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIEJ+RW9iXMteDwXHlsDKOUtO
ihvZwp3tEog417cmaPYTAiBeiDK7UhQpeODfliK/OPvCDGGjlg+wKrsp5aHHtB8l
iA==
-----END CERTIFICATE-----
";
const P256_PUBLIC_KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE7kavEtG9Bw4nbte5e+7Q2NYpnSFq
3lltkahKG7oSouqMEbpZPTBAQ2b4GeI5PrHz6T7h2dIfabdtjUsGcCTnnQ==
-----END PUBLIC KEY-----
";
