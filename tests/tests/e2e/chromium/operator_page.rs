//! The operator's page as an operator uses it: by keyboard, with texts that attackers chose, and judged by axe.
use std::path::{Path, PathBuf};

use harness::{Directory, Request, exchange, project};
use serde_json::Value;

use super::driver::{Browser, ENTER, ESCAPE};
use crate::sessions::Sessions;

const TOKEN: &str = "an-admin-secret-of-the-tests-long-enough";

struct Stack {
    sessions: Sessions,
    browser: Browser,
    page: String,
    _directory: Directory,
}

impl Stack {
    async fn start(name: &str) -> Self {
        let sessions = Sessions::start_with(name, &["--operator-page"]).await;
        let directory = Directory::new(&format!("{name}-browser"));
        let browser = Browser::start(&directory).await;
        let page = format!("http://{}/operator/", sessions.service().admin_address());
        browser.open(&page).await;
        Self { sessions, browser, page, _directory: directory }
    }

    /// `more`: of `portcullis session create`.
    fn create(&self, subject: &str, more: &[&str]) -> Value {
        let base = ["session", "create", "--subject", subject, "--format", "jwt", "--client-id", "app"];
        self.sessions.tool(&[&base[..], more].concat()).remove(0)
    }

    async fn sign_in(&self) {
        self.browser.tab_to("#token").await;
        self.browser.press(&format!("{TOKEN}{ENTER}")).await;
        self.browser.until("!document.querySelector('#users').hidden").await;
    }

    async fn look_up(&self, subject: &str) {
        self.browser.script("document.querySelector('#subject').value = ''").await;
        self.browser.tab_to("#subject").await;
        self.browser.press(&format!("{subject}{ENTER}")).await;
        self.browser.until_text("#status", "found").await;
    }

    /// By keyboard, until it has loaded.
    async fn section(&self, name: &str, loaded: &str) {
        self.browser.tab_to(&format!("[data-section={name}]")).await;
        self.browser.press(ENTER).await;
        self.browser.until(loaded).await;
    }

    /// All that axe finds, whatever its impact.
    async fn assert_accessible(&self, what: &str) {
        for scheme in ["light", "dark"] {
            self.browser.prefer(scheme).await;
            let found = self
                .browser
                .script(
                    "return axe.run().then(({ violations, passes }) => ({ passes: passes.length, violations: \
                     violations.map(({ id, impact, nodes }) => `${impact} ${id} ${nodes.map((node) => node.html)}`) }))",
                )
                .await;
            assert!(found["passes"].as_u64().is_some_and(|passes| passes > 10), "{what}: {found}");
            assert_eq!(found["violations"], serde_json::json!([]), "{what}, {scheme}");
        }
        self.browser.prefer("light").await;
    }

