//! Request headers by which some backend takes another host, path, prefix or method than those of the request line, and
//! who does so. Rules match the request line, so what a client puts here must not reach the upstream.
//!
//! `X-Forwarded-For` and `-Proto` are not here: Envoy sets the first's last entry and the second itself, before any filter.
//! Scheme headers of other names are not here either: they override none of the four.

/// What a header overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overrides {
    Host,
    Path,
    /// What stands before the path in the URLs that the backend makes, or that it cuts off the path.
    Prefix,
    Method,
}

/// One header. `read_by` names those that are known to obey it, most of them only when they are told to.
#[derive(Debug)]
pub struct Override {
    pub name: &'static str,
    pub overrides: Overrides,
    pub read_by: &'static str,
}

const fn of(name: &'static str, overrides: Overrides, read_by: &'static str) -> Override {
    Override { name, overrides, read_by }
}

/// In lower case. Each stands for every spelling that folds to the same (`headers`).
pub const ALL: &[Override] = &[
    of(
        "forwarded",
        Overrides::Host,
        "RFC 7239 section 4: Spring ForwardedHeaderFilter, Symfony, Rails, Quarkus, aiohttp",
    ),
    of(
        "x-forwarded-host",
        Overrides::Host,
        "Spring ForwardedHeaderFilter, ASP.NET Core ForwardedHeaders, Symfony and Laravel TrustProxies, Rails, Django \
         USE_X_FORWARDED_HOST, Werkzeug ProxyFix, Express `trust proxy`, WordPress plugins",
    ),
    of(
        "x-forwarded-port",
        Overrides::Host,
        "Symfony and Laravel TrustProxies, Rails, Django, Werkzeug ProxyFix, Spring; Envoy passes a client's on, unless \
         `append_x_forwarded_port` has it set its own",
    ),
    of("x-forwarded-server", Overrides::Host, "Apache mod_proxy sets it; TYPO3, older Zend and Twisted read it"),
    of("x-forwarded-http-host", Overrides::Host, "PHP applications behind older load balancers"),
    of("x-original-host", Overrides::Host, "ASP.NET Core ForwardedHeaders, Azure Application Gateway"),
    of("x-original-forwarded-host", Overrides::Host, "ingress-nginx"),
    of("disguised-host", Overrides::Host, "Azure App Service"),
    of("x-host", Overrides::Host, "WordPress plugins and PHP applications behind reverse proxies"),
    of("x-http-host", Overrides::Host, "PHP applications behind reverse proxies"),
    of("x-http-host-override", Overrides::Host, "Google front ends, PHP applications behind them"),
    of("x-host-override", Overrides::Host, "PHP applications behind reverse proxies"),
    of("x-backend-host", Overrides::Host, "CDN origins"),
    of("x-original-url", Overrides::Path, "IIS URL Rewrite and ARR, Symfony before 4.1.4, Zend and Laminas"),
    of("x-rewrite-url", Overrides::Path, "IIS with ISAPI_Rewrite, Symfony before 4.1.4, Zend and Laminas"),
    of("x-waws-unencoded-url", Overrides::Path, "Azure App Service"),
    of("x-original-uri", Overrides::Path, "nginx auth_request, ingress-nginx"),
    of("x-original-path", Overrides::Path, "applications behind path-rewriting gateways"),
    of("x-forwarded-uri", Overrides::Path, "Traefik ForwardAuth, Caddy forward_auth"),
    of("x-forwarded-url", Overrides::Path, "applications behind path-rewriting gateways"),
    of("x-forwarded-path", Overrides::Path, "Kong, AWS API Gateway integrations"),
    of("x-replaced-path", Overrides::Path, "Traefik ReplacePath"),
    of("x-request-uri", Overrides::Path, "WSGI middlewares, lighttpd set-ups"),
    of(
        "x-forwarded-prefix",
        Overrides::Prefix,
        "Spring, ASP.NET Core, Symfony, Werkzeug ProxyFix, Traefik StripPrefix",
    ),
    of("x-original-prefix", Overrides::Prefix, "ASP.NET Core ForwardedHeaders"),
    of("x-forwarded-pathbase", Overrides::Prefix, "ASP.NET Core set-ups"),
    of("x-forwarded-context", Overrides::Prefix, "Java servlet applications behind Apache"),
    of("x-forwarded-base-path", Overrides::Prefix, "applications behind path-rewriting gateways"),
    of("x-script-name", Overrides::Prefix, "WSGI: the ReverseProxied middleware, Gunicorn and uWSGI set-ups"),
    of("x-forwarded-script-name", Overrides::Prefix, "WSGI set-ups"),
    of("script-name", Overrides::Prefix, "Gunicorn reads SCRIPT_NAME from this header"),
    of("path-info", Overrides::Path, "Gunicorn reads PATH_INFO from this header"),
    of(
        "x-http-method-override",
        Overrides::Method,
        "Rails and Rack::MethodOverride, Symfony, Laravel, Express method-override, ASP.NET Core HttpMethodOverride, Spring",
    ),
    of("x-http-method", Overrides::Method, "Microsoft OData, Express method-override"),
    of("x-method-override", Overrides::Method, "IBM, Express method-override"),
    of("x-original-method", Overrides::Method, "ingress-nginx auth requests"),
    of("x-forwarded-method", Overrides::Method, "Traefik ForwardAuth, Caddy forward_auth"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::HeaderName;

    #[test]
    fn each_header_is_named_once_in_lower_case() {
        for (place, header) in ALL.iter().enumerate() {
            let name = HeaderName::of_request(header.name).unwrap();
            assert_eq!(name.as_str(), header.name);
            assert!(ALL[..place].iter().all(|other| !name.matches_loosely(other.name.as_bytes())), "{}", header.name);
            assert!(!header.read_by.is_empty());
        }
    }

    #[test]
    fn no_header_of_envoys_own_is_among_them() {
        for own in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-client-cert",
            "x-request-id",
            "x-envoy-original-path",
            "x-envoy-external-address",
            "x-b3-traceid",
            "traceparent",
        ] {
            assert!(ALL.iter().all(|header| header.name != own), "{own}");
        }
    }

    #[test]
    fn the_documentation_lists_each() {
        let docs = include_str!("../../docs/overrides.md");
        for header in ALL {
            assert!(docs.contains(&format!("| `{}` |", header.name)), "{}", header.name);
        }
    }
}
