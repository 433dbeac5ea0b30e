//! Revocations that take effect while requests come without a pause.
use super::*;

/// The longest that a revocation may take beyond the freshness, from the return of the command.
const GRACE: Duration = Duration::from_millis(500);

/// How long the load goes on after that.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// One request of the load, and its result.
struct Sent {
    at: Instant,
    status: u16,
    code: String,
}

/// Asks with one token on one connection until it is told to stop.
fn load(mut connection: Connection, token: &str, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<Sent>> {
    let (request, stop) = (Request::get("/api").bearer(token), Arc::clone(stop));
    tokio::spawn(async move {
        let mut all = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let at = Instant::now();
            let response = connection.send(&request).await.expect("Envoy answers");
            let code = response.json()["code"].as_str().unwrap_or_default().to_owned();
            all.push(Sent { at, status: response.status, code });
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        all
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_revoked_ends_in_time_on_every_worker_under_load() {
    let _turn = harness::under_load().await;
    let mesh = Mesh::start_timed("revoked-under-load").await;
    let named = claims();
    let name = |claim: &str| named[claim].as_str().unwrap().to_owned();
    let only = |claim: &str| mesh.keys.first.mint(&claims_with(&json!({ claim: named[claim] })));
    let by_jwt = mesh.token();
    let without_jti = {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove("jti");
        mesh.keys.first.mint(&claims)
    };
    let thumbprint = mesh.keys.second.thumbprint();
    let (session, user, client) = (name("sid"), name("sub"), name("client_id"));
    // Each token is ended by one of the commands, and none by another.
    let cases: Vec<(&str, String, Vec<&str>)> = vec![
        ("session", only("sid"), vec!["session", "--issuer", ISSUER, "--id", &session]),
        ("token by JWT", by_jwt.clone(), vec!["token", &by_jwt]),
        ("token by JWT without jti", without_jti.clone(), vec!["token", &without_jti]),
        ("token by jti", only("jti"), vec!["token", "--issuer", ISSUER, "--id", named["jti"].as_str().unwrap()]),
        ("user", only("sub"), vec!["user", "--issuer", ISSUER, "--id", &user]),
        ("client", only("client_id"), vec!["client", "--issuer", ISSUER, "--id", &client]),
        ("key", mesh.keys.second.mint(&claims()), vec!["key", "--issuer", ISSUER, "--id", &thumbprint]),
        (
            "issuer",
            mesh.keys.first.mint(&claims_with(&json!({ "iss": OTHER_ISSUER }))),
            vec!["issuer", "--issuer", OTHER_ISSUER],
        ),
    ];
    let bystander = mesh.token();

    let stop = Arc::new(AtomicBool::new(false));
    let mut loads = Vec::new();
    for (_, token, _) in &cases {
        let connections = mesh.connections(1).await;
        loads.push(connections.into_iter().map(|connection| load(connection, token, &stop)).collect::<Vec<_>>());
    }
    let bystanders: Vec<_> =
        mesh.connections(1).await.into_iter().map(|connection| load(connection, &bystander, &stop)).collect();
    let passed_before = mesh.upstream.requests();
    let deadline = Duration::from_secs(10);
    assert!(wait_until(deadline, async || mesh.upstream.requests() > passed_before + 200).await);

    let mut returned = Vec::new();
    for (_, _, command) in &cases {
        mesh.revoke(command).await;
        returned.push(Instant::now());
    }
    tokio::time::sleep_until((Instant::now() + FRESHNESS + GRACE + AFTERWARDS).into()).await;
    stop.store(true, Ordering::SeqCst);

    for (((kind, ..), loads), returned) in cases.iter().zip(loads).zip(returned) {
        let mut all = Vec::new();
        for one in loads {
            let mine = one.await.unwrap();
            assert_eq!(mine.first().map(|sent| sent.status), Some(200), "{kind}: it passes before");
            all.extend(mine);
        }
        let strange =
            all.iter().find(|sent| !matches!((sent.status, &*sent.code), (200, "") | (403, "SESSION_REVOKED")));
        assert!(strange.is_none(), "{kind}: {:?}", strange.map(|sent| &sent.code));
        let late = all.iter().filter(|sent| sent.at > returned + FRESHNESS + GRACE);
        let (passed, refused): (Vec<&Sent>, Vec<&Sent>) = late.partition(|sent| sent.status == 200);
        let last = all.iter().filter(|sent| sent.status == 200).map(|sent| sent.at).max().unwrap();
        println!(
            "{kind}: the last of {} requests to pass was sent {} ms after the command's return; {} refused after that",
            all.len(),
            last.saturating_duration_since(returned).as_millis(),
            refused.len(),
        );
        assert!(passed.is_empty(), "{kind}: {} requests passed too late", passed.len());
        assert!(refused.len() > 20, "{kind}: the load ended too early");
    }
    for one in bystanders {
        let all = one.await.unwrap();
        assert!(all.iter().all(|sent| sent.status == 200), "a token passes that nobody ended");
    }
    // The service timed the same, each revocation once.
    let admin = mesh.service.as_ref().expect("a service").admin_address();
    let metrics = harness::exchange(admin, &Request::get("/metrics")).await.expect("an answer").text();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|line| line.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name} in {metrics}"))
    };
    let (count, sum) =
        (value("portcullis_revocation_lag_seconds_count"), value("portcullis_revocation_lag_seconds_sum"));
    println!("the service timed {count} revocations, {sum:.3} s together");
    assert_eq!(count as usize, cases.len());
    assert!(sum > 0.0 && sum <= count * (FRESHNESS + GRACE).as_secs_f64(), "{sum} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_session_is_asked_about_before_its_verdict_is_stale_and_shut_when_no_answer_comes() {
    let _turn = harness::under_load().await;
    let mut mesh = Mesh::start_timed("refreshed-ahead").await;
    let token = mesh.token();
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> =
        mesh.connections(1).await.into_iter().map(|connection| load(connection, &token, &stop)).collect();
    let refreshed = async || mesh.envoy.stat("wasmcustom.portcullis.refreshed_ahead").await;
    assert!(wait_until(Duration::from_secs(20), async || refreshed().await >= 3).await, "it is never refreshed");
    let passed = mesh.upstream.requests();
    assert!(wait_until(Duration::from_secs(10), async || mesh.upstream.requests() > passed + 20).await);
    mesh.service.as_mut().unwrap().process().pause();
    let paused = Instant::now();
    tokio::time::sleep_until((paused + FRESHNESS + GRACE + AFTERWARDS).into()).await;
    stop.store(true, Ordering::SeqCst);
    for one in loads {
        let all = one.await.unwrap();
        let strange =
            all.iter().find(|sent| !matches!((sent.status, &*sent.code), (200, "") | (503, "STORE_UNAVAILABLE")));
        assert!(strange.is_none(), "{:?}", strange.map(|sent| &sent.code));
        assert!(all.iter().all(|sent| sent.status == 200 || sent.at > paused), "refused while all was well");
        let late = all.iter().filter(|sent| sent.at > paused + FRESHNESS);
        assert!(late.clone().count() > 0 && late.clone().all(|sent| sent.status == 503), "it passes on no answer");
    }
    mesh.service.as_mut().unwrap().process().resume();
}
