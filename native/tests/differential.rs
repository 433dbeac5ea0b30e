//! Random requests to the module, and to the driver in memory with the portable engine, which is what the Wasm filter is
//! made of. Both must answer alike, except for what docs/hosts.md lists.
//!
//! `DIFFERENTIAL_REQUESTS` says how many, `DIFFERENTIAL_SEED` which.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod host;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use authn::time::{Monotonic, Now, UnixSeconds};
use cases::{Introspection, RevokedSpec, Table, Variation, Variations};
use driver::fake::{FakeExchange, FakeHost, FakeProxy, FakeReply, FakeService, Request, Seen, SharedData};
use host::Config;
use native::abi::{Attribute, HeadersStatus};
use native::injection::set_now;
use wire::check::StoreError;
use wire::{Answer, DerivedKeys, Kind, RevocationKey, Secret, token_id_from_jti};

const REQUESTS: u64 = 3000;
/// The clocks stand still for each request. One comes a millisecond after the other, and an outage after a pause.
const NOW: u64 = 1_750_000_000;
/// Requests for which the same tokens are used: these live for minutes.
const ROUND: u64 = 40_000;
/// Requests between two ticks.
const TICK: u64 = 100;
/// Of each thousand requests, those for which the store fails: the first ones.
const OUTAGE: u64 = 50;
/// Before each outage, in seconds: no verdict is fresh then. Which ones the caches still have may differ, since their places
/// are random.
const PAUSE: u64 = 10;
/// Envoy's number of the event that is not a tick.
const WORK: u64 = 2;

/// The header in which a page gets its nonce, which differs.
const NONCE: &str = "x-csp-nonce";

/// What upstreams answer, one after the other.
const ANSWERS: [&[(&str, &str)]; 4] = [
    &[(":status", "200")],
    &[(":status", "304"), ("cache-control", "public, max-age=60"), ("set-cookie", "session=a; Path=/")],
    &[
        (":status", "200"),
        ("content-security-policy", "default-src 'none'"),
        ("x-frame-options", "DENY"),
        ("set-cookie", "csrf=a; SameSite=None"),
        ("set-cookie", "__Host-a=b; Domain=a.example"),
        ("x-powered-by", "a"),
        ("X_AspNet_Version", "1"),
    ],
    &[
        (":status", "401"),
        ("strict-transport-security", "max-age=1"),
        ("referrer-policy", "no-referrer"),
        ("set-cookie", "=session=b"),
        ("cache-control", "private"),
        ("dpop-nonce", "of the upstream"),
    ],
];

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// What the upstream gets, and what the client gets of its answer.
    Forwarded(Vec<(String, String)>, Vec<(String, String)>),
    Replied {
        status: u16,
        details: String,
        headers: Vec<(String, String)>,
        body: String,
    },
}

/// The two sides of one configuration.
struct Pair {
    native: Config,
    portable: FakeProxy,
}

/// What both ask.
struct Network {
    service: FakeService,
    /// By the body of the question.
    introspection: HashMap<Vec<u8>, Introspection>,
    /// The newest configuration of the process: it sends the callouts of all.
    carrier: Config,
}

#[test]
fn the_module_and_the_portable_filter_answer_alike() {
    let requests: u64 = number("DIFFERENTIAL_REQUESTS").unwrap_or(REQUESTS);
    let seed = number("DIFFERENTIAL_SEED").unwrap_or(1);
    println!("differential in memory: {requests} requests, DIFFERENTIAL_SEED={seed}");
    let table = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases")).unwrap();
    for (name, value) in table.environment() {
        // SAFETY: this test is the only one of its binary, and the module has not started its thread.
        unsafe { std::env::set_var(name, value) }
    }
    host::be_quiet();
    let began = Instant::now();
    set_now(now(0));
    let mut pairs = start_pairs(&table);
    let mut network = Network::new(&table);
    let mut variations = Variations::new(&table, |_| true, NOW, seed).unwrap();
    let (mut forwarded, mut emptied) = (0, 0u64);
    let mut codes: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..requests {
        if number % ROUND == 0 {
            variations = Variations::new(&table, |_| true, now(number).wall.0, seed + number).unwrap();
            network.learn(&variations);
        }
        set_now(now(number));
        if number % TICK == 0 {
            pairs.values_mut().for_each(|pair| pair.tick(&network, now(number)));
        }
        network.service.fails = (number % 1000 < OUTAGE).then_some(StoreError::StoreFailed);
        let variation = variations.next().unwrap();
        let judged = pairs.get_mut(&variation.config).unwrap().judge(&variation, &network, number);
        match compare(&judged) {
            Ok(difference) => emptied += u64::from(difference == Difference::EmptyClaim),
            Err(()) => panic!(
                "request {number} of DIFFERENTIAL_SEED={seed}:\n{variation:#?}\nthe module: {:#?}\nthe portable filter: {:#?}",
                judged.0, judged.1
            ),
        }
        match judged.0 {
            Outcome::Forwarded(..) => forwarded += 1,
            Outcome::Replied { details, .. } => *codes.entry(details).or_default() += 1,
        }
    }
    println!(
        "differential in memory: no difference in {} s; {forwarded} forwarded, {emptied} of them with an empty claim; {} kinds \
         of replies: {codes:?}",
        began.elapsed().as_secs(),
        codes.len()
    );
    // The comparison says little if most requests end in the same way.
    assert!(
        forwarded * 20 > requests && codes.len() >= 20,
        "{forwarded} are forwarded, {} kinds of replies",
        codes.len()
    );
    assert!(emptied > 0, "the known difference does not occur");
}

