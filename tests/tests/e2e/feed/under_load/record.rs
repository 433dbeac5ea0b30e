//! What happened, on the monotonic clock of this machine: which sessions were ended and when that was acknowledged, and each
//! admission. It finds those that came too late.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use harness::mesh::{ISSUER, claims_with, unix_now};
use harness::{Connection, Request, exchange};
use mint::SigningKey;
use serde_json::json;

/// Sessions of which a token is in use.
const SESSIONS: usize = 64;
/// The most violations that are described.
const SHOWN: usize = 20;

pub struct Record {
    lag: Duration,
    key: SigningKey,
    notes: Mutex<Notes>,
    is_over: AtomicBool,
    /// A session that was ended gets a successor after a while.
    in_use: Mutex<Vec<Session>>,
    next: AtomicUsize,
    random: AtomicU64,
}

#[derive(Clone)]
pub struct Session {
    pub number: usize,
    token: String,
}

#[derive(Default)]
struct Notes {
    /// Sessions whose end was asked for: it may be carried out, also without an acknowledgement.
    ending: HashSet<usize>,
    /// When the end of a session was acknowledged.
    ended: HashMap<usize, Instant>,
    /// Admissions of sessions that had been ended for longer than the lag when the request was sent.
    violations: Vec<String>,
    /// Tokens that live, and were refused for another reason than that nobody could tell.
    wrongly_refused: Vec<String>,
    /// By who decided, and how.
    counts: BTreeMap<(&'static str, Outcome), u64>,
    /// From the acknowledgement to the last admission after it, by who admitted.
    latest: BTreeMap<&'static str, Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Admitted,
    Revoked,
    CannotTell,
    /// A follower alone: the token would be asked about.
    Asks,
}

impl Record {
    pub fn new(lag: Duration, key: SigningKey) -> Self {
        let record = Self {
            lag,
            key,
            notes: Mutex::default(),
            is_over: AtomicBool::new(false),
            in_use: Mutex::default(),
            next: AtomicUsize::new(0),
            random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        };
        *record.in_use.lock().expect("no panic") = (0..SESSIONS).map(|_| record.session()).collect();
        record
    }

