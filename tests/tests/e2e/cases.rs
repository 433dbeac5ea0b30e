//! The table of cases through the real Envoy, service and Redis. `driver/tests/in_memory/cases.rs` judges the same table
//! without Envoy.
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cases::{Case, Expect, Introspection, Ready, Store, Table};
use harness::{
    Answer, Directory, Envoy, EnvoyOptions, FilterHost, H2Connection, Redis, Request, Response, Service,
    ServiceOptions, Upstream, exchange, project, wait_until,
};
use serde_json::json;

/// The proxy that the cases run through, with a listener for each configuration, over one service.
struct Stack {
    redis: Redis,
    service: Service,
    envoy: Envoy,
    /// The listeners, by the names of their configurations.
    listeners: BTreeMap<String, SocketAddr>,
    introspection: IntrospectionServer,
    _upstream: Upstream,
}

/// Replies about each token as its case says, and calls every other token active.
pub(crate) struct IntrospectionServer {
    /// By the body of the question.
    says: Arc<Mutex<HashMap<String, Introspection>>>,
    pub(crate) server: Upstream,
}

impl IntrospectionServer {
    pub(crate) async fn start() -> Self {
        let says: Arc<Mutex<HashMap<String, Introspection>>> = Arc::default();
        let (known, active) = (Arc::clone(&says), json!({ "active": true, "aud": "api", "sub": "never asked about" }));
        let credentials = cases::CLIENT_SECRET.replace(' ', "+");
        let credentials = STANDARD.encode(format!("{}:{credentials}", cases::CLIENT_ID));
        let server = Upstream::answering(move |seen| {
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            let Some(says) = known.lock().unwrap().get(&body).cloned() else { return Answer::json(200, &active) };
            if seen.header("authorization") != Some(&format!("Basic {credentials}")) {
                return Answer::new(401, "");
            }
            if seen.method != "POST" || says.path.is_some_and(|path| path != seen.path) {
                return Answer::new(500, "");
            }
            Answer::new(says.status, says.body).header("content-type", &says.content_type)
        });
        Self { says, server: server.await }
    }

