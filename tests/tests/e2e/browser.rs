//! Answers to browsers through the real proxy: trailers of the upstream, and Envoy's own replies. The table has the headers
//! (`tests/cases/cases/browser.yaml`).
use harness::{Answer, Directory, Envoy, EnvoyOptions, H2Connection, Request, Upstream, exchange};
use serde_json::{Value, json};

fn document() -> Value {
    json!({
        // No token of it is used.
        "issuers": [{
            "issuer": "https://issuer.example", "audiences": ["api"], "algorithms": ["ES256"],
            "jwks": { "cluster": "idp", "uri": "https://issuer.example/keys" },
        }],
        "browser": {
            "frame_ancestors": ["'none'"], "content_type_options": true, "cookies": [{ "name": "*" }],
            "remove_headers": ["x-internal"],
        },
        "rules": [{ "access": "public" }],
    })
}

/// Only HTTP/2 has trailers here.
fn upstream_over_http2(bootstrap: String) -> String {
    let cluster = "    - name: upstream\n      type: STRICT_DNS\n";
    assert!(bootstrap.contains(cluster), "envoy.yaml has no such cluster");
    let options = concat!(
        "      typed_extension_protocol_options:\n",
        "        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n",
        "          \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n",
        "          explicit_http_config: { http2_protocol_options: {} }\n",
    );
    bootstrap.replace(cluster, &format!("{cluster}{options}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn named_trailers_and_cookies_in_trailers_are_removed() {
    let directory = Directory::new("browser-trailers");
    let upstream = Upstream::answering(|_| {
        let answer = Answer::new(200, "body").header("set-cookie", "a=b").header("x-internal", "1");
        answer.trailer("x-internal", "2").trailer("set-cookie", "session=c").trailer("x-checksum", "abc")
    });
    let upstream = upstream.await;
    let nobody = "127.0.0.1:9".parse().unwrap();
    let mut options = EnvoyOptions::new(upstream.address(), nobody, Some(document()));
    options.edit = upstream_over_http2;
    let envoy = Envoy::start(&directory, options).await;
    let h2 = H2Connection::open(envoy.address()).await.unwrap();
    let response = h2.send(&Request::get("/")).await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    assert_eq!(response.header("set-cookie"), Some("a=b; Secure; HttpOnly; SameSite=Lax"));
    assert_eq!(response.header("x-internal"), None);
    assert_eq!(response.header("x-frame-options"), Some("DENY"));
    assert_eq!(response.trailers, [("x-checksum".to_owned(), "abc".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_envoy_itself_has_the_headers_too() {
    let directory = Directory::new("browser-local");
    let nobody = "127.0.0.1:9".parse().unwrap();
    let envoy = Envoy::start(&directory, EnvoyOptions::new(nobody, nobody, Some(document()))).await;
    let response = exchange(envoy.address(), &Request::get("/")).await.unwrap();
    assert_eq!(response.status, 503, "there is no upstream");
    assert_eq!(response.header("x-frame-options"), Some("DENY"));
    assert_eq!(response.header("content-security-policy"), Some("frame-ancestors 'none'"));
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
}
