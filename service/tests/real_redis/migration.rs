//! A store that moves to another Redis: acknowledged, copied and verified, and no entry may become weaker. The whole
//! migration under load, with the real tool, is in tests/tests/e2e/under_load/migration.rs.
use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use service::{
    Allow, CreateError, MigrateError, Migration, Options, RedisOptions, Report, StoreId, migrate, prepare_store,
};
use wire::check::StoreError;
use wire::{Answer, Kind};

use crate::provider::*;
use crate::sessions::{OURS, SECRET, session_options};
use crate::support::*;

const WELL_AGAIN: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(2);

fn block_on<T>(doing: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(doing)
}

fn prepare(redis: &Redis) -> Result<StoreId, CreateError> {
    block_on(prepare_store(&RedisOptions::single(&redis.url()), LIMIT, Allow::default()))
}

fn plan(from: &Redis, to: &Redis) -> Migration {
    Migration {
        from: service::MigrationSource::Redis(Box::new(RedisOptions::single(&from.url()))),
        to: RedisOptions::single(&to.url()),
        redis_timeout: LIMIT,
        confirm_timeout: LIMIT,
        min_replicas: 0,
        require_disk: true,
        allow: Allow::default(),
        to_store_id: None,
        settle: Duration::from_millis(300),
        verify_only: false,
    }
}

fn copy(from: &Redis, to: &Redis) -> Result<Report, MigrateError> {
    block_on(migrate(&plan(from, to), |_| {}))
}

/// A service that answers from `redis` and writes to `also`.
fn both(redis: &Redis, also: &Redis) -> Options {
    Options { create_store: false, ..options_with(redis, &["--mirror-redis", &also.url()]) }
}

/// The files are read at the start only, and again when they change.
fn with_sessions(options: Options) -> Options {
    let dir = tempfile::tempdir().unwrap();
    let sessions = session_options(&dir);
    // Left to the system's cleaning, since the service watches them.
    let _ = dir.keep();
    Options { sessions, ..options }
}

/// One that can be refreshed.
fn session(service: &Running) -> Value {
    let body = json!({ "subject": "bob", "client_id": "app", "refresh": true }).to_string();
    let (status, made) = service.admin("POST", "/v1/sessions", &body);
    assert_eq!(status, 201, "{made}");
    made
}

fn refresh(service: &Running, token: &Value) -> (u16, Value) {
    let token = token["refresh_token"].as_str().unwrap();
    let form = format!("client_id=app&client_secret={SECRET}&grant_type=refresh_token&refresh_token={token}");
    let (status, text, _) =
        service.post("/oauth2/token", &[("content-type", "application/x-www-form-urlencoded")], &form);
    (status, serde_json::from_str(&text).unwrap())
}

fn tally<'a>(report: &'a Report, kind: &str) -> &'a service::Tally {
    &report.tallies.iter().find(|(name, _)| *name == kind).unwrap().1
}

