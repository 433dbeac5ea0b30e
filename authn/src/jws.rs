//! The shape of a compact JWS (RFC 7515 section 7.1), judged before any key is looked up. Nothing here is verified.
use crate::alg::Algorithm;
use crate::b64;
use crate::cause::Cause;
use crate::fault::Rejection;
use crate::json::{Json, JsonError, Object};

/// The longest `kid` that is looked up.
pub const MAX_KID_BYTES: usize = 256;

/// A token of the right shape, whose signature nobody has checked.
#[derive(Clone)]
pub struct Unverified<'t> {
    signing_input: &'t [u8],
    payload_text: &'t str,
    padding: Padding,
    header: Header,
    header_json: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// Whether the segments have the padding of RFC 4648 section 3.2, which RFC 7515 section 2 leaves out and some issuers write
/// all the same. It is under the signature, apart from that of the signature's own segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// None, where some would be due.
    Without,
    /// In each segment where some is due.
    With,
    /// None is due: the lengths are all multiples of four.
    NoneDue,
}

/// What the header says that is of use. `jku`, `x5u`, `jwk`, `x5c` and the like are ignored, whatever they hold: a key
/// that a token brings along, or has us fetch, would let the token vouch for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub alg: Algorithm,
    pub kid: Option<String>,
    pub typ: Option<String>,
}

impl<'t> Unverified<'t> {
    /// # Errors
    /// `AlgNotAllowed` for an algorithm that nobody here knows, `none` among them; `TokenTooLong`, `TokenTooDeep` and
    /// `TokenTooManyMembers` for what is beyond a bound; `TokenMalformed` for all else.
    pub fn parse(token: &'t [u8], max_bytes: usize) -> Result<Self, Rejection> {
        Self::read(token, max_bytes, false)
    }

    /// As `parse`, and segments may be padded, all or none of them. Whoever calls compares [`Unverified::padding`] with what
    /// the issuer writes.
    ///
    /// # Errors
    /// As `parse`.
    pub fn parse_perhaps_padded(token: &'t [u8], max_bytes: usize) -> Result<Self, Rejection> {
        Self::read(token, max_bytes, true)
    }

