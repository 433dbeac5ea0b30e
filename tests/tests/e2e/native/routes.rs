//! Routes of Envoy that select a rule of the filter.
use super::*;

const ROUTES: &str = "                        - match: { prefix: / }\n";

/// The routes, each with what it matches and what its configuration says, before those of the bootstrap.
fn with_routes(bootstrap: &str, routes: &[(&str, &str)]) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute";
    let routes: String = routes
        .iter()
        .map(|(matches, document)| {
            let config = json!({
                "match": "MATCH",
                "route": { "cluster": "upstream" },
                "typed_per_filter_config": { "portcullis": {
                    "@type": kind,
                    "dynamic_module_config": { "name": "portcullis", "do_not_close": true },
                    "per_route_config_name": "portcullis",
                    "filter_config": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": document },
                } },
            });
            format!("                        - {}\n", config.to_string().replace("\"MATCH\"", matches))
        })
        .collect();
    assert!(bootstrap.contains(ROUTES), "{bootstrap}");
    bootstrap.replace(ROUTES, &format!("{routes}{ROUTES}"))
}

/// With a rule that needs the scope `admin`, and one that any token satisfies.
fn routed(edit: fn(String) -> String) -> MeshOptions {
    let mut options = MeshOptions { edit, ..native() };
    let rules = options.filter["rules"].as_array_mut().expect("rules");
    rules.push(json!({ "name": "admin", "access": "required", "for_routes": true, "scopes": { "all": ["admin"] } }));
    rules.push(json!({ "name": "any", "access": "required", "for_routes": true }));
    options
}

fn code(response: &harness::Response) -> (u16, String) {
    (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_selects_a_rule_in_place_of_the_first_that_matches() {
    let options = routed(|bootstrap| {
        let (admin, strict) = (r#"{ "rule": "admin" }"#, r#"{"rule":"admin"}"#);
        with_routes(&bootstrap, &[(r#"{"prefix":"/api/admin"}"#, admin), (r#"{"prefix":"/public/but"}"#, strict)])
    });
    let mesh = Mesh::start_with("native-routes", options).await;
    let admin = mesh.keys.first.mint(&claims_with(&json!({ "scope": "admin" })));
    let user = mesh.token();
    let get = async |path: &str, token: &str| {
        let response = mesh.send(&Request::get(path).bearer(token)).await;
        if response.status == 200 { (200, String::new()) } else { code(&response) }
    };
    assert_eq!(get("/api", &user).await.0, 200);
    assert_eq!(get("/api/admin", &admin).await.0, 200);
    assert_eq!(get("/api/admin", &user).await, (403, "SCOPE_INSUFFICIENT".to_owned()));
    // A public rule of the document does not apply there.
    assert_eq!(mesh.send(&Request::get("/public")).await.status, 200);
    assert_eq!(code(&mesh.send(&Request::get("/public/but")).await), (401, "TOKEN_MISSING".to_owned()));
    // The other checks stay.
    assert_eq!(get("/api/admin/..%2f", &admin).await.0, 400);
    let sid = mint_claim(&admin, "sid");
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", &sid]).await;
    let is_refused = async || get("/api/admin", &admin).await == (403, "SESSION_REVOKED".to_owned());
    assert!(wait_until(Duration::from_secs(10), is_refused).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_does_not_choose_the_rule() {
    // The header is one that the filter sets: it removes a client's, and Envoy chooses the route again.
    let options = routed(|bootstrap| {
        let by_header = r#"{"prefix":"/api","headers":[{"name":"x-role","string_match":{"exact":"admin"}}]}"#;
        with_routes(&bootstrap, &[(by_header, r#"{"rule":"any"}"#), (r#"{"prefix":"/api"}"#, r#"{"rule":"admin"}"#)])
    });
    let mut mesh = Mesh::start_with("native-route-header", options).await;
    let get = async |token: &str| mesh.send(&Request::get("/api").bearer(token).header("x-role", "admin")).await;
    assert_eq!(code(&get(&mesh.token()).await), (403, "SCOPE_INSUFFICIENT".to_owned()));
    let token = |role: &str| mesh.keys.first.mint(&claims_with(&json!({ "scope": "admin", "role": role })));
    assert_eq!(get(&token("user")).await.status, 200);
    // The header that the filter sets leads to a route with another rule than the one that was checked.
    assert_eq!(code(&get(&token("admin")).await), (403, "ROUTE_UNMATCHED".to_owned()));
    assert!(mesh.envoy_log().contains("the request's route changed after its rule was chosen"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_cannot_turn_the_check_off_or_name_an_unknown_rule() {
    let start = async |edit: fn(String) -> String| {
        Mesh::try_start("native-route-refused", routed(edit)).await.err().expect("Envoy does not start")
    };
    let log = start(|bootstrap| with_routes(&bootstrap, &[(r#"{"prefix":"/api"}"#, r#"{"rule":"admn"}"#)])).await;
    assert!(log.contains("a route of Envoy selects the rule `admn`"), "{log}");
    // A rule of the document that is not for routes.
    let log = start(|bootstrap| with_routes(&bootstrap, &[(r#"{"prefix":"/api"}"#, r#"{"rule":"public"}"#)])).await;
    assert!(log.contains("a route of Envoy selects the rule `public`"), "{log}");
    for (edit, why) in [
        (
            (|bootstrap: String| with_routes(&bootstrap, &[(r#"{"prefix":"/api"}"#, r#"{"disabled":true}"#)]))
                as fn(String) -> String,
            "unknown field `disabled`",
        ),
        (|bootstrap| with_routes(&bootstrap, &[(r#"{"prefix":"/api"}"#, "")]), "EOF"),
        (|bootstrap| with_routes(&bootstrap, &[(r#"{"prefix":"/api"}"#, "{}")]), "missing field `rule`"),
    ] {
        let log = start(edit).await;
        assert!(log.contains("portcullis: the configuration of a route is refused: "), "{log}");
        assert!(log.contains(why), "{why}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_with_an_unknown_rule_leaves_the_old_routes_in_place() {
    let edit = |bootstrap: String| with_routes(&bootstrap, &[(r#"{"prefix":"/api"}"#, r#"{"rule":"admin"}"#)]);
    let mut mesh =
        Mesh::start_with("native-route-update", MeshOptions { listener_from_file: true, ..routed(edit) }).await;
    let user = mesh.token();
    assert_eq!(mesh.get(&user).await.status, 403);
    mesh.envoy.update_listener(r#"{\"rule\":\"admin\"}"#, r#"{\"rule\":\"gone\"}"#);
    let is_refused = async || mesh.envoy.stat("listener_manager.lds.update_rejected").await == 1;
    assert!(wait_until(Duration::from_secs(10), is_refused).await);
    assert_eq!(mesh.get(&user).await.status, 403);
    mesh.envoy.update_listener(r#"{\"rule\":\"gone\"}"#, r#"{\"rule\":\"any\"}"#);
    let is_admitted = async || mesh.get(&user).await.status == 200;
    assert!(wait_until(Duration::from_secs(10), is_admitted).await);
    assert!(mesh.envoy_log().contains("selects the rule `gone`"));
}
