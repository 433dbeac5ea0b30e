//! The documents and tokens of docs/providers through a real Envoy, service and Redis: each token passes, and `portcullis revoke`
//! ends it by itself, its session, its user and its client. `authn/tests/providers.rs` reads the same pages.
use std::time::Duration;

use cases::{ProviderKey, ProviderPage, ProviderToken, provider_key};
use harness::mesh::unix_now;
use harness::{Mesh, MeshOptions, Request, project, wait_until};
use mint::random_id;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(10);

/// A copy of a page's token, with ids that no other one has.
struct Copy {
    path: String,
    token: ProviderToken,
    jwt: String,
}

impl Copy {
    /// With the value of each of these claims, and every text like it, replaced by another.
    fn new(page: &ProviderPage, token: &ProviderToken, claims: &[&[String]], key: &ProviderKey) -> Self {
        let mut text = token.claims.to_string();
        for id in claims.iter().filter_map(|claims| token.first(claims)) {
            text = text.replace(&id, &format!("{id}-{}", random_id()));
        }
        let token = ProviderToken { refused: None, claims: serde_json::from_str(&text).unwrap() };
        let jwt = token.sign(key, unix_now());
        Self { path: format!("/{}", page.name), token, jwt }
    }

    async fn answer(&self, mesh: &Mesh) -> (u16, String) {
        let response = mesh.send(&Request::get(&self.path).bearer(&self.jwt)).await;
        let code = if response.status == 200 { Value::Null } else { response.json()["code"].clone() };
        (response.status, code.as_str().unwrap_or_default().to_owned())
    }
}

/// All pages in one document: a rule for each, with the conditions of the page's last one.
fn options(pages: &[ProviderPage], key: &ProviderKey) -> MeshOptions {
    let mut options = MeshOptions { concurrency: 1, ..MeshOptions::default() };
    let (mut issuers, mut rules) = (Vec::new(), Vec::new());
    for page in pages {
        let mut names = Vec::new();
        for issuer in page.document["issuers"].as_array().unwrap() {
            let mut issuer = issuer.clone();
            names.push(issuer["name"].clone());
            issuer.as_object_mut().unwrap().remove("jwks");
            issuer["keys"] = json!([{ "jwk": key.public_jwk().unwrap() }]);
            issuers.push(issuer);
        }
        let mut rule = page.document["rules"].as_array().unwrap().last().unwrap().clone();
        rule["name"] = json!(page.name);
        rule["match"] = json!({ "path": { "prefix": format!("/{}", page.name) } });
        rule["issuers"] = json!(names);
        rules.push(rule);
    }
    options.filter["issuers"] = json!(issuers);
    options.filter["rules"] = json!(rules);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_s_token_passes_and_is_ended_by_what_its_page_says() {
    let pages = ProviderPage::read_all(&project().join("docs/providers")).unwrap();
    assert_eq!(pages.len(), 8);
    let key = provider_key();
    let mesh = Mesh::start_with("providers", options(&pages, &key)).await;
    let token_claims = ["jti", "uti", "sub"].map(str::to_owned);

    // Clients last: other tokens have the same.
    for round in [["token", "session", "user"].as_slice(), ["client"].as_slice()] {
        let (mut copies, mut ended, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for page in &pages {
            for token in page.tokens.iter().filter(|token| token.refused.is_none()) {
                for kind in round.iter().copied() {
                    let mut unique: Vec<&[String]> = vec![&token_claims];
                    let claims = page.claims.get(kind).map(Vec::as_slice);
                    if kind != "client" {
                        unique.extend(claims);
                    }
                    let copy = Copy::new(page, token, &unique, &key);
                    assert_eq!(copy.answer(&mesh).await, (200, String::new()), "{}: {}", copy.path, copy.token.claims);
                    let other = Copy::new(page, token, &unique, &key);
                    copies.push((kind, claims, copy, other));
                }
            }
        }
        // Not before all of them have passed: tokens of one page may have the same client.
        for (kind, claims, copy, other) in copies {
            match claims.map(|claims| copy.token.first(claims)) {
                None => {
                    mesh.revoke(&["token", &copy.jwt]).await;
                    others.push(other);
                }
                Some(Some(id)) => {
                    mesh.revoke(&[kind, "--issuer", copy.token.issuer(), "--id", &id]).await;
                }
                Some(None) => continue,
            }
            ended.push((kind, copy));
        }
        assert!(ended.len() >= 8, "{} revocations", ended.len());
        for (kind, copy) in &ended {
            let revoked = (403, "SESSION_REVOKED".to_owned());
            let is_ended = wait_until(DEADLINE, async || copy.answer(&mesh).await == revoked).await;
            assert!(is_ended, "{} by {kind}: {}", copy.path, copy.token.claims);
        }
        for copy in others {
            assert_eq!(copy.answer(&mesh).await.0, 200, "{}: {}", copy.path, copy.token.claims);
        }
    }

    for page in &pages {
        for token in page.tokens.iter().filter(|token| token.refused.is_some()) {
            let copy = Copy::new(page, token, &[], &key);
            assert_eq!(Some(copy.answer(&mesh).await.1), token.refused, "{}: {}", copy.path, copy.token.claims);
        }
    }
}
