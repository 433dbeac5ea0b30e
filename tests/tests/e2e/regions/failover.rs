//! A region whose Redis fails over, and loses what was merged, while it is joined.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness::mesh::{ISSUER, MeshOptions, unix_now};
use harness::{Directory, Request, Sentinels, Service, ServiceOptions, exchange, wait_until};
use serde_json::{Value, json};
use wire::check::{CONTENT_TYPE, Needs, PATH, Question, Reply, StoreError};
use wire::{Answer, DerivedKeys, Kind, RevocationKey, Secret};

/// The silence after which a primary is replaced, the election, a comparison, and a busy machine.
const RECOVERY: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(30);

fn derived() -> DerivedKeys {
    Secret::new(MeshOptions::secret().as_bytes()).unwrap().derive()
}

fn key(id: &str) -> RevocationKey {
    derived().revocation_key(Kind::Session, ISSUER, id.as_bytes())
}

async fn end(service: &Service, id: &str) {
    let body = json!({ "kind": "session", "issuer": ISSUER, "id": id }).to_string();
    let request = Request::new("POST", "/v1/revocations").bearer(&service.options().admin_token).body(body);
    let answer = exchange(service.admin_address(), &request).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// As a filter with `revocation.regions` asks.
async fn ask(service: &Service, ids: &[String]) -> Result<Reply, StoreError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let nonce = u128::from(NEXT.fetch_add(1, Ordering::SeqCst)).to_be_bytes();
    let needs = Needs { future_iat_tolerance_seconds: 1, now_seconds: unix_now() }.asking_about_regions();
    let keys: Vec<_> = ids.iter().map(|id| key(id)).collect();
    let question = Question::new(&derived(), nonce, needs, &keys).unwrap();
    let request = Request::new("POST", PATH).header("content-type", CONTENT_TYPE).body(question.bytes());
    let answer = exchange(service.address(), &request).await.unwrap();
    question.read_reply(&derived(), answer.status, &answer.body).expect("an authentic reply")
}

/// Whether all of these are revoked at `service`, by an answer that says that it knows the other region.
async fn knows(service: &Service, ids: &[String]) -> bool {
    let Ok(reply) = ask(service, ids).await else { return false };
    if reply.regions.millis().is_none() {
        return false;
    }
    let lacking = reply.answers.iter().filter(|answer| **answer == Answer::Live).count();
    assert_eq!(lacking, 0, "it says that it knows the other region, and lacks what was acknowledged there before");
    true
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for an election: run `make regions`"]
async fn what_a_failover_loses_comes_back_and_is_not_claimed_meanwhile() {
    let (eu, us) = (Directory::new("regions-failover-eu"), Directory::new("regions-failover-us"));
    let joined = |directory: &Directory, to: &str| {
        directory.write("join-secret", "a-join-secret-of-the-tests-long-enough");
        vec![format!("--join-secret-file={}", directory.path().join("join-secret").display()), format!("--join={to}")]
    };
    let link = harness::Link::start(vec![]).await;
    let mut options = ServiceOptions::in_file(&us);
    options.arguments = joined(&us, &format!("http://{}", link.address()));
    let far = Service::start(&us, options).await;
    let mut redis = Sentinels::start(eu.path()).await;
    let mut options = ServiceOptions { redis_timeout: None, ..ServiceOptions::new(redis.urls()) };
    options.arguments = joined(&eu, &format!("http://{}", far.address()));
    options
        .arguments
        .extend(["--redis-mode=sentinel", "--sentinel-master=main", "--min-replicas=0"].map(str::to_owned));
    let near = Service::start(&eu, options).await;
    link.lead_to(vec![near.address()]);

    let ids = |from: usize, to: usize| (from..to).map(|number| format!("s-{number}")).collect::<Vec<_>>();
    let first = ids(0, 50);
    for id in &first {
        end(&far, id).await;
    }
    assert!(wait_until(SOON, async || knows(&near, &first).await).await, "merged");

    // The replica follows no more, so it lacks what is merged now.
    for words in [["CONFIG", "SET", "masteruser", "nobody"], ["CONFIG", "SET", "masterauth", "wrong"]] {
        redis.servers[1].command(&words).await.unwrap();
    }
    redis.servers[1].command(&["CLIENT", "KILL", "TYPE", "master"]).await.unwrap();
    let follows = async || {
        let told = redis.servers[1].command(&["INFO", "replication"]).await.unwrap_or_default();
        told.contains("master_link_status:down")
    };
    assert!(wait_until(SOON, follows).await);
    let all = ids(0, 100);
    for id in &all[50..] {
        end(&far, id).await;
    }
    assert!(wait_until(SOON, async || knows(&near, &all).await).await, "merged, and lost in a moment");
    redis.servers[0].process().kill();

    // `knows` asserts it at each answer: with the other region known, nothing is missing.
    let mut was_unknown = false;
    let back = wait_until(RECOVERY, async || {
        let is_known = knows(&near, &all).await;
        was_unknown |= !is_known;
        was_unknown && is_known
    });
    assert!(back.await, "never known again");
    let count = redis.servers[1].command(&["INFO", "replication"]).await.unwrap();
    assert!(count.contains("role:master"), "the replica took over: {count}");
    let state: Value =
        exchange(near.admin_address(), &Request::get("/readyz")).await.expect("the service answers").json();
    assert_eq!(state["regions"], "joined");
}
