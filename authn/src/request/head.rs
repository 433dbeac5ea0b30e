//! A request's head, as the core reads it: pseudo headers apart, the others as they came.
use crate::reject::{Cause, Rejection};
use crate::request::path::PlainPath;

/// A header's name and value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// The most header pairs that are read, pseudo headers included.
pub const MAX_HEADERS: usize = 256;

#[derive(Clone, Copy)]
pub struct Request<'a> {
    method: &'a [u8],
    path: &'a [u8],
    authority: &'a [u8],
    scheme: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
    body_follows: bool,
    headers: &'a [Pair<'a>],
}

impl<'a> Request<'a> {
    /// From the whole header map, in order. Only a CONNECT may lack `:path` (RFC 9113 section 8.5); its path is empty.
    pub fn from_pairs(headers: &'a [Pair<'a>]) -> Result<Self, Rejection> {
        if headers.len() > MAX_HEADERS {
            return Err(Cause::TooManyHeaders.into());
        }
        let (mut method, mut path, mut authority, mut scheme, mut protocol) = (None, None, None, None, None);
        for (name, value) in headers {
            let place = match *name {
                b":method" => &mut method,
                b":path" => &mut path,
                b":authority" => &mut authority,
                b":scheme" => &mut scheme,
                b":protocol" => &mut protocol,
                [b':', ..] => return Err(Cause::PseudoHeaderUnknown.into()),
                [] => return Err(Cause::HeaderNameEmpty.into()),
                // Envoy makes `:authority` of it. One that is left is a second host, for the backend to believe.
                name if name.eq_ignore_ascii_case(b"host") => return Err(Cause::HostBesideAuthority.into()),
                _ => continue,
            };
            if place.replace(*value).is_some() {
                return Err(Cause::PseudoHeaderRepeated.into());
            }
        }
        let method = method.ok_or(Cause::MethodMissing)?;
        // `delete` matches no rule for DELETE, and many backends take it for one.
        if !is_method(method) {
            return Err(Cause::MethodCharacters.into());
        }
        let path = match path {
            Some(path) => path,
            None if method == CONNECT => &[],
            None => return Err(Cause::PathMissing.into()),
        };
        let authority = authority.ok_or(Cause::AuthorityMissing)?;
        Ok(Self { method, path, authority, scheme, protocol, body_follows: false, headers })
    }

    /// Says whether the request goes on after its headers. The headers alone do not tell: in HTTP/2 a body can follow
    /// unannounced.
    pub fn with_body_to_follow(self, body_follows: bool) -> Self {
        Self { body_follows, ..self }
    }

    pub fn method(&self) -> &'a [u8] {
        self.method
    }

    /// With its query; empty for a CONNECT without one.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// PATH_SUSPICIOUS where the path has more than one reading, and ROUTE_UNMATCHED for every CONNECT: it may lack a
    /// path, and no rule admits it anyway.
    pub fn plain_path(&self) -> Result<PlainPath<'a>, Rejection> {
        if self.is_connect() {
            return Err(Rejection::new(Cause::Connect));
        }
        PlainPath::check(self.path)
    }

    /// With its port.
    pub fn authority(&self) -> &'a [u8] {
        self.authority
    }

    pub fn scheme(&self) -> Option<&'a [u8]> {
        self.scheme
    }

    /// Every pair, pseudo headers included.
    pub fn headers(&self) -> &'a [Pair<'a>] {
        self.headers
    }

    /// Every value of a header, in order.
    pub fn header_values<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The value of a header that is there exactly once. None says absent or repeated: for callers that refuse both.
    pub fn sole_value(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut values = self.header_values(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// A tunnel to wherever the client says. No rule admits one.
    pub fn is_connect(&self) -> bool {
        self.method == CONNECT
    }

    /// Does the connection become something else than HTTP: `Upgrade` (RFC 9110 section 7.8) or extended CONNECT (RFC 8441)?
    pub fn is_upgrade(&self) -> bool {
        self.protocol.is_some() || self.header_values(b"upgrade").next().is_some()
    }

    /// Does a body follow, or does anything say that one does?
    pub fn may_have_body(&self) -> bool {
        self.body_follows
            || self.header_values(b"transfer-encoding").next().is_some()
            || self.header_values(b"content-length").any(|length| length != b"0")
    }

    /// As the Fetch standard has it: OPTIONS with one Origin and one Access-Control-Request-Method.
    pub fn is_cors_preflight(&self) -> bool {
        self.method == b"OPTIONS"
            && self.sole_value(b"origin").is_some()
            && self.sole_value(b"access-control-request-method").is_some()
    }
}

pub(crate) const CONNECT: &[u8] = b"CONNECT";

/// Upper case, as every method is that backends know. RFC 9110 section 9.1 has methods in any case, and compares them so;
/// many backends do not.
pub(crate) fn is_method(method: &[u8]) -> bool {
    !method.is_empty() && method.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reject::RejectReason;

    const GET: [Pair<'static>; 3] = [(b":method", b"GET"), (b":path", b"/a?b"), (b":authority", b"api.example")];

    fn with<'a>(more: &[Pair<'a>]) -> Vec<Pair<'a>> {
        GET.into_iter().chain(more.iter().copied()).collect()
    }

    fn reason(pairs: &[Pair<'_>]) -> Option<RejectReason> {
        Request::from_pairs(pairs).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn reads_the_pseudo_headers() {
        let pairs = with(&[(b":scheme", b"https"), (b"accept", b"*/*")]);
        let request = Request::from_pairs(&pairs).unwrap();
        assert_eq!(request.method(), b"GET");
        assert_eq!(request.path(), b"/a?b");
        assert_eq!(request.authority(), b"api.example");
        assert_eq!(request.scheme(), Some(&b"https"[..]));
        assert_eq!(request.header_values(b"accept").collect::<Vec<_>>(), [b"*/*"]);
        assert!(!request.is_upgrade() && !request.is_cors_preflight() && !request.is_connect());
    }

    #[test]
    fn a_missing_pseudo_header_is_refused() {
        for missing in 0..GET.len() {
            let mut pairs = GET.to_vec();
            pairs.remove(missing);
            assert_eq!(reason(&pairs), Some(RejectReason::RequestMalformed), "{missing}");
        }
        assert_eq!(reason(&[]), Some(RejectReason::RequestMalformed));
    }

    #[test]
    fn a_repeated_pseudo_header_is_refused_even_with_the_same_value() {
        for pair in GET {
            assert_eq!(reason(&with(&[pair])), Some(RejectReason::RequestMalformed));
        }
    }

    #[test]
    fn unknown_pseudo_headers_nameless_headers_and_a_second_host_are_refused() {
        for pair in [(&b":status"[..], &b"200"[..]), (b":", b"x"), (b"", b"x"), (b"host", b"api.example")] {
            assert_eq!(reason(&with(&[pair])), Some(RejectReason::RequestMalformed), "{pair:?}");
        }
    }

    #[test]
    fn a_method_is_in_upper_case() {
        let with_method = |method: &'static [u8]| -> [Pair<'static>; 3] {
            [(b":method", method), (b":path", b"/"), (b":authority", b"a")]
        };
        for method in
            [&b""[..], b"delete", b"Delete", b"DELETe", b"DELETE#", b"GET ", b"connect", b"G\xcbT", b"GET,POST"]
        {
            assert_eq!(reason(&with_method(method)), Some(RejectReason::RequestMalformed), "{}", method.escape_ascii());
        }
        for method in [&b"GET"[..], b"M-SEARCH", b"VERSION_2", b"PATCH"] {
            assert_eq!(reason(&with_method(method)), None, "{}", method.escape_ascii());
        }
    }

    #[test]
    fn takes_256_pairs_and_not_one_more() {
        let filler = vec![(&b"x"[..], &b"y"[..]); MAX_HEADERS - GET.len()];
        let mut pairs = with(&filler);
        assert_eq!(reason(&pairs), None);
        pairs.push((b"x", b"y"));
        assert_eq!(reason(&pairs), Some(RejectReason::RequestMalformed));
    }

    #[test]
    fn only_connect_may_lack_a_path() {
        let pairs: [Pair<'_>; 2] = [(b":method", b"CONNECT"), (b":authority", b"a:443")];
        let request = Request::from_pairs(&pairs).unwrap();
        assert!(request.is_connect());
        assert_eq!(request.path(), b"");
    }

    #[test]
    fn connect_matches_no_rule_whatever_its_path() {
        let plain = |method: &'static [u8], path: &'static [u8]| {
            let pairs: [Pair<'_>; 3] = [(b":method", method), (b":path", path), (b":authority", b"a")];
            Request::from_pairs(&pairs)
                .unwrap()
                .plain_path()
                .map(|path| path.raw().to_vec())
                .map_err(|rejection| rejection.reason)
        };
        assert_eq!(plain(b"CONNECT", b"/a"), Err(RejectReason::RouteUnmatched));
        assert_eq!(plain(b"CONNECT", b"//"), Err(RejectReason::RouteUnmatched));
        assert_eq!(plain(b"GET", b"//"), Err(RejectReason::PathSuspicious));
        assert_eq!(plain(b"OPTIONS", b"*"), Err(RejectReason::PathSuspicious));
        assert_eq!(plain(b"GET", b"/a?b"), Ok(b"/a".to_vec()));
    }

    #[test]
    fn an_upgrade_is_seen_in_both_forms() {
        for pair in [(&b"upgrade"[..], &b"websocket"[..]), (b":protocol", b"websocket")] {
            assert!(Request::from_pairs(&with(&[pair])).unwrap().is_upgrade());
        }
    }

    #[test]
    fn a_preflight_is_options_with_one_origin_and_a_requested_method() {
        let preflight = |method: &'static [u8], more: &[Pair<'static>]| {
            let mut pairs = with(more);
            pairs[0].1 = method;
            Request::from_pairs(&pairs).unwrap().is_cors_preflight()
        };
        let origin: Pair<'_> = (b"origin", b"https://a.example");
        let asks: Pair<'_> = (b"access-control-request-method", b"PUT");
        assert!(preflight(b"OPTIONS", &[origin, asks]));
        assert!(!preflight(b"OPTIONS", &[origin]));
        assert!(!preflight(b"OPTIONS", &[asks]));
        assert!(!preflight(b"OPTIONS", &[origin, origin, asks]));
        assert!(!preflight(b"OPTIONS", &[origin, asks, asks]));
        assert!(!preflight(b"POST", &[origin, asks]));
    }

    #[test]
    fn a_sole_value_is_neither_absent_nor_repeated() {
        let (one, two) = (with(&[(b"a", b"1")]), with(&[(b"a", b"1"), (b"a", b"1")]));
        assert_eq!(Request::from_pairs(&one).unwrap().sole_value(b"a"), Some(&b"1"[..]));
        assert_eq!(Request::from_pairs(&two).unwrap().sole_value(b"a"), None);
        assert_eq!(Request::from_pairs(&one).unwrap().sole_value(b"b"), None);
    }
}
