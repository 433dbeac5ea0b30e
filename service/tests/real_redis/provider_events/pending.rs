//! Tokens that cannot be decided or carried out yet.
use super::*;

#[test]
fn keys_that_cannot_be_had_are_cannot_tell_and_the_token_is_carried_out_when_they_come() {
    let all = [
        Says::Status(500),
        Says::Status(404),
        Says::Redirect,
        Says::Body("<html>".into()),
        Says::Body(format!("{{\"keys\":[]{}}}", " ".repeat(300 * 1024))),
        Says::Nothing,
    ];
    std::thread::scope(|scope| {
        for says in all {
            scope.spawn(move || carried_out_when_keys_come(says));
        }
    });
}

fn carried_out_when_keys_come(says: Says) {
    let stack = stack_saying(says.clone(), json!({}));
    // Ready all the same: nothing of a filter's waits for providers.
    eventually(NOTICED, || (stack.service.get("/readyz").0 == 200).then_some(()));
    let claims = logout_claims();
    let token = typed(&stack.key, "logout+jwt", &claims);
    let asked = Instant::now();
    let told = log_out(&stack.service, &token);
    assert_eq!((told.status, text(&told.body["error"])), (503, "temporarily_unavailable"), "{says:?}: {told:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{says:?}: the timeout is 500 ms");
    assert_eq!(push(&stack.service, &typed(&stack.key, "secevent+jwt", &logout_claims())).status, 503);
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    // Nobody sends it again: it was kept.
    eventually(NOTICED, || (stack.is(Kind::Session, text(&claims["sid"])) == Answer::Dead).then_some(()));
    // Whoever does is told that it is done, once.
    eventually(NOTICED, || (log_out(&stack.service, &token).status == 200).then_some(()));
    assert_eq!(log_out(&stack.service, &token).status, 400, "{says:?}");
    let (_, metrics) = stack.service.admin_text("GET", "/metrics", None, "");
    let later = |result: &str| {
        format!(r#"portcullis_provider_events_later_total{{endpoint="backchannel-logout",result="{result}"}} 1"#)
    };
    assert!(metrics.contains(&later("ended")), "{metrics}");
    eventually(NOTICED, || {
        stack
            .service
            .admin_text("GET", "/metrics", None, "")
            .1
            .contains("portcullis_provider_events_pending 0")
            .then_some(())
    });
}

#[test]
fn what_was_kept_ends_what_was_issued_before_it_came() {
    let stack = stack_saying(Says::Status(500), json!({}));
    let user = with(logout_claims(), &json!({ "sid": null, "sub": "alice" }));
    let came = now();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &user)).status, 503);
    // Alice logs in again before the keys come.
    eventually(NOTICED, || (now() > came + 4).then_some(()));
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    let before = eventually(NOTICED, || match stack.is(Kind::User, "alice") {
        Answer::Before(before) => Some(before),
        _ => None,
    });
    // A second for the fraction of `iat`, and the lead of issuers' clocks.
    assert!((came + 1..=came + 3).contains(&before), "{came} {before}");
}

#[test]
fn what_redis_does_not_confirm_is_carried_out_when_it_does() {
    let mut stack = stack();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    let claims = logout_claims();
    stack.redis.kill();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &claims)).status, 503);
    let event = typed(&stack.key, "secevent+jwt", &event_claims(&json!({ "format": "opaque", "id": "s" })));
    assert_eq!(push(&stack.service, &event).status, 503);
    stack.redis.restart();
    for id in [text(&claims["sid"]), "s"] {
        eventually(NOTICED, || {
            (stack.service.check(&[key(Kind::Session, id)]) == Ok(vec![Answer::Dead])).then_some(())
        });
    }
}

