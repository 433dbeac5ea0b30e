//! What is compared: Envoys with different filters, and the loads on each.
use std::net::SocketAddr;
use std::path::PathBuf;

use mint::Alg;
use serde_json::{Value, json};

use crate::sessions;
use crate::tokens::{AUDIENCE, ISSUER, Keys, Tokens};

/// The filter chain of one Envoy.
pub struct Setup {
    /// Also the name of its files.
    pub name: String,
    pub title: &'static str,
    pub filters: Vec<Value>,
    pub clusters: Vec<Value>,
    pub environment: Vec<(String, String)>,
    pub module: Option<PathBuf>,
    pub workers: usize,
    pub loads: Vec<Tokens>,
}

/// How a cluster is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    /// With prior knowledge, without TLS.
    Two,
}

/// What all setups are made of.
pub struct Parts<'k> {
    pub keys: &'k Keys,
    /// Who ext_authz and Lua ask.
    pub authorizer: SocketAddr,
    /// `portcullis serve`.
    pub service: SocketAddr,
    pub secret: String,
}

const UNIQUE: Tokens = Tokens::Unique(Alg::RS256);
/// As many as Portcullis keeps by default. The unique tokens are five times as many, and come in turn.
const CACHED_TOKENS: u32 = 4096;
const AUTHORIZER: &str = "authorizer";
pub const SERVICE: &str = "session_service";
pub const SECRET: &str = "PORTCULLIS_SECRET";
/// As in envoy/envoy.yaml.
pub const SERVICE_IDLE: Option<&str> = Some("30s");
const SHARED_KEY: &str = "KEY_SHARED";
const CLIENT_SECRET: &str = "CLIENT_SECRET";

/// The first is what all others are compared with.
pub fn all(parts: &Parts<'_>) -> Vec<Setup> {
    let repeated_and_unique = || vec![Tokens::Repeated, UNIQUE];
    let native = |name, title, filters, loads| {
        let clusters = vec![cluster(AUTHORIZER, parts.authorizer, None, Http::One)];
        Setup { clusters, ..bare(name, title, filters, loads) }
    };
    let mut setups = vec![
        native("none", "no filter", vec![], vec![Tokens::Repeated, UNIQUE, Tokens::Active]),
        noop(),
        native(
            "jwt_authn",
            "jwt_authn",
            vec![jwt_authn(parts.keys, false)],
            vec![Tokens::Repeated, UNIQUE, Tokens::Unique(Alg::ES256), Tokens::Unique(Alg::EdDSA)],
        ),
        native("jwt_authn-cached", "jwt_authn, token cache", vec![jwt_authn(parts.keys, true)], repeated_and_unique()),
        native("ext_authz", "ext_authz, HTTP", vec![ext_authz()], repeated_and_unique()),
        native("lua", "Lua httpCall", vec![lua()], repeated_and_unique()),
        native(
            "jwt_authn-ext_authz",
            "jwt_authn + ext_authz",
            vec![jwt_authn(parts.keys, false), ext_authz()],
            repeated_and_unique(),
        ),
        native(
            "jwt_authn-cached-ext_authz",
            "jwt_authn, token cache + ext_authz",
            vec![jwt_authn(parts.keys, true), ext_authz()],
            repeated_and_unique(),
        ),
    ];
    let forward = json!({ "claims": [
        { "claim": "sub", "header": "x-user-id" },
        { "claim": "scope", "header": "x-user-scope" },
    ] });
    let ask = |more: Value| with(json!({ "revocation": revocation(), "forward": forward }), &more);
    let cold = |name, title, more: &Value, alg| parts.portcullis(name, title, more, Tokens::Unique(alg));
    let never_asks = json!({ "forward": forward });
    setups.extend([
        parts.portcullis("warm", "Portcullis, warm", &ask(json!({})), Tokens::Repeated),
        parts.portcullis(
            "warm-unforwarded",
            "Portcullis, warm, no claims forwarded",
            &json!({ "revocation": revocation() }),
            Tokens::Repeated,
        ),
        parts.portcullis("warm-unasked", "Portcullis, warm, revocation off", &never_asks, Tokens::Repeated),
        cold("cold-rs256", "Portcullis, cold RS256, revocation off", &never_asks, Alg::RS256),
        cold("cold-es256", "Portcullis, cold ES256, revocation off", &never_asks, Alg::ES256),
        cold("cold-eddsa", "Portcullis, cold EdDSA, revocation off", &never_asks, Alg::EdDSA),
        cold("cold-rs256-asked", "Portcullis, cold RS256, revocation", &ask(json!({})), Alg::RS256),
        parts.portcullis("active", "Portcullis, sessions in use", &ask(json!({})), Tokens::Active),
        parts.portcullis(
            "active-behind",
            "Portcullis, sessions in use, refresh_ahead: false",
            &ask(json!({ "revocation": with(revocation(), &json!({ "refresh_ahead": false })) })),
            Tokens::Active,
        ),
        // The signatures are all remembered, and by the time that a token comes again its verdict is stale: no verdict is
        // shared, and one counts for the shortest time that the filter takes. A few tokens find no place in the cache
        // (sets of four ways), so their signature is one that costs little: HS256.
        cold("asked", "Portcullis, cached signature, each request asks", &ask(asks_each_time()), Alg::HS256),
        Setup {
            clusters: vec![cluster(SERVICE, parts.service, SERVICE_IDLE, Http::Two)],
            ..cold(
                "asked-http2",
                "Portcullis, cached signature, each request asks, HTTP/2",
                &ask(asks_each_time()),
                Alg::HS256,
            )
        },
        parts.opaque("opaque-warm", "Portcullis, opaque tokens", &forward, Tokens::Opaque),
        parts.opaque("opaque-cold", "Portcullis, opaque tokens, each introspected", &forward, Tokens::UniqueOpaque),
    ]);
    setups
}

