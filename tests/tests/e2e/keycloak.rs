//! The whole stack against a real Keycloak, as `make keycloak` sets it up: Java and the server are needed, so this is no
//! part of `make test`. Each step asserts and prints one line.
use harness::mesh::{FRESHNESS, unix_now};
use harness::{
    Directory, Mesh, MeshOptions, Process, Redis, Request, Response, Service, ServiceOptions, exchange, project,
    wait_until,
};
use mint::{Alg, SigningKey, from_base64url, random_id};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

mod server;
mod steps;

use server::{Browser, Keycloak, part, realm};
use steps::{events, introspection, kinds_of_tokens, logins, logouts, rotations, say};

/// Of the filter's key source: how long invented key ids can hold up a new key.
const COOL_DOWN: Duration = Duration::from_secs(2);
const REALM: &str = "/realms/shop";
const SECRET: &str = "a-secret-of-the-clients-of-the-tests";

/// The service, told by Keycloak.
async fn service(directory: &Directory, redis: &Redis, keycloak: &Keycloak) -> Service {
    let providers = json!({ "providers": [{
        "issuer": keycloak.issuer(), "audiences": ["web", "light", "bound", "portcullis"],
        "discovery": "openid-configuration", "algorithms": ["RS256", "ES256"], "logout": {}, "events": {},
    }] });
    let file = directory.write("providers.json", providers.to_string());
    let mut options = ServiceOptions::new(redis.url());
    options.arguments = vec!["--providers-file".to_owned(), file.display().to_string()];
    options.issuers.push(keycloak.issuer());
    Service::start(directory, options).await
}

/// An Envoy in front of the API. `introspects`: Keycloak is asked about each token as well.
async fn mesh(name: &str, keycloak: &Keycloak, service: &Service, introspects: bool) -> Mesh {
    let mut options =
        MeshOptions { check_address: Some(service.address()), idp: Some(keycloak.address), ..MeshOptions::default() };
    let mut issuer = json!({
        "name": "keycloak", "provider": "keycloak", "issuer": keycloak.issuer(), "audiences": ["api"],
        "algorithms": ["RS256", "ES256"],
        "jwks": { "cluster": "idp", "discovery": true, "cool_down": format!("{}s", COOL_DOWN.as_secs()) },
    });
    if introspects {
        issuer["introspection"] = json!({
            "of": "jwt", "cluster": "idp", "path": format!("{REALM}/protocol/openid-connect/token/introspect"),
            "authority": keycloak.address.to_string(), "client_id": "gateway", "client_secret_env": "INTROSPECTION_SECRET",
            "freshness": "1s",
        });
        options.environment.push(("INTROSPECTION_SECRET".to_owned(), SECRET.to_owned()));
    }
    options.filter["issuers"].as_array_mut().expect("issuers").push(issuer);
    let rules = options.filter["rules"].as_array_mut().expect("rules");
    let path = json!({ "path": { "prefix": "/admin" } });
    rules.insert(
        0,
        json!({ "name": "admin", "match": path, "access": "required", "revocable_by": ["session", "user"] }),
    );
    Mesh::start_with(name, options).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java and Keycloak: run `make keycloak`"]
async fn a_real_keycloak_and_the_proxy_agree() {
    let directory = Directory::new("keycloak");
    let keycloak = Keycloak::start(&directory).await;
    let redis = Redis::start(&directory).await;
    let service = service(&directory, &redis, &keycloak).await;
    keycloak.admin("POST", "", &realm(service.address())).await;
    let mesh = mesh("keycloak-mesh", &keycloak, &service, false).await;
    say("start", &format!("Keycloak, its realm, and a stack that trusts {}", keycloak.issuer()));

    logins(&keycloak, &mesh).await;
    kinds_of_tokens(&keycloak, &mesh, &service).await;
    introspection(&keycloak, &service).await;
    logouts(&keycloak, &mesh).await;
    rotations(&keycloak, &mesh, &service).await;
    events(&keycloak, &mesh, &service).await;
}