    fn read(token: &'t [u8], max_bytes: usize, may_be_padded: bool) -> Result<Self, Rejection> {
        if token.is_empty() {
            return Err(Rejection::new(Cause::TokenEmpty));
        }
        if token.len() > max_bytes {
            return Err(Rejection::new(Cause::TokenTooLong));
        }
        // Dots are not base64url, so text that is no UTF-8 is no token.
        let token = str::from_utf8(token).map_err(|_| Rejection::new(Cause::TokenNotAscii))?;
        let [header, payload, signature] = segments(token)?;
        let padding = match [header, payload, signature] {
            all if all.iter().all(|segment| segment.len().is_multiple_of(4)) => match token.contains('=') {
                true => Padding::With,
                false => Padding::NoneDue,
            },
            _ => Padding::Without,
        };
        let decode = |segment: &str| match padding {
            Padding::With if may_be_padded => b64::decode_padded(segment),
            _ => b64::decode(segment),
        };
        // The header first: that is where most garbage ends, before the longer segments cost anything.
        let header_json = decode(header).map_err(|_| Rejection::new(Cause::HeaderNotBase64))?;
        let header = Header::parse(&header_json)?;
        Ok(Self {
            signing_input: token.rsplit_once('.').map_or(token, |(input, _)| input).as_bytes(),
            payload_text: payload,
            padding,
            header,
            header_json,
            payload: decode(payload).map_err(|_| Rejection::new(Cause::PayloadNotBase64))?,
            signature: decode(signature).map_err(|_| Rejection::new(Cause::SignatureNotBase64))?,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// Has the header a member of this name that is one of these strings?
    pub fn header_has(&self, name: &str, values: &[String]) -> bool {
        let header = Json::parse(&self.header_json).ok();
        let value = header.as_ref().and_then(|header| header.as_object()?.get(name)?.as_str());
        value.is_some_and(|value| values.iter().any(|wanted| wanted == value))
    }

    /// Header and payload as in the token, with the dot between them: what the signature covers.
    pub fn signing_input(&self) -> &'t [u8] {
        self.signing_input
    }

    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The payload as in the token, in base64url.
    pub fn payload_text(&self) -> &'t str {
        self.payload_text
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload as a JSON object (RFC 7519 section 7.2, step 10).
    ///
    /// # Errors
    /// `TokenTooDeep`, `TokenTooManyMembers`, and `TokenMalformed` for anything else.
    pub fn parse_payload(&self) -> Result<Json<'_>, Rejection> {
        let payload = Json::parse(&self.payload).map_err(|error| unreadable(PAYLOAD, error))?;
        match payload {
            Json::Object(_) => Ok(payload),
            _ => Err(Rejection::new(Cause::PayloadNotObject)),
        }
    }
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, Rejection> {
        let header = Json::parse(text).map_err(|error| unreadable(HEADER_SEGMENT, error))?;
        let Json::Object(header) = header else {
            return Err(Rejection::new(Cause::HeaderNotObject));
        };
        refuse_extensions(&header)?;
        let alg = string(&header, "alg", Cause::AlgNotString)?.ok_or(Rejection::new(Cause::AlgMissing))?;
        let kid = string(&header, "kid", Cause::KidNotString)?;
        let typ = string(&header, "typ", Cause::TypNotString)?;
        let cty = string(&header, "cty", Cause::CtyNotString)?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(Rejection::new(Cause::KidTooLong));
        }
        if cty.is_some_and(is_jwt) {
            // RFC 7519 section 5.2: what is signed is another token, whose claims we would take for the outer one's.
            return Err(Rejection::new(Cause::TokenNested));
        }
        Ok(Self { alg: known(alg)?, kid: kid.map(str::to_owned), typ: typ.map(str::to_owned) })
    }
}

fn segments(token: &str) -> Result<[&str; 3], Rejection> {
    let mut segments = token.split('.');
    let (Some(header), Some(payload), Some(signature)) = (segments.next(), segments.next(), segments.next()) else {
        return Err(Rejection::new(Cause::TooFewSegments));
    };
    match segments.take(3).count() {
        0 => {}
        2 => return Err(Rejection::new(Cause::TokenEncrypted)),
        _ => return Err(Rejection::new(Cause::TooManySegments)),
    }
    if header.is_empty() {
        return Err(Rejection::new(Cause::HeaderEmpty));
    }
    if payload.is_empty() {
        return Err(Rejection::new(Cause::PayloadEmpty));
    }
    if signature.is_empty() {
        return Err(Rejection::new(Cause::SignatureEmpty));
    }
    Ok([header, payload, signature])
}

/// Members that change what the rest of the token means. We understand none of these, so each is refused for being
/// there, whatever its value.
fn refuse_extensions(header: &Object<'_>) -> Result<(), Rejection> {
    for (name, cause) in [
        // RFC 7515 section 4.1.11: what is critical and not understood makes the token invalid; empty is invalid anyway.
        ("crit", Cause::HeaderCrit),
        // RFC 7797: with `b64: false` the payload is signed as it stands, and other verifiers read other claims.
        ("b64", Cause::HeaderB64),
        // RFC 7516: of JWE only. A compressed payload would also be a way to make much of little.
        ("zip", Cause::HeaderZip),
        ("enc", Cause::HeaderEnc),
    ] {
        if header.get(name).is_some() {
            return Err(cause.into());
        }
    }
    Ok(())
}

fn string<'h>(header: &'h Object<'_>, name: &str, cause: Cause) -> Result<Option<&'h str>, Rejection> {
    header.get(name).map(|value| value.as_str().ok_or(Rejection::new(cause))).transpose()
}

