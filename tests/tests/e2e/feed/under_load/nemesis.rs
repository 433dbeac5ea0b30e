//! What fails, one thing after the other, and whether all is well again afterwards without a restart of anything that still
//! runs.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::mesh::ISSUER;
use harness::{Line, Link, Request, exchange, wait_until};
use serde_json::json;

use super::followers::Followers;
use super::record::Record;
use super::stack::{SECRETS, Stack};

/// Far more than anything needs: a primary is replaced after 2 s of silence, and the machine may be busy.
const RECOVERY: Duration = Duration::from_secs(60);
const HOUR: i64 = 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    ServiceKilled,
    ServicePaused,
    ServicePausedForLong,
    EnvoyPaused,
    PrimaryKilled,
    /// For less than its lease.
    PrimaryPaused,
    /// For longer than its lease, and until it is replaced.
    PrimaryPausedForLong,
    PrimaryHandsOver,
    FilterCut,
    FilterHeld,
    FollowersCut,
    RedisCut,
    RedisHeld,
    Slow,
    LogsLost,
    Burst,
    SecretRotated,
    AllRestarted,
    ClockAhead,
    ClockBehind,
}

pub struct Nemesis {
    pub stack: Stack,
    pub record: Arc<Record>,
    pub followers: Arc<Followers>,
    /// Which of the secrets is in use.
    secret: usize,
    /// How often each fault came, and how long all took to be well again at most.
    seen: BTreeMap<Fault, (u32, Duration)>,
}

impl Fault {
    const ALL: [Fault; 20] = [
        Fault::ServiceKilled,
        Fault::ServicePaused,
        Fault::ServicePausedForLong,
        Fault::EnvoyPaused,
        Fault::PrimaryKilled,
        Fault::PrimaryPaused,
        Fault::PrimaryPausedForLong,
        Fault::PrimaryHandsOver,
        Fault::FilterCut,
        Fault::FilterHeld,
        Fault::FollowersCut,
        Fault::RedisCut,
        Fault::RedisHeld,
        Fault::Slow,
        Fault::LogsLost,
        Fault::Burst,
        Fault::SecretRotated,
        Fault::AllRestarted,
        Fault::ClockAhead,
        Fault::ClockBehind,
    ];
}

impl Nemesis {
    pub fn new(stack: Stack, record: Arc<Record>, followers: Arc<Followers>) -> Self {
        Self { stack, record, followers, secret: 0, seen: BTreeMap::new() }
    }

    /// Breaks things until this moment: each once in every pass, in another order.
    pub async fn run(&mut self, until: Instant) {
        let only = std::env::var("FEED_FAULTS").unwrap_or_default();
        let wanted = |fault: &Fault| only.is_empty() || only.contains(&format!("{fault:?}"));
        while Instant::now() < until {
            let mut faults: Vec<_> = Fault::ALL.into_iter().filter(wanted).collect();
            while !faults.is_empty() && Instant::now() < until {
                let fault = faults.swap_remove(self.below(faults.len()));
                let is_clock = matches!(fault, Fault::ClockAhead | Fault::ClockBehind);
                if is_clock && !self.stack.can_set_clock() {
                    continue;
                }
                // Sometimes a link is slow at the same time.
                if self.below(3) == 0 {
                    let links: Vec<_> = self.stack.links().collect();
                    links[self.below(links.len())].set(Line::Slow(self.between(10, 100)));
                }
                self.inflict(fault).await;
                self.stack.links().for_each(|link| link.set(Line::Open));
                let healed = Instant::now();
                self.recover(&format!("{fault:?}")).await;
                let took = healed.elapsed();
                eprintln!("{fault:?}: all is well again after {} ms", took.as_millis());
                let (count, longest) = self.seen.entry(fault).or_default();
                (*count, *longest) = (*count + 1, took.max(*longest));
            }
        }
    }

    pub fn told(&self) -> String {
        let line = |(fault, (count, longest)): (&Fault, &(u32, Duration))| {
            format!("{fault:?}: {count} times, well again after at most {} ms\n", longest.as_millis())
        };
        self.seen.iter().map(line).collect()
    }

    /// Until requests pass by the feed on both hosts, all followers have a proof, and a session can be ended.
    ///
    /// # Panics
    /// That is not so in time.
    pub async fn recover(&self, after: &str) {
        let mut trouble = String::new();
        let is_well = wait_until(RECOVERY, async || match self.trouble().await {
            Some(found) => {
                trouble = found;
                tokio::time::sleep(Duration::from_millis(100)).await;
                false
            }
            None => true,
        });
        assert!(is_well.await, "after {after}: {trouble}");
    }

    async fn trouble(&self) -> Option<String> {
        if let Some(trouble) = self.stack.cluster_trouble().await {
            return Some(trouble);
        }
        let silent = self.followers.silent();
        if silent > 0 {
            return Some(format!("{silent} followers have no proof"));
        }
        for (name, envoy) in &self.stack.envoys {
            let clear = async || -> u64 {
                let found = envoy.stats("portcullis.feed_answers.result.clear").await;
                found.iter().map(|(_, count)| count).sum()
            };
            let before = clear().await;
            if !self.record.passes(envoy.address()).await {
                return Some(format!("a good token does not pass at {name}"));
            }
            if !wait_until(Duration::from_secs(1), async || clear().await > before).await {
                return Some(format!("tokens are asked about at {name}"));
            }
        }
        let (session, secret) = (self.record.session().number, &self.stack.services[0].options().admin_token);
        let is_ended = self.record.end_session(session, &self.stack.admins(), secret).await;
        (!is_ended).then(|| "a session cannot be ended".to_owned())
    }

