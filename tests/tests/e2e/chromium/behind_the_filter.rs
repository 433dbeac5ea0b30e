//! The operator's page behind the filter: who has a session as an operator is let through, and the proxy adds what the service
//! asks for (docs/operator-page.md).
use harness::{Answer, Directory, Envoy, EnvoyOptions, Request, Service, ServiceOptions, Upstream, exchange};
use mint::{Alg, SigningKey};
use serde_json::{Value, json};

use super::driver::{Browser, ENTER};

const ISSUER: &str = "https://issuer.example";

fn document(key: &SigningKey) -> Value {
    json!({
        "issuers": [{
            "issuer": ISSUER, "audiences": ["operators"], "algorithms": ["ES256"],
            "keys": [{ "jwk": key.public_jwk().unwrap() }],
        }],
        "tokens": { "cookies": [{ "name": "session" }] },
        "rules": [{
            "match": { "path": { "prefix": "/" } }, "access": "required", "cookie_same_origin": true,
            "claims": [{ "claim": "role", "equals": "operator" }],
        }],
    })
}

/// After the filter, so that no client can send it.
fn with_token(bootstrap: String) -> String {
    let route = "route: { cluster: upstream, timeout: 15s }\n";
    assert!(bootstrap.contains(route), "the bootstrap has no such route");
    let header = "{ key: authorization, value: Bearer an-admin-secret-of-the-tests-long-enough }";
    let added = format!(
        "{route}                          request_headers_to_add:\n                            \
         - {{ header: {header}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}\n"
    );
    bootstrap.replace(route, &added)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_session_signs_in_and_pages_of_others_cannot_use_it() {
    let directory = Directory::new("chromium-filter");
    let key = SigningKey::generate(Alg::ES256, "key");
    let mut options = ServiceOptions::in_file(&directory);
    options.arguments.push("--operator-page".to_owned());
    let service = Service::start(&directory, options).await;
    let nobody = "127.0.0.1:9".parse().unwrap();
    let mut options = EnvoyOptions::new(service.admin_address(), nobody, Some(document(&key)));
    options.edit = with_token;
    let envoy = Envoy::start(&directory, options).await;
    let browser = Browser::start(&directory).await;
    let origin = format!("http://localhost:{}", envoy.address().port());
    let page = format!("{origin}/operator/");

    browser.open(&page).await;
    assert!(browser.text("body").await.contains("TOKEN_MISSING"));
    let now = harness::mesh::unix_now();
    for role in ["user", "operator"] {
        let claims =
            json!({ "iss": ISSUER, "aud": "operators", "sub": "o", "iat": now, "exp": now + 600, "role": role });
        browser.set_cookie("session", &key.mint(&claims)).await;
        browser.open(&page).await;
        assert_eq!(browser.text("body").await.contains("CLAIM_INSUFFICIENT"), role == "user");
    }

    // No token is typed.
    browser.tab_to("#sign-in-form button").await;
    browser.press(ENTER).await;
    browser.until("!document.querySelector('#users').hidden").await;
    browser.tab_to("#subject").await;
    browser.press(&format!("alice{ENTER}")).await;
    browser.until_text("#failure", "This service issues no sessions.").await;
    browser.tab_to("[data-section=revocations]").await;
    browser.press(ENTER).await;
    browser.until_text("#status", "Revocations on this page: 0.").await;
    browser.tab_to("#issuer").await;
    browser.press("https://issuer.example").await;
    browser.tab_to("#id").await;
    browser.press(&format!("alice{ENTER}")).await;
    browser.until_text("#confirm-reach", "Tokens of a later login pass.").await;
    browser.press(&format!("left{ENTER}")).await;
    browser.until_text("#status", "Revocations on this page: 1.").await;
    let listed = Request::get("/v1/revocations").bearer(&service.options().admin_token);
    let revocations = async || exchange(service.admin_address(), &listed).await.unwrap().json()["revocations"].clone();
    let made = revocations().await;
    assert_eq!(
        (&made[0]["id"], &made[0]["kind"], &made[0]["reason"]),
        (&json!("alice"), &json!("user"), &json!("left"))
    );

    // Another port of the same site gets the cookie sent, and neither a POST nor a GET through.
    let evil = Upstream::answering(move |_| {
        let forms = format!(
            "<form method=post enctype=text/plain action='{origin}/v1/revocations'>\
             <input name='{{\"kind\":\"user\",\"issuer\":\"{ISSUER}\",\"id\":\"bob\",\"reason\":\"' value='\"}}'>\
             <button id=post>A prize</button></form><a href='{origin}/v1/revocations'>A kitten</a>"
        );
        Answer::new(200, forms).header("content-type", "text/html")
    });
    let server = evil.await;
    let evil = format!("http://localhost:{}/", server.address().port());
    browser.open(&evil).await;
    browser.click("#post").await;
    browser.until("document.body.textContent.includes('ORIGIN_NOT_ALLOWED')").await;
    browser.open(&evil).await;
    browser.click("a").await;
    browser.until("document.body.textContent.includes('cross_site')").await;
    assert_eq!(revocations().await.as_array().unwrap().len(), 1);

    // The operator lifts it.
    browser.open(&page).await;
    browser.tab_to("#sign-in-form button").await;
    browser.press(ENTER).await;
    browser.until("!document.querySelector('#users').hidden").await;
    browser.tab_to("[data-section=revocations]").await;
    browser.press(ENTER).await;
    browser.until_text("#status", "Revocations on this page: 1.").await;
    browser.tab_to("[aria-label^='Lift revocation']").await;
    browser.press(ENTER).await;
    browser.until_text("#confirm-reach", "alice").await;
    // Nothing is chosen beforehand but to cancel.
    assert_eq!(browser.script("return document.activeElement.id").await, "confirm-no");
    browser.tab_to("#confirm-yes").await;
    browser.press(ENTER).await;
    browser.until_text("#status", "Lifted. Revocations on this page: 0.").await;
    assert_eq!(revocations().await, json!([]));
}