/// All names but the sentinels and what times a revocation for some seconds.
fn names(redis: &Redis) -> Vec<String> {
    let script = "local found = {}
        for _, name in ipairs(redis.call('KEYS', '*')) do
            if not string.find(name, 'sentinel', 1, true) and not string.find(name, '}:m:', 1, true) then found[#found + 1] = name end
        end
        table.sort(found)
        return table.concat(found, ' ')";
    let reply = redis.ask(&["EVAL", script, "0"]);
    reply.lines().nth(1).unwrap_or_default().split(' ').map(str::to_owned).collect()
}

#[test]
fn everything_is_copied_with_its_time_and_the_copy_is_complete_only_then() {
    let (old, new) = (Redis::start(), Redis::start());
    let first = Running::start(with_sessions(options(&old)));
    first.revoke(Kind::Session, "before");
    first.revoke(Kind::SigningKey, &"A".repeat(43));
    let before = first.revoke(Kind::User, "alice")["before"].as_u64().unwrap();
    let kept = session(&first)["sid"].as_str().unwrap().to_owned();
    old.ask(&["SET", "somebody:else", "x"]);

    assert!(matches!(copy(&old, &new), Err(MigrateError::NotPrepared)));
    let id = prepare(&new).unwrap();
    assert_eq!(prepare(&new).unwrap(), id, "again is the same");
    // It is written to now, and nobody answers from it, nor makes it whole in passing.
    let early = Running::start(Options { create_store: true, ..options(&new) });
    assert_eq!(early.check(&[key(Kind::Session, "before")]), Err(StoreError::StoreChanged));
    let made = block_on(service::create_store(&RedisOptions::single(&new.url()), LIMIT, Allow::default(), None));
    assert!(matches!(made, Err(CreateError::Filling(of)) if of == id), "{made:?}");

    drop(first);
    let writes_both = Running::start(with_sessions(both(&old, &new)));
    writes_both.revoke(Kind::Session, "during");
    assert!(new.ask(&["GET", &entry(key(Kind::Session, "during"))]).contains("D;"));
    assert_eq!(new.ask(&["GET", &entry(key(Kind::Session, "before"))]), "$-1\r\n");
    assert_eq!(early.check(&[key(Kind::Session, "before")]), Err(StoreError::StoreChanged));

    let report = copy(&old, &new).unwrap();
    assert!(report.is_verified() && report.complete && report.to == id, "{report:?}");
    assert_eq!((tally(&report, "revocations").found, tally(&report, "revocations").copied), (4, 3), "{report:?}");
    assert_eq!(tally(&report, "sessions").copied, 1, "{report:?}");
    assert!(tally(&report, "audit entries").found >= 4, "{report:?}");
    // Name by name, and what lies under them.
    let mut ours = names(&old);
    // The logs of the feed are made anew by the writes.
    let is_of_log = |name: &String| name.ends_with(":head") || name.ends_with(":log");
    ours.retain(|name| name != "somebody:else" && !is_of_log(name));
    let mut theirs = names(&new);
    theirs.retain(|name| !is_of_log(name));
    assert_eq!(theirs, ours);
    assert_eq!(ours.len(), 7, "{ours:?}");
    for name in &ours {
        let dump = |redis: &Redis| redis.ask(&["EVAL", DUMP, "1", name]);
        assert_eq!(dump(&old), dump(&new), "{name}");
        let ttl = |redis: &Redis| redis.ask(&["PTTL", name]).trim().trim_start_matches(':').parse::<i64>().unwrap();
        let (there, here) = (ttl(&old), ttl(&new));
        assert!(
            (there == -1) == (here == -1) && here + 1000 >= there && here <= there + 1000,
            "{name}: {there} {here}"
        );
    }
    // And a service that answers from it says the same.
    let switched = Running::start(with_sessions(both(&new, &old)));
    let keys =
        [key(Kind::Session, "before"), key(Kind::Session, "during"), key(Kind::User, "alice"), key(Kind::User, "x")];
    assert_eq!(switched.check(&keys), Ok(vec![Answer::Dead, Answer::Dead, Answer::Before(before), Answer::Live]));
    assert_eq!(switched.admin("GET", &format!("/v1/sessions/{kept}"), "").0, 200);
    let (_, audit) = switched.admin("GET", "/v1/audit", "");
    let actions: Vec<_> = audit["entries"].as_array().unwrap().iter().filter_map(|e| e["action"].as_str()).collect();
    assert!(actions.iter().filter(|action| **action == "revoke").count() == 4, "{actions:?}");
    // Once more it finds all of it there; it must be named, since it is complete.
    assert!(matches!(copy(&old, &new), Err(MigrateError::Complete(of)) if of == id));
    let again = Migration { to_store_id: Some(id), ..plan(&old, &new) };
    let report = block_on(migrate(&again, |_| {})).unwrap();
    assert!(report.is_verified() && report.tallies.iter().all(|(_, tally)| tally.copied == 0), "{report:?}");
    // Rolled back, the old one has what was written since.
    switched.revoke(Kind::Session, "after");
    let back = Running::start(both(&old, &new));
    assert_eq!(back.check(&[key(Kind::Session, "after")]), Ok(vec![Answer::Dead]));
}

/// All of a value, whatever its type, in one text.
const DUMP: &str = "local kind = redis.call('TYPE', KEYS[1]).ok
    if kind == 'string' then return redis.call('GET', KEYS[1]) end
    if kind == 'zset' then return table.concat(redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), ' ') end
    if kind == 'stream' then return redis.sha1hex(cjson.encode(redis.call('XRANGE', KEYS[1], '-', '+'))) end
    local all, parts = redis.call('HGETALL', KEYS[1]), {}
    for at = 1, #all, 2 do parts[#parts + 1] = all[at] .. '=' .. all[at + 1] end
    table.sort(parts)
    return table.concat(parts, ' ')";