    /// The fault is over when this returns.
    async fn inflict(&mut self, fault: Fault) {
        let (brief, long) = (self.between(200, 900), self.between(2500, 4500));
        let service = self.below(self.stack.services.len());
        let primaries = self.stack.primaries().await;
        let primary = primaries[self.below(primaries.len())];
        let stack = &mut self.stack;
        match fault {
            Fault::ServiceKilled => {
                stack.services[service].process().kill();
                sleep(brief).await;
                stack.services[service].restart().await;
            }
            Fault::ServicePaused | Fault::ServicePausedForLong => {
                stack.services[service].process().pause();
                sleep(if fault == Fault::ServicePaused { brief } else { long }).await;
                stack.services[service].process().resume();
            }
            Fault::EnvoyPaused => {
                let at = service % stack.envoys.len();
                stack.envoys[at].1.process().pause();
                sleep(long / 2).await;
                stack.envoys[at].1.process().resume();
            }
            Fault::PrimaryKilled => {
                stack.cluster.nodes[primary].process().kill();
                sleep(long).await;
                stack.cluster.nodes[primary].restart().await;
            }
            Fault::PrimaryPaused | Fault::PrimaryPausedForLong => {
                stack.cluster.nodes[primary].process().pause();
                sleep(if fault == Fault::PrimaryPaused { brief } else { long * 2 }).await;
                stack.cluster.nodes[primary].process().resume();
            }
            Fault::PrimaryHandsOver => {
                for at in 0..stack.cluster.nodes.len() {
                    if !primaries.contains(&at) {
                        let _ = stack.cluster.nodes[at].command(&["CLUSTER", "FAILOVER"]).await;
                        break;
                    }
                }
            }
            Fault::FilterCut => cut(&stack.filter_links[service % 2], Line::Cut, long).await,
            Fault::FilterHeld => cut(&stack.filter_links[service % 2], Line::Held, long).await,
            Fault::FollowersCut => cut(&stack.follower_link, Line::Cut, long).await,
            Fault::RedisCut => cut(&stack.redis_links[primary], Line::Cut, long).await,
            Fault::RedisHeld => cut(&stack.redis_links[primary], Line::Held, long).await,
            Fault::Slow => {
                stack.links().for_each(|link| link.set(Line::Slow(brief / 3)));
                sleep(long).await;
                stack.links().for_each(|link| link.set(Line::Open));
            }
            Fault::LogsLost => {
                for bucket in 0..64 {
                    for name in ["log", "head"] {
                        let name = format!("portcullis:{{{bucket:02x}}}:{name}");
                        for at in &primaries {
                            // Those that do not have the bucket say so.
                            let _ = stack.cluster.nodes[*at].command(&["DEL", &name]).await;
                        }
                    }
                }
            }
            Fault::Burst => {
                let line = |number| {
                    json!({ "kind": "session", "issuer": ISSUER, "id": format!("burst-{number}") }).to_string()
                };
                let lines: Vec<_> = (0..1000).map(line).collect();
                let service = &stack.services[service];
                let request = Request::new("POST", "/v1/revocations/bulk")
                    .bearer(&service.options().admin_token)
                    .body(lines.join("\n"));
                let _ = exchange(service.admin_address(), &request).await;
            }
            Fault::SecretRotated => self.rotate().await,
            Fault::AllRestarted => {
                stack.services.iter_mut().for_each(|service| service.process().kill());
                stack.cluster.nodes.iter_mut().for_each(|node| node.process().kill());
                for node in &mut stack.cluster.nodes {
                    node.restart().await;
                }
                for service in &mut stack.services {
                    service.restart().await;
                }
            }
            Fault::ClockAhead | Fault::ClockBehind => {
                stack.set_clock(if fault == Fault::ClockAhead { HOUR } else { -HOUR });
                sleep(long).await;
                stack.set_clock(0);
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// As docs/operations.md says: first the services with both secrets, then, when no token that was ended before is in use
    /// any longer, the filters, then the services with the new one alone.
    async fn rotate(&mut self) {
        let from = self.secret;
        self.stack.add_secret(from).await;
        self.record.renew();
        sleep(Duration::from_secs(1)).await;
        self.secret = (from + 1) % SECRETS.len();
        self.stack.switch_filters(from);
        self.followers.use_secret(self.secret);
        // Old listeners go on for 3 s.
        sleep(Duration::from_secs(5)).await;
        self.stack.remove_secret(from).await;
    }

    fn below(&self, count: usize) -> usize {
        usize::try_from(self.record.random() % count.max(1) as u64).unwrap_or(0)
    }

    fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.record.random() % (most - least))
    }
}

async fn cut(link: &Link, line: Line, time: Duration) {
    link.set(line);
    sleep(time).await;
    link.set(Line::Open);
}

async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}