    /// A new session, which is not in use.
    pub fn session(&self) -> Session {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let now = unix_now();
        // Also good for a proxy whose clock is an hour off.
        let members = json!({
            "sid": name(number), "sub": format!("u{number}"), "iat": now - 7200, "exp": now + 7200,
        });
        Session { number, token: self.key.mint(&claims_with(&members)) }
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// One that is in use, and since when it is known to be ended.
    pub fn any(&self) -> (Session, Option<Instant>) {
        let session = {
            let in_use = self.in_use.lock().expect("no panic");
            in_use[usize::try_from(self.random() % 1024).expect("few") % in_use.len()].clone()
        };
        let ended = self.notes().ended.get(&session.number).copied();
        (session, ended)
    }

    /// Ended sessions are in use no longer.
    pub fn renew(&self) {
        let ending = self.notes().ending.clone();
        for session in self.in_use.lock().expect("no panic").iter_mut() {
            if ending.contains(&session.number) {
                *session = self.session();
            }
        }
    }

    /// Notes an outcome. `ended` was known before the request was sent, at `sent`.
    pub fn note(&self, by: &'static str, session: usize, ended: Option<Instant>, sent: Instant, outcome: Outcome) {
        let mut notes = self.notes();
        *notes.counts.entry((by, outcome)).or_default() += 1;
        match outcome {
            Outcome::Admitted => {
                let late = ended.map(|ended| sent.duration_since(ended)).unwrap_or_default();
                let latest = notes.latest.entry(by).or_default();
                *latest = late.max(*latest);
                if late > self.lag {
                    notes.violations.push(format!("{by}: session {session} was admitted {late:?} after its end"));
                }
            }
            Outcome::Revoked if !notes.ending.contains(&session) => {
                notes.wrongly_refused.push(format!("{by}: session {session} is said to be revoked"));
            }
            Outcome::Revoked | Outcome::CannotTell | Outcome::Asks => {}
        }
    }

    /// Sends requests with the tokens in use, one after the other.
    pub async fn request(&self, by: &'static str, envoy: SocketAddr, pause: Duration) {
        let mut connection = None;
        while !self.is_over() {
            tokio::time::sleep(pause).await;
            let (session, ended) = self.any();
            // A response that is slow to come is no admission of that moment: a request counts from when it was sent.
            let sent = Instant::now();
            let open = match connection.take() {
                Some(open) => Some(open),
                None => Connection::open(envoy).await.ok(),
            };
            let Some(mut open) = open else { continue };
            let Ok(response) = open.send(&Request::get("/api").bearer(&session.token)).await else { continue };
            connection = Some(open);
            let code = response.json()["code"].as_str().unwrap_or_default().to_owned();
            match (response.status, code.as_str()) {
                (200, _) => self.note(by, session.number, ended, sent, Outcome::Admitted),
                (403, "SESSION_REVOKED") => self.note(by, session.number, ended, sent, Outcome::Revoked),
                (503, _) => self.note(by, session.number, ended, sent, Outcome::CannotTell),
                (status, code) => {
                    self.notes().wrongly_refused.push(format!("{by}: session {}: {status} {code}", session.number));
                }
            }
        }
    }

    /// Ends one session after another, at any of the services.
    pub async fn end_sessions(&self, admins: &[SocketAddr], secret: &str, pause: Duration) {
        while !self.is_over() {
            let place = usize::try_from(self.random() % SESSIONS as u64).expect("few");
            let session = self.in_use.lock().expect("no panic")[place].number;
            self.end_session(session, admins, secret).await;
            // The ended token stays in use for a while: its successor takes the place of another.
            let next = self.session();
            self.in_use.lock().expect("no panic")[(place + SESSIONS / 2) % SESSIONS] = next;
            tokio::time::sleep(pause).await;
        }
    }

    /// True if it is acknowledged.
    pub async fn end_session(&self, session: usize, admins: &[SocketAddr], secret: &str) -> bool {
        self.notes().ending.insert(session);
        let admin = admins[usize::try_from(self.random() % 1024).expect("few") % admins.len()];
        let body = json!({ "kind": "session", "issuer": ISSUER, "id": name(session) }).to_string();
        let request = Request::new("POST", "/v1/revocations").bearer(secret).body(body);
        let answer = tokio::time::timeout(Duration::from_secs(5), exchange(admin, &request)).await;
        let is_acknowledged = matches!(&answer, Ok(Ok(response)) if (200..300).contains(&response.status));
        if is_acknowledged {
            self.notes().ended.entry(session).or_insert_with(Instant::now);
        }
        is_acknowledged
    }

    /// A request with a new token.
    pub async fn passes(&self, envoy: SocketAddr) -> bool {
        let request = Request::get("/api").bearer(&self.session().token);
        matches!(exchange(envoy, &request).await, Ok(response) if response.status == 200)
    }

    /// # Panics
    /// The promise was broken, a token that lives was refused, or too little happened to show anything.
    pub fn judge(&self) -> String {
        let notes = self.notes();
        let mut text = format!("{} ends of sessions were acknowledged\n", notes.ended.len());
        for ((by, outcome), count) in &notes.counts {
            let _ = writeln!(text, "{by}: {outcome:?} {count}");
        }
        for (by, latest) in &notes.latest {
            let _ = writeln!(text, "{by}: the latest admission was {} ms after the end", latest.as_millis());
        }
        eprintln!("{text}");
        let few = |all: &[String]| all.iter().take(SHOWN).cloned().collect::<Vec<_>>();
        assert!(notes.violations.is_empty(), "{}: {:#?}", notes.violations.len(), few(&notes.violations));
        assert!(notes.wrongly_refused.is_empty(), "{:#?}", few(&notes.wrongly_refused));
        let count =
            |outcome| notes.counts.iter().filter(|((_, seen), _)| *seen == outcome).map(|(_, n)| n).sum::<u64>();
        assert!(
            notes.ended.len() > 20 && count(Outcome::Admitted) > 200 && count(Outcome::Revoked) > 20,
            "too little happened"
        );
        text
    }

    /// A number that differs each time.
    pub fn random(&self) -> u64 {
        let mut bits = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no panic")
    }
}

/// The `sid` of a session.
pub fn name(number: usize) -> String {
    format!("s{number}")
}

#[test]
#[should_panic(expected = "was admitted")]
fn an_admission_after_the_lag_is_found() {
    let record = Record::new(Duration::from_secs(1), SigningKey::generate(mint::Alg::HS256, "shared"));
    let ended = Instant::now();
    record.note("wasm", 1, Some(ended), ended + Duration::from_millis(1000), Outcome::Admitted);
    assert!(record.notes().violations.is_empty(), "not later than the lag");
    record.note("wasm", 1, Some(ended), ended + Duration::from_millis(1001), Outcome::Admitted);
    record.judge();
}
