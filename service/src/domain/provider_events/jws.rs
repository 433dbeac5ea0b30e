//! One signed token in compact form (RFC 7515 section 7.1), taken apart and nothing believed yet.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::algorithm::Algorithm;
use super::error::RejectReason;

/// The longest token that is looked at, in bytes. Logout tokens and events have a few hundred.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

pub struct Unverified<'t> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub typ: Option<String>,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// `header.payload` as it was sent.
    pub input: &'t str,
}

/// A member of the header twice is an error here, as RFC 7515 section 4 allows.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<()>,
    #[serde(default, deserialize_with = "present")]
    b64: Option<()>,
    #[serde(default, deserialize_with = "present")]
    zip: Option<()>,
    #[serde(default, deserialize_with = "present")]
    enc: Option<()>,
}

impl<'t> Unverified<'t> {
    /// # Errors
    /// It is no such token, or needs a feature that is not supported.
    pub fn read(token: &'t str) -> Result<Self, RejectReason> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(RejectReason::Malformed(format!("the token has more than {MAX_TOKEN_BYTES} bytes")));
        }
        let malformed = |what: &str| RejectReason::Malformed(format!("the token {what}"));
        let (input, signature) = token.rsplit_once('.').ok_or_else(|| malformed("is no signed JWT in compact form"))?;
        let (header, payload) = input.split_once('.').ok_or_else(|| malformed("is no signed JWT in compact form"))?;
        if payload.contains('.') {
            return Err(malformed("has more than three parts; encrypted ones are not taken"));
        }
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("is not base64url"));
        let header: Header = serde_json::from_slice(&bytes(header)?)
            .map_err(|error| malformed(&format!("has a bad header: {error}")))?;
        for (name, given) in [("crit", header.crit), ("b64", header.b64), ("zip", header.zip), ("enc", header.enc)] {
            if given.is_some() {
                return Err(malformed(&format!("has `{name}` in its header, which is not taken")));
            }
        }
        Ok(Self {
            // `none` is not among them.
            algorithm: Algorithm::from_name(&header.alg).ok_or(RejectReason::Algorithm)?,
            kid: header.kid,
            typ: header.typ,
            payload: bytes(payload)?,
            signature: bytes(signature)?,
            input,
        })
    }

    /// Whether `typ` is one of `types`, in any case and with or without `application/` (RFC 7515 section 4.1.9).
    pub fn is_typed(&self, types: &[&str]) -> bool {
        let Some(typ) = &self.typ else { return false };
        let typ = typ.to_ascii_lowercase();
        types.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
    }
}

/// There, whatever it is: null too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<()>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| Some(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_signed_token_is_taken_apart() {
        let text = token(r#"{"alg":"RS256","kid":"k","typ":"application/Logout+JWT"}"#, "{}");
        let token = Unverified::read(&text).unwrap();
        assert_eq!((token.algorithm, token.kid.as_deref()), (Algorithm::RS256, Some("k")));
        assert_eq!((token.payload.as_slice(), token.signature.as_slice()), (b"{}".as_slice(), b"sig".as_slice()));
        assert!(token.is_typed(&["logout+jwt"]) && !token.is_typed(&["jwt"]));
    }

    #[test]
    fn other_shapes_are_refused() {
        for bad in [
            String::new(),
            "a.b".into(),
            "..".into(),
            "a.b.c.d.e".into(),
            format!("{}=", token(r#"{"alg":"RS256"}"#, "{}")),
            token("{}", "{}"),
            token("[]", "{}"),
            token(r#"{"alg":"RS256","alg":"RS256"}"#, "{}"),
            token(r#"{"alg":"RS256","crit":["x"]}"#, "{}"),
            token(r#"{"alg":"RS256","crit":null}"#, "{}"),
            token(r#"{"alg":"RS256","b64":false}"#, "{}"),
            token(r#"{"alg":"RS256","zip":"DEF"}"#, "{}"),
            token(r#"{"alg":"RS256","enc":"A128GCM"}"#, "{}"),
            token(r#"{"alg":"RS256"}"#, &"x".repeat(MAX_TOKEN_BYTES)),
        ] {
            assert!(matches!(Unverified::read(&bad), Err(RejectReason::Malformed(_))), "{bad}");
        }
        for alg in ["none", "None", "hs256", "rs256", ""] {
            let text = token(&format!(r#"{{"alg":"{alg}"}}"#), "{}");
            assert!(matches!(Unverified::read(&text), Err(RejectReason::Algorithm)), "{alg}");
        }
    }
}