#[derive(Debug, PartialEq, Eq)]
enum Difference {
    None,
    /// docs/hosts.md: a claim whose value is empty is an empty header in Wasm, and no header natively.
    EmptyClaim,
}

/// An error is a difference that is not known.
fn compare((native, portable): &(Outcome, Outcome)) -> Result<Difference, ()> {
    if native == portable {
        return Ok(Difference::None);
    }
    let (Outcome::Forwarded(native, by_native), Outcome::Forwarded(portable, by_portable)) = (native, portable) else {
        return Err(());
    };
    let named = |headers: &[(String, String)], name: &str| headers.iter().any(|(other, _)| other == name);
    let kept = portable.iter().filter(|(name, value)| !value.is_empty() || named(native, name));
    if by_native == by_portable && kept.eq(native.iter()) { Ok(Difference::EmptyClaim) } else { Err(()) }
}

fn start_pairs(table: &Table) -> BTreeMap<String, Pair> {
    let secrets: BTreeMap<_, _> =
        table.environment().into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    // As in one process: a proof that was used under one configuration does not pass under another.
    let shared = SharedData::default();
    let pair = |(name, document): (&String, &serde_json::Value)| {
        let document = document.to_string();
        let host = FakeHost::new(now(0), secrets.clone(), shared.clone(), 7);
        let portable = FakeProxy::start(host, document.as_bytes(), 1).unwrap();
        (name.clone(), Pair { native: Config::load(&document).unwrap(), portable })
    };
    table.configs.iter().map(pair).collect()
}

impl Pair {
    fn judge(&mut self, variation: &Variation, network: &Network, number: u64) -> (Outcome, Outcome) {
        let ready = &variation.ready;
        let pseudo = [(":method", &ready.method), (":path", &ready.path), (":authority", &ready.authority)];
        let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.clone()));
        let scheme = (":scheme".to_owned(), "http".to_owned());
        // A proxy hands names over in lower case.
        let headers = ready.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
        let headers: Vec<_> = pseudo.into_iter().chain([scheme]).chain(headers).collect();
        let answer = ANSWERS[usize::try_from(number).unwrap() % ANSWERS.len()];
        // Each host has a service that saw no proof. It is the host's own memory that is compared.
        network.service.used_proofs.borrow_mut().clear();
        let native = self.by_module(&headers, network, answer);
        network.service.used_proofs.borrow_mut().clear();
        (native, self.by_portable(&headers, network, answer, now(number)))
    }

    /// Refreshes are sent.
    fn tick(&mut self, network: &Network, now: Now) {
        self.native.main_event(1);
        self.run_main(network);
        self.portable.host.now = now;
        self.portable.host.log.clear();
        self.portable.tick();
        self.portable.answer_all(|call| Some(network.answer(call.header(":path"), &call.body)));
    }

    /// Without the ticks of the module's own thread, whose time is real.
    fn run_main(&self, network: &Network) {
        self.native.run_main_events(|event| event == WORK);
        network.carry();
    }

    fn by_module(&mut self, headers: &[(String, String)], network: &Network, answer: &[(&str, &str)]) -> Outcome {
        let borrowed: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let stream = self.native.stream(&borrowed).attribute(Attribute::SourceAddress, b"127.0.0.1:40000");
        let mut status = stream.request_headers(true);
        // It may wait for one callout after the other.
        while status == HeadersStatus::StopAllIterationAndWatermark && stream.reply().is_none() {
            self.run_main(network);
            stream.run_worker();
            if stream.resumed() > 0 {
                status = HeadersStatus::Continue;
            }
        }
        let outcome = match stream.reply() {
            None => {
                stream.response_headers(answer);
                forwarded(texts(&stream.headers()), texts(&stream.response()))
            }
            Some(reply) => Outcome::Replied {
                status: u16::try_from(reply.status).unwrap(),
                details: reply.details,
                // Envoy derives it from the status for the Wasm filter.
                headers: texts(&reply.headers).into_iter().filter(|(name, _)| name != "grpc-status").collect(),
                body: String::from_utf8(reply.body).unwrap(),
            },
        };
        stream.end();
        outcome
    }

    fn by_portable(
        &mut self,
        headers: &[(String, String)],
        network: &Network,
        answer: &[(&str, &str)],
        now: Now,
    ) -> Outcome {
        self.portable.host.now = now;
        let headers = headers.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()));
        let exchange = FakeExchange::new(headers.collect());
        let stream = self.portable.send(0, Request { exchange, ends: true });
        self.portable.answer_all(|call| Some(network.answer(call.header(":path"), &call.body)));
        let seen = self.portable.seen(stream);
        let answer = answer.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = match &seen {
            Seen::Forwarded(_) => self.portable.respond_with(stream, answer),
            _ => Vec::new(),
        };
        self.portable.reset(stream);
        match seen {
            Seen::Forwarded(exchange) => forwarded(texts(&exchange.headers), answer),
            Seen::Replied(reply) => Outcome::Replied {
                status: reply.status,
                details: reply.details,
                headers: reply.headers,
                body: reply.body,
            },
            other => panic!("the portable filter leaves it {other:?}"),
        }
    }
}

