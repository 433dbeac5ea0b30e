//! The end of one session and of all sessions of a subject.
use super::*;

#[test]
fn subjects_are_listed_by_pages_and_ended_one_all_but_one_and_all() {
    let stack = stack();
    let made: Vec<Value> = (0..5).map(|_| stack.create(json!({ "subject": "a b/c" }))).collect();
    let other = stack.create(json!({ "subject": "bob" }));
    let path = "/v1/subjects/a%20b%2Fc/sessions";
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = stack.service.admin("GET", &format!("{path}?limit=2{cursor}"), "");
        assert_eq!(status, 200, "{page}");
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 2 && sessions.iter().all(|session| session["subject"] == "a b/c"));
        listed.extend(sessions.iter().map(|session| text(session, "sid").to_owned()));
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let mut expected: Vec<String> = made.iter().map(|made| text(made, "sid").to_owned()).collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
    assert_eq!(stack.service.admin("DELETE", &format!("/v1/sessions/{}", text(&made[0], "sid")), "").0, 200);
    // Who mistypes the one that stays ends none.
    let wrong = format!("{path}?except={}", text(&other, "sid"));
    assert_eq!(stack.service.admin("DELETE", &wrong, "").1["field"], "except");
    let kept = text(&made[4], "sid");
    let (status, ended) = stack.service.admin("DELETE", &format!("{path}?except={kept}"), "");
    assert_eq!((status, ended["ended"].as_array().map(Vec::len)), (200, Some(3)), "{ended}");
    for made in &made {
        assert_eq!(stack.is_active(text(made, "access_token")), text(made, "sid") == kept);
        assert_eq!(stack.dead_for_filters(text(made, "sid")), text(made, "sid") != kept);
    }
    let (_, ended) = stack.service.admin("DELETE", path, "");
    assert_eq!(ended["ended"], json!([kept]));
    let user = secret(1).derive().revocation_key(Kind::User, OURS, b"a b/c");
    assert_eq!(stack.service.check(&[user]), Ok(vec![Answer::Before(ended["before"].as_u64().unwrap())]));
    assert!(made.iter().all(|made| !stack.is_active(text(made, "access_token"))));
    assert!(stack.is_active(text(&other, "access_token")));
    assert_eq!(stack.service.admin("GET", &format!("{path}?colour=red"), "").1["field"], "colour");
    assert_eq!(stack.service.admin("GET", &format!("{path}?limit=201"), "").1["field"], "limit");
}

#[test]
fn one_session_that_cannot_be_ended_keeps_no_other_from_it() {
    let stack = stack();
    let names = || {
        let names = stack.redis.ask(&["KEYS", "portcullis:*:s:*"]);
        names.lines().filter(|line| line.starts_with("portcullis:")).map(str::to_owned).collect::<Vec<_>>()
    };
    let stays = stack.create(json!({ "subject": "alice" }));
    let of_stays = names();
    let made: Vec<Value> = (0..20).map(|_| stack.create(json!({ "subject": "alice" }))).collect();
    for name in names().iter().filter(|name| !of_stays.contains(name)).take(3) {
        stack.redis.ask(&["HSET", name, "d", "broken"]);
    }
    let path = format!("/v1/subjects/alice/sessions?except={}", text(&stays, "sid"));
    let (status, problem) = stack.service.admin("DELETE", &path, "");
    assert_eq!((status, text(&problem, "code")), (503, "store_failed"), "{problem}");
    let dead = made.iter().filter(|made| stack.dead_for_filters(text(made, "sid"))).count();
    assert_eq!((dead, stack.is_active(text(&stays, "access_token"))), (17, true));
}

#[test]
fn who_hangs_up_does_not_keep_the_end_of_a_stolen_session_from_the_filters() {
    let stack = stack();
    let made = stack.create(json!({ "subject": "alice", "client_id": "app", "refresh": true, "format": "jwt" }));
    let old = text(&made, "refresh_token");
    let (_, newer) = stack.refresh(old);
    // The grace ends sooner if another one follows.
    assert_eq!(stack.refresh(text(&newer, "refresh_token")).0, 200);
    let body = format!("client_id=app&client_secret={SECRET}&grant_type=refresh_token&refresh_token={old}");
    stack.ask_and_hang_up(stack.service.at.listen, "POST /oauth2/token", &body);
    eventually(SOON, || stack.dead_for_filters(text(&made, "sid")).then_some(()));
}

#[test]
fn an_end_that_was_asked_for_is_carried_out_whoever_hangs_up() {
    let stack = stack();
    let made = |subject: &str| stack.create(json!({ "subject": subject, "client_id": "app", "format": "jwt" }));
    let is_dead = |made: &Value| eventually(SOON, || stack.dead_for_filters(text(made, "sid")).then_some(()));
    let (listen, admin) = (stack.service.at.listen, stack.service.at.admin);

    let revoked = made("alice");
    let body = format!("client_id=app&client_secret={SECRET}&token={}", text(&revoked, "access_token"));
    stack.ask_and_hang_up(listen, "POST /oauth2/revoke", &body);
    is_dead(&revoked);

    let ended = made("bob");
    stack.ask_and_hang_up(admin, &format!("DELETE /v1/sessions/{}", text(&ended, "sid")), "");
    is_dead(&ended);

    let (stays, others) = (made("carol"), [made("carol"), made("carol")]);
    let path = format!("DELETE /v1/subjects/carol/sessions?except={}", text(&stays, "sid"));
    stack.ask_and_hang_up(admin, &path, "");
    others.iter().for_each(is_dead);
    assert!(!stack.dead_for_filters(text(&stays, "sid")));

    // Of a bulk what came in, also what was not among the first to be written.
    let of = |subject: &str| json!({ "kind": "user", "issuer": OURS, "id": subject }).to_string();
    let lines = format!("{}{}{}\n", of("dave"), "\n".repeat(300), of("eve"));
    stack.ask_and_hang_up(admin, "POST /v1/revocations/bulk", &lines);
    for subject in ["dave", "eve"] {
        let key = secret(1).derive().revocation_key(Kind::User, OURS, subject.as_bytes());
        let is_over = || matches!(stack.service.check(&[key]).as_deref(), Ok([Answer::Before(_)]));
        eventually(SOON, || is_over().then_some(()));
    }

    // And what was done is remembered.
    let done = |action: &str, by: &str| {
        let is_it = |entry: &Value| entry["action"] == action && entry["by"] == by && entry["outcome"] == "done";
        eventually(SOON, || stack.audit().iter().any(is_it).then_some(()));
    };
    done("session.end", "client:app");
    done("session.end", "admin");
    done("session.end_all", "admin");
}

