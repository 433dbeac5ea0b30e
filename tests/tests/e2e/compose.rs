//! The mesh of envoy/compose.yaml, run natively from the files that ship: edge with TLS 1.3, two instances of the
//! service, a Redis Cluster with TLS and ACL, Prometheus. Only the container boundary is not here.
use harness::{Compose, Connection, Request, Response, Service, project, wait_until};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

mod under_load;

const LATEST: Duration = Duration::from_secs(20);
const ISSUER: &str = "https://login.example.com";
/// Freshness of the shipped configuration, and a tick.
const LAG: Duration = Duration::from_millis(2_500);

async fn mesh(name: &str) -> Compose {
    let mut mesh = Compose::new(name);
    let store = mesh.run("store").await;
    assert!(!store.trim().is_empty(), "`store create` prints the store's id");
    mesh.up("edge").await;
    mesh
}

/// A session that an instance of the service makes: its id and its JWT.
fn session(mesh: &Compose) -> (String, String) {
    let service = format!("http://{}", mesh.address("sessions-1", 7701));
    let token = mesh.secret("admin-token").display().to_string();
    let (output, errors, code) = Service::portcullis(&[
        "session",
        "create",
        "--subject=alice",
        "--format=jwt",
        "--json",
        "--service",
        &service,
        "--token-file",
        &token,
    ]);
    assert_eq!(code, 0, "{errors}");
    let made: Value = serde_json::from_str(&output).expect("JSON");
    let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("no {name}: {made}")).to_owned();
    (text("sid"), text("access_token"))
}

fn revoke(mesh: &Compose, instance: &str, session: &str) -> i32 {
    let service = format!("http://{}", mesh.address(instance, 7701));
    let token = mesh.secret("admin-token").display().to_string();
    let (_, errors, code) = Service::portcullis(&[
        "revoke",
        "session",
        "--issuer",
        ISSUER,
        &format!("--id={session}"),
        "--service",
        &service,
        "--token-file",
        &token,
    ]);
    assert!(code == 0 || !errors.is_empty());
    code
}

async fn open(mesh: &Compose) -> Connection {
    let address = mesh.address("edge", 8443);
    Connection::open_tls(address, &mesh.secret("ca")).await.expect("the edge speaks TLS 1.3")
}