/// Room for all signatures, and none for verdicts: the configuration's part for requests that all ask.
pub fn asks_each_time() -> Value {
    json!({ "limits": { "cached_tokens": 65536, "cached_token_bytes": 268_435_456, "shared_verdicts": 0 } })
}

/// An Envoy with one worker and no clusters.
pub fn bare(name: &str, title: &'static str, filters: Vec<Value>, loads: Vec<Tokens>) -> Setup {
    Setup {
        name: name.to_owned(),
        title,
        filters,
        clusters: Vec::new(),
        environment: Vec::new(),
        module: None,
        workers: 1,
        loads,
    }
}

/// An Envoy with Portcullis, which may read all of `environment`.
pub fn portcullis(
    name: &str,
    title: &'static str,
    config: &Value,
    environment: Vec<(String, String)>,
    service: SocketAddr,
    loads: Vec<Tokens>,
) -> Setup {
    let module = harness::project().join("dist/portcullis.wasm");
    let names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
    let filters = vec![wasm("portcullis", &module, &config.to_string(), &names)];
    Setup {
        clusters: vec![cluster(SERVICE, service, SERVICE_IDLE, Http::One)],
        module: Some(module),
        environment,
        ..bare(name, title, filters, loads)
    }
}

impl Parts<'_> {
    fn portcullis(&self, name: &str, title: &'static str, more: &Value, load: Tokens) -> Setup {
        let mut keys: Vec<Value> = [Alg::RS256, Alg::ES256, Alg::EdDSA]
            .iter()
            .map(|alg| json!({ "jwk": self.keys.of(*alg).public_jwk().expect("a public key") }))
            .collect();
        keys.push(json!({
            "kid": "HS256", "alg": "HS256", "secret_env": SHARED_KEY, "secret_encoding": "base64url",
        }));
        let config = with(
            json!({
                "issuers": [{
                    "name": "login", "issuer": ISSUER, "audiences": [AUDIENCE],
                    "algorithms": Keys::ALGS.map(Alg::name), "keys": keys,
                }],
                "rules": [{ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }],
            }),
            more,
        );
        let shared = self.keys.of(Alg::HS256).secret().unwrap_or_default();
        let environment =
            vec![(SECRET.to_owned(), self.secret.clone()), (SHARED_KEY.to_owned(), mint::to_base64url(shared))];
        portcullis(name, title, &config, environment, self.service, vec![load])
    }
}

