//! A request that cannot be checked is refused in time and with the reason, and passes again once the cause is gone.
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::mesh::{CHECK_TIMEOUT, FRESHNESS, ISSUER, claims};
use harness::{Mesh, MeshOptions, RawServer, Redis, Reply, Request, Response, wait_until};
use wire::check::{Asked, Question, StoreError};
use wire::{Answer, DerivedKeys, Retention, RevocationKey, Secret};

/// The most that a request may take beyond the callout's timeout.
const GRACE: Duration = Duration::from_millis(200);
/// The machine may be busy with something else for a moment: the best of this many volleys counts.
const VOLLEYS: usize = 5;
/// Requests of one volley, all at once, each with a token of its own.
const VOLLEY: usize = 10;
/// The longest that all may take to be well again. The service looks for Redis every 200 ms; Envoy tries a cluster at
/// each request.
const RECOVERY: Duration = Duration::from_secs(5);

/// Many requests at once, each with a token that is new.
async fn volley(mesh: &Mesh) -> Vec<Response> {
    let address = mesh.envoy.address();
    let requests = (0..VOLLEY)
        .map(|_| Request::get("/api").bearer(&mesh.token()))
        .map(|request| tokio::spawn(async move { harness::exchange(address, &request).await.expect("Envoy answers") }));
    let mut responses = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        responses.push(request.await.unwrap());
    }
    responses
}

/// Every request is refused with one of these codes and the rest that belongs to it, and in time.
async fn is_refused_in_time(mesh: &Mesh, what: &str, codes: &[&str]) {
    let passed = mesh.upstream.requests();
    let mut best = Duration::MAX;
    for _ in 0..VOLLEYS {
        let responses = volley(mesh).await;
        for response in &responses {
            let problem = response.json();
            let code = problem["code"].as_str().unwrap_or_default();
            assert!(response.status == 503 && codes.contains(&code), "{what}: {} {}", response.status, response.text());
            assert_eq!(problem["status"], 503, "{what}");
            assert_eq!(response.header("content-type"), Some("application/problem+json"), "{what}");
            let seconds: u64 = response.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or_default();
            assert!((1..=60).contains(&seconds), "{what}: retry-after {seconds}");
        }
        best = best.min(responses.iter().map(|response| response.took).max().unwrap_or_default());
        if best <= CHECK_TIMEOUT + GRACE {
            break;
        }
    }
    println!("{what}: refused with {codes:?}; the slowest of {VOLLEY} took {} ms", best.as_millis());
    assert!(best <= CHECK_TIMEOUT + GRACE, "{what}: a request took {best:?}");
    assert_eq!(mesh.upstream.requests(), passed, "{what}: a request passed");
}

/// It comes back by itself.
async fn recovers(mesh: &Mesh, what: &str) {
    let start = Instant::now();
    let well = wait_until(RECOVERY, async || volley(mesh).await.iter().all(|response| response.status == 200)).await;
    assert!(well, "{what}: it does not recover: {:?}", volley(mesh).await.first().map(Response::text));
    println!("{what}: well again after {} ms", start.elapsed().as_millis());
}