async fn get(mesh: &Compose, token: &str) -> Response {
    open(mesh).await.send(&Request::get("/api/orders").bearer(token)).await.expect("the edge answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_speaks_tls_1_3_alone_and_shows_no_more_of_itself_than_it_must() {
    let mut mesh = mesh("compose-edge").await;
    let connect = |version: &str| {
        let output = std::process::Command::new("openssl")
            .args(["s_client", version, "-connect", &mesh.address("edge", 8443).to_string(), "-CAfile"])
            .arg(mesh.secret("ca"))
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (ok, shown) = connect("-tls1_3");
    assert!(ok && shown.contains("Verify return code: 0"), "{shown}");
    assert!(!connect("-tls1_2").0);

    for (path, status) in [("/ready", 200), ("/stats/prometheus", 200), ("/config_dump", 404), ("/quitquitquit", 404)] {
        let response = harness::exchange(mesh.address("edge", 9902), &Request::get(path)).await.expect("an answer");
        assert_eq!(response.status, status, "{path}");
    }
    let quit = harness::exchange(mesh.address("edge", 9902), &Request::new("POST", "/stats/prometheus")).await;
    assert_eq!(quit.expect("an answer").status, 404);

    // Redis: no access without a password, nothing without TLS, and the service's user can neither empty nor read the rest.
    let password = std::fs::read_to_string(mesh.secret("redis-password")).expect("a password");
    let redis = |user: &[&str], command: &[&str]| {
        let output = std::process::Command::new("redis-cli")
            .args(["--tls", "--cacert"])
            .arg(mesh.secret("ca"))
            .args(["-h", &mesh.address("redis-1", 6379).ip().to_string(), "-p", "6379", "--no-auth-warning"])
            .args(user)
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
    };
    let service = ["--user", "portcullis", "--pass", password.as_str()];
    assert!(redis(&[], &["PING"]).starts_with("NOAUTH"), "{}", redis(&[], &["PING"]));
    assert_eq!(redis(&service, &["PING"]), "PONG");
    for denied in
        [&["FLUSHALL"][..], &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"], &["GET", "another"], &["KEYS", "*"]]
    {
        assert!(redis(&service, denied).starts_with("NOPERM"), "{denied:?}: {}", redis(&service, denied));
    }
    let plain = harness::exchange(mesh.address("redis-1", 6379), &Request::get("/")).await;
    assert!(plain.is_err(), "Redis answers without TLS");
    mesh.process("edge").assert_running();
}

/// Every name of a metric of ours in an expression.
fn metric_names(expression: &str) -> Vec<String> {
    let words = expression.split(|one: char| !(one.is_ascii_alphanumeric() || one == '_' || one == ':'));
    let ours = words.filter(|word| word.starts_with("portcullis_") || word.starts_with("envoy_") || *word == "up");
    ours.map(str::to_owned).collect()
}

#[test]
fn names_of_metrics_are_found_in_expressions() {
    let expression = "sum by (le) (rate(portcullis_redis_seconds_bucket{job=\"portcullis\"}[5m])) > 0 and up == 0";
    assert_eq!(metric_names(expression), ["portcullis_redis_seconds_bucket", "up"]);
}

/// The expressions of the dashboard and of the alerts, each with its place.
fn expressions(mesh: &Compose) -> Vec<(String, String)> {
    let dashboard = std::fs::read_to_string(project().join("envoy/grafana/dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = target["expr"].as_str().expect("an expression").replace("$__rate_interval", "1m");
            all.push((format!("panel {}", panel["title"]), text));
        }
    }
    let alerts: Value = serde_norway::from_str(&mesh.config("prometheus", "/etc/prometheus/alerts.yml")).expect("YAML");
    for rule in alerts["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array()).flatten()
    {
        all.push((format!("alert {}", rule["alert"]), rule["expr"].as_str().expect("an expression").to_owned()));
    }
    assert!(all.len() > 20, "{} expressions", all.len());
    all
}

async fn ask(mesh: &Compose, path: &str) -> Value {
    let response = harness::exchange(mesh.address("prometheus", 9090), &Request::get(path)).await;
    response.map(|response| response.json()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_the_dashboard_and_in_the_alerts_exists_on_a_running_mesh() {
    let mut mesh = mesh("compose-watched").await;
    mesh.up("prometheus").await;
    let (ended, token) = session(&mesh);
    assert!(wait_until(LATEST, async || get(&mesh, &token).await.status == 200).await);
    assert_eq!(get(&mesh, "garbage").await.status, 401);
    assert_eq!(revoke(&mesh, "sessions-1", &ended), 0);
    assert!(wait_until(LATEST, async || get(&mesh, &token).await.status == 403).await);
    let (_, fresh) = session(&mesh);
    // A failed check counts too: neither instance answers for a moment.
    for instance in ["sessions-1", "sessions-2"] {
        mesh.process(instance).pause();
    }
    assert_eq!(get(&mesh, &fresh).await.status, 503);
    for instance in ["sessions-1", "sessions-2"] {
        mesh.process(instance).resume();
    }

    // By either instance, in a Cluster, as a user that may do little.
    let timed = async || {
        let asked = ask(&mesh, "/api/v1/query?query=sum(portcullis_revocation_lag_seconds_count)").await;
        asked["data"]["result"][0]["value"][1] == "1"
    };
    assert!(wait_until(LATEST, timed).await, "the revocation is not timed");
    let expressions = expressions(&mesh);
    let mut missing = Vec::new();
    let all_there = wait_until(LATEST, async || {
        let known = ask(&mesh, "/api/v1/label/__name__/values").await;
        let known: Vec<_> = known["data"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        missing.clear();
        for (place, expression) in &expressions {
            let names = metric_names(expression);
            assert!(!names.is_empty(), "{place} asks for nothing of ours: {expression}");
            // This mesh does not follow the feed, watches no streams, fetches no events and joins no region.
            let is_off = |name: &str| {
                [
                    "portcullis_feed_answers",
                    "portcullis_feed_age_milliseconds",
                    "portcullis_streams_open",
                    "portcullis_streams_ended",
                    "portcullis_provider_polled_timestamp_seconds",
                    "portcullis_provider_stream_enabled",
                    "portcullis_region_complete_timestamp_seconds",
                    "portcullis_region_mismatch",
                    "portcullis_region_merged_total",
                    "portcullis_region_requests_total",
                    "portcullis_regions_exceeded",
                ]
                .contains(&name)
            };
            for name in names.into_iter().filter(|name| !known.contains(&name.as_str()) && !is_off(name)) {
                missing.push(format!("{place}: {name}"));
            }
        }
        missing.is_empty()
    })
    .await;
    if !all_there {
        let known = ask(&mesh, "/api/v1/label/__name__/values").await.to_string();
        let ours: Vec<_> =
            known.split(',').filter(|name| name.contains("portcullis") || name.contains("wasm")).collect();
        panic!("nobody counts {missing:#?}; there are {ours:#?}");
    }
    // Prometheus takes each as it stands, and has read the rules.
    for (place, expression) in &expressions {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = ask(&mesh, &format!("/api/v1/query?query={encoded}")).await;
        assert_eq!(answer["status"], "success", "{place}: {expression}: {answer}");
    }
    let rules = ask(&mesh, "/api/v1/rules").await;
    let rules = rules["data"]["groups"][0]["rules"].as_array().map_or(0, Vec::len);
    assert_eq!(rules, expressions.iter().filter(|(place, _)| place.starts_with("alert")).count());
    // Every target is scraped.
    let scraped = async || {
        let targets = ask(&mesh, "/api/v1/targets?state=active").await;
        let targets = targets["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        targets.len() == 3 && targets.iter().all(|target| target["health"] == "up")
    };
    assert!(wait_until(LATEST, scraped).await, "{}", ask(&mesh, "/api/v1/targets?state=active").await);
}