// More than are carried out at once. The others wait where they are bounded, and not in tasks.
#[test]
fn many_logouts_stay_in_their_bound_while_redis_is_away_and_are_all_carried_out_then() {
    const MANY: usize = 150;
    const CARRIED: usize = 32;
    let mut stack = stack();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    stack.redis.kill();
    let claims: Vec<Value> = (0..MANY).map(|_| logout_claims()).collect();
    std::thread::scope(|scope| {
        for claims in claims.chunks(10) {
            let all =
                || claims.iter().all(|claims| log_out(&stack.service, &typed(&stack.key, "JWT", claims)).status == 503);
            scope.spawn(move || assert!(all()));
        }
    });
    let kept = || {
        let (_, metrics) = stack.service.admin_text("GET", "/metrics", None, "");
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("portcullis_provider_events_pending "))
            .unwrap()
            .to_owned();
        line.parse::<usize>().unwrap()
    };
    // Through several attempts.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        assert!((MANY - CARRIED..=MANY).contains(&kept()), "{}", kept());
    }
    stack.redis.restart();
    eventually(NOTICED, || (kept() == 0).then_some(()));
    let keys: Vec<_> = claims.iter().map(|claims| key(Kind::Session, text(&claims["sid"]))).collect();
    for keys in keys.chunks(10) {
        eventually(NOTICED, || (stack.service.check(keys) == Ok(vec![Answer::Dead; keys.len()])).then_some(()));
    }
}

#[test]
fn a_service_that_is_told_to_stop_looks_once_more_for_what_it_kept() {
    let mut stack = stack_saying(Says::Status(500), json!({}));
    let claims = logout_claims();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &claims)).status, 503);
    stack.jwks.now_says(Says::Body(set(&[&stack.key])));
    stack.service.stop();
    let next = Running::start(options(&stack.redis));
    let named = key(Kind::Session, text(&claims["sid"]));
    eventually(NOTICED, || (next.check(&[named]) == Ok(vec![Answer::Dead])).then_some(()));
}

// Keycloak sends a logout once. Here each comes once, signed by a key that the service has not seen, while somebody sends
// forged ones without a pause, and now and then to a service that has just started.
#[test]
fn no_genuine_logout_is_lost_in_noise_rotations_and_restarts() {
    const ROUNDS: usize = 100;
    let redis = Redis::start();
    let jwks = Jwks::publishing(&[]);
    let start = || {
        let list = providers(&redis, &[provider(&jwks.uri())]);
        // The noise has the address of the provider, as behind a proxy.
        Running::start(service::Options { providers_file: list, max_unauthenticated_per_peer: 4096, ..options(&redis) })
    };
    let begun = Instant::now();
    let mut services = vec![start()];
    let noise: Vec<String> = (0..500).map(|n| forged(&format!("noise-{n}"))).collect();
    let at = std::sync::Mutex::new(services[0].at.listen);
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut sids = Vec::new();
    std::thread::scope(|scope| {
        let noisy = scope.spawn(|| {
            // Enough of them wait for their answers to take every place that there is for waiting.
            let (mut sent, mut waiting) = (0, std::collections::VecDeque::new());
            for token in noise.iter().cycle() {
                if over.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                waiting.push_back(shout(*at.lock().unwrap(), token));
                if waiting.len() > 200 {
                    waiting.pop_front();
                }
                sent += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let mut published: Vec<SigningKey> = Vec::new();
        let mut sending = Vec::new();
        for round in 0..ROUNDS {
            let next = std::thread::spawn(|| std::thread::sleep(Duration::from_millis(80)));
            // Twice at once now and then; old keys are published for a while, as tokens that they signed are in use.
            for rotation in 0..=usize::from(round % 7 == 0) {
                published.push(key_of(Alg::EdDSA, &format!("round-{round}-{rotation}")));
            }
            let from = published.len().saturating_sub(100);
            jwks.now_says(Says::Body(set(&published[from..].iter().collect::<Vec<_>>())));
            if round % 20 == 10 {
                services.push(start());
                *at.lock().unwrap() = services.last().unwrap().at.listen;
            }
            let claims = logout_claims();
            let token = typed(published.last().unwrap(), "logout+jwt", &claims);
            sids.push(claims["sid"].as_str().unwrap().to_owned());
            let to = services.last().unwrap().at.listen;
            sending.push(scope.spawn(move || send_once(to, &token)));
            next.join().unwrap();
        }
        let statuses: Vec<u16> = sending.into_iter().map(|sent| sent.join().unwrap()).collect();
        // No genuine one was refused for good, whether its sender was told 200 or to come again.
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&503), "the noise was not enough");
        let names: Vec<_> = sids.iter().map(|sid| key(Kind::Session, sid)).collect();
        let lost = || {
            let answers: Vec<Answer> = names.chunks(20).flat_map(|names| services[0].check(names).unwrap()).collect();
            answers.iter().filter(|answer| **answer != Answer::Dead).count()
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(NOTICED, || (lost() == 0).then_some(()));
        }));
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        let sent = noisy.join().unwrap();
        assert!(ended.is_ok(), "{} of {ROUNDS} are lost, with {sent} forged ones beside", lost());
        assert!(sent > ROUNDS * 10, "{sent}");
    });
    // The forged ones cause fetches, and not one each.
    let most = services.len() * (6 + begun.elapsed().as_secs() as usize / 5);
    assert!(jwks.asked() <= most, "{} {most}", jwks.asked());
}

