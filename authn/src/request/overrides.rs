//! Request headers by which some backend, or a proxy before it, takes another host, path, prefix, method or scheme than
//! those of the request. Rules match the request line, so a client's value must not reach the upstream.
//!
//! `X-Forwarded-For` and `-Proto` are not listed: Envoy sets the first's last entry and the second itself, before any
//! filter. `X-Envoy-Original-Dst-Host` is listed: Envoy reads it, but never sets it.

/// What a header overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overrides {
    Host,
    Path,
    /// The prefix of the path in the URLs that the backend makes, or that it cuts off the path.
    Prefix,
    Method,
    /// Whether the client used TLS, as the backend believes: its redirects, cookies and URLs depend on it.
    Scheme,
}

/// One header. `read_by` names software that reads it, most of it only if configured, and software that sets it.
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
#[rustfmt::skip]
pub const ALL: &[Override] = &[
    of("forwarded", Overrides::Host,
        "RFC 7239 section 4: Spring `ForwardedHeaderFilter`, Symfony `TRUSTED_PROXIES`, Rails, Jetty \
         `ForwardedRequestCustomizer`, Quarkus `quarkus.http.proxy.allow-forwarded`"),
    of("x-forwarded-host", Overrides::Host,
        "Spring `ForwardedHeaderFilter`, ASP.NET Core `ForwardedHeadersMiddleware`, Symfony and Laravel \
         `TrustProxies`, Rack and Rails, Django `USE_X_FORWARDED_HOST`, Werkzeug `ProxyFix`, Express `trust \
         proxy`, Yii `trustedHosts`, Jetty"),
    of("x-forwarded-port", Overrides::Host,
        "Symfony and Laravel `TrustProxies`, Rack and Rails, Django `USE_X_FORWARDED_PORT`, Werkzeug `ProxyFix`, \
         Spring, Jetty; Envoy passes a client's on, unless `append_x_forwarded_port` has it set its own"),
    of("x-forwarded-server", Overrides::Host,
        "Apache mod_proxy and Traefik set it; Jetty, Grok `VirtualHosting` and the Flask snippet `ReverseProxied` \
         read it"),
    of("x-original-host", Overrides::Host,
        "ASP.NET Core `ForwardedHeadersMiddleware` and ngrok set it; Yii `secureHeaders` and Laravel applications \
         behind ngrok read it"),
    of("x-original-forwarded-host", Overrides::Host, "ingress-nginx snippets set it; the portal of Gravitee reads it"),
    of("disguised-host", Overrides::Host,
        "Azure App Service and Static Web Apps set it for their applications, which read it"),
    of("x-host", Overrides::Host, "mod_wsgi `WSGITrustedProxyHeaders`"),
    of("x-http-host", Overrides::Host, "iPHP and iCMS"),
    of("x-http-host-override", Overrides::Host,
        "no framework that we know; PortSwigger's material on attacks by Host lists it"),
    of("x-host-override", Overrides::Host, "early versions of Kong choose the API by it"),
    of("x-backend-host", Overrides::Host, "no framework that we know; word lists of scanners have it"),
    of("x-custom-host", Overrides::Host, "Next.js applications of several tenants, by a convention among them"),
    of("x-proxyhost", Overrides::Host, "Apache NiFi and NiFi Registry"),
    of("x-proxyport", Overrides::Host, "Apache NiFi and NiFi Registry"),
    of("x-vhm-host", Overrides::Host, "Zope behind `repoze.vhm`, Grok `VirtualHosting`"),
    of("$wssn", Overrides::Host,
        "WebSphere and Open Liberty, `httpDispatcher trustedHeaderOrigin`, which trusts every peer by default"),
    of("$wssp", Overrides::Host, "WebSphere and Open Liberty, as `$wssn`"),
    of("l5d-dst-override", Overrides::Host,
        "the proxy of Linkerd with `linkerd.io/inject: ingress` chooses the destination by it"),
    of("x-envoy-original-dst-host", Overrides::Host,
        "Envoy chooses the upstream by it in clusters of type `ORIGINAL_DST` with `use_http_header`"),
    of("x-gateway-destination-endpoint", Overrides::Host,
        "Gateway API Inference Extension: the gateway and Ray Serve choose the endpoint by it"),
    of("x-original-url", Overrides::Path,
        "IIS URL Rewrite and Application Request Routing set it; Symfony before 4.1.4, Zend and Laminas \
         `PhpEnvironment\\Request` serve it"),
    of("x-rewrite-url", Overrides::Path,
        "ISAPI_Rewrite sets it; Symfony before 4.1.4, Zend and Laminas `PhpEnvironment\\Request` and Yii \
         `resolveRequestUri` serve it"),
    of("x-waws-unencoded-url", Overrides::Path, "Azure App Service sets it for its applications"),
    of("x-original-uri", Overrides::Path, "endpoints behind `auth_request` of nginx, ingress-nginx"),
    of("x-original-path", Overrides::Path, "nps sets it; path shims of Python applications on Vercel serve it"),
    of("x-forwarded-uri", Overrides::Path,
        "EGroupware, endpoints behind ForwardAuth of Traefik and `forward_auth` of Caddy, path shims of \
         applications on Vercel"),
    of("x-forwarded-url", Overrides::Path,
        "Apache OpenWhisk sets it for web actions; path shims of applications on Vercel serve it"),
    of("x-forwarded-path", Overrides::Path,
        "Kong sets it; Roundcube `request_path` and WSGI middlewares for prefixes read it"),
    of("x-replaced-path", Overrides::Path, "Traefik ReplacePath sets it; applications behind it read it"),
    of("x-request-uri", Overrides::Path, "BlueKing ESB and NewLife.Core"),
    of("x-matched-path", Overrides::Path, "Next.js with `minimalMode`, path shims of applications on Vercel"),
    of("x-invoke-path", Overrides::Path, "Next.js applications and path shims of applications on Vercel"),
    of("x-couchdb-vhost-path", Overrides::Path, "Apache CouchDB"),
    of("x-couchdb-requested-path", Overrides::Path, "Apache CouchDB"),
    of("path-info", Overrides::Path, "Gunicorn `forwarder_headers` reads PATH_INFO from it"),
    of("x-forwarded-prefix", Overrides::Prefix,
        "Spring `ForwardedHeaderFilter`, ASP.NET Core `ForwardedHeadersMiddleware`, Symfony `TRUSTED_PROXIES`, \
         Werkzeug `ProxyFix`, Apache NiFi, Adminer; Traefik StripPrefix sets it"),
    of("x-original-prefix", Overrides::Prefix, "ASP.NET Core `ForwardedHeadersMiddleware` sets it"),
    of("x-forwarded-pathbase", Overrides::Prefix,
        "early versions of YARP set it; ASP.NET Core middlewares that set `PathBase` read it"),
    of("x-forwarded-context", Overrides::Prefix, "Apache Knox sets it; Apache NiFi, Spark and Kudu read it"),
    of("x-proxycontextpath", Overrides::Prefix, "Apache NiFi and NiFi Registry"),
    of("x-forwarded-base-path", Overrides::Prefix, "Sinatra applications that are mounted below a path"),
    of("x-script-name", Overrides::Prefix, "mod_wsgi `WSGITrustedProxyHeaders`, the Flask snippet `ReverseProxied`"),
    of("x-forwarded-script-name", Overrides::Prefix, "mod_wsgi `WSGITrustedProxyHeaders`, Plack `ReverseProxyPath`"),
    of("x-traversal-path", Overrides::Prefix, "Plack `ReverseProxyPath`, WSGI middlewares for prefixes"),
    of("x-vhm-root", Overrides::Prefix, "Pyramid, Zope and Grok behind `repoze.vhm`: the root of traversal"),
    of("x-request-base", Overrides::Prefix,
        "Mojolicious applications: Convos with `CONVOS_REVERSE_PROXY`, Toadfarm; Hydra"),
    of("x-artifactory-override-base-url", Overrides::Prefix, "JFrog Artifactory"),
    of("x-jfrog-override-base-url", Overrides::Prefix, "JFrog Artifactory"),
    of("script-name", Overrides::Prefix, "Gunicorn `forwarder_headers` reads SCRIPT_NAME from it"),
    of("x-forwarded-scheme", Overrides::Scheme,
        "Rack and Rails, mod_wsgi `WSGITrustedProxyHeaders`; ingress-nginx sets it"),
    of("x-forwarded-ssl", Overrides::Scheme,
        "Rack and Rails, Gunicorn `secure_scheme_headers`, Spring `ForwardedHeaderFilter`, Echo, mod_wsgi \
         `WSGITrustedProxyHeaders`, Apache CouchDB `x_forwarded_ssl`"),
    of("x-forwarded-protocol", Overrides::Scheme, "Gunicorn `secure_scheme_headers`, Echo"),
    of("x-forwarded-https", Overrides::Scheme, "mod_wsgi `WSGITrustedProxyHeaders`, HTTP::Engine"),
    of("x-https", Overrides::Scheme, "mod_wsgi `WSGITrustedProxyHeaders`"),
    of("x-url-scheme", Overrides::Scheme, "Echo, RhodeCode and Kallithea"),
    of("x-scheme", Overrides::Scheme,
        "Tornado `xheaders`, mod_wsgi `WSGITrustedProxyHeaders`, the Flask snippet `ReverseProxied`; \
         ingress-nginx sets it"),
    of("front-end-https", Overrides::Scheme,
        "Yii `secureProtocolHeaders`, CodeIgniter `is_https`, phpMyAdmin; Microsoft ISA Server and TMG set it"),
    of("x-arr-ssl", Overrides::Scheme,
        "Application Request Routing and Azure App Service set it; WordPress plugins read it"),
    of("x-appservice-proto", Overrides::Scheme, "Azure App Service sets it for its applications"),
    of("x-client-scheme", Overrides::Scheme, "Alibaba Cloud CDN sets it; NewLife.Core reads it"),
    of("x-proxied-https", Overrides::Scheme, "Jetty `ForwardedRequestCustomizer`"),
    of("x-proxyscheme", Overrides::Scheme, "Apache NiFi and NiFi Registry"),
    of("wl-proxy-ssl", Overrides::Scheme, "WebLogic with `WebLogic Plugin Enabled`"),
    of("$wssc", Overrides::Scheme, "WebSphere and Open Liberty, as `$wssn`"),
    of("$wsis", Overrides::Scheme, "WebSphere and Open Liberty, as `$wssn`"),
    of("cf-visitor", Overrides::Scheme, "Cloudflare sets it; WordPress plugins read it"),
    of("cloudfront-forwarded-proto", Overrides::Scheme,
        "Amazon CloudFront sets it; Django `SECURE_PROXY_SSL_HEADER`, Drupal and WordPress are told to read it"),
    of("fastly-ssl", Overrides::Scheme,
        "Fastly sets it; Django `SECURE_PROXY_SSL_HEADER` and WordPress are told to read it"),
    of("x-http-method-override", Overrides::Method,
        "Rack `MethodOverride` and Rails, Symfony `http_method_override`, Laravel, Express `method-override`, \
         ASP.NET Core `UseHttpMethodOverride`, WordPress REST, Yii, grpc-gateway, Google APIs"),
    of("x-http-method", Overrides::Method,
        "Microsoft OData and SharePoint, Express `method-override` where it is told to"),
    of("x-method-override", Overrides::Method, "IBM Maximo and TRIRIGA, Express `method-override` where it is told to"),
    of("x-original-method", Overrides::Method, "endpoints behind `auth_request` of nginx, ingress-nginx"),
    of("x-forwarded-method", Overrides::Method, "endpoints behind ForwardAuth of Traefik and `forward_auth` of Caddy"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::headers::HeaderName;

    #[test]
    fn each_header_is_named_once_in_lower_case() {
        for (index, header) in ALL.iter().enumerate() {
            let name = HeaderName::of_request(header.name).unwrap();
            assert_eq!(name.as_str(), header.name);
            assert!(ALL[..index].iter().all(|other| !name.matches_loosely(other.name.as_bytes())), "{}", header.name);
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
            "x-envoy-original-host",
            "x-envoy-internal",
            "x-envoy-attempt-count",
            "x-envoy-expected-rq-timeout-ms",
            "x-envoy-external-address",
            "x-b3-traceid",
            "traceparent",
        ] {
            assert!(ALL.iter().all(|header| header.name != own), "{own}");
        }
    }

    #[test]
    fn rows_are_grouped_by_what_they_override() {
        let kinds: Vec<Overrides> = ALL.iter().map(|header| header.overrides).collect();
        let groups = kinds.chunk_by(|one, next| one == next).count();
        assert_eq!(groups, 5);
    }

    #[test]
    fn the_documentation_lists_each() {
        let docs = include_str!("../../../docs/overrides.md");
        for header in ALL {
            assert!(docs.contains(&format!("| `{}` |", header.name)), "{}", header.name);
        }
    }
}
