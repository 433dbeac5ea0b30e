//! Tokens in `Sec-WebSocket-Protocol` (RFC 6455 section 11.3.4), the only header of a WebSocket handshake that a
//! browser lets a page set. The rules are those of Kubernetes' API server, which introduced this.
use std::borrow::Cow;

use jose::base64url;

use crate::config::{Invalid, WebsocketEncoding, WebsocketSource};
use crate::reject::{Cause, Rejection};
use crate::request::Request;
use crate::request::headers::is_token;

/// In lower case.
pub(super) const HEADER: &str = "sec-websocket-protocol";

/// One encoding of a token as a subprotocol.
#[derive(Debug)]
struct Form {
    prefix: Box<[u8]>,
    encoding: WebsocketEncoding,
}

/// All of them, of which at most one fits a subprotocol.
#[derive(Debug, Default)]
pub(super) struct WebsocketTokens(Vec<Form>);

impl WebsocketTokens {
    pub fn compile(sources: &[WebsocketSource]) -> Result<Self, Invalid> {
        let mut forms: Vec<Form> = Vec::new();
        for (index, WebsocketSource { prefix, encoding }) in sources.iter().enumerate() {
            let invalid = |message| Err(Invalid::new(format!("websocket[{index}].prefix"), message));
            if !is_token(prefix.as_bytes()) {
                return invalid("is not the beginning of a subprotocol's name (RFC 6455 section 4.1)");
            }
            let prefix: Box<[u8]> = prefix.as_bytes().into();
            let begins = |one: &[u8], other: &[u8]| strip(one, other).is_some();
            if forms.iter().any(|form| begins(&form.prefix, &prefix) || begins(&prefix, &form.prefix)) {
                return invalid("is a prefix of an earlier one, or an earlier one of it: a token could match both");
            }
            forms.push(Form { prefix, encoding: *encoding });
        }
        Ok(Self(forms))
    }

    pub fn is_header(&self, name: &[u8]) -> bool {
        !self.0.is_empty() && name.eq_ignore_ascii_case(HEADER.as_bytes())
    }

    /// Index and encoded token of each subprotocol of a header's value that is a token.
    pub fn tokens<'t, 'a: 't>(&'t self, value: &'a [u8]) -> impl Iterator<Item = (usize, &'a [u8])> + 't {
        subprotocols(value).filter_map(|subprotocol| self.token(subprotocol))
    }

    /// The decoded token.
    ///
    /// # Errors
    /// `TokenMalformed` outside a handshake, without another subprotocol, and if the encoding is wrong.
    pub fn decode<'a>(
        &self,
        index: usize,
        written: &'a [u8],
        request: &Request<'_>,
    ) -> Result<Cow<'a, [u8]>, Rejection> {
        if !is_handshake(request) {
            return Err(Cause::SubprotocolWithoutHandshake.into());
        }
        // The server must choose one (RFC 6455 section 4.2.2), and a browser fails the connection if it chooses none.
        let mut all = request.header_values(HEADER.as_bytes()).flat_map(subprotocols);
        if !all.any(|subprotocol| self.token(subprotocol).is_none()) {
            return Err(Cause::SubprotocolAlone.into());
        }
        match self.0.get(index).map(|form| form.encoding) {
            Some(WebsocketEncoding::Plain) => Ok(Cow::Borrowed(written)),
            Some(WebsocketEncoding::Base64url) | None => {
                let decoded = base64url::decode(written);
                decoded.map(Cow::Owned).map_err(|_| Cause::SubprotocolNotBase64.into())
            }
        }
    }

    /// The header without tokens, as one value. `None`: there are none. `Some(None)`: nothing is left, and the header
    /// must be removed.
    pub fn without_tokens(&self, request: &Request<'_>) -> Option<Option<Vec<u8>>> {
        if self.0.is_empty() {
            return None;
        }
        let all = || request.header_values(HEADER.as_bytes()).flat_map(subprotocols);
        if !all().any(|subprotocol| self.token(subprotocol).is_some()) {
            return None;
        }
        let kept: Vec<_> = all().filter(|subprotocol| self.token(subprotocol).is_none()).collect();
        Some((!kept.is_empty()).then(|| kept.join(&b", "[..])))
    }

    fn token<'a>(&self, subprotocol: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let mut forms = self.0.iter().enumerate();
        forms.find_map(|(index, form)| strip(subprotocol, &form.prefix).map(|token| (index, token)))
    }
}

fn subprotocols(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|subprotocol| !subprotocol.is_empty())
}