#[test]
fn nothing_is_acknowledged_while_the_other_store_lacks_it_and_it_gets_it_in_the_end() {
    let (old, mut new) = (Redis::start(), Redis::start());
    drop(Running::start(options(&old)));
    // Not prepared: a service that writes to it says so, and answers from its own all the same.
    let service = Running::start(both(&old, &new));
    let refused = |service: &Running, id: &str| {
        let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, id));
        assert_eq!((status, problem["code"].as_str()), (503, Some("not_confirmed")), "{problem}");
        assert_eq!(problem["written"], "yes", "{problem}");
        let detail = problem["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("--mirror-redis"), "{detail}");
        detail
    };
    assert!(refused(&service, "early").contains("store_changed"));
    assert_eq!(service.check(&[key(Kind::Session, "early")]), Ok(vec![Answer::Dead]));
    prepare(&new).unwrap();
    let revoked = |id| service.admin("POST", "/v1/revocations", &asking(Kind::Session, id)).0 == 201;
    eventually(WELL_AGAIN, || revoked("t").then_some(()));
    let in_new = |new: &Redis, id: &str| new.ask(&["GET", &entry(key(Kind::Session, id))]).contains("D;");
    eventually(WELL_AGAIN, || in_new(&new, "early").then_some(()));

    // Stopped and silent; gone; and each time checks are answered.
    new.signal("STOP");
    assert!(refused(&service, "slow").contains("store_slow"));
    assert_eq!(service.check(&[key(Kind::Session, "slow")]), Ok(vec![Answer::Dead]));
    assert_eq!(service.get("/readyz").0, 200);
    new.signal("CONT");
    eventually(WELL_AGAIN, || in_new(&new, "slow").then_some(()));
    new.kill();
    eventually(WELL_AGAIN, || refused(&service, "down").contains("store_refused").then_some(()));
    eventually(WELL_AGAIN, || metric(&service, "portcullis_mirror_ready 0").then_some(()));
    assert!(metric(&service, "portcullis_mirror_behind") && !metric(&service, "portcullis_mirror_behind 0"));
    new.restart();
    eventually(WELL_AGAIN, || in_new(&new, "down").then_some(()));
    eventually(WELL_AGAIN, || metric(&service, "portcullis_mirror_behind 0").then_some(()));
    eventually(WELL_AGAIN, || revoked("t").then_some(()));
    // Who hangs up in between has not been told, and both have it all the same.
    new.signal("STOP");
    let mut stream = std::net::TcpStream::connect(service.at.admin).unwrap();
    let body = asking(Kind::Session, "hung-up");
    let head = format!("POST /v1/revocations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let in_old = || old.ask(&["GET", &entry(key(Kind::Session, "hung-up"))]).contains("D;").then_some(());
    eventually(WELL_AGAIN, in_old);
    drop(stream);
    new.signal("CONT");
    eventually(WELL_AGAIN, || in_new(&new, "hung-up").then_some(()));
    // Emptied, it is no store any more.
    new.ask(&["FLUSHALL"]);
    refused(&service, "flushed");
}

fn metric(service: &Running, line: &str) -> bool {
    service.admin_text("GET", "/metrics", None, "").1.contains(line)
}

