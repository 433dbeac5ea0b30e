//! What the filter adds to answers, and which requests it refuses, as Chromium sees both (docs/browsers.md).
//!
//! The site is http://localhost, where browsers accept `Secure` cookies without TLS. An attacker's pages are on 127.0.0.1,
//! another site, and on another port of localhost, which is the same site: there `SameSite` does not help.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::{Answer, Directory, Envoy, EnvoyOptions, Seen, Upstream};
use mint::{Alg, SigningKey};
use serde_json::{Value, json};

use super::driver::Browser;

const ISSUER: &str = "https://issuer.example";

fn document(key: &SigningKey) -> Value {
    let rule = |path: &str, access: &str| json!({ "match": { "path": { "prefix": path } }, "access": access });
    let mut lax = rule("/login/lax", "public");
    lax["browser"] = json!({ "cookies": [{ "name": "session" }] });
    let mut none = rule("/login/none", "public");
    none["browser"] = json!({ "cookies": [{ "name": "session", "same_site": "any" }] });
    let mut pages = rule("/", "required");
    pages["cookie_same_origin"] = json!(true);
    pages["browser"] = json!({
        "content_security_policy": "default-src 'none'; script-src 'nonce-{nonce}'",
        "nonce_header": "x-csp-nonce", "frame_ancestors": ["'none'"],
    });
    json!({
        "issuers": [{
            "issuer": ISSUER, "audiences": ["api"], "algorithms": ["ES256"],
            "keys": [{ "jwk": key.public_jwk().unwrap() }],
        }],
        "tokens": { "cookies": [{ "name": "session" }] },
        "rules": [lax, none, pages],
    })
}

fn html(body: &str) -> Answer {
    Answer::new(200, format!("<!doctype html><title>page</title>{body}")).header("content-type", "text/html")
}

/// The site behind the proxy.
fn site(seen: &Seen, token: &str, transfers: &AtomicU64) -> Answer {
    match (&*seen.method, &*seen.path) {
        // The upstream forgets every attribute.
        ("GET", "/login/lax") => html("in").header("set-cookie", &format!("session={token}; Path=/")),
        ("GET", "/login/none") => html("in").header("set-cookie", &format!("session={token}; Path=/; SameSite=None")),
        ("POST", "/transfer") => {
            transfers.fetch_add(1, Ordering::SeqCst);
            html("transferred")
        }
        _ => {
            let nonce = seen.header("x-csp-nonce").unwrap_or_default();
            html(&format!(
                "<form method=post action=/transfer><button>Transfer</button></form>\
                 <script nonce='{nonce}'>window.known = 'ran'</script>\
                 <script>window.injected = 'ran'</script>\
                 <script nonce='bm9uY2U'>window.guessed = 'ran'</script>\
                 <img src=x onerror=\"window.handler = 'ran'\">"
            ))
        }
    }
}

struct Site {
    browser: Browser,
    envoy: Envoy,
    _upstream: Upstream,
    evil: Upstream,
    transfers: Arc<AtomicU64>,
    _directory: Directory,
}

impl Site {
    async fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let key = SigningKey::generate(Alg::ES256, "key");
        let now = harness::mesh::unix_now();
        let token = key.mint(&json!({ "iss": ISSUER, "aud": "api", "sub": "alice", "iat": now, "exp": now + 600 }));
        let transfers = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&transfers);
        let upstream = Upstream::answering(move |seen| site(&seen, &token, &counted)).await;
        let nobody = "127.0.0.1:9".parse().unwrap();
        let envoy = Envoy::start(&directory, EnvoyOptions::new(upstream.address(), nobody, Some(document(&key)))).await;
        let target = format!("http://localhost:{}/transfer", envoy.address().port());
        let evil = Upstream::answering(move |_| {
            html(&format!("<form method=post action='{target}'><button>A prize</button></form>"))
        });
        let (browser, evil) = (Browser::start(&directory).await, evil.await);
        Self { browser, envoy, _upstream: upstream, evil, transfers, _directory: directory }
    }

    async fn open(&self, path: &str) {
        self.browser.open(&format!("http://localhost:{}{path}", self.envoy.address().port())).await;
    }

    /// The answer to the form that an attacker's page on this host makes the user send.
    async fn lured(&self, host: &str) -> String {
        self.browser.open(&format!("http://{host}:{}/", self.evil.address().port())).await;
        self.send_form().await
    }

    async fn send_form(&self) -> String {
        self.browser.click("form button").await;
        self.browser.until("location.pathname === '/transfer' && document.readyState === 'complete'").await;
        self.browser.text("body").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_is_refused_and_one_of_our_own_is_not() {
    let site = Site::start("chromium-csrf").await;
    site.open("/login/lax").await;
    site.open("/page").await;
    assert_eq!(site.send_form().await, "transferred");
    assert_eq!(site.transfers.load(Ordering::SeqCst), 1);
    // Another port is the same site, so the browser sends the cookie though it is `SameSite=Lax`. The filter refuses.
    let answer = site.lured("localhost").await;
    assert!(answer.contains("ORIGIN_NOT_ALLOWED"), "{answer}");
    // To another site's form it adds no such cookie.
    let answer = site.lured("127.0.0.1").await;
    assert!(answer.contains("TOKEN_MISSING"), "{answer}");
    // With `SameSite=None` it does.
    site.open("/login/none").await;
    let answer = site.lured("127.0.0.1").await;
    assert!(answer.contains("ORIGIN_NOT_ALLOWED"), "{answer}");
    assert_eq!(site.transfers.load(Ordering::SeqCst), 1, "nothing more reached the upstream");
    site.open("/page").await;
    assert_eq!(site.send_form().await, "transferred", "the session lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_cannot_read_the_cookie_and_runs_only_with_the_nonce() {
    let site = Site::start("chromium-csp").await;
    for path in ["/login/lax", "/login/none"] {
        site.open(path).await;
        assert_eq!(site.browser.text("body").await, "in");
        // This page has no policy: its scripts run, and do not see the cookie.
        assert_eq!(site.browser.script("return document.cookie").await, "");
    }
    site.open("/page").await;
    assert_eq!(site.browser.text("button").await, "Transfer", "the cookie is sent");
    let ran = "return [document.cookie, window.known, window.injected, window.guessed, window.handler].map((ran) => ran ?? null)";
    assert_eq!(site.browser.script(ran).await, json!(["", "ran", null, null, null]));
    let console = site.browser.console().await.join("\n");
    assert!(console.contains("inline script") && console.contains("nonce-"), "{console}");
    // The nonce of one answer is none for the next.
    let nonce = "return document.querySelector('script').nonce";
    let first = site.browser.script(nonce).await;
    site.open("/page").await;
    assert_ne!(first, site.browser.script(nonce).await);
}
