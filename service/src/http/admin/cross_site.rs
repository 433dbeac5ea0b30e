//! Requests that another web site caused. A browser attaches a client certificate by itself, so an operator's browser could
//! be made to revoke by a form on any page.
use axum::http::{HeaderMap, Uri, header};

const FETCH_SITE: &str = "sec-fetch-site";

/// By `Sec-Fetch-Site`, which scripts cannot set. Browsers send it over HTTPS and to localhost; where it is absent, by
/// `Origin`. Clients that are no browsers send neither.
pub fn is_cross_site(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        // `none`: the user typed the address.
        return !sites.all(|site| site == "same-origin" || site == "none");
    }
    // Over HTTP/2 the host is in the URI.
    let host = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| headers.get(header::HOST).map(|host| host.as_bytes()));
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.as_bytes();
        let of_origin = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
        of_origin.is_none() || of_origin != host
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(given: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, value.parse().unwrap());
        }
        is_cross_site(&Uri::from_static("/v1/revocations"), &headers)
    }

    #[test]
    fn a_request_of_another_origin_is_recognised_and_one_of_a_tool_is_not() {
        let host = ("host", "ops.example:7701");
        for (given, expected) in [
            (vec![host], false),
            (vec![host, ("sec-fetch-site", "same-origin")], false),
            (vec![host, ("sec-fetch-site", "none")], false),
            (vec![host, ("sec-fetch-site", "same-site")], true),
            (vec![host, ("sec-fetch-site", "cross-site")], true),
            (vec![host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], true),
            (vec![host, ("sec-fetch-site", "")], true),
            // A proxy may have changed the host: what the browser says about itself decides.
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "https://page.example")], false),
            (vec![host, ("origin", "https://ops.example:7701")], false),
            (vec![host, ("origin", "http://ops.example:7701")], false),
            (vec![host, ("origin", "https://ops.example")], true),
            (vec![host, ("origin", "https://evil.example")], true),
            (vec![host, ("origin", "null")], true),
            (vec![("origin", "https://ops.example")], true),
        ] {
            assert_eq!(judged(&given), expected, "{given:?}");
        }
        let over_http2 = Uri::from_static("https://ops.example/v1/revocations");
        let mut headers = HeaderMap::new();
        headers.insert("origin", "https://ops.example".parse().unwrap());
        assert!(!is_cross_site(&over_http2, &headers));
    }
}