#[test]
fn the_store_itself_is_no_other_store() {
    let redis = Redis::start();
    let service = Running::start(Options { create_store: true, ..both(&redis, &redis) });
    let refused = || {
        let (status, problem) = service.admin("POST", "/v1/revocations", &asking(Kind::Session, "s"));
        assert_eq!(status, 503, "{problem}");
        problem["detail"].as_str().is_some_and(|detail| detail.contains("the same store")).then_some(())
    };
    eventually(WELL_AGAIN, refused);
    assert!(matches!(copy(&redis, &redis), Err(MigrateError::Same(_))));
}

#[test]
fn verifying_fails_by_name_for_whatever_the_copy_lacks() {
    let (old, new) = (Redis::start(), Redis::start());
    let service = Running::start(with_sessions(options(&old)));
    for id in ["gone", "weaker", "shorter", "well"] {
        service.revoke(Kind::Session, id);
    }
    service.revoke(Kind::User, "alice");
    let sid = session(&service)["sid"].as_str().unwrap().to_owned();
    assert_eq!(service.admin("GET", &format!("/v1/sessions/{sid}"), "").0, 200);
    let id = prepare(&new).unwrap();
    assert!(copy(&old, &new).unwrap().complete);
    let verify = || {
        let plan = Migration { to_store_id: Some(id), verify_only: true, ..plan(&old, &new) };
        block_on(migrate(&plan, |_| {})).unwrap()
    };
    assert!(verify().is_verified());
    let named = |id| entry(key(Kind::Session, id));
    new.ask(&["DEL", &named("gone")]);
    new.ask(&["SET", &named("weaker"), "B5;", "EX", "9999999"]);
    new.ask(&["PEXPIRE", &named("shorter"), "60000"]);
    let report = verify();
    assert!(!report.is_verified(), "{report:?}");
    assert_eq!(*tally(&report, "revocations"), service::Tally { found: 5, copied: 0, differing: 3 });
    for id in ["gone", "weaker", "shorter"] {
        assert!(report.names.iter().any(|line| line.contains(&named(id))), "{id}: {report:?}");
    }
    // Copying mends it, and takes nothing away that only the copy has.
    new.ask(&["SET", &named("lifted"), "D;", "EX", "9999999"]);
    let again = Migration { to_store_id: Some(id), ..plan(&old, &new) };
    let report = block_on(migrate(&again, |_| {})).unwrap();
    assert_eq!(
        (report.is_verified(), tally(&report, "revocations").copied, report.only_in_target),
        (true, 3, 1),
        "{report:?}"
    );
    assert!(new.ask(&["GET", &named("lifted")]).contains("D;"));
    // Sessions, lists and audit entries count too.
    let session = names(&new).into_iter().find(|name| name.contains(":s:")).unwrap();
    let subject = names(&new).into_iter().find(|name| name.contains(":u:")).unwrap();
    new.ask(&["DEL", &session]);
    new.ask(&["DEL", &subject]);
    new.ask(&["DEL", "portcullis:{00}:audit"]);
    let report = verify();
    for kind in ["sessions", "subjects' lists", "audit entries"] {
        assert!(tally(&report, kind).differing > 0, "{kind}: {report:?}");
    }
    // What is not understood is not passed over.
    old.ask(&["SADD", "portcullis:{07}:r:not-a-revocation", "x"]);
    old.ask(&["SET", "portcullis:{07}:z:unknown", "x"]);
    // And plays no tricks on the terminal that it is shown on, wherever in a report.
    old.ask(&["SET", "portcullis:{07}:r:\u{1b}[2J", "D;"]);
    let report = verify();
    assert!(report.names.iter().any(|line| line.contains("{07}:r:")), "{report:?}");
    assert!(report.names.iter().all(|line| !line.contains('\u{1b}')), "{report:?}");
    old.ask(&["SET", "portcullis:{07}:z:\u{1b}[2J", "x"]);
    let report = block_on(migrate(&again, |_| {})).unwrap();
    assert_eq!((report.is_verified(), report.not_understood), (false, 3), "{report:?}");
    assert!(report.names.iter().all(|line| !line.contains('\u{1b}')), "{report:?}");
}