#[test]
fn a_service_that_stops_finishes_what_was_begun_for_who_hung_up() {
    let mut stack = stack();
    let made = stack.create(json!({ "subject": "alice" }));
    let sid = text(&made, "sid").to_owned();
    stack.ask_and_hang_up(stack.service.at.admin, &format!("DELETE /v1/sessions/{sid}"), "");
    // Ends the old service while its writes still wait.
    let sessions = session_options(&stack.dir);
    stack.service = Running::start(service::Options { sessions, ..options(&stack.redis) });
    assert!(stack.dead_for_filters(&sid));
}

#[test]
fn a_session_that_is_being_made_while_its_subjects_list_is_full_is_in_it() {
    let stack = stack();
    // What this one writes is there at once, and goes on when the replica has it.
    let (replica, waiting) = (Redis::start(), session_options(&stack.dir));
    stack.redis.ask(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    replica.ask(&["REPLICAOF", "127.0.0.1", &stack.redis.port.to_string()]);
    eventually(SOON, || stack.redis.ask(&["INFO", "replication"]).contains("state=online").then_some(()));
    let confirm_timeout = Duration::from_secs(8);
    let redis_timeout = Duration::from_secs(1);
    let options = service::Options {
        sessions: waiting,
        min_replicas: 1,
        confirm_timeout,
        redis_timeout,
        ..options(&stack.redis)
    };
    let waiting = Running::start(options);
    let first = stack.create(json!({ "subject": "alice" }));
    let names = stack.redis.ask(&["KEYS", "portcullis:*:u:*"]);
    let name = names.lines().find(|line| line.starts_with("portcullis:")).unwrap();
    let fill = "for n = 1, 998 do redis.call('ZADD', KEYS[1], 1e15, string.format('%020dAA', n)) end";
    stack.redis.ask(&["EVAL", fill, "1", name]);
    replica.signal("STOP");
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| waiting.admin("POST", "/v1/sessions", r#"{"subject":"alice"}"#));
        let waits = || !stack.redis.ask(&["INFO", "clients"]).contains("blocked_clients:0");
        eventually(SOON, || waits().then_some(()));
        // Full, or nearly, whichever of its two writes waits: each of these prunes, or makes the next one do so.
        (0..3).for_each(|_| drop(stack.create(json!({ "subject": "alice" }))));
        replica.signal("CONT");
        slow.join().unwrap()
    });
    assert_eq!(slow.0, 201, "{}", slow.1);
    assert!(stack.is_active(text(&slow.1, "access_token")));
    let path = format!("/v1/subjects/alice/sessions?except={}", text(&first, "sid"));
    let (status, ended) = stack.service.admin("DELETE", &path, "");
    assert_eq!((status, ended["ended"].as_array().map(Vec::len)), (200, Some(4)), "{ended}");
    assert!(!stack.is_active(text(&slow.1, "access_token")), "it was not in the list");
}

#[test]
fn too_many_sessions_of_one_subject_are_refused_and_dead_ones_do_not_count() {
    let stack = stack();
    stack.create(json!({ "subject": "alice" }));
    let names = stack.redis.ask(&["KEYS", "portcullis:*:u:*"]);
    let name = names.lines().find(|line| line.starts_with("portcullis:")).unwrap();
    // As if they had been made, and ended by lying unused.
    let fill = "for n = 1, 999 do redis.call('ZADD', KEYS[1], 1e15, string.format('%020dAA', n)) end";
    stack.redis.ask(&["EVAL", fill, "1", name]);
    stack.create(json!({ "subject": "alice" }));
    assert_eq!(stack.redis.ask(&["ZCARD", name]), ":2\r\n");
    let live = "for n = 1, 998 do local sid = string.format('%020dAA', n) redis.call('ZADD', KEYS[1], 1e15, sid) end";
    stack.redis.ask(&["EVAL", live, "1", name]);
    stack.create(json!({ "subject": "alice" }));
    assert_eq!(stack.redis.ask(&["ZCARD", name]), ":3\r\n");
}

#[test]
fn a_service_without_sessions_says_so() {
    let (_redis, service) = started();
    let (status, problem) = service.admin("POST", "/v1/sessions", r#"{"subject":"a"}"#);
    assert_eq!((status, text(&problem, "code")), (404, "no_sessions"));
    assert_eq!(service.get("/.well-known/jwks.json").0, 404);
    assert_eq!(service.post("/oauth2/introspect", &[], "").0, 404);
}