/// Sends a logout token and leaves its answer unread.
fn shout(to: std::net::SocketAddr, token: &str) -> Option<TcpStream> {
    let body = format!("logout_token={token}");
    let head = "POST /oauth2/backchannel-logout HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded";
    let mut stream = TcpStream::connect(to).ok()?;
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok().map(|()| stream)
}

/// The status of the one answer.
fn send_once(to: std::net::SocketAddr, token: &str) -> u16 {
    let body = format!("logout_token={token}");
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(10))).build());
    let sent = agent
        .post(format!("http://{to}/oauth2/backchannel-logout"))
        .content_type("application/x-www-form-urlencoded")
        .send(body.as_bytes());
    sent.unwrap().status().as_u16()
}

#[test]
fn a_logout_that_is_not_confirmed_is_503_and_can_be_sent_again() {
    // One replica is asked for, and there is none.
    let key = key_of(Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&key]);
    let redis = Redis::start();
    let confirm_timeout = Duration::from_millis(200);
    let unsafe_ = service::Options {
        providers_file: providers(&redis, &[provider(&jwks.uri())]),
        min_replicas: 1,
        confirm_timeout,
        ..options(&redis)
    };
    let service = Running::start(unsafe_);
    let token = typed(&key, "logout+jwt", &logout_claims());
    for _ in 0..2 {
        assert_eq!(log_out(&service, &token).status, 503);
    }
    let replica = Redis::start();
    replica.ask(&["REPLICAOF", "127.0.0.1", &redis.port.to_string()]);
    eventually(NOTICED, || (log_out(&service, &token).status == 200).then_some(()));
    assert_eq!(log_out(&service, &token).status, 400);
}

#[test]
fn a_store_that_is_gone_is_503_and_the_same_token_works_when_it_is_back() {
    let mut stack = stack();
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 200);
    let claims = logout_claims();
    let token = typed(&stack.key, "logout+jwt", &claims);
    let event = typed(&stack.key, "secevent+jwt", &event_claims(&json!({ "format": "opaque", "id": "s" })));
    stack.redis.kill();
    assert_eq!(log_out(&stack.service, &token).status, 503);
    assert_eq!(push(&stack.service, &event).status, 503);
    stack.redis.restart();
    eventually(NOTICED, || (log_out(&stack.service, &token).status == 200).then_some(()));
    eventually(NOTICED, || (push(&stack.service, &event).status == 202).then_some(()));
    // What only writes need not wait until reads find Redis again.
    eventually(NOTICED, || stack.service.check(&[key(Kind::Session, "s")]).ok());
    assert_eq!(stack.is(Kind::Session, text(&claims["sid"])), Answer::Dead);
    assert_eq!(stack.is(Kind::Session, "s"), Answer::Dead);
    // Another store's is not ours.
    stack.redis.ask(&["FLUSHALL"]);
    assert_eq!(log_out(&stack.service, &typed(&stack.key, "logout+jwt", &logout_claims())).status, 503);
}

// As in a failover that somebody asked for: what is read goes on then.
#[test]
fn a_logout_that_redis_holds_up_holds_up_no_check() {
    let stack = stack();
    let token = typed(&stack.key, "logout+jwt", &logout_claims());
    stack.redis.ask(&["CLIENT", "PAUSE", "1000", "WRITE"]);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| log_out(&stack.service, &token).status);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(800) {
            let answers = stack.service.check(&[key(Kind::Session, "other")]);
            assert_eq!(answers, Ok(vec![Answer::Live]), "after {:?}", begun.elapsed());
        }
        assert_eq!(sent.join().unwrap(), 200);
    });
}