// A copy that was on its way for a while must not undo what happened meanwhile.
#[test]
fn a_late_copy_weakens_nothing_and_brings_no_ended_session_back() {
    let (old, new) = (Redis::start(), Redis::start());
    let service = Running::start(with_sessions(options(&old)));
    service.revoke(Kind::User, "alice");
    let sid = session(&service)["sid"].as_str().unwrap().to_owned();
    let id = prepare(&new).unwrap();
    assert!(copy(&old, &new).unwrap().complete);
    let (user, name) = (entry(key(Kind::User, "alice")), names(&new).into_iter().find(|n| n.contains(":s:")).unwrap());
    // The new one is ahead: a later `before`, for longer; a session that was refreshed, then ended.
    new.ask(&["SET", &user, "B9999999999;later", "EX", "9999999"]);
    new.ask(&["HSET", &name, "n", "7", "r", "seventh", "x", "ended"]);
    let again = Migration { to_store_id: Some(id), ..plan(&old, &new) };
    assert!(block_on(migrate(&again, |_| {})).unwrap().is_verified());
    assert!(new.ask(&["GET", &user]).contains("B9999999999;later"));
    assert!(new.ask(&["TTL", &user]).trim() > ":9999900");
    assert_eq!(new.ask(&["HMGET", &name, "n", "r", "x"]), "*3\r\n$1\r\n7\r\n$7\r\nseventh\r\n$5\r\nended\r\n");
    // Ended in both, it is in neither.
    let both = Running::start(with_sessions(both(&old, &new)));
    let (status, ended) = both.admin("DELETE", &format!("/v1/sessions/{sid}"), "");
    assert!(status < 300, "{ended}");
    assert!(block_on(migrate(&again, |_| {})).unwrap().is_verified());
    assert!(names(&new).iter().all(|found| *found != name), "the session is back");
    let ended = secret(1).derive().revocation_key(Kind::Session, OURS, sid.as_bytes());
    assert_eq!(both.check(&[ended]), Ok(vec![Answer::Dead]));
}

#[test]
fn lifts_and_refreshes_go_to_both() {
    let (old, new) = (Redis::start(), Redis::start());
    drop(Running::start(options(&old)));
    prepare(&new).unwrap();
    let service = Running::start(with_sessions(both(&old, &new)));
    service.revoke(Kind::Session, "s");
    let key = key(Kind::Session, "s");
    assert!(new.ask(&["GET", &entry(key)]).contains("D;"));
    let (status, lifted) = service.admin("DELETE", &format!("/v1/revocations/{key}"), "");
    assert_eq!(status, 200, "{lifted}");
    assert_eq!(new.ask(&["GET", &entry(key)]), "$-1\r\n");

    let made = session(&service);
    let (status, next) = refresh(&service, &made);
    assert_eq!(status, 200, "{next}");
    let dump = |redis: &Redis| {
        let name = names(redis).into_iter().find(|name| name.contains(":s:")).unwrap();
        redis.ask(&["EVAL", DUMP, "1", &name])
    };
    assert_eq!(dump(&old), dump(&new));
    assert!(dump(&new).contains(" n=1 "), "{}", dump(&new));
    assert!(copy(&old, &new).unwrap().complete);
    // The service that answers from the new one knows the new token, and that the old one was used.
    drop(service);
    let service = Running::start(with_sessions(Options { create_store: false, ..options(&new) }));
    let (status, third) = refresh(&service, &next);
    assert_eq!(status, 200, "{third}");
    assert_eq!(refresh(&service, &made).0, 400);
}

