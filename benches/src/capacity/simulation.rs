//! One proxy under a simulated clock: the filter's own core (`authn`) in as many VMs as there are workers. Simulated
//! are the clients, the host's shared data, and a service that answers `live` after a fixed time.
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use authn::decide::{Entry, Peer, RevocationStatus, Verified};
use authn::engine::Portable;
use authn::keys::rings::Keyrings;
use authn::policy::Policy;
use authn::request::Request;
use authn::revocation::{Revocation, RevocationQuery, Verdict};
use authn::time::{Monotonic, Now, UnixSeconds};
use driver::checks::{BatchId, Checks, Resolved, Trigger};
use driver::shared::{Namespace, SharedVerdicts};
use driver::tokens::Tokens;
use mint::{Alg, SigningKey};
use serde_json::json;
use wire::check::Reply;
use wire::{Answer, Retention};

use super::Proxy;

const ISSUED: u64 = 1_750_000_000;
const TICK: Duration = Duration::from_millis(100);
const SECRET: &str = "SECRET";
const KEY: &str = "KEY";

/// The results, per second or as a share.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    pub requests: f64,
    pub asked: f64,
    pub checks: f64,
    pub keys_per_check: f64,
    /// Requests that waited for an answer.
    pub waited: f64,
    /// Requests whose token their worker had verified before.
    pub cached: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request,
    Tick { worker: usize },
    Answer { worker: usize, call: usize },
}

/// A VM.
struct Worker {
    tokens: Tokens,
    checks: Checks,
    /// Checks in flight: the batch, and the number of its keys.
    calls: Vec<Option<(BatchId, usize)>>,
}

struct Simulation<'s> {
    proxy: &'s Proxy,
    policy: &'s Policy,
    revocation: &'s Revocation,
    keyrings: Keyrings,
    verdicts: Option<SharedVerdicts>,
    shared: HashMap<String, Vec<u8>>,
    workers: Vec<Worker>,
    bearers: Vec<String>,
    /// When each session begins. If all began at once, their checks would be synchronised for a long time.
    begins: Vec<u64>,
    /// Cumulative sum of the sessions' rates.
    upto: Vec<f64>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    random: Random,
    waiter: u64,
    counted: Counted,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    requests: u64,
    asked: u64,
    checks: u64,
    keys: u64,
    waited: u64,
    cached: u64,
}

struct Nobody;

impl Peer for Nobody {
    fn address(&self) -> Option<IpAddr> {
        None
    }

    fn certificate_sha256(&self) -> Option<Vec<u8>> {
        None
    }
}

/// # Errors
/// The core refuses a request, which must never happen in this simulation.
pub fn simulate(proxy: &Proxy, warm_up: Duration, window: Duration, seed: u64) -> anyhow::Result<Seen> {
    // The same each time, since its thumbprint selects the slots.
    let key = SigningKey::from_secret(Alg::HS256, Some("k"), &[7; 32])?;
    let policy = policy(proxy, &key)?;
    let revocation = policy.revocation().context("a policy with revocation")?;
    let limits = policy.limits();
    let space = Namespace::new(&revocation.derived, policy.digest());
    let worker = || Worker {
        tokens: Tokens::new(limits.cached_tokens, limits.cached_token_bytes, 7, 1),
        checks: Checks::new(limits.waiting_requests, revocation.timeout, revocation.shared_answers_serve()),
        calls: Vec::new(),
    };
    let mut sum = 0.0;
    let upto = proxy.rates().map(|rate| {
        sum += rate;
        sum
    });
    let upto = upto.collect();
    let mut random = Random(seed);
    let mut simulation = Simulation {
        proxy,
        policy: &policy,
        revocation,
        keyrings: policy.keyrings(),
        verdicts: SharedVerdicts::new(space, limits.shared_verdicts),
        shared: HashMap::new(),
        workers: (0..proxy.workers).map(|_| worker()).collect(),
        bearers: (0..proxy.sessions).map(|session| format!("Bearer {}", token(&key, session))).collect(),
        begins: (0..proxy.sessions).map(|_| random.below(nanos(proxy.freshness * 2))).collect(),
        upto,
        events: BinaryHeap::new(),
        sequence: 0,
        random,
        waiter: 0,
        counted: Counted::default(),
    };
    simulation.run(warm_up, window)
}

