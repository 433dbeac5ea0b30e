//! Requests whose head can be read in two ways, through two virtual hosts of a real Envoy: the rules, the route and the
//! upstream must see the same request.
use bytes::Bytes;
use harness::mesh::{claims, claims_with};
use harness::{Answer, Connection, H2Connection, Mesh, MeshOptions, Request, Response, Upstream, exchange, wait_until};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;

mod headers;
mod hosts;
mod methods;
mod tokens;

const DEADLINE: Duration = Duration::from_secs(20);

/// `public.example.com` is public and has a route of its own; every other host needs a token.
fn options() -> MeshOptions {
    let mut options = MeshOptions::default();
    let rules = [
        json!({ "name": "write", "match": { "hosts": ["api.example.com"], "methods": ["DELETE"] }, "access": "required", "scopes": { "all": ["admin"] } }),
        json!({ "name": "cors", "match": { "hosts": ["cors.example.com"] }, "access": "required", "cors_preflight": "pass" }),
        json!({ "name": "open", "match": { "hosts": ["public.example.com", "[::1]"] }, "access": "public" }),
        json!({ "name": "rest", "match": { "path": { "prefix": "/" } }, "access": "required", "revocation": "off" }),
    ];
    options.filter["rules"] = rules.into_iter().collect();
    options.filter["tokens"]["query"] = json!(["access_token"]);
    options.filter["tokens"]["headers"] =
        json!([{ "name": "authorization", "scheme": "Bearer" }, { "name": "x-session-token" }]);
    options.edit = two_virtual_hosts;
    options
}

fn two_virtual_hosts(bootstrap: String) -> String {
    let found = bootstrap
        .find("                    - name: upstream\n                      domains: [\"*\"]")
        .expect("a virtual host");
    let host = |name: &str, domains: &str| {
        format!(
            r#"                    - name: {name}
                      domains: [{domains}]
                      request_headers_to_add: [{{ header: {{ key: x-routed-by, value: {name} }} }}]
                      routes: [{{ match: {{ prefix: / }}, route: {{ cluster: upstream, upgrade_configs: [{{ upgrade_type: websocket }}] }} }}]
"#
        )
    };
    let end = bootstrap[found..].find("http_filters:").expect("filters") + found;
    let edited = format!(
        "{}{}{}\n                {}",
        &bootstrap[..found],
        host("public", r#""public.example.com", "[::1]""#),
        host("everything-else", r#""*""#),
        &bootstrap[end..]
    );
    edited.replacen(
        "codec_type: AUTO",
        "upgrade_configs: [{ upgrade_type: websocket }]\n                codec_type: AUTO",
        1,
    )
}

fn code(response: &Response) -> String {
    response.json()["code"].as_str().unwrap_or_default().to_owned()
}

async fn over_h2(mesh: &Mesh, request: &Request) -> Option<Response> {
    H2Connection::open(mesh.envoy.address()).await.unwrap().send(request).await.ok()
}
