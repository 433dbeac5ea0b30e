//! The operator's page: where it is served, and what a browser is told about it. `make chromium` uses it in a browser.
use serde_json::json;

use crate::support::*;

const PAGE: &str = "/operator/";

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    ureq::Agent::new_with_config(config.max_redirects_will_error(false).build())
}

fn get(at: std::net::SocketAddr, path: &str) -> (u16, String, ureq::http::HeaderMap) {
    let mut answer = agent().get(format!("http://{at}{path}")).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap(), answer.headers().clone())
}

fn with_page(redis: &Redis) -> Running {
    Running::start(options_with(redis, &["--operator-page"]))
}

/// What the page names in `src`, `href` and imports.
fn named(text: &str) -> Vec<&str> {
    ["src=\"", "href=\"", "from \"./"]
        .iter()
        .flat_map(|before| text.split(before).skip(1).filter_map(|after| after.split('"').next()))
        .filter(|name| !name.starts_with('#'))
        .collect()
}

#[test]
fn the_page_is_served_by_the_admin_listener_if_it_is_asked_for_and_nowhere_else() {
    let redis = Redis::start();
    let service = with_page(&redis);
    let (status, html, headers) = get(service.at.admin, PAGE);
    assert_eq!((status, &headers["content-type"]), (200, &"text/html; charset=utf-8".parse().unwrap()));
    let mut size = html.len();
    let mut files = named(&html);
    let script = get(service.at.admin, "/operator/page.js").1;
    files.extend(named(&script));
    for file in files {
        let (status, text, headers) = get(service.at.admin, &format!("{PAGE}{file}"));
        let expected = if file.ends_with(".css") { "text/css" } else { "text/javascript" };
        assert_eq!(status, 200, "{file}");
        assert_eq!(headers["content-type"].to_str().unwrap(), format!("{expected}; charset=utf-8"));
        size += text.len();
    }
    assert!(size < 64 * 1024, "{size}");
    let (status, _, headers) = get(service.at.admin, "/operator");
    assert_eq!((status, headers["location"].to_str().unwrap()), (308, "operator/"));
    for path in [PAGE, "/operator", "/operator/page.js"] {
        assert_eq!(get(service.at.listen, path).0, 404, "{path} at the listener of filters");
    }
    drop(service);
    let without = Running::start(options(&redis));
    for path in [PAGE, "/operator", "/operator/page.js"] {
        assert_eq!(get(without.at.admin, path).0, 404, "{path} without the option");
    }
    assert!(get(without.at.admin, "/healthz").2.get("content-security-policy").is_none());
}

#[test]
fn no_path_reaches_another_file_and_only_reading_is_answered() {
    let redis = Redis::start();
    let service = with_page(&redis);
    for path in [
        "/operator/../Cargo.toml",
        "/operator/..%2fpage.rs",
        "/operator/%2e%2e/page.rs",
        "/operator/%2e%2e%2fpage.rs",
        "/operator/page.rs",
        "/operator/PAGE.JS",
        "/operator/page.js%00",
        "/operator/page.js/",
        "/operator//page.js",
        "/operator/page%2f..%2fpage.js",
        "/operator/..%5cpage.js",
    ] {
        let (status, body) = raw(&service, path);
        assert_eq!(status, 404, "{path}: {body}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(service.admin_text(method, PAGE, None, "").0, 405, "{method}");
    }
}

/// As it stands: clients resolve dots.
fn raw(service: &Running, path: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(service.at.admin).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn every_answer_of_the_listener_tells_the_browser_what_it_may_do() {
    let redis = Redis::start();
    let service = with_page(&redis);
    for path in
        [PAGE, "/operator/page.js", "/operator/nothing", "/v1/revocations", "/metrics", "/openapi.json", "/nothing"]
    {
        let headers = get(service.at.admin, path).2;
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|directive| directive == part), "{path}: no {part} in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http:") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(header(name), value, "{name} of {path}");
        }
        assert_eq!(headers.get("access-control-allow-origin"), None);
        assert_eq!(headers.get("set-cookie"), None);
    }
}

/// The policy would block them; a page that needs none does not depend on it.
#[test]
fn the_page_has_no_inline_script_or_style_loads_nothing_from_elsewhere_and_makes_no_markup_of_text() {
    let redis = Redis::start();
    let service = with_page(&redis);
    let html = get(service.at.admin, PAGE).1;
    for part in ["<style", " style=", " onclick", " onload", " onsubmit", "javascript:", "//", "<base", "<iframe"] {
        assert!(!html.contains(part), "{part}");
    }
    assert!(html.split("<script").skip(1).all(|after| after.contains("></script>")));
    for file in named(&html).into_iter().chain(named(&get(service.at.admin, "/operator/page.js").1)) {
        let text = get(service.at.admin, &format!("{PAGE}{file}")).1;
        for part in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "Function(",
            "localStorage",
            "sessionStorage",
            "indexedDB",
            "document.cookie",
            "location",
            "history.",
            "postMessage",
            "http:",
            "https:",
            "@import",
        ] {
            assert!(!text.contains(part), "{file}: {part}");
        }
    }
}

#[test]
fn what_another_site_makes_a_browser_send_is_refused_and_remembered() {
    let redis = Redis::start();
    let service = with_page(&redis);
    let send = |headers: &[(&str, &str)]| {
        let mut request = agent().post(format!("http://{}/v1/revocations", service.at.admin));
        for (name, value) in [("authorization", &*format!("Bearer {ADMIN}"))].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let body = json!({ "kind": "user", "issuer": ISSUER, "id": "alice" }).to_string();
        let mut answer = request.send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    for headers in [
        &[("sec-fetch-site", "cross-site"), ("content-type", "text/plain")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ] {
        let (status, body) = send(headers);
        assert_eq!(status, 403, "{headers:?}: {body}");
        assert!(body.contains("\"code\":\"cross_site\""), "{body}");
    }
    assert_eq!(service.admin("GET", "/v1/revocations", "").1["revocations"], json!([]));
    let entries = service.admin("GET", "/v1/audit", "").1["entries"].clone();
    let refused: Vec<_> = entries.as_array().unwrap().iter().filter(|entry| entry["outcome"] == "cross_site").collect();
    assert_eq!(refused.len(), 1, "{entries}");
    assert_eq!((&refused[0]["by"], &refused[0]["action"]), (&json!("admin"), &json!("POST /v1/revocations")));
    let own = format!("http://{}", service.at.admin);
    assert_eq!(send(&[("sec-fetch-site", "same-origin"), ("origin", &own)]).0, 201);
    assert_eq!(send(&[("origin", &own)]).0, 201);
    assert_eq!(send(&[]).0, 201);
}