fn policy(proxy: &Proxy, key: &SigningKey) -> anyhow::Result<Policy> {
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    let config = json!({
        "issuers": [{
            "name": "login", "issuer": "https://login.example.com", "audiences": ["orders"], "algorithms": ["HS256"],
            "keys": [{ "kid": key.kid(), "alg": "HS256", "secret_env": KEY, "secret_encoding": "base64url" }],
        }],
        "revocation": {
            "cluster": "session_service", "secret_env": SECRET, "freshness": millis(proxy.freshness),
            "refresh_ahead": proxy.refresh_ahead,
        },
        "limits": {
            "cached_tokens": proxy.cached_tokens, "shared_verdicts": proxy.shared_verdicts, "waiting_requests": 16_384,
        },
        "rules": [{ "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" }],
    });
    let secret = key.secret().context("an HMAC key")?;
    let environment = |name: &str| match name {
        KEY => Some(mint::to_base64url(secret).into_bytes()),
        SECRET => Some(vec![b's'; 32]),
        _ => None,
    };
    Policy::from_json(config.to_string().as_bytes(), &environment).map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// A session with its own user, in one of a few clients.
fn token(key: &SigningKey, session: usize) -> String {
    key.mint(&json!({
        "iss": "https://login.example.com", "aud": "orders", "iat": ISSUED, "exp": ISSUED + 3600,
        "jti": format!("t{session}"), "sid": format!("s{session}"), "sub": format!("u{session}"),
        "client_id": format!("c{}", session % 5),
    }))
}

impl Simulation<'_> {
    fn run(&mut self, warm_up: Duration, window: Duration) -> anyhow::Result<Seen> {
        let (warm_up, end) = (nanos(warm_up), nanos(warm_up + window));
        // The workers' ticks are spread like their starts.
        for worker in 0..self.proxy.workers {
            let at = self.random.below(nanos(TICK));
            self.push(at, Event::Tick { worker });
        }
        self.push(0, Event::Request);
        let mut before = None;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= warm_up && before.is_none() {
                before = Some(self.counted);
            }
            if at >= end {
                break;
            }
            let now = Now { wall: UnixSeconds(ISSUED + 60), monotonic: Monotonic(1_000_000_000_000 + at) };
            match event {
                Event::Request => {
                    let total = self.upto.last().copied().unwrap_or_default();
                    let pause = -(1.0 - self.random.unit()).ln() / total;
                    self.push(at + (pause * 1e9) as u64, Event::Request);
                    let drawn = self.random.unit() * total;
                    let session = self.upto.partition_point(|upto| *upto <= drawn).min(self.bearers.len() - 1);
                    let worker = self.random.below(self.proxy.workers as u64) as usize;
                    if at < self.begins[session] {
                        continue;
                    }
                    self.on_request(worker, session, now, at)?;
                }
                Event::Tick { worker } => {
                    self.push(at + nanos(TICK), Event::Tick { worker });
                    if !self.workers[worker].checks.expire(now.monotonic).is_empty() {
                        bail!("a request was refused for waiting too long");
                    }
                    self.send(worker, Trigger::Tick, now, at);
                }
                Event::Answer { worker, call } => {
                    let of = &mut self.workers[worker];
                    let Some((flight, keys)) = of.calls[call].take() else { continue };
                    let reply = Reply { keeps: Retention::LONGEST, answers: vec![Answer::Live; keys] };
                    let resolved = of.checks.answered(flight, &reply);
                    for resolved in resolved.map_err(|_| anyhow::anyhow!("the answers do not fit"))? {
                        let verdict = resolved.verdict.context("the service keeps revocations for long enough")?;
                        let (sent, verdict) = self.share(&resolved, verdict);
                        resolved.query.learn(sent, verdict);
                    }
                    self.send(worker, Trigger::Waiters, now, at);
                }
            }
        }
        let (before, after) = (before.context("no time was measured")?, self.counted);
        let each = |of: fn(&Counted) -> u64| (of(&after) - of(&before)) as f64;
        let seconds = window.as_secs_f64();
        let (requests, checks) = (each(|counted| counted.requests), each(|counted| counted.checks));
        Ok(Seen {
            requests: requests / seconds,
            asked: each(|counted| counted.asked) / seconds,
            checks: checks / seconds,
            keys_per_check: each(|counted| counted.keys) / checks,
            waited: each(|counted| counted.waited) / requests,
            cached: each(|counted| counted.cached) / requests,
        })
    }

    /// As filter/src/root.rs does it.
    fn on_request(&mut self, worker: usize, session: usize, now: Now, at: u64) -> anyhow::Result<()> {
        self.counted.requests += 1;
        let bearer = self.bearers[session].clone();
        let pairs: [(&[u8], &[u8]); 5] = [
            (b":authority", b"api.example.com"),
            (b":path", b"/api/orders/1"),
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b"authorization", bearer.as_bytes()),
        ];
        let request = Request::from_pairs(&pairs).map_err(|rejection| anyhow::anyhow!("{rejection:?}"))?;
        let Entry::Token(entered) = self.policy.enter(&request) else { bail!("a request without a token") };
        let known = self.workers[worker].tokens.find(entered.token());
        self.counted.cached += u64::from(known.is_some());
        let verified: Arc<Verified> = match known {
            Some(verified) => verified,
            None => {
                let verified = self.policy.verify(&Portable, &self.keyrings, &entered, now);
                let verified = Arc::new(verified.map_err(|rejection| anyhow::anyhow!("{rejection:?}"))?);
                self.workers[worker].tokens.insert(Arc::clone(&verified));
                verified
            }
        };
        let revocation_status = self.policy.accept(verified, entered, now, &Nobody);
        let revocation_status =
            revocation_status.and_then(|accepted| self.policy.revocation_status(accepted, None, now));
        match revocation_status.map_err(|rejection| anyhow::anyhow!("{rejection:?}"))? {
            RevocationStatus::Admitted(admission) => {
                if let Some(ask) = admission.refresh() {
                    self.refresh(worker, ask, now);
                }
            }
            RevocationStatus::MustIntrospect(_) => anyhow::bail!("no issuer is asked"),
            RevocationStatus::MustAsk(asking) => {
                if let Some((sent, verdict)) = self.shared_verdict(asking.query().digest)
                    && self.revocation.is_fresh(sent, now.monotonic)
                {
                    let judged = asking.on_verdict(self.policy, sent, verdict, now);
                    judged.map_err(|rejection| anyhow::anyhow!("{rejection:?}"))?;
                    return Ok(());
                }
                self.counted.waited += 1;
                self.waiter = self.waiter.wrapping_add(1);
                let joined = self.workers[worker].checks.join(self.waiter, Arc::clone(asking.query()), now.monotonic);
                joined.map_err(|_| anyhow::anyhow!("too many requests wait"))?;
                self.send(worker, Trigger::Waiters, now, at);
            }
        }
        Ok(())
    }

    fn refresh(&mut self, worker: usize, ask: &Arc<RevocationQuery>, now: Now) {
        if let Some((sent, verdict)) = self.shared_verdict(ask.digest) {
            ask.learn(sent, verdict);
            if self.revocation.is_young(sent, now.monotonic) {
                return;
            }
        }
        self.workers[worker].checks.refresh(Arc::clone(ask));
    }

    fn send(&mut self, worker: usize, why: Trigger, now: Now, at: u64) {
        while let Some(batch) = self.workers[worker].checks.next_batch(why, now.monotonic) {
            self.counted.checks += 1;
            self.counted.asked += batch.tokens as u64;
            self.counted.keys += batch.keys.len() as u64;
            let calls = &mut self.workers[worker].calls;
            let call = calls.iter().position(Option::is_none).unwrap_or_else(|| {
                calls.push(None);
                calls.len() - 1
            });
            calls[call] = Some((batch.id, batch.keys.len()));
            self.push(at + nanos(self.proxy.callout), Event::Answer { worker, call });
        }
    }

    fn shared_verdict(&self, digest: [u8; 16]) -> Option<(Monotonic, Verdict)> {
        let verdicts = self.verdicts.as_ref()?;
        verdicts.read(&digest, self.shared.get(&verdicts.key(&digest))?)
    }

    fn share(&mut self, resolved: &Resolved, verdict: Verdict) -> (Monotonic, Verdict) {
        let (ours, digest) = ((resolved.sent, verdict), resolved.query.digest);
        if let Some(theirs) = self.shared_verdict(digest).filter(|theirs| theirs.0 > ours.0) {
            return theirs;
        }
        if let Some(verdicts) = &self.verdicts {
            self.shared.insert(verdicts.key(&digest), verdicts.write(&digest, ours.0, ours.1));
        }
        ours
    }

    fn push(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// SplitMix64: the same run for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}