/// RFC 7515 section 4.1.10: a media type, without regard to case, from which `application/` may be left out.
fn is_jwt(cty: &str) -> bool {
    let subtype = match cty.split_once('/') {
        Some((kind, subtype)) if kind.eq_ignore_ascii_case("application") => subtype,
        _ => cty,
    };
    subtype.eq_ignore_ascii_case("jwt")
}

fn known(alg: &str) -> Result<Algorithm, Rejection> {
    Algorithm::from_name(alg).ok_or_else(|| {
        if alg.eq_ignore_ascii_case("none") {
            return Rejection::new(Cause::AlgNone);
        }
        Rejection::new(Cause::AlgUnknown)
    })
}

/// The bounds have codes of their own: their token is one that its issuer could make smaller.
fn unreadable([syntax, duplicate, too_deep, too_many_members]: [Cause; 4], error: JsonError) -> Rejection {
    Rejection::new(match error {
        JsonError::Syntax => syntax,
        JsonError::Duplicate => duplicate,
        JsonError::TooDeep => too_deep,
        JsonError::TooManyMembers => too_many_members,
    })
}

const HEADER_SEGMENT: [Cause; 4] =
    [Cause::HeaderNotJson, Cause::HeaderDuplicate, Cause::HeaderTooDeep, Cause::HeaderTooManyMembers];