    /// Into the documentation, if `make chromium SCREENSHOTS=1` asks for it.
    async fn screenshot(&self, name: &str) {
        if std::env::var_os("SCREENSHOTS").is_some_and(|wanted| !wanted.is_empty()) {
            self.browser.screenshot(&project().join("docs").join(name)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_one_session_by_keyboard_and_the_proxy_refuses_it() {
    let stack = Stack::start("chromium-page").await;
    let browser = &stack.browser;
    let (first, second) = (stack.create("alice", &["--bind-address", "192.0.2.0/24"]), stack.create("alice", &[]));
    assert_eq!((stack.sessions.status(&first).await, stack.sessions.status(&second).await), (200, 200));

    browser.tab_to("#token").await;
    browser.press(&format!("wrong-wrong-wrong-wrong-wrong-wrong{ENTER}")).await;
    browser.until_text("#failure", "This token is not accepted.").await;
    assert_eq!(browser.script("return document.querySelector('#sections').hidden").await, true);
    assert_eq!(browser.script("return document.activeElement.id").await, "token");
    assert!(!browser.text("#users").await.contains("alice"));

    stack.sign_in().await;
    assert_eq!(browser.script("return document.querySelector('#token').value").await, "");
    // Nothing that outlives the page has the token.
    let kept = "return [location.href, document.cookie, history.length > 2, Object.keys(localStorage).length, \
                Object.keys(sessionStorage).length, document.documentElement.outerHTML].join()";
    let kept = browser.script(kept).await.to_string();
    assert!(!kept.contains(TOKEN) && kept.contains(&format!("\"{},,false,0,0,", stack.page)), "{kept}");

    stack.look_up("alice").await;
    browser.until_text("#status", "2 sessions found.").await;
    assert!(browser.text("#user-sessions").await.contains("192.0.2.0/24"));
    stack.screenshot("operator-page.png").await;

    // The preview writes nothing.
    let sid = first["sid"].as_str().unwrap();
    let end = format!("[aria-label='End session {sid}']");
    browser.tab_to(&end).await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#confirm').open").await;
    browser.until_text("#confirm-reach", sid).await;
    assert!(!browser.text("#confirm-reach").await.contains(second["sid"].as_str().unwrap()));
    browser.press(ESCAPE).await;
    browser.until_text("#status", "Nothing was ended.").await;
    assert_eq!(stack.sessions.tool(&["session", "list", "--subject", "alice"]).len(), 2);

    // Without a reason nothing is sent.
    browser.tab_to(&end).await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#confirm').open && document.activeElement.id === 'reason'").await;
    browser.press(ENTER).await;
    assert_eq!(browser.script("return document.querySelector('#confirm').open").await, true);
    browser.prefer("dark").await;
    browser.press("stolen laptop").await;
    stack.screenshot("operator-page-dark.png").await;
    browser.prefer("light").await;
    browser.press(ENTER).await;
    browser.until_text("#status", "Ended 1 session. 1 session found.").await;
    stack.sessions.ends(&first).await;
    assert_eq!(stack.sessions.status(&second).await, 200);

    // All of them, and what the trail says.
    browser.tab_to("#end-all").await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#confirm').open").await;
    assert!(browser.text("#confirm-reach").await.contains("This reaches 1 session:"));
    browser.press(&format!("left the company{ENTER}")).await;
    browser.until_text("#status", "Ended 1 session. 0 sessions found.").await;
    stack.sessions.ends(&second).await;
    stack.section("audit", "document.querySelectorAll('#audit-entries tbody tr').length > 3").await;
    let trail = browser.text("#audit-entries").await;
    for part in ["session.end_all", "left the company", "stolen laptop", "admin", "nobody"] {
        assert!(trail.contains(part), "{part} in {trail}");
    }
    assert!(!trail.contains("wrong-wrong"));
    stack.section("revocations", "document.querySelectorAll('#revocation-list tbody tr').length > 1").await;
    stack.section("health", "document.querySelector('#health-state table')").await;
    browser.until_text("#status", "The service is ready.").await;

    // Signed out, nothing is left to read; not of a preview that is open, either.
    stack.section("revocations", "document.querySelector('#revocation-list tbody tr')").await;
    browser.tab_to("[aria-label^='Lift revocation']").await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#confirm').open").await;
    browser.script("document.querySelector('#sign-out').click()").await;
    browser.until("document.activeElement.id === 'token' && !document.querySelector('#confirm').open").await;
    browser.until_text("#status", "Signed out.").await;
    let left = browser.text("body").await;
    assert!(!left.contains(sid) && !left.contains("stolen laptop"), "{left}");
    // The browser says of each refused request that it failed. It complains about nothing else.
    let console = browser.console().await;
    assert!(console.iter().all(|line| line.contains("status of 401")), "{console:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_attackers_choose_is_shown_as_text() {
    const MARKUP: &str = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\"'";
    let stack = Stack::start("chromium-markup").await;
    let browser = &stack.browser;
    stack.create(MARKUP, &["--reason", MARKUP, "--claims", &serde_json::json!({ "agent": MARKUP }).to_string()]);
    // It looks like another user, with letters that turn the order round.
    let reversed = "\u{202e}nimda";
    stack.create(reversed, &[]);
    stack.sign_in().await;

    stack.look_up(MARKUP).await;
    browser.until_text("#status", "1 session found.").await;
    let shown = browser.text("#user-sessions").await;
    assert!(shown.matches(MARKUP).count() >= 2, "subject, reason: {shown}");
    browser.tab_to("#end-all").await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#confirm').open").await;
    assert!(browser.text("#confirm").await.contains(MARKUP));
    browser.press(&format!("{MARKUP}{ENTER}")).await;
    browser.until_text("#status", "Ended 1 session.").await;

    stack.section("audit", "document.querySelector('#audit-entries tbody')").await;
    assert!(browser.text("#audit-entries").await.matches(MARKUP).count() >= 2);
    stack.section("revocations", "document.querySelector('#revocation-list tbody')").await;
    assert!(browser.text("#revocation-list").await.contains(MARKUP));

    stack.section("users", "!document.querySelector('#users').hidden").await;
    let find = format!("document.querySelector('#subject').value = {}", Value::from(reversed));
    browser.script(&find).await;
    browser.tab_to("#subject").await;
    browser.press(ENTER).await;
    browser.until_text("#user-sessions h2", "\\u{202e}nimda").await;
    // A step in a path would reach another endpoint.
    browser.script("document.querySelector('#subject').value = '..'").await;
    browser.tab_to("#subject").await;
    browser.press(ENTER).await;
    browser.until_text("#failure", "cannot be a part of a path").await;

    let made = "return [window.hacked ?? null, document.querySelectorAll('main img, main script, dialog img, dialog script').length]";
    assert_eq!(browser.script(made).await, serde_json::json!([null, 0]));
    // Were a script of the page careless, the browser would still refuse.
    let careless =
        "try { document.querySelector('main').innerHTML = '<b>'; return 'made' } catch (error) { return error.name }";
    assert_eq!(browser.script(careless).await, "TypeError");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_can_frame_it_and_no_other_site_can_use_it() {
    let stack = Stack::start("chromium-frame").await;
    let browser = &stack.browser;
    let frame = format!("<title>evil</title><iframe src='{}'></iframe>", stack.page);
    let evil = harness::Upstream::answering(move |_| {
        harness::Answer::new(200, frame.clone()).header("content-type", "text/html")
    });
    let evil = evil.await;
    // Another site, and another port of the same one.
    for host in ["localhost", "127.0.0.1"] {
        browser.open(&format!("http://{host}:{}/", evil.address().port())).await;
        assert_eq!(browser.script("return document.title").await, "evil");
        let framed = "try { return frames[0].document.title } catch (error) { return error.name }";
        assert_eq!(browser.script(framed).await, "SecurityError", "an error page of the browser");
        let console = browser.console().await.join("\n");
        assert!(console.contains("frame-ancestors 'none'"), "{console}");
        let admin = stack.sessions.service().admin_address();
        let send = format!(
            "return fetch('http://{admin}/v1/revocations', {{ method: 'POST', mode: 'no-cors', credentials: 'include', \
             body: JSON.stringify({{ kind: 'user', issuer: 'https://sessions.example', id: 'alice' }}) }})\
             .then((answer) => answer.type, (error) => error.name)"
        );
        // `cross-origin-resource-policy` keeps even the opaque answer.
        assert_eq!(browser.script(&send).await, "TypeError");
    }
    let request = Request::get("/v1/revocations").bearer(TOKEN);
    let revocations = exchange(stack.sessions.service().admin_address(), &request).await.unwrap().json();
    assert_eq!(revocations["revocations"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_no_fault_in_any_section() {
    let Some(axe) = axe() else {
        eprintln!("left out: axe-core is not installed");
        return;
    };
    let stack = Stack::start("chromium-axe").await;
    let browser = &stack.browser;
    stack.create("alice", &["--bind-address", "192.0.2.0/24"]);
    browser.script(&std::fs::read_to_string(axe).unwrap()).await;
    stack.assert_accessible("signing in").await;
    browser.tab_to("#token").await;
    browser.press(&format!("wrong{ENTER}")).await;
    browser.until_text("#failure", "not accepted").await;
    stack.assert_accessible("a failure").await;
    stack.sign_in().await;
    stack.look_up("alice").await;
    stack.assert_accessible("sessions").await;
    browser.tab_to("#end-all").await;
    browser.press(ENTER).await;
    browser.until("document.querySelector('#confirm').open").await;
    stack.assert_accessible("the preview").await;
    browser.press(&format!("left{ENTER}")).await;
    browser.until_text("#status", "Ended 1 session.").await;
    stack.section("revocations", "document.querySelector('#revocation-list tbody tr')").await;
    stack.assert_accessible("revocations").await;
    stack.section("audit", "document.querySelector('#audit-entries tbody tr')").await;
    stack.assert_accessible("audit entries").await;
    stack.section("health", "document.querySelector('#health-state table')").await;
    stack.assert_accessible("health").await;
}

/// As `scripts/chromium` installs it.
fn axe() -> Option<PathBuf> {
    let path = project().join(Path::new("tests/chromium/node_modules/axe-core/axe.min.js"));
    path.exists().then_some(path)
}
