use sha2::{Digest as _, Sha256};

use super::*;
use crate::key::engine::{BadSignature, VerifyingKey};
use crate::{Algorithm, PublicKey, base64url};

/// RFC 9449 section 4.1, figure 1.
const RFC_TOKEN_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMz\
    R0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIs\
    ImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY2\
    9tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37\
    xRZT3Lg";
/// RFC 9449 section 7.1, figure 12.
const RFC_RESOURCE_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgt\
    MzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQS\
    IsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxl\
    Lm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWt\
    zbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
/// Section 6.1.
const RFC_JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
/// Section 7.1.
const RFC_ACCESS_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

struct Es256(aws_lc_rs::signature::ParsedPublicKey);

impl VerifyingKey for Es256 {
    const MAX_RSA_BITS: usize = 4096;

    fn from_public(public: &PublicKey) -> Option<Self> {
        let PublicKey::Ec { point, .. } = public else { return None };
        let scheme = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
        aws_lc_rs::signature::ParsedPublicKey::new(scheme, point).ok().map(Self)
    }

    fn from_secret(_: &[u8], _: &[Algorithm]) -> Option<Self> {
        None
    }

    fn verify(&self, _: Algorithm, signing_input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.0.verify_sig(signing_input, signature).map_err(|_| BadSignature)
    }
}

fn parse(header: &str, claims: &str) -> Result<(), ProofError> {
    let text = format!("{}.{}.AAAA", base64url::encode(header), base64url::encode(claims));
    Proof::parse(text.as_bytes(), &[Algorithm::ES256, Algorithm::EdDSA]).map(drop)
}

const JWK: &str = r#""kty":"EC","crv":"P-256","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA""#;
const CLAIMS: &str = r#"{"jti":"a","htm":"GET","htu":"https://a","iat":1}"#;

#[test]
fn the_examples_of_the_rfc_are_read_and_verified() {
    let token = Proof::parse(RFC_TOKEN_PROOF.as_bytes(), &[Algorithm::ES256]).unwrap();
    token.verify::<Es256>().unwrap();
    assert_eq!(base64url::encode(token.thumbprint()), RFC_JKT);
    let Claims { jti, htm, htu, iat, ath, nonce, .. } = token.claims();
    assert_eq!(
        (jti.as_str(), htm.as_str(), *iat, ath, nonce),
        ("-BwC3ESc6acc2lTc", "POST", 1_562_262_616, &None, &None)
    );
    assert_eq!(htu, "https://server.example.com/token");

    let resource = Proof::parse(RFC_RESOURCE_PROOF.as_bytes(), &[Algorithm::ES256]).unwrap();
    resource.verify::<Es256>().unwrap();
    assert_eq!(base64url::encode(resource.thumbprint()), RFC_JKT);
    assert_eq!(resource.claims().ath, Some(Sha256::digest(RFC_ACCESS_TOKEN).into()));
    let origin = Origin::parse("https://resource.example.org").unwrap();
    let target = TargetUri::new(&origin, "/protectedresource").unwrap();
    assert_eq!(TargetUri::parse(&resource.claims().htu), Some(target));
    assert_ne!(token.digest(), resource.digest());

    let bent = RFC_TOKEN_PROOF.replace(".2-GxA6", ".2-GxA7");
    let bent = Proof::parse(bent.as_bytes(), &[Algorithm::ES256]).unwrap();
    assert_eq!(bent.verify::<Es256>(), Err(ProofError::Signature));
}

