//! One proxy under a simulated clock: the filter's own driver in as many VMs as there are workers. Simulated are the
//! clients, the host's shared data, and a service that answers `live` after a fixed time.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use anyhow::{Context as _, bail};
use authn::time::{Monotonic, Now, UnixSeconds};
use driver::fake::{FakeHost, FakeProxy, FakeService, Request, SharedData};
use driver::{CallId, StreamId, TICK, fake};
use mint::{Alg, SigningKey};
use serde_json::{Value, json};
use wire::check::Asked;
use wire::feed::{self, Polled, Trouble};

use super::Proxy;

const ISSUED: u64 = 1_750_000_000;
const SECOND: u64 = 1_000_000_000;
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
    /// Polls of the feed.
    pub polls: f64,
    /// Of the tenth of a second with the most checks.
    pub most_checks: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request,
    Tick {
        worker: usize,
    },
    Answer {
        worker: usize,
        call: u64,
    },
    /// The feed has no proof from now on.
    FeedEnds,
}

/// A VM with one worker.
struct Vm {
    proxy: FakeProxy,
    waiting: Vec<StreamId>,
    /// The last callout whose answer is scheduled.
    last_call: u64,
}

struct Simulation<'s> {
    proxy: &'s Proxy,
    service: FakeService,
    vms: Vec<Vm>,
    bearers: Vec<String>,
    /// When each session begins. If all began at once, their checks would be synchronised for a long time.
    begins: Vec<u64>,
    /// Cumulative sum of the sessions' rates.
    upto: Vec<f64>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    random: Random,
    counted: Counted,
    /// Checks in this tenth of a second, and the most of one.
    tenth: (u64, u64),
    most_in_a_tenth: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    requests: u64,
    asked: u64,
    checks: u64,
    keys: u64,
    waited: u64,
    cached: u64,
    polls: u64,
}

/// # Errors
/// The driver refuses a request, which must never happen in this simulation.
pub fn simulate(proxy: &Proxy, warm_up: Duration, window: Duration, seed: u64) -> anyhow::Result<Seen> {
    // The same each time, since its thumbprint selects the slots.
    let key = SigningKey::from_secret(Alg::HS256, Some("k"), &[7; 32])?;
    let secret = mint::to_base64url(key.secret().context("an HMAC key")?).into_bytes();
    let secrets = BTreeMap::from([(KEY.to_owned(), secret), (SECRET.to_owned(), vec![b's'; 32])]);
    let (document, shared) = (configuration(proxy, &key).to_string(), SharedData::default());
    let vm = |number: usize| -> anyhow::Result<Vm> {
        let host = FakeHost::new(at(0), secrets.clone(), shared.clone(), number as u64);
        let proxy = FakeProxy::start(host, document.as_bytes(), 1).map_err(anyhow::Error::msg)?;
        Ok(Vm { proxy, waiting: Vec::new(), last_call: 0 })
    };
    let vms: Vec<Vm> = (0..proxy.workers).map(vm).collect::<anyhow::Result<_>>()?;
    let policy = &vms.first().context("a worker")?.proxy.core.policy;
    let derived = wire::DerivedKeys::clone(&policy.revocation().context("a policy with revocation")?.derived);
    let mut sum = 0.0;
    let upto = proxy.rates().map(|rate| {
        sum += rate;
        sum
    });
    let upto = upto.collect();
    let mut random = Random(seed);
    let mut simulation = Simulation {
        proxy,
        service: FakeService::new(derived),
        vms,
        bearers: (0..proxy.sessions).map(|session| format!("Bearer {}", token(&key, session))).collect(),
        begins: (0..proxy.sessions).map(|_| random.below(nanos(proxy.freshness * 2))).collect(),
        upto,
        events: BinaryHeap::new(),
        sequence: 0,
        random,
        counted: Counted::default(),
        tenth: (0, 0),
        most_in_a_tenth: 0,
    };
    simulation.run(warm_up, window)
}

