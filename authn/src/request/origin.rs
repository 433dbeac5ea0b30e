//! Where a request with a cookie comes from. A browser sends cookies with requests that other sites cause, so a token
//! in a cookie does not show that its owner wanted the request (RFC 6265 section 8.2).
use crate::config::Invalid;
use crate::request::Request;
use crate::request::host::{Host, split_port};

/// The origins that a rule lists.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    listed: Vec<Box<[u8]>>,
    /// Browsers that say what caused a request are believed: no script can set Sec-Fetch-Site (Fetch Metadata, W3C).
    by_fetch_site: bool,
}

impl Origins {
    /// Each as a browser would send it (RFC 6454 section 6.2): `scheme://host[:port]`, without the scheme's default
    /// port.
    pub fn compile(origins: &[String], by_fetch_site: bool) -> Result<Self, Invalid> {
        let compile = |(index, origin): (usize, &String)| {
            compile_origin(origin).map_err(|message| Invalid::new(format!("cookie_origins[{index}]"), message))
        };
        let listed = origins.iter().enumerate().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { listed, by_fetch_site })
    }

    /// May a token in a cookie authorise this request? On safe methods always; otherwise only with exactly one Origin
    /// that is listed, or if the browser says that no other site caused it. `null`, which sandboxed frames and redirects
    /// send, is never listed.
    pub fn admit(&self, request: &Request<'_>) -> bool {
        !needs_origin(request)
            || request.sole_value(b"origin").is_some_and(|origin| self.contains(origin))
            || (self.by_fetch_site && matches!(request.sole_value(b"sec-fetch-site"), Some(b"same-origin" | b"none")))
    }

    fn contains(&self, origin: &[u8]) -> bool {
        self.listed.iter().any(|own| own.eq_ignore_ascii_case(origin))
    }
}

/// Could the request change something, or open a channel that can? TRACE would show the cookie to a script. An upgrade
/// is a GET without a CORS check.
fn needs_origin(request: &Request<'_>) -> bool {
    !matches!(request.method(), b"GET" | b"HEAD" | b"OPTIONS") || request.is_upgrade()
}