const PAYLOAD: [Cause; 4] =
    [Cause::PayloadNotJson, Cause::PayloadDuplicate, Cause::PayloadTooDeep, Cause::PayloadTooManyMembers];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::RejectReason;
    use crate::json::{MAX_DEPTH, MAX_MEMBERS};

    const HEADER: &str = r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", b64::encode(header), b64::encode(payload))
    }

    fn refusal(token: &str) -> (RejectReason, String) {
        let rejection = Unverified::parse(token.as_bytes(), 8192).err().expect(token);
        (rejection.reason, rejection.cause.to_string())
    }

    fn refused_as_malformed(token: &str, cause: &str) {
        assert_eq!(refusal(token), (RejectReason::TokenMalformed, cause.to_owned()), "{token}");
    }

    #[test]
    fn takes_a_token_apart() {
        let text = token(HEADER, r#"{"sub":"a"}"#);
        let token = Unverified::parse(text.as_bytes(), text.len()).unwrap();
        assert_eq!(token.header(), &Header { alg: Algorithm::Es256, kid: Some("k".into()), typ: Some("JWT".into()) });
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
        let rejection = Unverified::parse(text.as_bytes(), text.len() - 1).err().unwrap();
        assert_eq!(rejection.reason, RejectReason::TokenTooLong);
        assert_eq!(rejection.cause.text(), "the token is longer than limits.token_bytes");
    }

    #[test]
    fn refuses_what_has_not_three_segments() {
        let three = token(HEADER, "{}");
        refused_as_malformed("", "the token is empty");
        refused_as_malformed("e30", "the token has fewer than three segments");
        refused_as_malformed("e30.e30", "the token has fewer than three segments");
        refused_as_malformed(&format!("{three}.e30"), "the token has more than three segments");
        refused_as_malformed(&format!("{three}."), "the token has more than three segments");
        refused_as_malformed(&format!("{three}.e30.e30"), "the token is encrypted (five segments)");
        refused_as_malformed(&format!("{three}.e30.e30.e30"), "the token has more than three segments");
        refused_as_malformed(&".".repeat(8000), "the token has more than three segments");
    }

    #[test]
    fn refuses_an_empty_segment() {
        refused_as_malformed("..", "the header is empty");
        refused_as_malformed(".e30.e30", "the header is empty");
        refused_as_malformed(&format!("{}..c2ln", b64::encode(HEADER)), "the payload is empty");
        refused_as_malformed(&format!("{}.e30.", b64::encode(HEADER)), "the signature is empty");
    }

    #[test]
    fn refuses_padding_white_space_and_trailing_bits_in_each_segment() {
        let header = b64::encode(HEADER);
        for bad in ["c2k=", "c2l", "c2ln=", "c2 ln", "c2ln\n", "c2+n", "c2/n", "c", "c2%6e", "c2\u{0}n"] {
            refused_as_malformed(&format!("{bad}.e30.c2ln"), "the header is not canonical base64url");
            refused_as_malformed(&format!("{header}.{bad}.c2ln"), "the payload is not canonical base64url");
            refused_as_malformed(&format!("{header}.e30.{bad}"), "the signature is not canonical base64url");
        }
        refused_as_malformed(&format!("{header}.e30.é"), "the signature is not canonical base64url");
        assert!(Unverified::parse(&[b'a', b'.', 0xff, b'.', b'a'], 99).is_err());
    }

    #[test]
    fn takes_padding_in_all_segments_or_in_none() {
        let pad = |text: String| format!("{text}{}", "=".repeat(text.len().wrapping_neg() % 4));
        let (header, payload) = (b64::encode(HEADER), b64::encode(r#"{"sub":"a"}"#));
        let (padded_header, padded_payload) = (pad(header.clone()), pad(payload.clone()));
        assert_ne!(payload, padded_payload);
        let parse = |text: &str| {
            let parsed = Unverified::parse_perhaps_padded(text.as_bytes(), 8192);
            parsed.map(|parsed| (parsed.padding(), parsed.payload().to_vec())).map_err(|rejection| rejection.reason)
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
            assert_eq!(parse(&mixed).unwrap_err(), RejectReason::TokenMalformed, "{mixed}");
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
            refused_as_malformed(&token(header, "{}"), "the header is not JSON");
        }
        for header in ["1", "null", "\"alg\"", "[]", r#"[{"alg":"ES256"}]"#] {
            refused_as_malformed(&token(header, "{}"), "the header is not a JSON object");
        }
        let deep = format!(r#"{{"alg":"ES256","x":{}{}}}"#, "[".repeat(40), "]".repeat(40));
        let deep = refusal(&token(&deep, "{}"));
        assert_eq!(deep, (RejectReason::TokenTooDeep, "the header is nested more than 16 levels deep".into()));
    }

    #[test]
    fn each_bound_of_the_payload_has_a_fault_of_its_own() {
        let reason = |payload: &str| {
            let text = token(HEADER, payload);
            let parsed = Unverified::parse(text.as_bytes(), 65_536).unwrap();
            parsed.parse_payload().map(|_| ()).map_err(|rejection| (rejection.reason, rejection.cause.to_string()))
        };
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let object = |members: usize| {
            let members: Vec<String> = (0..members).map(|at| format!("\"{at}\":0")).collect();
            format!("{{\"a\":{{{}}}}}", members.join(","))
        };
        assert_eq!(reason(&nested(MAX_DEPTH)), Ok(()));
        let deep = "the payload is nested more than 16 levels deep".to_owned();
        assert_eq!(reason(&nested(MAX_DEPTH + 1)), Err((RejectReason::TokenTooDeep, deep)));
        assert_eq!(reason(&object(MAX_MEMBERS)), Ok(()));
        let wide = "the payload has an object of more than 1024 members".to_owned();
        assert_eq!(reason(&object(MAX_MEMBERS + 1)), Err((RejectReason::TokenTooManyMembers, wide)));
    }

    /// `docs/faults.md` is made of these words.
    #[test]
    fn the_faults_say_what_the_bounds_are() {
        assert!(RejectReason::TokenTooDeep.when().contains(&MAX_DEPTH.to_string()));
        assert!(RejectReason::TokenTooManyMembers.when().contains(&MAX_MEMBERS.to_string()));
    }

    #[test]
    fn refuses_a_header_with_a_member_twice() {
        for header in [
            r#"{"alg":"ES256","alg":"ES256"}"#,
            r#"{"alg":"ES256","\u0061lg":"none"}"#,
            r#"{"alg":"ES256","kid":"a","k\u0069d":"b"}"#,
            r#"{"alg":"ES256","jwk":{"x":1,"x":2}}"#,
        ] {
            refused_as_malformed(&token(header, "{}"), "the header has a member twice in one object");
        }
    }

    #[test]
    fn refuses_members_of_the_wrong_type() {
        refused_as_malformed(&token("{}", "{}"), "the header has no alg");
        refused_as_malformed(&token(r#"{"ALG":"ES256"}"#, "{}"), "the header has no alg");
        for value in ["null", "1", "true", "[]", "{}", r#"["ES256"]"#] {
            let bad = |name: &str| token(&format!(r#"{{"x":"","{name}":{value}}}"#), "{}");
            let with_alg = |name: &str| token(&format!(r#"{{"alg":"ES256","{name}":{value}}}"#), "{}");
            refused_as_malformed(&bad("alg"), Cause::AlgNotString.text());
            refused_as_malformed(&with_alg("kid"), Cause::KidNotString.text());
            refused_as_malformed(&with_alg("typ"), Cause::TypNotString.text());
            refused_as_malformed(&with_alg("cty"), Cause::CtyNotString.text());
        }
    }

    #[test]
    fn refuses_a_kid_of_257_bytes() {
        let with_kid = |length: usize| token(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(length)), "{}");
        assert!(Unverified::parse(with_kid(MAX_KID_BYTES).as_bytes(), 8192).is_ok());
        refused_as_malformed(&with_kid(MAX_KID_BYTES + 1), "the header's kid is too long");
    }

    #[test]
    fn does_not_allow_none_in_any_case() {
        for alg in ["none", "None", "NONE", "nOnE", "n\\u006fne"] {
            let (reason, cause) = refusal(&token(&format!(r#"{{"alg":"{alg}"}}"#), "{}"));
            assert_eq!((reason, cause.as_str()), (RejectReason::AlgNotAllowed, "the header's alg is none"));
        }
    }

    #[test]
    fn does_not_allow_an_algorithm_it_does_not_know() {
        for alg in ["", "es256", "ES256K", "ES521", "HS1", "RSA-OAEP", "dir", "Ed448", "ed25519", " none", "none "] {
            let (reason, cause) = refusal(&token(&format!(r#"{{"alg":"{alg}"}}"#), "{}"));
            assert_eq!((reason, cause.as_str()), (RejectReason::AlgNotAllowed, "the header's alg is unknown"));
        }
    }

    #[test]
    fn refuses_every_extension_whatever_it_holds() {
        for name in ["crit", "b64", "zip", "enc"] {
            for value in ["null", "[]", "true", "false", "\"\"", r#"["exp"]"#, r#"["b64"]"#] {
                let header = format!(r#"{{"alg":"ES256","{name}":{value}}}"#);
                refused_as_malformed(&token(&header, "{}"), &format!("the header has {name}"));
            }
        }
    }

    #[test]
    fn refuses_a_token_in_a_token() {
        for cty in ["JWT", "jwt", "Jwt", "application/jwt", "APPLICATION/JWT"] {
            let header = format!(r#"{{"alg":"ES256","cty":"{cty}"}}"#);
            refused_as_malformed(&token(&header, "{}"), "the token holds a nested token (cty)");
        }
        assert!(Unverified::parse(token(r#"{"alg":"ES256","cty":"json"}"#, "{}").as_bytes(), 8192).is_ok());
    }

    #[test]
    fn ignores_keys_that_the_token_brings_along() {
        let header = r#"{"alg":"ES256","jku":"http://evil","x5u":1,"jwk":{"kty":"oct","k":""},"x5c":[],"x5t":{}}"#;
        let text = token(header, "{}");
        let token = Unverified::parse(text.as_bytes(), 8192).unwrap();
        assert_eq!(token.header(), &Header { alg: Algorithm::Es256, kid: None, typ: None });
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
            let rejection = Unverified::parse(text.as_bytes(), 8192).unwrap().parse_payload().unwrap_err();
            assert_eq!((rejection.reason, rejection.cause.text()), (RejectReason::TokenMalformed, cause), "{payload}");
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
}