impl Network {
    /// After every other configuration was loaded.
    fn new(table: &Table) -> Self {
        let derived = Secret::new(cases::SHARED_SECRET.as_bytes()).unwrap().derive();
        let mut service = FakeService::new(derived.clone());
        let revoked = table.cases.iter().flat_map(|case| &case.revoked);
        service.revoked = revoked.map(|revoked| revocation(&derived, table, revoked)).collect();
        let carrier = Config::load(&table.configs["main"].to_string()).unwrap();
        Self { service, introspection: HashMap::new(), carrier }
    }

    fn learn(&mut self, variations: &Variations) {
        let question = |token: &str| format!("token={token}&token_type_hint=access_token").into_bytes();
        self.introspection.extend(variations.bases().map(|it| (question(&it.token), it.introspection.clone())));
    }

    /// Answers the callouts of the module.
    fn carry(&self) {
        self.carrier.run_main_events(|event| event == WORK);
        for callout in self.carrier.callouts() {
            let path = callout.headers.iter().find(|(name, _)| name == b":path").unwrap();
            let reply = self.answer(std::str::from_utf8(&path.1).unwrap(), &callout.body);
            let headers: Vec<_> = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            self.carrier.answer(callout.id, Some((&headers, &reply.body)));
        }
    }

    fn answer(&self, path: &str, body: &[u8]) -> FakeReply {
        if path == wire::check::PATH {
            return self.service.answer(body);
        }
        match self.introspection.get(body) {
            Some(says) if says.path.as_deref().is_none_or(|wanted| wanted == path) => {
                FakeReply::new(says.status, &says.content_type, says.body.as_bytes())
            }
            Some(_) => FakeReply::new(500, "text/plain", ""),
            None => FakeReply::new(200, "application/json", r#"{"active":true,"aud":"api","sub":"made up"}"#),
        }
    }
}

fn revocation(derived: &DerivedKeys, table: &Table, revoked: &RevokedSpec) -> (RevocationKey, Answer) {
    let kind: Kind = revoked.kind.parse().unwrap();
    let id = table.revoked_id(revoked).unwrap();
    let id = if kind == Kind::Token { token_id_from_jti(&id) } else { id.into_bytes() };
    let before = NOW.checked_add_signed(revoked.before).unwrap();
    let answer = if kind.is_simply_dead() { Answer::Dead } else { Answer::Before(before) };
    (derived.revocation_key(kind, &revoked.issuer, &id), answer)
}

/// Without the nonce of the page.
fn forwarded(mut request: Vec<(String, String)>, mut answer: Vec<(String, String)>) -> Outcome {
    if let Some((_, nonce)) = request.iter_mut().find(|(name, _)| name == NONCE) {
        answer.iter_mut().for_each(|(_, value)| *value = value.replace(&*nonce, "{nonce}"));
        "{nonce}".clone_into(nonce);
    }
    answer.sort();
    Outcome::Forwarded(request, answer)
}

fn texts(headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn now(request: u64) -> Now {
    let millis = request + request / 1000 * PAUSE * 1000;
    Now { wall: UnixSeconds(NOW + millis / 1000), monotonic: Monotonic(1_000_000_000_000 + millis * 1_000_000) }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}
