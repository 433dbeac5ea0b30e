//! The line about one refused request, as JSON: what it asked for, why it was refused, and what its token says about
//! itself. Text from clients is cut and escaped to ASCII, so that it cannot end a line or write to a terminal.
use std::fmt::Write as _;

use authn::decide::TokenSummary;
use authn::reject::Rejection;
use authn::request::Pair;
use authn::time::UnixSeconds;

/// The most characters of one text.
const MAX_TEXT: usize = 200;
/// The longest request id that is repeated.
const MAX_ID: usize = 64;

/// What the log says of a request.
#[derive(Debug, Default)]
pub struct RequestFacts {
    /// The proxy's `x-request-id`, if a URN may have its characters.
    pub id: Option<String>,
    method: String,
    host: String,
    /// Without its query, which may contain a token.
    path: String,
}

/// One refused request.
pub struct RefusalLine<'l> {
    pub at: Option<UnixSeconds>,
    pub request: &'l RequestFacts,
    pub rule: Option<&'l str>,
    pub status: u16,
    pub rejection: &'l Rejection,
    pub token: Option<PresentedToken>,
}

pub struct PresentedToken {
    /// Its signature was verified, or its issuer's server knows it.
    pub is_verified: bool,
    pub summary: TokenSummary,
}

impl RequestFacts {
    pub fn of(pairs: &[Pair<'_>]) -> Self {
        let value = |wanted: &[u8]| pairs.iter().find(|(name, _)| *name == wanted).map_or(&b""[..], |(_, value)| value);
        let path = value(b":path").split(|byte| *byte == b'?').next().unwrap_or_default();
        Self {
            id: request_id(value(b"x-request-id")),
            method: cut(value(b":method")),
            host: cut(value(b":authority")),
            path: cut(path),
        }
    }
}

/// A client can choose it, where the proxy keeps it.
fn request_id(value: &[u8]) -> Option<String> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:=+/@,".contains(byte);
    if value.is_empty() || value.len() > MAX_ID || !value.iter().all(is_plain) {
        return None;
    }
    String::from_utf8(value.to_vec()).ok()
}

/// One character more than is written, so that the cut can be seen.
fn cut(bytes: &[u8]) -> String {
    let most = MAX_TEXT.saturating_add(1).saturating_mul(4);
    String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes)).into_owned()
}

impl RefusalLine<'_> {
    /// A JSON object in one line of ASCII. Absent members are left out.
    pub fn text(&self) -> String {
        let mut line = Members(String::with_capacity(512));
        line.number("at", self.at.map(|at| at.0));
        line.text("request_id", self.request.id.as_deref());
        line.text("method", Some(&self.request.method));
        line.text("host", Some(&self.request.host));
        line.text("path", Some(&self.request.path));
        line.text("rule", self.rule);
        line.text("code", Some(self.rejection.reason.code()));
        line.number("status", Some(self.status));
        line.text("cause", Some(self.rejection.cause.text()));
        line.text("detail", self.rejection.detail.as_deref());
        if let Some(PresentedToken { is_verified, summary }) = &self.token {
            line.raw("verified", if *is_verified { "true" } else { "false" });
            if let Some((kind, key)) = &summary.ended_by {
                line.text("revoked_by", Some(kind.name()));
                line.text("revocation", Some(&key.to_string()));
            }
            line.text("issuer", summary.issuer.as_deref());
            if !summary.audience.is_empty() {
                let values: Vec<String> = summary.audience.iter().map(|value| quoted(value)).collect();
                line.raw("audience", &format!("[{}]", values.join(",")));
            }
            line.text("kid", summary.kid.as_deref());
            line.number("age", summary.age);
            line.number("expires_in", summary.expires_in);
            line.number("skew", summary.skew);
            line.text("subject", summary.subject.map(|key| key.to_string()).as_deref());
        }
        format!("{{{}}}", line.0)
    }
}

/// The members of an object.
struct Members(String);

impl Members {
    fn raw(&mut self, name: &str, value: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(self.0, "{comma}\"{name}\":{value}");
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.raw(name, &quoted(value));
        }
    }

    fn number<N: std::fmt::Display>(&mut self, name: &str, value: Option<N>) {
        if let Some(value) = value {
            self.raw(name, &value.to_string());
        }
    }
}

/// A JSON string of ASCII. What is beyond its first characters becomes `...`.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().min(MAX_TEXT).saturating_add(2));
    quoted.push('"');
    let mut characters = text.chars();
    for character in characters.by_ref().take(MAX_TEXT) {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(quoted, "\\u{unit:04x}");
                }
            }
        }
    }
    if characters.next().is_some() {
        quoted.push_str("...");
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use authn::reject::Cause;
    use serde_json::{Value, json};

    use super::*;

    fn line(request: &RequestFacts, token: Option<TokenSummary>) -> String {
        let rejection = Rejection::with_detail(Cause::ClaimMissing, "tenant");
        let token = token.map(|summary| PresentedToken { is_verified: false, summary });
        let at = Some(UnixSeconds(7));
        RefusalLine { at, request, rule: Some("api"), status: 401, rejection: &rejection, token }.text()
    }

    #[test]
    fn a_line_is_one_object_without_what_is_not_known() {
        let pairs: [Pair<'_>; 4] =
            [(b":method", b"GET"), (b":path", b"/a?access_token=x"), (b":authority", b"h"), (b"x-request-id", b"r-1")];
        let summary = TokenSummary { age: Some(-3), audience: vec!["a".into()], ..TokenSummary::default() };
        let text = line(&RequestFacts::of(&pairs), Some(summary));
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "at": 7, "request_id": "r-1", "method": "GET", "host": "h", "path": "/a", "rule": "api",
            "code": "INVALID_CLAIM", "status": 401, "cause": "a claim that the issuer requires is missing",
            "detail": "tenant", "verified": false, "audience": ["a"], "age": -3,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn text_of_a_client_is_cut_and_cannot_leave_its_string() {
        let path = [b"/\"\n\x1b[2J\xff\xe2\x80\xae".as_slice(), "\u{1f600}".repeat(1000).as_bytes()].concat();
        let pairs: [Pair<'_>; 2] = [(b":path", &path), (b"x-request-id", b"a b\"")];
        let summary = TokenSummary { issuer: Some("x".repeat(5000)), ..TokenSummary::default() };
        let text = line(&RequestFacts::of(&pairs), Some(summary));
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        assert!(text.len() < 4000, "{}", text.len());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["path"].as_str().unwrap().starts_with("/\"\n\u{1b}[2J\u{fffd}\u{202e}"), "{text}");
        assert!(value["path"].as_str().unwrap().ends_with("..."), "{text}");
        assert_eq!(value["issuer"].as_str().map(str::len), Some(203));
        assert_eq!(value["request_id"], Value::Null);
    }
}