    pub(crate) fn say(&self, ready: &Ready) {
        let question = format!("token={}&token_type_hint=access_token", ready.token);
        self.says.lock().unwrap().insert(question, ready.introspection.clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_is_judged_by_the_real_proxy_as_the_table_says() {
    judge_all("host").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_is_judged_alike_without_the_verifier_of_the_proxy() {
    judge_all("portable").await;
}

async fn judge_all(engine: &str) {
    let mut table = Table::read(&project().join("tests/cases")).unwrap();
    for config in table.configs.values_mut() {
        config["engine"] = json!(engine);
    }
    let directory = Directory::new(&format!("cases-{engine}"));
    let mut stack = start(&directory, &table).await;
    let mut wrong = Vec::new();
    let mut judged = 0;
    for store in [Store::Up, Store::Refused, Store::Slow, Store::Flushed] {
        enter(&mut stack, store).await;
        for case in table.cases.iter().filter(|case| case.store == store && case.native_only.is_none()) {
            judged += 1;
            if let Some(difference) = run(&stack, &table, case).await {
                wrong.push(format!("{}: {difference}", case.name));
            }
        }
        leave(&mut stack, store).await;
    }
    assert!(wrong.is_empty(), "{} of {judged} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged >= 120, "the table has shrunk to {judged} cases");

    let docs = std::fs::read_to_string(project().join("docs/faults.md")).unwrap();
    let log = stack.envoy.process().log();
    assert!(log.contains("signatures are verified by"), "a log without the filter's first line: {log}");
    for cause in log.split("\"cause\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(docs.contains(&format!("| {cause} |")), "docs/faults.md does not know the cause {cause:?}");
    }
    for kind in ["host", "portable"] {
        let used = stack.envoy.stat(&format!("wasmcustom.portcullis.engine.kind.{kind}")).await;
        assert_eq!(used, u64::from(kind == engine), "the engine {kind}");
    }
    // Nothing that was refused took a virtual machine with it.
    for address in stack.listeners.values() {
        let response = exchange(*address, &Request::get("/nowhere")).await.unwrap();
        assert_ne!(response.status, 0);
    }
    for (name, value) in stack.envoy.stats("wasm").await {
        assert!(!name.contains("vm_reload") || value == 0, "{name}: {value}");
    }
}

async fn start(directory: &Directory, table: &Table) -> Stack {
    let redis = Redis::start(directory).await;
    let mut options = ServiceOptions::new(redis.url());
    options.secret = cases::SHARED_SECRET.to_owned();
    let service = Service::start(directory, options).await;
    let upstream = upstream(table).await;
    let introspection = IntrospectionServer::start().await;
    let mut options = EnvoyOptions::new(upstream.address(), service.address(), Some(table.configs[MAIN].clone()));
    let others = || table.configs.iter().filter(|(name, _)| *name != MAIN);
    options.more_listeners = others().map(|(name, config)| (name.clone(), config.clone())).collect();
    options.environment = table.environment();
    options.idp = introspection.server.address();
    options.concurrency = 1;
    options.edit = leave_requests_as_they_are;
    let envoy = Envoy::start(directory, options).await;
    let mut listeners = BTreeMap::from([(MAIN.to_owned(), envoy.address())]);
    for (name, _) in others() {
        listeners.insert(name.clone(), envoy.address_of(name).await);
    }
    Stack { redis, service, envoy, listeners, introspection, _upstream: upstream }
}

/// Echoes a request, with what its case says of the answer.
async fn upstream(table: &Table) -> Upstream {
    let answers = table.cases.iter().filter_map(|case| Some((case.name.clone(), case.upstream.clone()?)));
    let answers: HashMap<String, cases::UpstreamSpec> = answers.collect();
    Upstream::answering(move |seen| {
        let spec = seen.header(CASE).and_then(|name| answers.get(name));
        let mut answer = Answer::json(spec.map_or(200, |spec| spec.status), &seen.to_json());
        for (name, value) in spec.into_iter().flat_map(|spec| &spec.headers) {
            answer = answer.header(name, value);
        }
        answer
    })
    .await
}

/// The bootstrap's own listener, and the configuration of most cases.
const MAIN: &str = "main";

/// Tells the upstream which case a request is of, if the case says what it answers.
const CASE: &str = "x-case";

/// Envoy's own defences out of the way, so that it is the filter that is tested.
pub(crate) fn leave_requests_as_they_are(bootstrap: String) -> String {
    let changes = [
        ("normalize_path: true", "normalize_path: false"),
        ("merge_slashes: true", "merge_slashes: false"),
        ("path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action: KEEP_UNCHANGED"),
        ("headers_with_underscores_action: DROP_HEADER", "headers_with_underscores_action: ALLOW"),
        ("strip_any_host_port: true", "strip_any_host_port: false"),
        ("strip_trailing_host_dot: true", "strip_trailing_host_dot: false"),
        // An upgrade that it does not offer would be refused by it.
        ("codec_type: AUTO", "upgrade_configs: [{ upgrade_type: websocket }]\n                codec_type: AUTO"),
    ];
    changes.into_iter().fold(bootstrap, |bootstrap, (from, to)| {
        assert!(bootstrap.contains(from), "envoy.yaml no longer says `{from}`");
        bootstrap.replace(from, to)
    })
}

async fn enter(stack: &mut Stack, store: Store) {
    match store {
        Store::Up => {}
        Store::Refused => {
            stack.redis.process().stop();
        }
        Store::Slow => {
            // The service must give up on Redis before the filter gives up on the service.
            stack.service.restart_with(|options| options.redis_timeout = None).await;
            is_ready(&stack.service).await;
            stack.redis.process().pause();
        }
        Store::Flushed => stack.redis.flush().await,
    }
}

async fn leave(stack: &mut Stack, store: Store) {
    match store {
        Store::Up | Store::Flushed => return,
        Store::Refused => stack.redis.restart().await,
        Store::Slow => stack.redis.process().resume(),
    }
    is_ready(&stack.service).await;
}

async fn is_ready(service: &Service) {
    let ready =
        async || exchange(service.address(), &Request::get("/readyz")).await.is_ok_and(|reply| reply.status == 200);
    assert!(wait_until(Duration::from_secs(10), ready).await, "the service does not recover");
}

async fn run(stack: &Stack, table: &Table, case: &Case) -> Option<String> {
    for revoked in &case.revoked {
        if let Err(why) = revoke(&stack.service, table, revoked).await {
            return Some(why);
        }
    }
    let address = stack.listeners[&case.config];
    // A case is minted and judged within one second of the clock, so that its boundaries are exact. The last attempts
    // begin early in a second.
    for attempt in 0..10 {
        if attempt > 1 {
            early_in_a_second().await;
        }
        let now = seconds();
        let mut nonce = None;
        if let Some(asking) = table.asking_for_nonce(case, now).unwrap() {
            stack.introspection.say(&asking);
            let answer = exchange(address, &request(&asking)).await;
            nonce = answer.ok().and_then(|answer| answer.header("dpop-nonce").map(str::to_owned));
            if nonce.is_none() {
                return Some("no nonce was asked for".into());
            }
        }
        let mut ready = table.ready_with(case, nonce.as_deref(), now).unwrap();
        if case.upstream.is_some() {
            ready.headers.push((CASE.to_owned(), case.name.clone()));
        }
        stack.introspection.say(&ready);
        if case.again {
            let _ = exchange(address, &request(&ready)).await;
        }
        let sent = match case.http2 {
            true => async { H2Connection::open(address).await?.send(&request(&ready)).await }.await,
            false => exchange(address, &request(&ready)).await,
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Some(format!("no response: {error}")),
        };
        if seconds() == now || case.store == Store::Slow {
            return difference(case, &ready, &response);
        }
    }
    Some("never judged within one second".into())
}

pub(crate) async fn revoke(service: &Service, table: &Table, revoked: &cases::RevokedSpec) -> Result<(), String> {
    let mut body = json!({ "kind": revoked.kind, "issuer": revoked.issuer, "reason": "a case", "new_issuer": true });
    if revoked.kind != "issuer" {
        body["id"] = json!(table.revoked_id(revoked).map_err(|error| error.to_string())?);
    }
    let request = Request::new("POST", "/v1/revocations")
        .bearer(&service.options().admin_token)
        .header("content-type", "application/json")
        .body(body.to_string());
    let response = exchange(service.admin_address(), &request).await.map_err(|error| error.to_string())?;
    if response.status == 201 { Ok(()) } else { Err(format!("not revoked: {} {}", response.status, response.text())) }
}

fn request(ready: &Ready) -> Request {
    let mut request = Request::new(&ready.method, &ready.path).header("host", &ready.authority);
    for (name, value) in &ready.headers {
        if name == "content-length" {
            request.body = vec![b'x'; value.parse().unwrap_or_default()];
        }
        request = request.header(name, value);
    }
    request
}

fn difference(case: &Case, ready: &Ready, response: &Response) -> Option<String> {
    let seen = || format!("got {} {}", response.status, response.text());
    match &case.expect {
        Expect::Refuse { code, status, .. } => {
            let document = response.json();
            if response.status != *status || document["code"] != code.as_str() || document["status"] != *status {
                return Some(format!("expected {code} {status}, {}", seen()));
            }
            let types: Vec<&str> = response
                .headers
                .iter()
                .filter(|(name, _)| name == "content-type")
                .map(|(_, value)| value.as_str())
                .collect();
            if types != ["application/problem+json"] {
                return Some(format!("its content-type is {types:?}"));
            }
            if *status == 401 && response.header("www-authenticate").is_none() {
                return Some("a 401 without a challenge".into());
            }
            if *status == 503 && response.header("retry-after").is_none() {
                return Some("a 503 without Retry-After".into());
            }
            case.expect.answer_difference("", &response.headers)
        }
        Expect::Pass { headers, absent, path, .. } => {
            if response.status != case.upstream.as_ref().map_or(200, |upstream| upstream.status) {
                return Some(format!("expected to pass, {}", seen()));
            }
            let nonces = response.upstream_saw("x-csp-nonce");
            if let Some(difference) =
                case.expect.answer_difference(nonces.first().map_or("", String::as_str), &response.headers)
            {
                return Some(difference);
            }
            // An answer to a HEAD has no body to look into, and neither has a 304.
            if ready.method == "HEAD" || response.status == 304 {
                return None;
            }
            for (name, value) in headers {
                let found = response.upstream_saw(name);
                // Envoy gives a module no way to set an empty header: docs/decisions/0105.
                if value.is_empty() && found.is_empty() && FilterHost::is_native() {
                    continue;
                }
                if found != [value.as_str()] {
                    return Some(format!("expected {name}: {value}, the upstream sees {found:?}"));
                }
            }
            if let Some(name) = absent.iter().find(|name| !response.upstream_saw(name).is_empty()) {
                return Some(format!("the upstream sees {name}: {:?}", response.upstream_saw(name)));
            }
            let expected = path.as_ref().unwrap_or(&ready.path);
            let found = response.json()["path"].as_str().unwrap_or_default().to_owned();
            (*expected != found).then(|| format!("expected the path {expected}, the upstream sees {found}"))
        }
    }
}

async fn early_in_a_second() {
    let early = async || since_1970().subsec_millis() < 600;
    wait_until(Duration::from_secs(2), early).await;
}

pub(crate) fn seconds() -> u64 {
    since_1970().as_secs()
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}
