//! Sessions of our own service in the real proxy: made over its admin interface, introspected by the filter, refreshed, and
//! ended in each way that there is.
use std::time::{Duration, Instant};

use harness::mesh::{CHECK_TIMEOUT, FRESHNESS};
use harness::{Directory, Mesh, MeshOptions, Redis, Request, Response, ServiceOptions, exchange, wait_until};
use serde_json::{Value, json};

const ISSUER: &str = "https://sessions.example";
const CLIENT_SECRET: &str = "a-client-secret-of-the-tests-long-enough";
/// The longest that the filter may take until it follows.
const START: Duration = Duration::from_secs(15);
/// The longest that an end may take beyond the freshness.
const GRACE: Duration = Duration::from_millis(500);

/// The service makes sessions, and the filter asks it about their tokens under the rule `/own`, which asks once: the
/// service looks at revocations before it calls a token active. `/api` asks about revocations by itself as well.
async fn start(name: &str) -> (Redis, Mesh) {
    start_with(name, |_| ()).await
}

async fn start_with(name: &str, edit: impl FnOnce(&mut Value)) -> (Redis, Mesh) {
    let directory = Directory::new(name);
    let redis = Redis::start(&directory).await;
    directory.write("client-secret", CLIENT_SECRET);
    let clients = json!({ "clients": [
        { "client_id": "gateway", "secret_files": ["client-secret"], "may": ["introspect"] },
        { "client_id": "app", "secret_files": ["client-secret"], "may": ["refresh", "revoke"] },
    ] });
    let clients = directory.write("clients.json", clients.to_string());
    let mut service = ServiceOptions::new(redis.url());
    for (flag, value) in [
        ("--session-issuer", ISSUER),
        ("--session-audience", "api"),
        ("--clients-file", clients.to_str().expect("a plain path")),
    ] {
        service.arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    let mut options = MeshOptions { service: Some(service), ..MeshOptions::default() };
    let introspection = json!({
        "cluster": "session_service", "path": "/oauth2/introspect", "client_id": "gateway", "client_secret_env": "CLIENT_SECRET",
        "freshness": format!("{}ms", FRESHNESS.as_millis()), "timeout": format!("{}ms", CHECK_TIMEOUT.as_millis()),
        "format": "portcullis",
    });
    let issuer = json!({ "name": "own", "issuer": ISSUER, "audiences": ["api"], "introspection": introspection });
    options.filter["issuers"].as_array_mut().unwrap().push(issuer);
    let rule = json!({
        "name": "own", "match": { "path": { "prefix": "/own" } }, "access": "required", "issuers": ["own"],
        "revocation": "off",
    });
    options.filter["rules"].as_array_mut().unwrap().insert(0, rule);
    edit(&mut options.filter);
    options.environment = vec![("CLIENT_SECRET".into(), CLIENT_SECRET.into())];
    let mesh = match Mesh::try_start_in(directory, options).await {
        Ok(mesh) => mesh,
        Err(log) => panic!("envoy does not start:\n{log}"),
    };
    (redis, mesh)
}

async fn admin(mesh: &Mesh, method: &str, path: &str, body: &Value) -> Response {
    let service = mesh.service.as_ref().expect("a real service");
    let request = Request::new(method, path)
        .bearer(&service.options().admin_token)
        .header("content-type", "application/json")
        .body(body.to_string());
    exchange(service.admin_address(), &request).await.expect("the service answers")
}

async fn create(mesh: &Mesh, subject: &str) -> Value {
    let body = json!({ "subject": subject, "client_id": "app", "refresh": true, "reason": "a test" });
    let response = admin(mesh, "POST", "/v1/sessions", &body).await;
    assert_eq!(response.status, 201, "{}", response.text());
    response.json()
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_else(|| panic!("{member}: {value}"))
}

/// Both rules: the one that asks for introspection alone, and the one that checks as well.
async fn seen(mesh: &Mesh, token: &str) -> [(u16, String); 2] {
    let mut seen = Vec::new();
    for path in ["/own", "/api"] {
        let response = mesh.send(&Request::get(path).bearer(token)).await;
        seen.push((response.status, response.json()["code"].as_str().unwrap_or_default().to_owned()));
    }
    seen.try_into().expect("two")
}

/// Refused on both rules within the freshness. Which word comes first, the introspection's or the check's, is a race.
async fn ends_in_time(mesh: &Mesh, token: &str) {
    let is_refused = |(status, code): &(u16, String)| {
        matches!((*status, code.as_str()), (401, "SESSION_UNKNOWN") | (403, "SESSION_REVOKED"))
    };
    let mut last = Vec::new();
    let ended = wait_until(FRESHNESS + GRACE, async || {
        last = seen(mesh, token).await.to_vec();
        last.iter().all(is_refused)
    });
    assert!(ended.await, "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_passes_until_it_is_ended_and_no_longer_than_the_freshness() {
    let (_redis, mesh) = start("own-sessions").await;
    let (first, second, third) =
        (create(&mesh, "alice").await, create(&mesh, "bob").await, create(&mesh, "carol").await);
    for (tokens, subject) in [(&first, "alice"), (&second, "bob"), (&third, "carol")] {
        let token = text(tokens, "access_token");
        assert!(token.starts_with("pcs_"));
        for path in ["/own", "/api"] {
            let response = mesh.send(&Request::get(path).bearer(token).header("x-user-id", "mallory")).await;
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            assert_eq!(response.upstream_saw("x-user-id"), [subject]);
            assert!(response.upstream_saw("authorization").is_empty());
        }
    }
    // A refresh token is none of the tokens that pass, and never reaches the service.
    let refused = mesh.get(text(&first, "refresh_token")).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("TOKEN_MALFORMED")));

    // One by the admin interface, one by its client (RFC 7009), one by the command for everybody.
    let path = format!("/v1/sessions/{}", text(&first, "sid"));
    let response = admin(&mesh, "DELETE", &path, &json!({})).await;
    assert_eq!(response.status, 200, "{}", response.text());
    ends_in_time(&mesh, text(&first, "access_token")).await;

    let form = format!("token={}&client_id=app&client_secret={CLIENT_SECRET}", text(&second, "access_token"));
    let revoke =
        Request::new("POST", "/oauth2/revoke").header("content-type", "application/x-www-form-urlencoded").body(form);
    let service = mesh.service.as_ref().unwrap().address();
    let response = exchange(service, &revoke).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    ends_in_time(&mesh, text(&second, "access_token")).await;

    assert_eq!(seen(&mesh, text(&third, "access_token")).await.map(|(status, _)| status), [200, 200]);
    mesh.revoke(&["user", "--issuer", ISSUER, "--id", "carol"]).await;
    ends_in_time(&mesh, text(&third, "access_token")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_feed_an_answer_is_kept_and_the_end_of_its_session_is_pushed() {
    let (_redis, mesh) = start_with("own-sessions-fed", |filter| {
        let own = filter["issuers"].as_array_mut().unwrap().last_mut().unwrap();
        own["introspection"]["freshness"] = "60s".into();
        filter["revocation"]["feed"] = json!({ "lag": "1s" });
    })
    .await;
    let tokens = create(&mesh, "alice").await;
    let token = text(&tokens, "access_token");
    let asked = async || {
        let results = mesh.envoy.stats("portcullis.introspections").await;
        results.iter().map(|(_, count)| count).sum::<u64>()
    };
    let is_clear = async || {
        mesh.get(token).await;
        mesh.envoy.stat("wasmcustom.portcullis.feed_answers.result.clear").await > 0
    };
    assert!(wait_until(START, is_clear).await, "no proof");
    // Longer than any answer counts without the feed.
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        let response = mesh.get(token).await;
        assert_eq!(response.status, 200, "{}", response.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let questions = asked().await;
    // Each of two workers, once before there was a proof and once after it.
    assert!(questions <= 4, "{questions}");
    let path = format!("/v1/sessions/{}", text(&tokens, "sid"));
    assert_eq!(admin(&mesh, "DELETE", &path, &json!({})).await.status, 200);
    ends_in_time(&mesh, token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_down_no_session_passes_and_they_pass_again_by_themselves() {
    let (mut redis, mesh) = start("own-sessions-down").await;
    let tokens = create(&mesh, "alice").await;
    let token = text(&tokens, "access_token");
    assert_eq!(seen(&mesh, token).await.map(|(status, _)| status), [200, 200]);
    redis.process().stop();
    let mut last = Vec::new();
    let is_down = wait_until(FRESHNESS + GRACE, async || {
        last = seen(&mesh, token).await.to_vec();
        last.iter().all(|(status, _)| *status == 503)
    });
    assert!(is_down.await, "{last:?}");
    redis.restart().await;
    let passes = wait_until(Duration::from_secs(10), async || seen(&mesh, token).await.iter().all(|(s, _)| *s == 200));
    assert!(passes.await, "it recovers by itself");
}
