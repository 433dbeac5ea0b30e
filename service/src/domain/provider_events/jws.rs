//! The tokens of providers, as JWSs: how long they may be, and why one is refused.
use jose::{JwsError, Unverified, plain_type};

use super::error::RejectReason;

/// The longest token that is read, in bytes. Logout tokens and events have a few hundred.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// # Errors
/// It is no signed token in compact form, or needs a feature that is not supported.
pub fn parse(token: &str) -> Result<Unverified<'_>, RejectReason> {
    Unverified::parse(token.as_bytes(), MAX_TOKEN_BYTES).map_err(|error| match error {
        JwsError::AlgNone | JwsError::AlgUnknown => RejectReason::Algorithm,
        JwsError::TooLong => RejectReason::Malformed(format!("the token has more than {MAX_TOKEN_BYTES} bytes")),
        error => RejectReason::Malformed(error.to_string()),
    })
}

/// Whether `typ` is one of `types`, in any case and with or without `application/` (RFC 7515 section 4.1.9).
pub fn is_typed(token: &Unverified<'_>, types: &[&str]) -> bool {
    token.header().typ.as_deref().is_some_and(|typ| types.contains(&plain_type(typ).as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jose::{Algorithm, base64url};

    fn token(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", base64url::encode(header), base64url::encode(payload))
    }

    #[test]
    fn a_signed_token_is_taken_apart() {
        let text = token(r#"{"alg":"RS256","kid":"k","typ":"application/Logout+JWT"}"#, "{}");
        let token = parse(&text).unwrap();
        assert_eq!((token.header().alg, token.header().kid.as_deref()), (Algorithm::RS256, Some("k")));
        assert_eq!((token.payload(), token.signature()), (b"{}".as_slice(), b"sig".as_slice()));
        assert!(is_typed(&token, &["logout+jwt"]) && !is_typed(&token, &["jwt"]));
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
            assert!(matches!(parse(&bad), Err(RejectReason::Malformed(_))), "{bad}");
        }
        for alg in ["none", "None", "hs256", "rs256", ""] {
            let text = token(&format!(r#"{{"alg":"{alg}"}}"#), "{}");
            assert!(matches!(parse(&text), Err(RejectReason::Algorithm)), "{alg}");
        }
    }
}
