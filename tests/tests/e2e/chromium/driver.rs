//! Chromium, driven by the W3C's WebDriver protocol through ChromeDriver.
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Directory, Process, Request, START_DEADLINE, exchange, wait_until};
use serde_json::{Value, json};

/// The longest that a page may take to show something. Nothing waits this long unless it fails.
const SHOWN: Duration = Duration::from_secs(60);
/// How long Chromium may take to end.
const ENDS: Duration = Duration::from_secs(30);

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";

/// One window. Chromium ends with it.
pub struct Browser {
    address: SocketAddr,
    session: String,
    _process: Process,
}

impl Browser {
    pub async fn start(directory: &Directory) -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", directory.path());
        let mut process = Process::start("chromedriver", command, directory.path());
        let port = |log: &str| log.split("successfully on port ").nth(1)?.split('.').next()?.parse::<u16>().ok();
        wait_until(START_DEADLINE, async || port(&process.log()).is_some() || !process.is_running()).await;
        let Some(port) = port(&process.log()) else { panic!("chromedriver does not start:\n{}", process.log_tail()) };
        let mut browser =
            Self { address: SocketAddr::from(([127, 0, 0, 1], port)), session: String::new(), _process: process };
        let profile = format!("--user-data-dir={}", directory.path().join("chromium").display());
        // The sandbox needs privileges that containers lack. Chromium sees pages of the tests only.
        let arguments = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"];
        let arguments = [&arguments[..], &["--window-size=1100,760", &profile]].concat();
        let options = json!({ "args": arguments });
        let capabilities = json!({ "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } });
        let made = browser.send("POST", "/session", &json!({ "capabilities": capabilities })).await;
        browser.session = made["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}")).to_owned();
        browser
    }

    /// Waits until the page has loaded.
    pub async fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": url })).await;
    }

    /// The value that a function with this body returns. It runs in the page.
    pub async fn script(&self, body: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": body, "args": [] })).await
    }

    /// The text of the first element.
    pub async fn text(&self, selector: &str) -> String {
        let text = self.script(&format!("return document.querySelector({})?.textContent ?? ''", json!(selector))).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        let body = format!("return Boolean({expression})");
        let shown = wait_until(SHOWN, async || self.script(&body).await == true).await;
        assert!(shown, "never: {expression}\n{}", self.text("body").await);
    }

    /// Waits until the first element's text contains this.
    pub async fn until_text(&self, selector: &str, part: &str) {
        let shown = wait_until(SHOWN, async || self.text(selector).await.contains(part)).await;
        assert!(shown, "{selector} never has {part:?}:\n{}", self.text("body").await);
    }

    /// Presses each key and releases it, where the focus is.
    pub async fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.command("/actions", &actions).await;
    }

    /// Moves the focus by Tab until it is on the element.
    pub async fn tab_to(&self, selector: &str) {
        let is_there = format!("return document.activeElement?.matches({}) ?? false", json!(selector));
        for _ in 0..200 {
            if self.script(&is_there).await == true {
                return;
            }
            self.press(TAB).await;
        }
        panic!("Tab does not reach {selector}");
    }

    /// Clicks the first element, as a mouse does.
    pub async fn click(&self, selector: &str) {
        let found = self.command("/element", &json!({ "using": "css selector", "value": selector })).await;
        let id = found.as_object().and_then(|found| found.values().next()?.as_str());
        let id = id.unwrap_or_else(|| panic!("no {selector}: {found}"));
        self.command(&format!("/element/{id}/click"), &json!({})).await;
    }

    /// For the host of the open page.
    pub async fn set_cookie(&self, name: &str, value: &str) {
        self.command("/cookie", &json!({ "cookie": { "name": name, "value": value, "path": "/", "sameSite": "Lax" } }))
            .await;
    }

    /// Sets `prefers-color-scheme`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": features });
        self.command("/goog/cdp/execute", &command).await;
    }

    /// What the browser has complained about since the last call: policies, scripts, failed requests.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.command("/se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry["message"].as_str().map(str::to_owned)).collect()
    }

    pub async fn screenshot(&self, file: &Path) {
        let shot = self.send("GET", &format!("/session/{}/screenshot", self.session), &Value::Null).await;
        std::fs::write(file, STANDARD.decode(shot.as_str().unwrap()).unwrap()).unwrap();
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("/session/{}{path}", self.session), body).await
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        // The driver answers requests to a local host only.
        let request = Request::new(method, path).header("host", self.address.to_string());
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = exchange(self.address, &request).await.expect("chromedriver answers");
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()["value"].clone()
    }
}

impl Drop for Browser {
    /// Without this, Chromium would outlive its driver.
    fn drop(&mut self) {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return };
        let _ = stream.set_read_timeout(Some(ENDS));
        let _ = write!(
            stream,
            "DELETE /session/{} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.session, self.address
        );
        let _ = stream.read(&mut [0; 64]);
    }
}