async fn becomes(mesh: &Mesh, what: &str, code: &str) {
    let seen = wait_until(RECOVERY, async || mesh.get(&mesh.token()).await.json()["code"] == code).await;
    assert!(seen, "{what}: never {code}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stopped_is_a_connection_refused_until_it_is_back() {
    let mut mesh = Mesh::start_timed("redis-stopped").await;
    recovers(&mesh, "redis started").await;
    mesh.redis.as_mut().unwrap().process().kill();
    is_refused_in_time(&mesh, "redis stopped", &["REDIS_CONN_REFUSED"]).await;
    mesh.redis.as_mut().unwrap().restart().await;
    recovers(&mesh, "redis stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_paused_is_latency_until_it_goes_on() {
    let mut mesh = Mesh::start_timed("redis-paused").await;
    recovers(&mesh, "redis started").await;
    mesh.redis.as_mut().unwrap().process().pause();
    is_refused_in_time(&mesh, "redis paused", &["SESSION_STORE_LATENCY"]).await;
    mesh.redis.as_mut().unwrap().process().resume();
    recovers(&mesh, "redis paused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_redis_is_not_one_where_nobody_is_revoked() {
    let mesh = Mesh::start_timed("redis-flushed").await;
    let claims = claims();
    let token = mesh.keys.first.mint(&claims);
    assert_eq!(mesh.get(&token).await.status, 200);
    let redis = mesh.redis.as_ref().unwrap();
    let name = "portcullis:{00}:sentinel";
    let id = redis.command(&["GET", name]).await.unwrap().lines().nth(1).expect("the store's id").to_owned();
    mesh.revoke(&["session", "--issuer", ISSUER, "--id", claims["sid"].as_str().unwrap()]).await;
    assert!(mesh.becomes_everywhere(&token, 403).await);

    redis.flush().await;
    is_refused_in_time(&mesh, "redis flushed", &["STORE_UNAVAILABLE"]).await;
    let passed = mesh.upstream.requests();
    let until = Instant::now() + FRESHNESS * 3;
    while Instant::now() < until {
        assert!(matches!(mesh.get(&token).await.status, 403 | 503), "a revoked session came back with the flush");
    }
    assert_eq!(mesh.upstream.requests(), passed);

    // Another store's sentinel is as good as none.
    let write = async |value: &str| {
        let all = "for i = 0, 255 do redis.call('SET', string.format('portcullis:{%02x}:sentinel', i), ARGV[1]) end";
        redis.command(&["EVAL", all, "0", value]).await.unwrap();
    };
    write("another").await;
    is_refused_in_time(&mesh, "another store", &["STORE_UNAVAILABLE"]).await;
    write(&id).await;
    recovers(&mesh, "the sentinels restored").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarted_empty_is_not_one_where_nobody_is_revoked() {
    let mut mesh = Mesh::start_timed("redis-emptied").await;
    recovers(&mesh, "redis started").await;
    let redis = mesh.redis.as_mut().unwrap();
    redis.process().kill();
    std::fs::remove_dir_all(mesh.directory.path().join("appendonlydir")).unwrap();
    redis.restart().await;
    becomes(&mesh, "redis emptied", "STORE_UNAVAILABLE").await;
    is_refused_in_time(&mesh, "redis emptied", &["STORE_UNAVAILABLE"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_evict_is_not_trusted() {
    let mesh = Mesh::start_timed("redis-evicts").await;
    recovers(&mesh, "redis started").await;
    let redis: &Redis = mesh.redis.as_ref().unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await.unwrap();
    becomes(&mesh, "eviction", "STORE_UNAVAILABLE").await;
    is_refused_in_time(&mesh, "eviction", &["STORE_UNAVAILABLE"]).await;
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await.unwrap();
    recovers(&mesh, "eviction").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_stopped_or_paused_is_a_store_unavailable_until_it_is_back() {
    let mut mesh = Mesh::start_timed("service-gone").await;
    recovers(&mesh, "service started").await;
    mesh.service.as_mut().unwrap().process().kill();
    is_refused_in_time(&mesh, "service killed", &["STORE_UNAVAILABLE"]).await;
    mesh.service.as_mut().unwrap().restart().await;
    recovers(&mesh, "service killed").await;

    mesh.service.as_mut().unwrap().process().pause();
    is_refused_in_time(&mesh, "service paused", &["STORE_UNAVAILABLE"]).await;
    mesh.service.as_mut().unwrap().process().resume();
    recovers(&mesh, "service paused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_session_passes_until_its_freshness_is_over_and_not_later() {
    let mut mesh = Mesh::start_timed("known-session").await;
    let token = mesh.token();
    let request = Request::get("/api").bearer(&token);
    let mut connection = mesh.connections(1).await.pop().unwrap();
    let asked = Instant::now();
    assert_eq!(connection.send(&request).await.unwrap().status, 200);
    let answered = Instant::now();
    mesh.redis.as_mut().unwrap().process().kill();

    // The question was sent between the two, and its answer counts from then.
    let (mut passed, mut refused, mut last) = (0, 0, Duration::ZERO);
    while answered.elapsed() < FRESHNESS + Duration::from_secs(1) {
        let sent = Instant::now();
        let response = connection.send(&request).await.unwrap();
        if Instant::now() < asked + FRESHNESS {
            assert_eq!(response.status, 200, "what is fresh counts: {}", response.text());
            passed += 1;
        }
        if sent > answered + FRESHNESS {
            assert_eq!((response.status, response.json()["code"].as_str()), (503, Some("REDIS_CONN_REFUSED")));
            refused += 1;
        }
        if response.status == 200 {
            last = sent - asked;
        }
    }
    println!(
        "{passed} passed while fresh, the last sent {} ms after the question; {refused} refused",
        last.as_millis()
    );
    assert!(passed > 10 && refused > 10, "{passed} passed, {refused} refused");
}

/// A service that the test plays. Its reply to a query can be changed at any time.
struct Fake {
    server: RawServer,
    says: Says,
}

type Said = Box<dyn Fn(&DerivedKeys, &Asked, &[u8]) -> Reply + Send>;
type Says = Arc<Mutex<Said>>;

impl Fake {
    async fn start() -> Self {
        let derived = Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive();
        let says: Says = Arc::new(Mutex::new(Box::new(honest)));
        let said = Arc::clone(&says);
        let server = RawServer::start(move |body| {
            let asked = Asked::read(std::slice::from_ref(&derived), body).expect("the filter's questions are good");
            said.lock().unwrap()(&derived, &asked, body)
        })
        .await;
        Self { server, says }
    }

    fn says(&self, say: impl Fn(&DerivedKeys, &Asked, &[u8]) -> Reply + Send + 'static) {
        *self.says.lock().unwrap() = Box::new(say);
    }
}

fn live(derived: &DerivedKeys, asked: &Asked) -> Vec<u8> {
    asked.answers(derived, Retention::LONGEST, &vec![Answer::Live; asked.keys().len()], &[])
}

fn honest(derived: &DerivedKeys, asked: &Asked, _: &[u8]) -> Reply {
    Reply::http(200, &live(derived, asked))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_answer_that_proves_to_be_the_services_counts() {
    let fake = Fake::start().await;
    let options = MeshOptions { check_address: Some(fake.server.address()), ..MeshOptions::timed() };
    let mesh = Mesh::start_with("fake-service", options).await;
    recovers(&mesh, "an honest service").await;
    let unavailable = &["STORE_UNAVAILABLE"][..];

    let other = || Secret::new(b"another-secret-of-somebody-else-entirely").unwrap().derive();
    let older: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let lies: Vec<(&str, Said)> = vec![
        ("slow", Box::new(|d, a, b| honest(d, a, b).after(CHECK_TIMEOUT * 4))),
        ("silent", Box::new(|_, _, _| Reply::default())),
        ("closes at once", Box::new(|_, _, _| Reply::default().closing())),
        ("an empty body", Box::new(|_, _, _| Reply::http(200, b""))),
        ("garbage in the body", Box::new(|_, _, _| Reply::http(200, b"\x00\xff garbage \xfe").closing())),
        ("JSON that says active", Box::new(|_, _, _| Reply::http(200, b"{\"active\":true}"))),
        ("no HTTP at all", Box::new(|_, _, _| Reply::bytes(&b"\x16\x03\x01\x00garbage\r\n\r\n"[..]).closing())),
        (
            "a header without end",
            Box::new(|_, _, _| Reply::bytes(format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 17)))),
        ),
        (
            "no MAC",
            Box::new(|d, a, _| {
                let body = live(d, a);
                Reply::http(200, &body[..body.len() - 32])
            }),
        ),
        (
            "a wrong MAC",
            Box::new(|d, a, _| {
                let mut body = live(d, a);
                *body.last_mut().unwrap() ^= 1;
                Reply::http(200, &body)
            }),
        ),
        (
            "an answer changed under its MAC",
            Box::new(|d, a, _| {
                let mut body = a.answers(d, Retention::LONGEST, &vec![Answer::Dead; a.keys().len()], &[]);
                let first = body.len() - 32 - a.keys().len();
                body[first] = 0;
                Reply::http(200, &body)
            }),
        ),
        ("another secret", Box::new(move |_, a, _| Reply::http(200, &live(&other(), a)))),
        (
            "an older answer",
            Box::new(move |d, a, _| {
                let mut older = older.lock().unwrap();
                match &*older {
                    Some(body) => Reply::http(200, body),
                    None => {
                        // The first is kept for later, and told wrongly now.
                        *older = Some(live(d, a));
                        Reply::http(200, b"")
                    }
                }
            }),
        ),
        (
            "answers for other keys",
            Box::new(|d, a, _| {
                let keys: Vec<_> = (0..a.keys().len()).map(|at| RevocationKey([at as u8; 16])).collect();
                let question = Question::new(d, [1; 16], a.needs(), &keys).unwrap();
                let asked = Asked::read(std::slice::from_ref(d), question.bytes()).unwrap();
                Reply::http(200, &live(d, &asked))
            }),
        ),
        (
            "one answer too few",
            Box::new(|d, a, _| Reply::http(200, &a.answers(d, Retention::LONGEST, &live_but_one(a), &[]))),
        ),
        (
            "one answer too many",
            Box::new(|d, a, _| Reply::http(200, &a.answers(d, Retention::LONGEST, &live_and_one(a), &[]))),
        ),
        ("the question sent back", Box::new(|_, _, question| Reply::http(200, question))),
        ("an answer with status 201", Box::new(|d, a, _| Reply::http(201, &live(d, a)))),
        ("an answer with status 500", Box::new(|d, a, _| Reply::http(500, &live(d, a)))),
        ("an answer with status 302", Box::new(|d, a, _| Reply::http(302, &live(d, a)))),
        ("no content", Box::new(|_, _, _| Reply::bytes(&b"HTTP/1.1 204 No\r\n\r\n"[..]))),
        ("a problem under status 200", Box::new(|d, a, _| Reply::http(200, &a.error(d, 503, StoreError::StoreSlow)))),
        ("a 503 that nobody signed", Box::new(|_, _, _| Reply::http(503, b"{\"trouble\":\"store_refused\"}"))),
        (
            "closes within the body",
            Box::new(|d, a, _| {
                let body = live(d, a);
                let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
                bytes.extend_from_slice(&body[..body.len() / 2]);
                Reply::bytes(bytes).closing()
            }),
        ),
        (
            "stalls within the body",
            Box::new(|d, a, _| {
                let body = live(d, a);
                let mut bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
                bytes.extend_from_slice(&body[..body.len() - 1]);
                Reply::bytes(bytes)
            }),
        ),
        (
            "a huge body",
            Box::new(|d, a, _| {
                let mut body = live(d, a);
                body.resize(4 << 20, 0);
                Reply::http(200, &body)
            }),
        ),
        (
            "one byte after the answer",
            Box::new(|d, a, _| {
                let mut body = live(d, a);
                body.push(b'\n');
                Reply::http(200, &body)
            }),
        ),
    ];
    for (what, lie) in lies {
        *fake.says.lock().unwrap() = lie;
        is_refused_in_time(&mesh, what, unavailable).await;
        fake.says(honest);
        recovers(&mesh, what).await;
    }
    for trouble in StoreError::ALL {
        let code = match trouble {
            StoreError::StoreRefused => "REDIS_CONN_REFUSED",
            StoreError::StoreSlow => "SESSION_STORE_LATENCY",
            StoreError::StoreFailed
            | StoreError::StoreChanged
            | StoreError::StoreUnsafe
            | StoreError::RetentionTooShort
            | StoreError::RegionsBehind
            | StoreError::ToleranceTooShort
            | StoreError::ClockBehind => "STORE_UNAVAILABLE",
        };
        fake.says(move |d, a, _| Reply::http(503, &a.error(d, 503, trouble)));
        is_refused_in_time(&mesh, trouble.name(), &[code]).await;
    }
    fake.says(|d, a, _| Reply::http(200, &a.answers(d, Retention::LONGEST, &vec![Answer::Dead; a.keys().len()], &[])));
    for response in volley(&mesh).await {
        assert_eq!((response.status, response.json()["code"].as_str()), (403, Some("SESSION_REVOKED")));
    }
    fake.says(honest);
    recovers(&mesh, "all of it").await;
    assert!(fake.server.requests() > 0);
}

fn live_but_one(asked: &Asked) -> Vec<Answer> {
    vec![Answer::Live; asked.keys().len().saturating_sub(1)]
}

fn live_and_one(asked: &Asked) -> Vec<Answer> {
    vec![Answer::Live; asked.keys().len() + 1]
}