fn compile_origin(origin: &str) -> Result<Box<[u8]>, String> {
    let (scheme, authority) = origin.split_once("://").ok_or("is not scheme://host[:port]")?;
    let scheme_rest = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(scheme_rest) {
        return Err("has no scheme (RFC 3986 section 3.1)".into());
    }
    let scheme = scheme.to_ascii_lowercase();
    let (_, port) = split_port(authority.as_bytes()).map_err(|cause| cause.to_string())?;
    let host = Host::parse(authority.as_bytes()).map_err(|rejection| rejection.to_string())?;
    if authority.ends_with(['.', ':']) || authority.contains(".:") {
        return Err("ends its host with a dot or a colon".into());
    }
    let mut compiled = [scheme.as_bytes(), b"://", host.as_bytes()].concat();
    if let Some(port) = port {
        let own: u16 = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok()).ok_or("has a wrong port")?;
        let is_default = matches!((scheme.as_str(), own), ("http", 80) | ("https", 443));
        if !is_default {
            compiled.extend_from_slice(format!(":{own}").as_bytes());
        }
    }
    Ok(compiled.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(origins: &[&str]) -> Result<Origins, Invalid> {
        Origins::compile(&origins.iter().map(|origin| origin.to_string()).collect::<Vec<_>>(), false)
    }

    fn admits(method: &[u8], more: &[(&[u8], &[u8])]) -> bool {
        let mut pairs: Vec<(&[u8], &[u8])> =
            vec![(b":method", method), (b":path", b"/"), (b":authority", b"api.example")];
        pairs.extend(more);
        let origins =
            compile(&["https://App.example", "http://localhost:3000", "https://[2001:db8:0::1]:443"]).unwrap();
        origins.admit(&Request::from_pairs(&pairs).unwrap())
    }

    #[test]
    fn safe_methods_need_no_origin() {
        for method in [&b"GET"[..], b"HEAD", b"OPTIONS"] {
            assert!(admits(method, &[]));
            assert!(admits(method, &[(b"origin", b"https://evil.example")]));
        }
    }

    #[test]
    fn every_other_method_needs_one() {
        for method in [&b"POST"[..], b"PUT", b"PATCH", b"DELETE", b"TRACE", b"PROPFIND"] {
            assert!(!admits(method, &[]));
            assert!(!admits(method, &[(b"origin", b"https://evil.example")]));
            assert!(admits(method, &[(b"origin", b"https://app.example")]));
        }
    }

    #[test]
    fn an_upgrade_needs_one_although_it_is_a_get() {
        for upgrade in [(&b"upgrade"[..], &b"websocket"[..]), (b":protocol", b"websocket")] {
            assert!(!admits(b"GET", &[upgrade]));
            assert!(!admits(b"GET", &[upgrade, (b"origin", b"https://evil.example")]));
            assert!(admits(b"GET", &[upgrade, (b"origin", b"https://app.example")]));
        }
    }

    #[test]
    fn only_the_whole_origin_matches() {
        for origin in [
            &b""[..],
            b"null",
            b"http://app.example",
            b"https://app.example:8443",
            b"https://app.example.evil.example",
            b"https://evil.example/https://app.example",
            b"https://app.example/",
            b"https://app.example,https://app.example",
            b"https://app.example https://evil.example",
            b"app.example",
            b"http://localhost",
            b"http://localhost:30000",
        ] {
            assert!(!admits(b"POST", &[(b"origin", origin)]), "{}", origin.escape_ascii());
        }
        for origin in [&b"HTTPS://APP.example"[..], b"http://localhost:3000", b"https://[2001:db8::1]"] {
            assert!(admits(b"POST", &[(b"origin", origin)]), "{}", origin.escape_ascii());
        }
    }

    #[test]
    fn two_origins_are_none() {
        let origin = (&b"origin"[..], &b"https://app.example"[..]);
        assert!(!admits(b"POST", &[origin, origin]));
    }

    #[test]
    fn without_a_list_no_unsafe_request_is_admitted() {
        let pairs: [(&[u8], &[u8]); 4] =
            [(b":method", b"POST"), (b":path", b"/"), (b":authority", b"a"), (b"origin", b"https://a")];
        assert!(!Origins::default().admit(&Request::from_pairs(&pairs).unwrap()));
    }

    #[test]
    fn a_browser_that_names_its_own_site_is_believed_only_where_the_rule_says_so() {
        let admits = |by_fetch_site: bool, values: &[&'static [u8]]| {
            let mut pairs: Vec<(&[u8], &[u8])> = vec![(b":method", b"POST"), (b":path", b"/"), (b":authority", b"a")];
            pairs.extend(values.iter().map(|value| (&b"sec-fetch-site"[..], *value)));
            Origins::compile(&[], by_fetch_site).unwrap().admit(&Request::from_pairs(&pairs).unwrap())
        };
        assert!(admits(true, &[b"same-origin"]) && admits(true, &[b"none"]));
        assert!(!admits(false, &[b"same-origin"]) && !admits(false, &[b"none"]));
        assert!(!admits(true, &[]));
        for value in [&b"same-site"[..], b"cross-site", b"", b"same-origin, cross-site", b"Same-Origin"] {
            assert!(!admits(true, &[value]), "{}", value.escape_ascii());
        }
        assert!(!admits(true, &[b"same-origin", b"same-origin"]), "a browser sends one");
    }

    #[test]
    fn a_wrong_origin_is_refused_with_its_place() {
        for origin in [
            "",
            "null",
            "*",
            "app.example",
            "https://",
            "://a",
            "1x://a",
            "https://a/",
            "https://a/b",
            "https://*.a",
            "https://a@b",
            "https://a:x",
            "https://a:70000",
            "https://a:",
            "https://a.",
            "https://a?b",
            "https://b\u{fc}cher.example",
        ] {
            let error = compile(&["https://ok.example", origin]).unwrap_err();
            assert_eq!(error.field, "cookie_origins[1]", "{origin:?}");
        }
    }
}
