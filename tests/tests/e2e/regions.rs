//! Three regions, each with a service and a store of its own, that follow each other over links which can be cut.
mod failover;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::mesh::ISSUER;
use harness::{Authority, Directory, Line, Link, Request, Service, ServiceOptions, exchange, wait_until};
use serde_json::{Value, json};

/// Far more than it takes on a machine that is busy.
const SOON: Duration = Duration::from_secs(30);
const NAMES: [&str; 3] = ["eu", "us", "ap"];
const CUT_OFF: Duration = Duration::from_secs(45);

struct Regions {
    services: Vec<Service>,
    /// Six, one for each direction.
    links: Vec<Link>,
    _directories: Vec<Directory>,
}

impl Regions {
    /// Over mutual TLS, with certificates of one CA.
    async fn start(test: &str) -> Self {
        let (mut services, mut links, mut ends, mut directories) = (vec![], vec![], vec![], vec![]);
        let shared = Directory::new(&format!("{test}-shared"));
        let authority = Authority::new(shared.path(), "regions");
        shared.write("join-secret", "a-join-secret-of-the-tests-long-enough");
        let text = |path: &std::path::Path| path.display().to_string();
        for (here, name) in NAMES.iter().enumerate() {
            let directory = Directory::new(&format!("{test}-{name}"));
            let (certificate, key) = authority.sign(directory.path(), name);
            let mut options = ServiceOptions::in_file(&directory);
            options.arguments = vec![
                format!("--tls-cert={}", text(&certificate)),
                format!("--tls-key={}", text(&key)),
                format!("--client-ca={}", text(&authority.certificate)),
                format!("--join-secret-file={}", text(&shared.path().join("join-secret"))),
                format!("--join-ca={}", text(&authority.certificate)),
                format!("--join-cert={}", text(&certificate)),
                format!("--join-key={}", text(&key)),
            ];
            for there in (0..NAMES.len()).filter(|there| *there != here) {
                let link = Link::start(vec![]).await;
                options.arguments.push(format!("--join=https://{}", link.address()));
                links.push(link);
                ends.push(there);
            }
            services.push(Service::start(&directory, options).await);
            directories.push(directory);
        }
        for (link, there) in links.iter().zip(ends) {
            link.lead_to(vec![services[there].address()]);
        }
        directories.push(shared);
        Self { services, links, _directories: directories }
    }

    fn set(&self, line: Line) {
        self.links.iter().for_each(|link| link.set(line));
    }

    async fn ask(&self, region: usize, request: Request) -> Value {
        let service = &self.services[region];
        let request = request.bearer(&service.options().admin_token);
        let answer = exchange(service.admin_address(), &request).await.expect("the service answers");
        assert!(answer.status < 300 || answer.status == 404, "{}", answer.text());
        answer.json()
    }

