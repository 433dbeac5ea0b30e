//! What Envoy's own filters do with what the module exposes.
use super::*;

/// Envoy's filters after this one, before the router.
fn with_filter(bootstrap: &str, filter: &str) -> String {
    let router = "- name: envoy.filters.http.router";
    let (before, after) = bootstrap.split_once(router).expect("a router");
    let indent = before.rsplit('\n').next().unwrap_or_default();
    let filter: String = filter.trim().lines().map(|line| format!("{line}\n{indent}")).collect();
    format!("{before}{filter}{router}{after}")
}

fn exposing(edit: fn(String) -> String) -> MeshOptions {
    let mut options = MeshOptions { edit, ..native() };
    options.filter["expose"] = json!({
        "metadata": true,
        "claims": [
            { "claim": ["realm_access", "roles"] },
            { "claim": "org", "name": "tenant" },
        ],
    });
    options
}

/// As docs/exposed.md shows it.
const RBAC: &str = r#"
- name: envoy.filters.http.rbac
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules:
      action: ALLOW
      policies:
        admins:
          permissions: [{ any: true }]
          principals:
            - sourced_metadata:
                metadata_matcher:
                  filter: portcullis
                  path: [{ key: claim.roles }]
                  value: { list_match: { one_of: { string_match: { exact: admin } } } }
"#;

/// As docs/exposed.md shows it.
const RATE_LIMIT: &str = r#"
- name: envoy.filters.http.local_ratelimit
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
    stat_prefix: tenants
    filter_enabled: { default_value: { numerator: 100, denominator: HUNDRED } }
    filter_enforced: { default_value: { numerator: 100, denominator: HUNDRED } }
    token_bucket: { max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 3600s }
    rate_limits:
      - actions:
          - metadata:
              descriptor_key: tenant
              metadata_key: { key: portcullis, path: [{ key: claim.tenant }] }
              source: DYNAMIC
    descriptors:
      # Without a value: each tenant has a bucket of its own.
      - entries: [{ key: tenant }]
        token_bucket: { max_tokens: 3, tokens_per_fill: 3, fill_interval: 3600s }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_rbac_policy_reads_a_claim() {
    let mesh = Mesh::start_with("native-rbac", exposing(|bootstrap| with_filter(&bootstrap, RBAC))).await;
    let token =
        |roles: serde_json::Value| mesh.keys.first.mint(&claims_with(&json!({ "realm_access": { "roles": roles } })));
    assert_eq!(mesh.get(&token(json!(["user", "admin"]))).await.status, 200);
    for roles in [json!(["user"]), json!([]), json!("admin"), json!(["administrator"]), json!(null)] {
        let response = mesh.get(&token(roles.clone())).await;
        assert_eq!((response.status, response.text().as_str()), (403, "RBAC: access denied"), "{roles}");
    }
    // A client has no other way to the policy: without a token there is no claim.
    let request = Request::get("/public").header("claim.roles", "admin").header("x-role", "admin");
    assert_eq!(mesh.send(&request).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_counts_by_a_claim() {
    let mut options = exposing(|bootstrap| with_filter(&bootstrap, RATE_LIMIT));
    options.concurrency = 1;
    let mesh = Mesh::start_with("native-ratelimit", options).await;
    let send = async |tenant: &str| {
        let token = mesh.keys.first.mint(&claims_with(&json!({ "org": tenant })));
        mesh.get(&token).await.status
    };
    for tenant in ["acme", "globex"] {
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(send(tenant).await);
        }
        assert_eq!(seen, [200, 200, 200, 429, 429], "{tenant}");
    }
    // Another session of the same tenant is limited, and a token without the claim is not.
    assert_eq!(send("acme").await, 429);
    assert_eq!(mesh.get(&mesh.token()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_flags_in_the_access_log() {
    let mut options = MeshOptions {
        edit: |bootstrap| bootstrap.replace("\"%RESPONSE_FLAGS%\"", "\"flags=%RESPONSE_FLAGS%+%CUSTOM_FLAGS%=\""),
        ..native()
    };
    options.filter["rules"][4]["revocation"] = json!("dangerously_pass_when_unavailable");
    let mut mesh = Mesh::start_with("native-flags", options).await;
    let token = mesh.token();
    assert_eq!(mesh.get(&token).await.status, 200);
    assert_eq!(mesh.get("garbage").await.status, 401);
    let sid = mint_claim(&token, "sid");
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", &sid]).await;
    assert!(mesh.becomes_everywhere(&token, 403).await);
    drop(mesh.service.take());
    assert_eq!(mesh.get(&mesh.token()).await.status, 503);
    assert_eq!(mesh.send(&Request::get("/unchecked").bearer(&mesh.token())).await.status, 200);
    let mut missing = Vec::new();
    let all = wait_until(Duration::from_secs(15), async || {
        let log = mesh.envoy_log();
        let wanted = [(200, ""), (401, "PCR"), (403, "PCX"), (503, "PCU"), (200, "PCA")];
        missing = wanted.into_iter().filter(|(_, flag)| !log.contains(&format!("+{flag}="))).collect();
        missing.is_empty()
    });
    assert!(all.await, "{missing:?}: {}", mesh.envoy_log());
}