#[test]
fn only_one_public_key_of_the_algorithm_counts() {
    let header = |more: &str| format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{{{JWK}}}{more}}}"#);
    assert_eq!(parse(&header(""), CLAIMS), Ok(()));
    for (member, name) in [
        (r#","kid":"1""#, "kid"),
        (r#","x5c":[]"#, "x5c"),
        (r#","x5u":"https://a""#, "x5u"),
        (r#","jku":"https://a""#, "jku"),
        (r#","x5t":"a""#, "x5t"),
        (r#","x5t#S256":null"#, "x5t#S256"),
    ] {
        assert_eq!(parse(&header(member), CLAIMS), Err(ProofError::OtherKey(name)));
    }
    let keyed = |alg: &str, jwk: &str| parse(&format!(r#"{{"typ":"dpop+jwt","alg":"{alg}","jwk":{jwk}}}"#), CLAIMS);
    for member in crate::key::PRIVATE_MEMBERS {
        assert!(
            matches!(keyed("ES256", &format!(r#"{{{JWK},"{member}":"AA"}}"#)), Err(ProofError::Jwk(_))),
            "{member}"
        );
    }
    assert!(matches!(keyed("ES256", r#"{"kty":"oct","k":"AA"}"#), Err(ProofError::Jwk(_))));
    assert_eq!(keyed("ES256", r#""text""#), Err(ProofError::NoJwk));
    assert_eq!(keyed("EdDSA", &format!("{{{JWK}}}")), Err(ProofError::AlgNotOfKey));
    for alg in ["HS256", "none", "NONE", "RS256", "ES384", "ES256K"] {
        assert_eq!(keyed(alg, &format!("{{{JWK}}}")), Err(ProofError::Alg), "{alg}");
    }
    assert_eq!(
        Proof::parse(b"a.b.c", &[]).map(drop).unwrap_err(),
        ProofError::Jws(crate::JwsError::NotBase64Url(crate::Segment::Header))
    );
}

#[test]
fn each_claim_has_its_type_and_size() {
    let with = |claims: &str| parse(&format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{{{JWK}}}}}"#), claims);
    let long = format!(r#"{{"jti":"{}","htm":"GET","htu":"https://a","iat":1}}"#, "a".repeat(MAX_JTI_BYTES + 1));
    for (claims, error) in [
        (r#"{"htm":"GET","htu":"https://a","iat":1}"#, ProofError::Missing("jti")),
        (r#"{"jti":"","htm":"GET","htu":"https://a","iat":1}"#, ProofError::JtiLength),
        (long.as_str(), ProofError::JtiLength),
        (r#"{"jti":1,"htm":"GET","htu":"https://a","iat":1}"#, ProofError::Wrong("jti")),
        (r#"{"jti":"a","htu":"https://a","iat":1}"#, ProofError::Missing("htm")),
        (r#"{"jti":"a","htm":"GET","iat":1}"#, ProofError::Missing("htu")),
        (r#"{"jti":"a","htm":"GET","htu":"https://a"}"#, ProofError::Missing("iat")),
        (r#"{"jti":"a","htm":"GET","htu":"https://a","iat":"1"}"#, ProofError::Wrong("iat")),
        (r#"{"jti":"a","htm":"GET","htu":"https://a","iat":-1}"#, ProofError::Wrong("iat")),
        (r#"{"jti":"a","htm":"GET","htu":"https://a","iat":1e30}"#, ProofError::Wrong("iat")),
        (r#"{"jti":"a","htm":"GET","htu":"https://a","iat":1,"ath":"AA"}"#, ProofError::Wrong("ath")),
        (r#"{"jti":"a","htm":"GET","htu":"https://a","iat":1,"nonce":1}"#, ProofError::Wrong("nonce")),
    ] {
        assert_eq!(with(claims), Err(error), "{claims}");
    }
    assert_eq!(parse(r#"{"typ":"JWT","alg":"ES256"}"#, CLAIMS), Err(ProofError::Typ));
    assert_eq!(parse(r#"{"alg":"ES256"}"#, CLAIMS), Err(ProofError::Typ));
    assert_eq!(Proof::parse(&[b'a'; MAX_PROOF_BYTES + 1], &[]).map(drop).unwrap_err(), ProofError::TooLong);
}

#[test]
fn uris_are_compared_in_normal_form() {
    let target = TargetUri::new(&Origin::parse("https://API.example:443/").unwrap(), "/a/%c3%a9/b?q").unwrap();
    assert_eq!(target.as_str(), "https://api.example/a/%C3%A9/b");
    for same in [
        "https://api.example/a/%C3%A9/b",
        "HTTPS://Api.Example/a/%c3%a9/b",
        "https://api.example:443/a/%C3%A9/b",
        "https://api.example:/a/%C3%A9/b",
        "https://api%2Eexample/a/%C3%A9/b",
        "https://api.example/%61/%C3%A9/b",
        "https://api.example/a/./%C3%A9/x/../b",
        "https://api.example/../a/%2e/%C3%A9/b",
        "https://api.example/a/%C3%A9/b?other",
        "https://api.example/a/%C3%A9/b#fragment",
    ] {
        assert_eq!(TargetUri::parse(same).as_ref(), Some(&target), "{same}");
    }
    for other in [
        "",
        "/a/%C3%A9/b",
        "http://api.example/a/%C3%A9/b",
        "https://api.example:444/a/%C3%A9/b",
        "https://api.example./a/%C3%A9/b",
        "https://user@api.example/a/%C3%A9/b",
        "https://api.example@evil.example/a/%C3%A9/b",
        "https://api.example\\@evil.example/a/%C3%A9/b",
        "https://api.example/a/%C3%A9/b/",
        "https://api.example/A/%C3%A9/b",
        "https://api.example//a/%C3%A9/b",
        "https://api.example/a%2F%C3%A9/b",
        "https://api.example/a/%C3%A9/b%",
        "https://api.example/a/%25C3%25A9/b",
        "https://api.example/a/\u{e9}/b",
        "https://api.example/a/%C3%A9/b ",
        " https://api.example/a/%C3%A9/b",
        "https:/api.example/a/%C3%A9/b",
        "https:///a/%C3%A9/b",
        "ftp://api.example/a/%C3%A9/b",
        "https://api.example:0443/a/%C3%A9/b",
        "https://api.example:99999/a/%C3%A9/b",
    ] {
        assert_ne!(TargetUri::parse(other).as_ref(), Some(&target), "{other}");
    }
    assert_eq!(TargetUri::parse("https://a").map(|uri| uri.as_str().to_owned()).as_deref(), Some("https://a/"));
    assert_eq!(TargetUri::parse("http://[::0:1]:80/..").unwrap().as_str(), "http://[::1]/");
    assert_eq!(Origin::parse("https://a.example:8443").unwrap().host(), "a.example");
    for bad in ["a.example", "https://a.example/x", "https://", "https://a..b", "https://a?", "https://a:x"] {
        assert_eq!(Origin::parse(bad), None, "{bad}");
    }
}