#[test]
fn a_logout_token_that_was_used_stays_used_in_the_new_store() {
    let (old, new) = (Redis::start(), Redis::start());
    let signs = key_of(mint::Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&signs]);
    let with_provider =
        |options: Options| Options { providers_file: providers(&old, &[provider(&jwks.uri())]), ..options };
    let token = |name: &str| {
        let claims = with(logout_claims(), &json!({ "sid": null, "sub": name }));
        typed(&signs, "logout+jwt", &claims)
    };
    let tokens = ["alice", "bob", "carol"].map(token);
    let first = Running::start(with_provider(options(&old)));
    assert_eq!(log_out(&first, &tokens[0]).status, 200);
    drop(first);
    prepare(&new).unwrap();
    let service = Running::start(with_provider(both(&old, &new)));
    assert_eq!(log_out(&service, &tokens[1]).status, 200);
    // What the mirror does not confirm is not used up.
    new.signal("STOP");
    assert_eq!(log_out(&service, &tokens[2]).status, 503);
    new.signal("CONT");
    eventually(WELL_AGAIN, || (log_out(&service, &tokens[2]).status == 200).then_some(()));
    let report = copy(&old, &new).unwrap();
    assert!(report.complete, "{report:?}");
    let marks = tally(&report, "marks of used tokens");
    assert_eq!((marks.found, marks.copied), (3, 1), "{report:?}");
    drop(service);
    let switched = Running::start(with_provider(Options { create_store: false, ..options(&new) }));
    for token in &tokens {
        assert_eq!(log_out(&switched, token).status, 400);
    }
}

// The other store answers nobody yet, and a provider may never send its logout again.
#[test]
fn a_logout_is_in_force_also_while_the_other_store_is_down() {
    let (old, mut new) = (Redis::start(), Redis::start());
    drop(Running::start(options(&old)));
    prepare(&new).unwrap();
    let signs = key_of(mint::Alg::EdDSA, "k");
    let jwks = Jwks::publishing(&[&signs]);
    let service =
        Running::start(Options { providers_file: providers(&old, &[provider(&jwks.uri())]), ..both(&old, &new) });
    new.kill();
    eventually(WELL_AGAIN, || metric(&service, "portcullis_mirror_ready 0").then_some(()));
    let claims = logout_claims();
    let token = typed(&signs, "logout+jwt", &claims);
    assert_eq!(log_out(&service, &token).status, 503);
    let issuer = claims["iss"].as_str().unwrap();
    let ended = secret(1).derive().revocation_key(Kind::Session, issuer, claims["sid"].as_str().unwrap().as_bytes());
    assert_eq!(service.check(&[ended]), Ok(vec![Answer::Dead]));
    // Sent again, it is acknowledged when both have it, and then no more.
    new.restart();
    eventually(WELL_AGAIN, || (log_out(&service, &token).status == 200).then_some(()));
    assert!(new.ask(&["GET", &entry(ended)]).contains("D;"));
    assert_eq!(log_out(&service, &token).status, 400);
}

// An operator switches when it is 0, so it must not be 0 while what waits is being tried.
#[test]
fn what_waits_for_the_other_store_is_counted_while_it_is_tried() {
    let (old, new) = (Redis::start(), Redis::start());
    drop(Running::start(options(&old)));
    prepare(&new).unwrap();
    // Nobody is there to confirm, so each attempt takes its time and fails.
    let confirm_timeout = Duration::from_millis(500);
    let service = Running::start(Options { mirror_redis_min_replicas: Some(1), confirm_timeout, ..both(&old, &new) });
    assert_eq!(service.admin("POST", "/v1/revocations", &asking(Kind::Session, "s")).0, 503);
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(!metric(&service, "portcullis_mirror_behind 0"), "after {:?}", begun.elapsed());
    }
}

#[test]
fn a_service_that_stops_brings_first_what_the_other_store_lacks() {
    let (old, mut new) = (Redis::start(), Redis::start());
    drop(Running::start(options(&old)));
    prepare(&new).unwrap();
    let service = Running::start(with_sessions(both(&old, &new)));
    let made = session(&service);
    // Refreshing is acknowledged without the mirror.
    new.kill();
    assert_eq!(refresh(&service, &made).0, 200);
    new.restart();
    drop(service);
    let name = names(&new).into_iter().find(|name| name.contains(":s:")).unwrap();
    assert_eq!(new.ask(&["HGET", &name, "n"]), "$1\r\n1\r\n");
}
