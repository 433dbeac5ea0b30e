//! A token of the right shape is the canonical text of its parts, and its header says what any JSON reader sees in it.
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use jose::{Padding, Unverified};
use serde_json::Value;

const MAX_BYTES: usize = 4096;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let headers = [
        r#"{"alg":"ES256","kid":"k1","typ":"JWT"}"#,
        r#"{"alg":"none"}"#,
        r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"EdDSA","jwk":{"kty":"OKP"},"kid":null}"#,
    ];
    let payloads = [r#"{"sub":"a","exp":1700000300}"#, "[]", "{}"];
    let mut seeds = Vec::new();
    for header in headers {
        for payload in payloads {
            for engine in [&URL_SAFE_NO_PAD, &URL_SAFE] {
                let text = [header, payload, "signature"].map(|part| engine.encode(part)).join(".");
                seeds.push(text.into_bytes());
            }
        }
    }
    seeds
}

pub fn jws(input: &[u8]) {
    let strict = Unverified::parse(input, MAX_BYTES);
    let padded = Unverified::parse_perhaps_padded(input, MAX_BYTES);
    if let Ok(strict) = &strict {
        holds(input, strict);
        let padded = padded.as_ref().expect("padding may be left out");
        assert_eq!(strict.signing_input(), padded.signing_input());
        assert_eq!((strict.payload(), strict.signature()), (padded.payload(), padded.signature()));
        assert!(strict.padding() != Padding::With);
    }
    if let Ok(padded) = &padded {
        holds(input, padded);
        assert_eq!(strict.is_ok(), !input.contains(&b'='));
    }
}

fn holds(input: &[u8], token: &Unverified<'_>) {
    assert!(input.len() <= MAX_BYTES);
    let header_json = {
        let header = input.split(|byte| *byte == b'.').next().expect("split gives a first part");
        let header: Vec<u8> = header.iter().copied().filter(|byte| *byte != b'=').collect();
        URL_SAFE_NO_PAD.decode(header).expect("the header is base64url")
    };
    let engine = if token.padding() == Padding::With { &URL_SAFE } else { &URL_SAFE_NO_PAD };
    let text = [&header_json[..], token.payload(), token.signature()].map(|part| engine.encode(part)).join(".");
    assert_eq!(text.as_bytes(), input, "the text of the parts is the token");
    assert!(input.starts_with(token.signing_input()) && input[token.signing_input().len()..].starts_with(b"."));

    let header: Value = serde_json::from_slice(&header_json).expect("the header is JSON");
    assert_eq!(header["alg"], token.header().alg.name());
    assert_eq!(header.get("kid").and_then(Value::as_str), token.header().kid.as_deref());
    assert_eq!(header.get("typ").and_then(Value::as_str), token.header().typ.as_deref());
    for refused in ["crit", "b64", "zip", "enc"] {
        assert!(header.get(refused).is_none(), "{refused}");
    }
    if let Ok(payload) = token.parse_payload() {
        let theirs: Value = serde_json::from_slice(token.payload()).expect("the payload is JSON");
        assert!(theirs.is_object());
        assert_eq!(payload.as_object().map(|payload| payload.len()), theirs.as_object().map(|theirs| theirs.len()));
    }
}
