use super::*;
use crate::json::{MAX_DEPTH, MAX_MEMBERS};

const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;

fn token(header: &str, payload: &str) -> String {
    format!("{}.{}.c2ln", base64url::encode(header), base64url::encode(payload))
}

fn refusal(token: &str) -> JwsError {
    Unverified::parse(token.as_bytes(), 8192).err().expect(token)
}

fn refused_as(token: &str, text: &str) {
    assert_eq!(refusal(token).to_string(), text, "{token}");
}

#[test]
fn takes_a_token_apart() {
    let text = token(HEADER, r#"{"sub":"a"}"#);
    let token = Unverified::parse(text.as_bytes(), text.len()).unwrap();
    assert_eq!(token.header(), &Header { alg: Algorithm::ES256, kid: Some("k".into()), typ: Some("JWT".into()) });
    assert_eq!(token.signing_input(), text.rsplit_once('.').unwrap().0.as_bytes());
    assert_eq!(token.payload_text(), text.split('.').nth(1).unwrap());
    assert_eq!(token.payload(), br#"{"sub":"a"}"#);
    assert_eq!(token.signature(), b"sig");
    assert_eq!(token.parse_payload().unwrap().to_text(), r#"{"sub":"a"}"#);
}

#[test]
fn refuses_one_byte_over_the_limit() {
    let text = token(HEADER, "{}");
    assert!(Unverified::parse(text.as_bytes(), text.len()).is_ok());
    assert_eq!(Unverified::parse(text.as_bytes(), text.len() - 1).err(), Some(JwsError::TooLong));
}

#[test]
fn refuses_what_has_not_three_segments() {
    let three = token(HEADER, "{}");
    refused_as("", "the token is empty");
    refused_as("e30", "the token has fewer than three segments");
    refused_as("e30.e30", "the token has fewer than three segments");
    refused_as(&format!("{three}.e30"), "the token has more than three segments");
    refused_as(&format!("{three}."), "the token has more than three segments");
    refused_as(&format!("{three}.e30.e30"), "the token is encrypted (five segments)");
    refused_as(&format!("{three}.e30.e30.e30"), "the token has more than three segments");
    refused_as(&".".repeat(8000), "the token has more than three segments");
}

#[test]
fn refuses_an_empty_segment() {
    refused_as("..", "the header is empty");
    refused_as(".e30.e30", "the header is empty");
    refused_as(&format!("{}..c2ln", base64url::encode(HEADER)), "the payload is empty");
    refused_as(&format!("{}.e30.", base64url::encode(HEADER)), "the signature is empty");
}

#[test]
fn refuses_padding_white_space_and_trailing_bits_in_each_segment() {
    let header = base64url::encode(HEADER);
    for bad in ["c2k=", "c2l", "c2ln=", "c2 ln", "c2ln\n", "c2+n", "c2/n", "c", "c2%6e", "c2\u{0}n"] {
        refused_as(&format!("{bad}.e30.c2ln"), "the header is not canonical base64url");
        refused_as(&format!("{header}.{bad}.c2ln"), "the payload is not canonical base64url");
        refused_as(&format!("{header}.e30.{bad}"), "the signature is not canonical base64url");
    }
    refused_as(&format!("{header}.e30.é"), "the signature is not canonical base64url");
    assert!(Unverified::parse(&[b'a', b'.', 0xff, b'.', b'a'], 99).is_err());
}

#[test]
fn takes_padding_in_all_segments_or_in_none() {
    let pad = |text: String| format!("{text}{}", "=".repeat(text.len().wrapping_neg() % 4));
    let (header, payload) = (base64url::encode(HEADER), base64url::encode(r#"{"sub":"a"}"#));
    let (padded_header, padded_payload) = (pad(header.clone()), pad(payload.clone()));
    assert_ne!(payload, padded_payload);
    let parse = |text: &str| {
        let parsed = Unverified::parse_perhaps_padded(text.as_bytes(), 8192);
        parsed.map(|parsed| (parsed.padding(), parsed.payload().to_vec()))
    };
    let json = br#"{"sub":"a"}"#.to_vec();
    let padded = format!("{padded_header}.{padded_payload}.c2k=");
    assert_eq!(parse(&padded), Ok((Padding::With, json.clone())));
    assert_eq!(parse(&format!("{header}.{payload}.c2k")), Ok((Padding::Without, json)));
    for mixed in [
        format!("{padded_header}.{payload}.c2k="),
        format!("{padded_header}.{padded_payload}.c2k"),
        format!("{header}.{payload}.c2k="),
        format!("{padded_header}.{padded_payload}.c2l="),
        format!("{padded_header}.{padded_payload}.c2k=="),
        format!("{padded_header}.{padded_payload}.c2ln===="),
        format!("{padded_header}====.{padded_payload}.c2k="),
    ] {
        assert!(parse(&mixed).is_err(), "{mixed}");
    }
    assert!(Unverified::parse(padded.as_bytes(), 8192).is_err());
    let signed = Unverified::parse_perhaps_padded(padded.as_bytes(), 8192).unwrap().signing_input().to_vec();
    assert_eq!(signed, format!("{padded_header}.{padded_payload}").into_bytes());
}

#[test]
fn a_member_of_the_header_is_compared_as_a_string() {
    let text = token(r#"{"alg":"ES256","signer":"arn:1","n":1,"o":{"signer":"arn:2"}}"#, "{}");
    let parsed = Unverified::parse(text.as_bytes(), 8192).unwrap();
    let has = |name: &str, values: &[&str]| {
        parsed.header_has(name, &values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    };
    assert!(has("signer", &["arn:1"]) && has("signer", &["arn:0", "arn:1"]));
    assert!(!has("signer", &["arn:2"]) && !has("signer", &[]) && !has("n", &["1"]) && !has("absent", &[""]));
}

#[test]
fn refuses_a_header_that_is_no_object() {
    for header in ["x", "{\"alg\":\"ES256\"", "{\"alg\":\"ES256\"}{}", "{\"alg\":1e999}", "\u{feff}{}"] {
        refused_as(&token(header, "{}"), "the header is not JSON");
    }
    for header in ["1", "null", "\"alg\"", "[]", r#"[{"alg":"ES256"}]"#] {
        refused_as(&token(header, "{}"), "the header is not a JSON object");
    }
    let deep = format!(r#"{{"alg":"ES256","x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    assert_eq!(refusal(&token(&deep, "{}")), JwsError::Header(ObjectError::TooDeep));
}

#[test]
fn each_bound_of_the_payload_has_an_error_of_its_own() {
    let fault = |payload: &str| {
        let text = token(HEADER, payload);
        let parsed = Unverified::parse(text.as_bytes(), 65_536).unwrap();
        parsed.parse_payload().map(|_| ())
    };
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let object = |members: usize| {
        let members: Vec<String> = (0..members).map(|at| format!("\"{at}\":0")).collect();
        format!("{{\"a\":{{{}}}}}", members.join(","))
    };
    assert_eq!(fault(&nested(MAX_DEPTH)), Ok(()));
    assert_eq!(fault(&nested(MAX_DEPTH + 1)), Err(JwsError::Payload(ObjectError::TooDeep)));
    assert_eq!(fault(&object(MAX_MEMBERS)), Ok(()));
    assert_eq!(fault(&object(MAX_MEMBERS + 1)), Err(JwsError::Payload(ObjectError::TooManyMembers)));
}

#[test]
fn refuses_a_header_with_a_member_twice() {
    for header in [
        r#"{"alg":"ES256","alg":"ES256"}"#,
        r#"{"alg":"ES256","\u0061lg":"none"}"#,
        r#"{"alg":"ES256","kid":"a","k\u0069d":"b"}"#,
        r#"{"alg":"ES256","jwk":{"x":1,"x":2}}"#,
    ] {
        refused_as(&token(header, "{}"), "the header has a member twice in one object");
    }
}

#[test]
fn refuses_members_of_the_wrong_type() {
    refused_as(&token("{}", "{}"), "the header has no alg");
    refused_as(&token(r#"{"ALG":"ES256"}"#, "{}"), "the header has no alg");
    for value in ["null", "1", "true", "[]", "{}", r#"["ES256"]"#] {
        let bad = |name: &str| token(&format!(r#"{{"x":"","{name}":{value}}}"#), "{}");
        let with_alg = |name: &str| token(&format!(r#"{{"alg":"ES256","{name}":{value}}}"#), "{}");
        refused_as(&bad("alg"), "the header's alg is not a string");
        refused_as(&with_alg("kid"), "the header's kid is not a string");
        refused_as(&with_alg("typ"), "the header's typ is not a string");
        refused_as(&with_alg("cty"), "the header's cty is not a string");
    }
}

#[test]
fn refuses_a_kid_of_257_bytes() {
    let with_kid = |length: usize| token(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(length)), "{}");
    assert!(Unverified::parse(with_kid(MAX_KID_BYTES).as_bytes(), 8192).is_ok());
    refused_as(&with_kid(MAX_KID_BYTES + 1), "the header's kid is too long");
}

#[test]
fn does_not_allow_none_in_any_case() {
    for alg in ["none", "None", "NONE", "nOnE", "n\\u006fne"] {
        assert_eq!(refusal(&token(&format!(r#"{{"alg":"{alg}"}}"#), "{}")), JwsError::AlgNone);
    }
}

#[test]
fn does_not_allow_an_algorithm_it_does_not_know() {
    for alg in ["", "es256", "ES256K", "ES521", "HS1", "RSA-OAEP", "dir", "Ed448", "ed25519", " none", "none "] {
        assert_eq!(refusal(&token(&format!(r#"{{"alg":"{alg}"}}"#), "{}")), JwsError::AlgUnknown);
    }
}

#[test]
fn refuses_every_extension_whatever_it_holds() {
    for name in ["crit", "b64", "zip", "enc"] {
        for value in ["null", "[]", "true", "false", "\"\"", r#"["exp"]"#, r#"["b64"]"#] {
            let header = format!(r#"{{"alg":"ES256","{name}":{value}}}"#);
            refused_as(&token(&header, "{}"), &format!("the header has {name}"));
        }
    }
}

#[test]
fn refuses_a_token_in_a_token() {
    for cty in ["JWT", "jwt", "Jwt", "application/jwt", "APPLICATION/JWT"] {
        let header = format!(r#"{{"alg":"ES256","cty":"{cty}"}}"#);
        refused_as(&token(&header, "{}"), "the token holds a nested token (cty)");
    }
    assert!(Unverified::parse(token(r#"{"alg":"ES256","cty":"json"}"#, "{}").as_bytes(), 8192).is_ok());
}

#[test]
fn ignores_keys_that_the_token_brings_along() {
    let header = r#"{"alg":"ES256","jku":"http://evil","x5u":1,"jwk":{"kty":"oct","k":""},"x5c":[],"x5t":{}}"#;
    let text = token(header, "{}");
    let token = Unverified::parse(text.as_bytes(), 8192).unwrap();
    assert_eq!(token.header(), &Header { alg: Algorithm::ES256, kid: None, typ: None });
}

#[test]
fn refuses_a_payload_that_is_no_object() {
    for (payload, cause) in [
        ("x", "the payload is not JSON"),
        ("{} {}", "the payload is not JSON"),
        (r#"{"exp":1e999}"#, "the payload is not JSON"),
        ("[]", "the payload is not a JSON object"),
        ("null", "the payload is not a JSON object"),
        (r#"{"sub":"a","\u0073ub":"b"}"#, "the payload has a member twice in one object"),
        (r#"{"o":[{"a":1,"a":1}]}"#, "the payload has a member twice in one object"),
    ] {
        let text = token(HEADER, payload);
        let error = Unverified::parse(text.as_bytes(), 8192).unwrap().parse_payload().unwrap_err();
        assert_eq!(error.to_string(), cause, "{payload}");
    }
}

#[test]
fn refuses_garbage_without_a_panic() {
    // A cheap stand-in for the fuzzer: every byte of a good token replaced by some awkward ones, and every prefix.
    let good = token(HEADER, r#"{"sub":"a","exp":1}"#);
    for at in 0..good.len() {
        for byte in [0, b'.', b'=', b'"', b'A', 0x80, 0xff] {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = byte;
            if let Ok(token) = Unverified::parse(&bytes, 8192) {
                let _ = token.parse_payload();
            }
        }
        assert!(Unverified::parse(&good.as_bytes()[..at], 8192).is_err() || at > good.len() - 3);
    }
}