    /// Ends so many sessions of the region's own, and returns their keys.
    async fn end(&self, region: usize, from: usize, count: usize) -> Vec<String> {
        let line = |number: usize| {
            let id = format!("{}-{number}", NAMES[region]);
            json!({ "kind": "session", "issuer": ISSUER, "id": id }).to_string() + "\n"
        };
        let body: String = (from..from + count).map(line).collect();
        let service = &self.services[region];
        let request = Request::new("POST", "/v1/revocations/bulk")
            .bearer(&service.options().admin_token)
            .header("content-type", "application/x-ndjson")
            .body(body);
        let answer = exchange(service.admin_address(), &request).await.expect("the service answers").text();
        let keys: Vec<_> = answer
            .lines()
            .filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?["key"].as_str()?.to_owned()))
            .collect();
        assert_eq!(keys.len(), count, "acknowledged: {answer}");
        keys
    }

    /// Every revocation of the region, with what it ends.
    async fn all(&self, region: usize) -> BTreeMap<String, String> {
        let (mut all, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let page = self.ask(region, Request::get(&format!("/v1/revocations?limit=1000{cursor}"))).await;
            for found in page["revocations"].as_array().unwrap_or(&vec![]) {
                let what = format!("{} {} {}", found["answer"], found["before"], found["id"]);
                all.insert(found["key"].as_str().unwrap_or_default().to_owned(), what);
            }
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    async fn has(&self, region: usize, key: &str) -> bool {
        self.ask(region, Request::get(&format!("/v1/revocations/{key}"))).await["answer"].is_string()
    }

    async fn state(&self, region: usize) -> Value {
        self.ask(region, Request::get("/readyz")).await["regions"].clone()
    }

    async fn all_are(&self, state: &str, limit: Duration) -> bool {
        wait_until(limit, async || {
            for region in 0..NAMES.len() {
                if self.state(region).await != state {
                    return false;
                }
            }
            true
        })
        .await
    }

    /// The sum of a metric over all of its series in all regions.
    async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for service in &self.services {
            let text = exchange(service.admin_address(), &Request::get("/metrics")).await.expect("metrics").text();
            let values = text.lines().filter(|line| line.starts_with(name));
            sum += values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>();
        }
        sum
    }

    async fn all_on_all(&self, count: usize, limit: Duration) {
        let done = wait_until(limit, async || {
            for region in 0..NAMES.len() {
                if self.all(region).await.len() != count {
                    return false;
                }
            }
            true
        })
        .await;
        let mut found = vec![];
        for region in 0..NAMES.len() {
            found.push(self.all(region).await);
        }
        assert!(done, "{count} expected, {:?} found", found.iter().map(BTreeMap::len).collect::<Vec<_>>());
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "they differ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_in_one_region_is_revoked_in_all_also_after_a_cut_and_a_kill() {
    let mut regions = Regions::start("regions").await;
    let first = regions.end(0, 0, 1).await;
    for region in [1, 2] {
        assert!(wait_until(SOON, async || regions.has(region, &first[0]).await).await, "{}", NAMES[region]);
    }
    assert_eq!(regions.state(0).await, json!("joined"));
    // What envoy/alerts.yaml asks for.
    assert!(regions.metric("portcullis_region_complete_timestamp_seconds").await > 0.0);
    let text = exchange(regions.services[0].admin_address(), &Request::get("/metrics")).await.expect("metrics").text();
    for name in ["mismatch", "merged_total", "requests_total"] {
        assert!(text.contains(&format!("\nportcullis_region_{name}{{")), "{name}: {text}");
    }

    // Each goes on by itself. One is killed, and is back before the others are.
    regions.set(Line::Cut);
    for region in 0..NAMES.len() {
        assert_eq!(regions.end(region, 100, 200).await.len(), 200, "no revocation waits for a region");
    }
    assert_eq!(regions.all(1).await.len(), 201);
    regions.services[2].process().kill();
    regions.services[2].restart().await;
    assert_eq!(regions.all(2).await.len(), 201);
    regions.set(Line::Open);
    // And again, while it merges.
    tokio::time::sleep(Duration::from_millis(300)).await;
    regions.services[2].process().kill();
    regions.services[2].restart().await;
    regions.all_on_all(601, SOON).await;

    // The note can be read everywhere, and what the others sent back was not written again.
    let shown = regions.ask(2, Request::get(&format!("/v1/revocations/{}", first[0]))).await;
    assert_eq!((&shown["id"], &shown["by"]), (&json!("eu-0"), &json!("admin")));
    let settled = regions.metric("portcullis_region_merged_total").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(regions.metric("portcullis_region_merged_total").await, settled, "something goes in circles");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_told_apart_from_strangers_and_from_itself() {
    let directory = Directory::new("regions-strangers");
    directory.write("join-secret", "a-join-secret-of-the-tests-long-enough");
    directory.write("other-secret", "another-join-secret-of-the-tests-long-enough");
    let secret = |name: &str| format!("--join-secret-file={}", directory.path().join(name).display());
    let link = Link::start(vec![]).await;
    let mut options = ServiceOptions::in_file(&directory);
    options.arguments = vec![secret("join-secret"), format!("--join=http://{}", link.address())];
    let service = Service::start(&directory, options).await;
    let counted = async |result: &str| {
        let text = exchange(service.admin_address(), &Request::get("/metrics")).await.expect("metrics").text();
        let found = text.lines().find(|line| line.contains("region_requests_total") && line.contains(result));
        found.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).unwrap_or(0)
    };

    link.lead_to(vec![service.address()]);
    assert!(wait_until(SOON, async || counted("ourselves").await > 0).await);

    let stranger = Directory::new("regions-stranger");
    let mut options = ServiceOptions::in_file(&stranger);
    options.arguments = vec![secret("other-secret")];
    let other = Service::start(&stranger, options).await;
    link.lead_to(vec![other.address()]);
    link.set(Line::Cut);
    assert!(wait_until(SOON, async || counted("unreachable").await > 0).await);
    link.set(Line::Open);
    assert!(wait_until(SOON, async || counted("refused").await > 0).await, "it has another secret");

    // A filter's secret, and a service that is not joined.
    let answer = exchange(service.address(), &Request::new("POST", "/v1/join").body(vec![0; 200])).await.unwrap();
    assert_eq!(answer.status, 400);
    let shared = format!("--join-secret-file={}", directory.path().join("shared-secret").display());
    let alone = Directory::new("regions-alone");
    let alone_service = Service::start(&alone, ServiceOptions::in_file(&alone)).await;
    let answer = exchange(alone_service.address(), &Request::new("POST", "/v1/join").body(vec![0; 200])).await.unwrap();
    assert_eq!(answer.status, 404);
    assert!(alone_service.options().arguments.is_empty());
    let mut options = ServiceOptions::in_file(&alone);
    options.arguments = vec![shared];
    let Err(log) = Service::try_start(&alone, options).await else { panic!("it starts with the filters' secret") };
    assert!(log.contains("the same secret"), "{log}");
}

fn percentile(sorted: &[Duration], hundredths: usize) -> u128 {
    sorted[(sorted.len() - 1) * hundredths / 100].as_millis()
}

/// How long one revocation after the other takes to be in both other regions.
async fn lag(regions: &Regions, what: &str, rounds: usize) {
    let (mut first, mut last) = (vec![], vec![]);
    for round in 0..rounds {
        let from = round % 3;
        let key = regions.end(from, 1_000_000 + rounds * 3 + round, 1).await.remove(0);
        let acknowledged = Instant::now();
        let mut missing: Vec<_> = (0..3).filter(|region| *region != from).collect();
        while !missing.is_empty() {
            let mut left = vec![];
            for region in missing {
                if regions.has(region, &key).await {
                    (if first.len() == round { &mut first } else { &mut last }).push(acknowledged.elapsed());
                } else {
                    left.push(region);
                }
            }
            missing = left;
            assert!(acknowledged.elapsed() < SOON);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (name, all) in [("first other region", &mut first), ("all regions", &mut last)] {
        all.sort_unstable();
        let [p50, p90, p99] = [50, 90, 99].map(|at| percentile(all, at));
        println!("{what}, {name}: p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, longest {} ms", percentile(all, 100));
    }
}

/// `make regions`: `REGIONS_CUT` seconds, with `REGIONS_COUNT` revocations on each side meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: run `make regions`"]
async fn after_a_long_cut_all_is_on_all_within_30_s() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}")))
    };
    let (count, seconds) = (number("REGIONS_COUNT", 10_000), number("REGIONS_CUT", 600));
    let regions = Regions::start("regions-long").await;
    assert!(regions.all_are("joined", SOON).await);
    lag(&regions, "no delay on the links", 90).await;
    regions.set(Line::Slow(Duration::from_millis(50)));
    lag(&regions, "100 ms there and back", 60).await;
    regions.set(Line::Open);
    let before = regions.all(0).await.len();

    regions.set(Line::Cut);
    let cut = Instant::now();
    // In parts over the whole cut.
    let parts = 20;
    for part in 0..parts {
        for region in 0..3 {
            regions.end(region, part * count / parts, count / parts).await;
        }
        tokio::time::sleep(Duration::from_secs(1) * u32::try_from(seconds / parts).unwrap()).await;
    }
    if seconds >= 60 {
        assert!(regions.all_are("cut_off", CUT_OFF).await, "it says so");
    }
    println!("cut for {:?}, {count} revocations in each region", cut.elapsed());
    for region in 0..3 {
        assert_eq!(regions.all(region).await.len(), before + count);
    }
    let merged = regions.metric("portcullis_region_merged_total").await;
    regions.set(Line::Open);
    let healed = Instant::now();
    let expected = merged + 6.0 * count as f64;
    let all = async || regions.metric("portcullis_region_merged_total").await >= expected;
    assert!(wait_until(Duration::from_secs(30), all).await, "not all is on all");
    println!("all on all {:?} after healing", healed.elapsed());
    regions.all_on_all(before + 3 * count, SOON).await;
    println!("and equal, as the admin API lists it, {:?} after healing", healed.elapsed());
    assert!(regions.all_are("joined", SOON).await);
    assert_eq!(
        regions.metric("portcullis_region_merged_total").await,
        expected,
        "each was written once in each region"
    );
    lag(&regions, "after the cut", 30).await;
}
