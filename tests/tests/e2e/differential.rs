//! Random requests to both hosts, on two listeners of one Envoy for each configuration. They must answer alike, except for
//! what docs/hosts.md lists. `native/tests/differential.rs` does the same in memory.
//!
//! `DIFFERENTIAL_REQUESTS` says how many, `DIFFERENTIAL_SEED` which.
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cases::{Ready, Table, Variation, Variations};
use harness::{
    Connection, Directory, Envoy, EnvoyOptions, FilterHost, Redis, Request, Response, Service, ServiceOptions,
    Upstream, project,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cases::{IntrospectionServer, leave_requests_as_they_are, revoke, seconds};

const REQUESTS: u64 = 4000;
/// A run of at least so many is over all configurations.
const LONG: u64 = 10_000;
const SHORT_CONFIGS: [&str; 3] = ["main", "opaque", "tokens"];
const CLIENTS: u64 = 8;
/// Tokens live for minutes: they are minted anew after this.
const ROUND: Duration = Duration::from_secs(180);
/// How often a pair is judged again whose difference time or a busy machine explains.
const TRIES: u32 = 8;
/// A longer body is not sent.
const MAX_BODY: usize = 4096;

struct Hosts {
    wasm: SocketAddr,
    native: SocketAddr,
}

/// What a client sees of the answer and, through the echo, of the request that reached the upstream.
#[derive(Debug, PartialEq)]
struct Seen {
    status: u16,
    headers: Vec<(String, String)>,
    /// Of the upstream's request, if it got one.
    forwarded: Option<Vec<(String, String)>>,
    body: String,
}

#[derive(Default)]
struct Counts {
    forwarded: u64,
    /// The known difference: docs/hosts.md, "a claim whose value is empty".
    emptied: u64,
    judged_again: u64,
    closed: u64,
    codes: BTreeMap<String, u64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn both_hosts_answer_alike() {
    let requests = number("DIFFERENTIAL_REQUESTS").unwrap_or(REQUESTS);
    let seed = number("DIFFERENTIAL_SEED").unwrap_or(1);
    println!("differential in Envoy: {requests} requests, DIFFERENTIAL_SEED={seed}");
    let table = Arc::new(Table::read(&project().join("tests/cases")).unwrap());
    let is_wanted = move |config: &str| requests >= LONG || SHORT_CONFIGS.contains(&config);
    let directory = Directory::new("differential");
    let redis = Redis::start(&directory).await;
    let mut options = ServiceOptions::new(redis.url());
    options.secret = cases::SHARED_SECRET.to_owned();
    let service = Service::start(&directory, options).await;
    let (upstream, introspection) = (Upstream::start().await, IntrospectionServer::start().await);
    let (mut envoys, mut places, mut hosts) = (Vec::new(), Vec::new(), HashMap::new());
    for (name, config) in table.configs.iter().filter(|(name, _)| is_wanted(name)) {
        let place = Directory::new(&format!("differential-{name}"));
        let mut options = EnvoyOptions::new(upstream.address(), service.address(), Some(config.clone()));
        options.host = FilterHost::Wasm { module: FilterHost::wasm_module() };
        options.beside_native = true;
        options.environment = table.environment();
        options.idp = introspection.server.address();
        options.concurrency = 1;
        options.edit = leave_requests_as_they_are;
        let envoy = Envoy::start(&place, options).await;
        let pair = Hosts { wasm: envoy.address(), native: envoy.address_of("native").await };
        hosts.insert(name.clone(), pair);
        envoys.push(envoy);
        places.push(place);
    }
    for revoked in table.cases.iter().flat_map(|case| &case.revoked) {
        revoke(&service, &table, revoked).await.unwrap();
    }
    let (hosts, began) = (Arc::new(hosts), Instant::now());
    let mut counts = Counts::default();
    let (mut done, mut round) = (0, 0);
    while done < requests {
        let variations = Variations::new(&table, is_wanted, seconds(), seed).unwrap();
        variations.bases().for_each(|ready| introspection.say(ready));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let variations = match (round, client) {
                (0, 0) => variations.clone(),
                _ => variations.reseeded(seed.wrapping_add((round * CLIENTS + client) << 32)),
            };
            clients.spawn(run(variations, Arc::clone(&hosts), (requests - done).div_ceil(CLIENTS)));
        }
        round += 1;
        for more in clients.join_all().await {
            done += more.forwarded + more.closed + more.codes.values().sum::<u64>();
            counts.add(more);
        }
    }
    for envoy in &mut envoys {
        envoy.process().assert_running();
    }
    println!(
        "differential in Envoy: {done} requests to each host in {} s, no difference; {} forwarded, {} of them with an empty \
         claim; {} judged again; {} closed without an answer; {:?}",
        began.elapsed().as_secs(),
        counts.forwarded,
        counts.emptied,
        counts.judged_again,
        counts.closed,
        counts.codes
    );
    // The comparison says little if most requests end in the same way.
    assert!(counts.forwarded * 20 > done && counts.codes.len() >= 12, "{} of {done} forwarded", counts.forwarded);
    assert!(counts.emptied > 0, "the known difference does not occur");
}

async fn run(variations: Variations, hosts: Arc<HashMap<String, Hosts>>, requests: u64) -> Counts {
    let (mut counts, mut connections, began) = (Counts::default(), HashMap::new(), Instant::now());
    let wanted = usize::try_from(requests).unwrap();
    let is_compared = |variation: &Variation| hosts.contains_key(&variation.config) && !is_claimed(variation);
    for variation in variations.filter(is_compared).take(wanted) {
        if began.elapsed() > ROUND {
            break;
        }
        let pair = &hosts[&variation.config];
        let request = request(&variation.ready);
        let mut tries = 0;
        let (wasm, native) = loop {
            let before = seconds();
            let (wasm, native) =
                (ask(&mut connections, pair.wasm, &request).await, ask(&mut connections, pair.native, &request).await);
            // A boundary of the tokens' times, or a store that a busy machine delays.
            let is_busy = [&wasm, &native].iter().any(|seen| seen.as_ref().is_ok_and(|seen| seen.status == 503));
            // Another client may have used the proof at one host meanwhile. By now it is used at both.
            let may_differ = is_busy || before != seconds() || has_proofs(&variation);
            if same(&wasm, &native).is_some() || tries == TRIES || !may_differ {
                break (wasm, native);
            }
            counts.judged_again += 1;
            tries += 1;
            sleep(Duration::from_millis(100) * tries).await;
        };
        match same(&wasm, &native) {
            Some(is_known_difference) => counts.emptied += u64::from(is_known_difference),
            None => differ(&variation, &wasm, &native),
        }
        match wasm {
            Ok(Seen { forwarded: Some(_), .. }) => counts.forwarded += 1,
            Ok(seen) => *counts.codes.entry(seen.code()).or_default() += 1,
            Err(_) => counts.closed += 1,
        }
    }
    counts
}

fn has_proofs(variation: &Variation) -> bool {
    variation.config.contains("dpop")
}

/// The service remembers the proof for both hosts, so that only the first of them can admit it.
fn is_claimed(variation: &Variation) -> bool {
    has_proofs(variation) && ["/fleet", "/unchecked"].iter().any(|path| variation.ready.path.starts_with(path))
}

/// None if they differ. True: as docs/hosts.md says that they may.
fn same(wasm: &io::Result<Seen>, native: &io::Result<Seen>) -> Option<bool> {
    let (wasm, native) = match (wasm, native) {
        (Ok(wasm), Ok(native)) => (wasm, native),
        (Err(_), Err(_)) => return Some(false),
        _ => return None,
    };
    if wasm == native {
        return Some(false);
    }
    let (Some(by_wasm), Some(by_native)) = (&wasm.forwarded, &native.forwarded) else { return None };
    let named = |name: &str| by_native.iter().any(|(other, _)| other == name);
    let kept = by_wasm.iter().filter(|(name, value)| !value.is_empty() || named(name));
    (wasm.status == native.status && wasm.headers == native.headers && kept.eq(by_native)).then_some(true)
}

fn differ(variation: &Variation, wasm: &io::Result<Seen>, native: &io::Result<Seen>) -> ! {
    panic!("{variation:#?}\nin Wasm: {wasm:#?}\nnative: {native:#?}")
}

async fn ask(
    connections: &mut HashMap<SocketAddr, Connection>,
    address: SocketAddr,
    request: &Request,
) -> io::Result<Seen> {
    // Envoy may have closed it meanwhile.
    if let Some(mut connection) = connections.remove(&address)
        && let Ok(response) = connection.send(request).await
    {
        return Ok(keep(connections, address, connection, response));
    }
    let mut connection = Connection::open(address).await?;
    let response = connection.send(request).await?;
    Ok(keep(connections, address, connection, response))
}

fn keep(
    connections: &mut HashMap<SocketAddr, Connection>,
    address: SocketAddr,
    connection: Connection,
    response: Response,
) -> Seen {
    if response.header("connection").is_none() {
        connections.insert(address, connection);
    }
    Seen::of(&response)
}

fn request(ready: &Ready) -> Request {
    let mut request = Request::new(&ready.method, &ready.path).header("host", &ready.authority);
    for (name, value) in &ready.headers {
        match name.to_ascii_lowercase().as_str() {
            // The upstream answers no upgrade, and a body must be as long as it says.
            "upgrade" | "connection" | "transfer-encoding" | "expect" => continue,
            "content-length" => match value.parse() {
                Ok(length) if length <= MAX_BODY && request.body.is_empty() => request.body = vec![b'x'; length],
                _ => continue,
            },
            _ => {}
        }
        request = request.header(name, value);
    }
    request
}

impl Seen {
    fn of(response: &Response) -> Self {
        let echo = response.json();
        let pair = |name: &str| (format!(":{name}"), echo[name].as_str().unwrap_or_default().to_owned());
        let forwarded = echo["headers"].as_array().map(|headers| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let headers = headers.iter().map(|header| (text(&header[0]), text(&header[1])));
            // Envoy's own, another one for each request.
            let mut headers: Vec<_> = headers.filter(|(name, _)| name != "x-request-id").collect();
            // The nonce of the page, another one for each request.
            if let Some((_, value)) = headers.iter_mut().find(|(name, _)| name == "x-csp-nonce") {
                "{nonce}".clone_into(value);
            }
            headers.extend([pair("method"), pair("path")]);
            headers.sort_by(|(one, _), (other, _)| one.cmp(other));
            headers
        });
        let volatile = ["date", "x-envoy-upstream-service-time", "content-length"];
        let named = response.headers.iter().filter(|(name, _)| !volatile.contains(&name.as_str()));
        let mut headers: Vec<_> = named.cloned().collect();
        headers.sort();
        let body = if forwarded.is_some() { String::new() } else { without_id(&response.text()) };
        // Of a refused gRPC call it is the message.
        let headers = headers.into_iter().map(|(name, value)| (name, without_nonces(&without_id(&value)))).collect();
        Self { status: response.status, headers, forwarded, body }
    }

    /// Of the filter's reply, or the status of one of Envoy's own.
    fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

impl Counts {
    fn add(&mut self, more: Self) {
        self.forwarded += more.forwarded;
        self.emptied += more.emptied;
        self.judged_again += more.judged_again;
        self.closed += more.closed;
        for (code, count) in more.codes {
            *self.codes.entry(code).or_default() += count;
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// The last member of a problem document names the request by the id that each Envoy gave it.
fn without_id(text: &str) -> String {
    text.split_once(r#","instance":"#).map_or_else(|| text.to_owned(), |(before, _)| format!("{before}}}"))
}

/// In policies. An answer to HEAD does not show which nonce the upstream got.
fn without_nonces(text: &str) -> String {
    let mut parts = text.split("'nonce-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |before, part| {
        let after = part.find('\'').map_or("", |end| &part[end..]);
        format!("{before}'nonce-{{nonce}}{after}")
    })
}
