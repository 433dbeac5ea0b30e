//! A service that issues sessions, and the sessions whose opaque tokens are sent.
use anyhow::{Context as _, ensure};
use harness::{Connection, Directory, Request, Service, ServiceOptions};
use serde_json::json;

use crate::tokens::AUDIENCE;

pub const ISSUER: &str = "https://sessions.example.com";
/// The client that introspects.
pub const CLIENT: &str = "gateway";
pub const CLIENT_SECRET: &str = "a-client-secret-of-the-bench-long-enough";
/// A token is a cache miss if this many others were seen since: one and a half times the filter's default cache.
pub const UNIQUE: usize = 6_000;
/// Sessions created concurrently.
const MAKERS: usize = 16;

/// The service's options, with sessions.
pub fn options(directory: &Directory, redis_url: String) -> ServiceOptions {
    directory.write("client-secret", CLIENT_SECRET);
    let client = json!({ "client_id": CLIENT, "secret_files": ["client-secret"], "may": ["introspect"] });
    let clients = directory.write("clients.json", json!({ "clients": [client] }).to_string());
    let clients = clients.display().to_string();
    let sightings = directory.write("hijack.yaml", "{}").display().to_string();
    let mut options = ServiceOptions::new(redis_url);
    for (flag, value) in [
        ("--session-issuer", ISSUER),
        ("--session-audience", AUDIENCE),
        ("--clients-file", &clients),
        ("--sightings-file", &sightings),
        ("--admin-rate", "1000000"),
    ] {
        options.arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    options
}

/// The access tokens of `count` sessions, each with its own subject.
///
/// # Errors
/// The service does not create one.
pub async fn make(service: &Service, count: usize) -> anyhow::Result<Vec<String>> {
    let mut makers = Vec::new();
    for maker in 0..MAKERS.min(count) {
        let (address, secret) = (service.admin_address(), service.options().admin_token.clone());
        makers.push(tokio::spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut tokens = Vec::new();
            for number in (maker..count).step_by(MAKERS) {
                let body = json!({ "subject": format!("user {number}"), "scope": "orders:read orders:write" });
                let request = Request::new("POST", "/v1/sessions")
                    .bearer(&secret)
                    .header("content-type", "application/json")
                    .body(body.to_string());
                let answer = connection.send(&request).await?;
                ensure!(answer.status == 201, "no session was made: {}", answer.text());
                let token = answer.json()["access_token"].as_str().context("no access_token")?.to_owned();
                tokens.push(token);
            }
            anyhow::Ok(tokens)
        }));
    }
    let mut tokens = Vec::with_capacity(count);
    for maker in makers {
        tokens.extend(maker.await??);
    }
    Ok(tokens)
}