/// Tokens that are asked about instead of verified: our service's, which looks at revocations before it says active.
impl Parts<'_> {
    fn opaque(&self, name: &str, title: &'static str, forward: &Value, load: Tokens) -> Setup {
        let config = json!({
            "issuers": [{
                "name": "own", "issuer": sessions::ISSUER, "audiences": [AUDIENCE],
                "introspection": {
                    "cluster": SERVICE, "path": "/oauth2/introspect", "client_id": sessions::CLIENT,
                    "client_secret_env": CLIENT_SECRET, "freshness": "1s", "timeout": "1s", "format": "portcullis",
                },
            }],
            "forward": forward,
            "rules": [{ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }],
        });
        let environment = vec![(CLIENT_SECRET.to_owned(), sessions::CLIENT_SECRET.to_owned())];
        portcullis(name, title, &config, environment, self.service, vec![load])
    }
}

fn noop() -> Setup {
    let module = harness::project().join("dist/noop.wasm");
    let filters = vec![wasm("noop", &module, "", &[])];
    Setup { module: Some(module), ..bare("noop", "no-op Wasm, SDK", filters, vec![Tokens::Repeated, UNIQUE]) }
}

pub fn revocation() -> Value {
    // The core that answers also makes the load, so it gets the longest timeout there is: freshness.
    json!({ "cluster": SERVICE, "secret_env": SECRET, "freshness": "1s", "timeout": "1s" })
}

fn wasm(name: &str, module: &std::path::Path, config: &str, environment: &[&str]) -> Value {
    json!({
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": name, "root_id": name, "failure_policy": "FAIL_RELOAD",
                "allow_on_headers_stop_iteration": false,
                "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": config },
                "vm_config": {
                    "vm_id": name, "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": module } },
                    "environment_variables": { "host_env_keys": environment },
                },
            },
        },
    })
}

fn jwt_authn(keys: &Keys, cached: bool) -> Value {
    let mut provider = json!({
        "issuer": ISSUER, "audiences": [AUDIENCE], "local_jwks": { "inline_string": keys.jwks().to_string() },
    });
    if cached {
        provider["jwt_cache_config"] = json!({ "jwt_cache_size": CACHED_TOKENS });
    }
    json!({
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": { "login": provider },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "login" } }],
        },
    })
}

fn ext_authz() -> Value {
    json!({
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "http_service": {
                "server_uri": { "uri": format!("http://{AUTHORIZER}"), "cluster": AUTHORIZER, "timeout": "5s" },
            },
        },
    })
}

fn lua() -> Value {
    let code = format!(
        r#"function envoy_on_request(request)
  local headers = request:httpCall("{AUTHORIZER}", {{
    [":method"] = "GET", [":path"] = "/", [":authority"] = "{AUTHORIZER}",
    ["authorization"] = request:headers():get("authorization"),
  }}, nil, 5000)
  if headers[":status"] ~= "200" then
    request:respond({{ [":status"] = "403" }}, "")
  end
end
"#
    );
    json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": { "inline_string": code },
        },
    })
}

fn cluster(name: &str, address: SocketAddr, idle_timeout: Option<&str>, http: Http) -> Value {
    let endpoint = json!({ "endpoint": { "address": { "socket_address": {
        "address": address.ip(), "port_value": address.port(),
    } } } });
    let mut options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": match http {
            Http::One => json!({ "http_protocol_options": {} }),
            Http::Two => json!({ "http2_protocol_options": {} }),
        },
    });
    if let Some(timeout) = idle_timeout {
        options["common_http_protocol_options"] = json!({ "idle_timeout": timeout });
    }
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options },
    })
}

/// An object with the members of another added.
pub fn with(mut object: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        object[name] = value.clone();
    }
    object
}
