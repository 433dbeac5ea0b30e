//! Envoy's documents of the filters and clusters that are measured.
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::tokens::{AUDIENCE, ISSUER};

/// The protocol of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    /// With prior knowledge, without TLS.
    Two,
}

/// The cluster that ext_authz and Lua ask.
pub const AUTHORIZER: &str = "authorizer";
/// Portcullis's default. The unique tokens are five times as many, and are sent in turn.
const CACHED_TOKENS: u32 = 4096;

pub fn wasm(name: &str, module: &Path, config: &str, environment: &[&str]) -> Value {
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

pub fn dynamic_module(name: &str, config: &str) -> Value {
    json!({
        "name": name,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": { "name": name, "do_not_close": true },
            "filter_name": name,
            "filter_config": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": config },
        },
    })
}

pub fn jwt_authn(jwks: &Value, cached: bool) -> Value {
    let mut provider = json!({
        "issuer": ISSUER, "audiences": [AUDIENCE], "local_jwks": { "inline_string": jwks.to_string() },
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

/// The same, with claims in headers: each claim with its header.
pub fn with_claims(mut jwt_authn: Value, claims: &[(&str, &str)]) -> Value {
    let headers: Vec<Value> =
        claims.iter().map(|(claim, header)| json!({ "header_name": header, "claim_name": claim })).collect();
    jwt_authn["typed_config"]["providers"]["login"]["claim_to_headers"] = headers.into();
    jwt_authn
}

pub fn ext_authz() -> Value {
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

pub fn lua() -> Value {
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

pub fn cluster(name: &str, address: SocketAddr, idle_timeout: Option<&str>, http: Http) -> Value {
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