fn configuration(proxy: &Proxy, key: &SigningKey) -> Value {
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    let mut document = json!({
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
    if let Some(lag) = proxy.feed {
        document["revocation"]["feed"] = json!({ "lag": millis(lag) });
    }
    document
}

/// A moment of the simulation.
fn at(nanos: u64) -> Now {
    Now { wall: UnixSeconds(ISSUED + 60), monotonic: Monotonic(1_000 * SECOND + nanos) }
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
        if self.proxy.feed_ends {
            self.push(warm_up, Event::FeedEnds);
        }
        let mut before = None;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= warm_up && before.is_none() {
                before = Some(self.counted());
                self.most_in_a_tenth = 0;
            }
            if at >= end {
                break;
            }
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
                    self.on_request(worker, session, at)?;
                }
                Event::Tick { worker } => {
                    self.push(at + nanos(TICK), Event::Tick { worker });
                    self.vm(worker, at).proxy.tick();
                    self.follow(worker, at)?;
                }
                Event::FeedEnds => self.service.feed_trouble = Some(Trouble::Incomplete),
                Event::Answer { worker, call } => {
                    let in_flight = &self.vms[worker].proxy.host.in_flight;
                    let question =
                        in_flight.iter().find(|sent| sent.id == CallId(call)).context("a callout in flight")?;
                    let is_poll = question.header(":path") == feed::PATH;
                    let held = self::at(at).monotonic.since(question.sent).saturating_sub(self.proxy.callout);
                    let reply = match is_poll {
                        true => self.service.poll_now(&question.body, held),
                        false => self.service.answer(&question.body),
                    };
                    self.vm(worker, at).proxy.answer(CallId(call), &reply);
                    self.follow(worker, at)?;
                }
            }
        }
        let (before, after) = (before.context("no time was measured")?, self.counted());
        let each = |of: fn(&Counted) -> u64| (of(&after) - of(&before)) as f64;
        let seconds = window.as_secs_f64();
        let (requests, checks) = (each(|counted| counted.requests), each(|counted| counted.checks));
        Ok(Seen {
            requests: requests / seconds,
            asked: each(|counted| counted.asked) / seconds,
            checks: checks / seconds,
            keys_per_check: if checks > 0.0 { each(|counted| counted.keys) / checks } else { 0.0 },
            waited: each(|counted| counted.waited) / requests,
            cached: each(|counted| counted.cached) / requests,
            polls: each(|counted| counted.polls) / seconds,
            most_checks: self.most_in_a_tenth as f64 * 10.0,
        })
    }

    fn on_request(&mut self, worker: usize, session: usize, at: u64) -> anyhow::Result<()> {
        self.counted.requests += 1;
        let request = Request::get("/api/orders/1", &[("authorization", self.bearers[session].as_str())]);
        let vm = self.vm(worker, at);
        let stream = vm.proxy.send(0, request);
        vm.waiting.push(stream);
        let waits = matches!(vm.proxy.seen(stream), fake::Seen::Waiting);
        self.counted.waited += u64::from(waits);
        self.follow(worker, at)
    }

    /// A VM, at this moment.
    fn vm(&mut self, worker: usize, now: u64) -> &mut Vm {
        let vm = &mut self.vms[worker];
        vm.proxy.host.now = at(now);
        vm
    }

    /// Ends the requests that no longer wait, and schedules the answers to new callouts.
    fn follow(&mut self, worker: usize, at: u64) -> anyhow::Result<()> {
        let vm = &mut self.vms[worker];
        for stream in std::mem::take(&mut vm.waiting) {
            match vm.proxy.seen(stream) {
                fake::Seen::Waiting => vm.waiting.push(stream),
                fake::Seen::Forwarded(_) => vm.proxy.reset(stream),
                refused => bail!("a request was refused: {refused:?}"),
            }
        }
        let mut calls = Vec::new();
        for call in vm.proxy.host.in_flight.iter().filter(|call| call.id.0 > vm.last_call) {
            if call.header(":path") == feed::PATH {
                let polled = Polled::read(std::slice::from_ref(&self.service.keys), &call.body);
                let wait = polled.map_err(|_| anyhow::anyhow!("not a poll"))?.wait();
                // Nothing is revoked here, so it is held as long as it may be, if its follower has everything.
                let is_held = self.service.poll(&call.body, Duration::ZERO).is_none();
                self.counted.polls += 1;
                calls.push((call.id.0, if is_held { wait } else { Duration::ZERO }));
                continue;
            }
            let asked = Asked::read(std::slice::from_ref(&self.service.keys), &call.body);
            let keys = asked.map_err(|_| anyhow::anyhow!("not a check"))?.keys().len() as u64;
            // The others report issuers.
            self.counted.checks += u64::from(keys > 0);
            self.counted.keys += keys;
            let tenth = at / (SECOND / 10);
            self.tenth = if self.tenth.0 == tenth { self.tenth } else { (tenth, 0) };
            self.tenth.1 += u64::from(keys > 0);
            self.most_in_a_tenth = self.most_in_a_tenth.max(self.tenth.1);
            calls.push((call.id.0, Duration::ZERO));
        }
        vm.last_call = calls.last().map_or(vm.last_call, |(call, _)| *call);
        for (call, held) in calls {
            self.push(at + nanos(self.proxy.callout + held), Event::Answer { worker, call });
        }
        Ok(())
    }

    /// The counts until now, of which the driver's metrics are a part.
    fn counted(&mut self) -> Counted {
        let mut metric =
            |series: &str| -> u64 { self.vms.iter_mut().map(|vm| vm.proxy.metric(series).unsigned_abs()).sum() };
        Counted { asked: metric("check_tokens"), cached: metric("token_cache{hit}"), ..self.counted }
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