/// Ignores case: a backend that ignores case must not find a token that we did not check.
fn strip<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (begin, rest) = text.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Envoy turns HTTP/2's extended CONNECT (RFC 8441) into an `Upgrade` before any filter sees it.
fn is_handshake(request: &Request<'_>) -> bool {
    let is_websocket = |name: &[u8]| name.eq_ignore_ascii_case(b"websocket");
    request.header_values(b"upgrade").any(is_websocket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::RejectReason;
    use crate::request::Pair;

    const KUBERNETES: &str = "base64url.bearer.authorization.k8s.io.";

    fn source(prefix: &str, encoding: WebsocketEncoding) -> WebsocketSource {
        WebsocketSource { prefix: prefix.into(), encoding }
    }

    fn tokens() -> WebsocketTokens {
        let sources = [source(KUBERNETES, WebsocketEncoding::Base64url), source("bearer.", WebsocketEncoding::Plain)];
        WebsocketTokens::compile(&sources).unwrap()
    }

    fn pairs<'a>(values: &[&'a str]) -> Vec<Pair<'a>> {
        let mut pairs: Vec<Pair<'a>> = vec![(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a")];
        pairs.push((b"upgrade", b"WebSocket"));
        pairs.extend(values.iter().map(|value| (HEADER.as_bytes(), value.as_bytes())));
        pairs
    }

    #[test]
    fn a_token_is_found_among_the_subprotocols() {
        let tokens = tokens();
        let found = |value: &'static str| tokens.tokens(value.as_bytes()).collect::<Vec<_>>();
        assert_eq!(found("chat, bearer.x.y"), [(1, &b"x.y"[..])]);
        assert_eq!(found("base64url.bearer.authorization.k8s.io.eC55,chat"), [(0, &b"eC55"[..])]);
        assert_eq!(found("Bearer.x,\tBEARER.y"), [(1, &b"x"[..]), (1, b"y")]);
        assert_eq!(found("bearer., bearer"), [(1, &b""[..])]);
        assert_eq!(found("chat, xbearer.x, base64url.bearer.authorization.k8s.i"), []);
    }

    #[test]
    fn it_is_decoded_only_beside_another_subprotocol_and_in_a_handshake() {
        let tokens = tokens();
        let decode = |index, written: &'static str, values: &[&str], without: &[u8]| {
            let mut pairs = pairs(values);
            pairs.retain(|(name, _)| *name != without);
            let request = Request::from_pairs(&pairs).unwrap();
            tokens
                .decode(index, written.as_bytes(), &request)
                .map(Cow::into_owned)
                .map_err(|rejection| rejection.reason)
        };
        assert_eq!(decode(0, "eC55", &["chat"], b""), Ok(b"x.y".to_vec()));
        assert_eq!(decode(1, "eC55", &["bearer.eC55", "chat"], b""), Ok(b"eC55".to_vec()));
        let malformed = Err(RejectReason::TokenMalformed);
        for bad in ["eC5", "eC55=", "e C5", "eC+5"] {
            assert_eq!(decode(0, bad, &["chat"], b""), malformed, "{bad}");
        }
        assert_eq!(decode(0, "eC55", &["bearer.eC55, bearer.x, ,"], b""), malformed);
        assert_eq!(decode(0, "eC55", &["chat"], b"upgrade"), malformed);
    }

    #[test]
    fn what_is_no_token_stays_in_its_order() {
        let tokens = tokens();
        let rest = |values: &[&str]| {
            let pairs = pairs(values);
            let rest = tokens.without_tokens(&Request::from_pairs(&pairs).unwrap());
            rest.map(|rest| rest.map(|rest| String::from_utf8(rest).unwrap()))
        };
        assert_eq!(rest(&["b, bearer.x,a"]), Some(Some("b, a".into())));
        assert_eq!(rest(&["b,Bearer.x", "a"]), Some(Some("b, a".into())));
        assert_eq!(rest(&["bearer.x"]), Some(None));
        assert_eq!(rest(&["b,a"]), None);
        assert_eq!(rest(&[]), None);
    }

    #[test]
    fn a_wrong_prefix_is_refused_with_its_field() {
        let compile = |prefixes: &[&str]| {
            let sources: Vec<_> = prefixes.iter().map(|prefix| source(prefix, WebsocketEncoding::Base64url)).collect();
            WebsocketTokens::compile(&sources).map(|_| ()).map_err(|invalid| invalid.field)
        };
        assert_eq!(compile(&["a.", "b."]), Ok(()));
        for prefix in ["", "a b", "a,b", "a=", "\u{e9}"] {
            assert_eq!(compile(&["ok.", prefix]), Err("websocket[1].prefix".to_owned()), "{prefix:?}");
        }
        for (one, other) in [("a.", "a."), ("a.", "A.b"), ("a.b", "a.")] {
            assert_eq!(compile(&[one, other]), Err("websocket[1].prefix".to_owned()), "{one} {other}");
        }
    }
}
