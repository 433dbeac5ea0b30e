//! The promise, checked while everything fails that can: each acknowledged revocation and each admission is noted, and none
//! may come later than the lag allows.
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use harness::exchange;
use harness::mesh::claims_with;

use super::*;

/// How long faults come. `FEED_SECONDS` makes it longer: `FEED_SECONDS=1800 make e2e TEST=feed::under_load`.
const SECONDS: u64 = 30;
/// A connection that is slow to be read is no admission of that moment: a request counts from when it was sent.
const REQUESTERS: usize = 4;
/// Sessions of which some tokens are in use.
const SESSIONS: usize = 64;

/// What happened, in the order in which it was noted.
#[derive(Default)]
struct Notes {
    /// Sessions whose end was asked for: it may be carried out, also without an acknowledgement.
    ending: HashSet<usize>,
    /// By session: when its end was acknowledged.
    ended: HashMap<usize, Instant>,
    /// Requests that were admitted although their session had been ended for longer than the lag when they were sent.
    violations: Vec<String>,
    admitted: u64,
    refused_as_revoked: u64,
    cannot_tell: u64,
    /// Tokens that live, and were refused for another reason than that nobody could tell.
    wrongly_refused: Vec<String>,
}

struct Shared {
    notes: Mutex<Notes>,
    over: AtomicBool,
    envoy: SocketAddr,
    /// A token for each session. A session that was ended gets a successor under the same number.
    tokens: Mutex<Vec<(usize, String)>>,
}

/// Sends requests with the tokens in turn.
async fn request(shared: Arc<Shared>, from: usize) {
    let mut connection = None;
    let mut number = from;
    while !shared.over.load(Ordering::SeqCst) {
        number = number.wrapping_add(7);
        let (session, token) = {
            let tokens = shared.tokens.lock().expect("no panic");
            tokens[number % tokens.len()].clone()
        };
        let known_ended = shared.notes.lock().expect("no panic").ended.get(&session).copied();
        let sent = Instant::now();
        let open = match connection.take() {
            Some(open) => Some(open),
            None => harness::Connection::open(shared.envoy).await.ok(),
        };
        let Some(mut open) = open else { continue };
        let Ok(response) = open.send(&Request::get("/api").bearer(&token)).await else { continue };
        connection = Some(open);
        let code = response.json()["code"].as_str().unwrap_or_default().to_owned();
        let mut notes = shared.notes.lock().expect("no panic");
        match response.status {
            200 => {
                notes.admitted += 1;
                if let Some(ended) = known_ended
                    && sent.duration_since(ended) > LAG
                {
                    let late = sent.duration_since(ended);
                    notes.violations.push(format!("session {session} was admitted {late:?} after its end"));
                }
            }
            403 if code == "SESSION_REVOKED" => {
                notes.refused_as_revoked += 1;
                if !notes.ending.contains(&session) {
                    notes.wrongly_refused.push(format!("session {session}: {code}"));
                }
            }
            503 => notes.cannot_tell += 1,
            status => notes.wrongly_refused.push(format!("session {session}: {status} {code}")),
        }
    }
}

/// Ends one session after another, and notes when that was acknowledged.
async fn end_sessions(shared: Arc<Shared>, mint: impl Fn(usize) -> String, admin: SocketAddr, secret: String) {
    let mut next = SESSIONS;
    while !shared.over.load(Ordering::SeqCst) {
        let place = next % SESSIONS;
        let session = shared.tokens.lock().expect("no panic")[place].0;
        shared.notes.lock().expect("no panic").ending.insert(session);
        let body = json!({ "kind": "session", "issuer": ISSUER, "id": format!("s{session}") }).to_string();
        let request = Request::new("POST", "/v1/revocations").bearer(&secret).body(body);
        let answer = tokio::time::timeout(Duration::from_secs(5), exchange(admin, &request)).await;
        if matches!(&answer, Ok(Ok(response)) if (200..300).contains(&response.status)) {
            shared.notes.lock().expect("no panic").ended.insert(session, Instant::now());
        }
        // The ended token stays in use for a while: its successor takes the place of another.
        let other = (place + SESSIONS / 2) % SESSIONS;
        let token = mint(next);
        shared.tokens.lock().expect("no panic")[other] = (next, token);
        next += 1;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// One fault after another. Each is over when this returns.
async fn break_things(mesh: &mut Mesh, turn: u64) {
    let pause = |millis| tokio::time::sleep(Duration::from_millis(millis));
    let (service, redis) = (mesh.service.as_mut().expect("a service"), mesh.redis.as_mut().expect("a Redis"));
    match turn % 7 {
        0 => {
            service.process().pause();
            pause(300 + turn * 97 % 2500).await;
            service.process().resume();
        }
        1 => {
            service.process().kill();
            pause(200).await;
            service.restart().await;
        }
        2 => {
            redis.process().pause();
            pause(300 + turn * 61 % 2500).await;
            redis.process().resume();
        }
        // Logs and heads of buckets are lost.
        3 => {
            for bucket in 0..64 {
                for name in ["log", "head"] {
                    let _ = redis.command(&["DEL", &format!("portcullis:{{{bucket:02x}}}:{name}")]).await;
                }
            }
        }
        4 => {
            redis.process().kill();
            pause(200).await;
            redis.restart().await;
        }
        5 => {
            let _ = redis.command(&["CLIENT", "PAUSE", "400", "ALL"]).await;
            pause(500).await;
        }
        // Nothing for a while: all is well again.
        _ => {}
    }
    pause(1200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_admission_comes_later_than_the_lag_whatever_fails() {
    let _turn = harness::under_load().await;
    let mut options = options();
    // Without a proof the promise is that of checks.
    options.filter["revocation"]["freshness"] = json!("1s");
    let mut mesh = Mesh::start_with("feed-promise", options).await;
    follows(&mesh).await;
    let key = std::mem::replace(&mut mesh.keys.shared, harness::mesh::Keys::generate().shared);
    let mint = move |session: usize| {
        key.mint(&claims_with(&json!({ "sid": format!("s{session}"), "sub": format!("u{session}") })))
    };
    let service = mesh.service.as_ref().expect("a service");
    let (admin, secret) = (service.admin_address(), service.options().admin_token.clone());
    let shared = Arc::new(Shared {
        notes: Mutex::default(),
        over: AtomicBool::new(false),
        envoy: mesh.envoy.address(),
        tokens: Mutex::new((0..SESSIONS).map(|session| (session, mint(session))).collect()),
    });
    let mut tasks: Vec<_> = (0..REQUESTERS).map(|from| tokio::spawn(request(Arc::clone(&shared), from * 13))).collect();
    tasks.push(tokio::spawn(end_sessions(Arc::clone(&shared), mint, admin, secret)));

    let seconds = std::env::var("FEED_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut turn = 0;
    while Instant::now() < until {
        break_things(&mut mesh, turn).await;
        turn += 1;
    }
    shared.over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("no panic");
    }
    let notes = std::mem::take(&mut *shared.notes.lock().expect("no panic"));
    eprintln!(
        "{turn} faults, {} sessions ended, {} requests admitted, {} refused as revoked, {} cannot tell",
        notes.ended.len(),
        notes.admitted,
        notes.refused_as_revoked,
        notes.cannot_tell
    );
    assert!(notes.violations.is_empty(), "{:#?}", notes.violations);
    assert!(notes.wrongly_refused.is_empty(), "{:#?}", notes.wrongly_refused);
    // The test must have seen what it is about.
    assert!(notes.ended.len() > 20 && notes.admitted > 200 && notes.refused_as_revoked > 20, "too little happened");
    follows(&mesh).await;
}
