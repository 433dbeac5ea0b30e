//! Several servers of Redis that fail over: a Cluster, and a primary with its Sentinels.
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Link, Process, Redis, START_DEADLINE, wait_until};

/// How long a primary must be silent before it is replaced; the service requires it.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Primaries first, then as many replicas, in the order of their primaries.
pub struct Cluster {
    pub nodes: Vec<Redis>,
    primaries: usize,
}

impl Cluster {
    /// With one replica for each primary.
    ///
    /// # Panics
    /// It does not become one.
    pub async fn start(directory: &Path, primaries: usize) -> Self {
        Self::start_behind(&[], directory, primaries).await
    }

    /// With a link in front of each node, which everybody uses but the nodes among themselves on their bus. Replicas
    /// follow their primaries through them.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub async fn start_behind(links: &[Link], directory: &Path, primaries: usize) -> Self {
        let mut nodes = Vec::new();
        for at in 0..primaries * 2 {
            let patience = NODE_TIMEOUT.as_millis().to_string();
            let announced = links.get(at).map(|link| link.address().port().to_string());
            let announced: Vec<_> =
                announced.iter().flat_map(|port| ["--cluster-announce-port", port.as_str()]).collect();
            let options = [
                &["--cluster-enabled", "yes", "--cluster-port", "{other-port}"][..],
                &["--cluster-node-timeout", &patience, "--cluster-require-full-coverage", "no"],
                &["--repl-diskless-sync-delay", "0"],
                &announced,
            ];
            let node = Redis::start_in(&directory.join(format!("node-{at}")), &options.concat()).await;
            if let Some(link) = links.get(at) {
                link.lead_to(vec![node.address()]);
            }
            nodes.push(node);
        }
        let cluster = Self { nodes, primaries };
        cluster.join().await;
        cluster
    }

    /// All of the nodes, for `--redis`.
    pub fn urls(&self) -> String {
        self.nodes.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }

    /// The node that owns the slot of `name` according to the node `of`.
    ///
    /// # Panics
    /// No node owns it.
    pub async fn owner(&self, of: usize, name: &str) -> usize {
        let slot = self.ask(of, &["CLUSTER", "KEYSLOT", name]).await;
        let slot: u16 = slot.trim().trim_start_matches(':').parse().expect("a slot");
        let told = self.ask(of, &["CLUSTER", "NODES"]).await;
        let owns = |line: &&str| {
            let words: Vec<_> = line.split(' ').collect();
            let range = |text: &str| {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
            };
            let is_in = |(first, last)| (first..=last).contains(&slot);
            words.get(2).is_some_and(|flags| flags.contains("master"))
                && words.iter().skip(8).filter_map(|text| range(text)).any(is_in)
        };
        let line = told.lines().find(owns).expect("somebody owns it");
        let found = self.nodes.iter().position(|node| line.contains(&format!(" {}@", node.address())));
        found.expect("a node of this Cluster")
    }

    /// Waits until another node has taken the place of the primary `lost`, and says which.
    ///
    /// # Panics
    /// None does.
    pub async fn successor(&self, lost: usize) -> usize {
        let next = lost + self.primaries;
        let replaced = wait_until(START_DEADLINE, async || {
            let told = self.nodes[next].command(&["ROLE"]).await.unwrap_or_default();
            told.contains("master")
        });
        assert!(replaced.await, "nobody takes the place of node {lost}");
        next
    }

    pub async fn ask(&self, node: usize, words: &[&str]) -> String {
        self.nodes[node].command(words).await.expect("the node runs")
    }

    /// # Panics
    /// It answers with an error.
    pub async fn tell(&self, node: usize, words: &[&str]) -> String {
        let reply = self.ask(node, words).await;
        assert!(!reply.starts_with('-'), "{words:?}: {reply}");
        reply
    }

    pub async fn id(&self, node: usize) -> String {
        self.ask(node, &["CLUSTER", "MYID"]).await.lines().nth(1).expect("an id").to_owned()
    }

    async fn join(&self) {
        let share = 16_384 / self.primaries;
        for at in 0..self.nodes.len() {
            self.tell(at, &["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]).await;
            if at < self.primaries {
                let last = if at + 1 == self.primaries { 16_383 } else { (at + 1) * share - 1 };
                self.tell(at, &["CLUSTER", "ADDSLOTSRANGE", &(at * share).to_string(), &last.to_string()]).await;
            }
        }
        for (at, node) in self.nodes.iter().enumerate().skip(1) {
            let bus = node.option("--cluster-port").expect("a bus");
            let (host, port) = (node.address().ip().to_string(), node.address().port().to_string());
            self.tell(0, &["CLUSTER", "MEET", &host, &port, &bus]).await;
            let _ = at;
        }
        let know_all = async |at: usize| {
            let told = self.ask(at, &["CLUSTER", "INFO"]).await;
            told.contains(&format!("cluster_known_nodes:{}\r", self.nodes.len())) && told.contains("cluster_state:ok")
        };
        for at in 0..self.nodes.len() {
            assert!(wait_until(START_DEADLINE, async || know_all(at).await).await, "node {at} does not join");
        }
        for at in self.primaries..self.nodes.len() {
            let primary = self.id(at - self.primaries).await;
            let follows = wait_until(START_DEADLINE, async || {
                self.ask(at, &["CLUSTER", "REPLICATE", &primary]).await.starts_with('+')
            });
            assert!(follows.await, "node {at} does not follow");
        }
        let is_ready = async || {
            for at in 0..self.nodes.len() {
                let told = self.ask(at, &["CLUSTER", "NODES"]).await;
                if told.matches(" slave ").count() + told.matches(",slave ").count() != self.primaries {
                    return false;
                }
                if at >= self.primaries
                    && !self.ask(at, &["INFO", "replication"]).await.contains("master_link_status:up")
                {
                    return false;
                }
            }
            true
        };
        assert!(wait_until(START_DEADLINE, is_ready).await, "the replicas do not follow");
    }
}

/// A primary, a replica, and three Sentinels that watch them as `main`.
pub struct Sentinels {
    pub servers: Vec<Redis>,
    sentinels: Vec<(Process, SocketAddr)>,
}

impl Sentinels {
    /// # Panics
    /// They do not start, or do not find each other.
    pub async fn start(directory: &Path) -> Self {
        let primary = Redis::start_in(&directory.join("primary"), &["--repl-diskless-sync-delay", "0"]).await;
        let (host, port) = (primary.address().ip().to_string(), primary.address().port().to_string());
        let replica = Redis::start_in(&directory.join("replica"), &["--replicaof", &format!("{host} {port}")]).await;
        let mut sentinels = Vec::new();
        for at in 0..3 {
            let place = directory.join(format!("sentinel-{at}"));
            std::fs::create_dir_all(&place).expect("the stack's directory takes another");
            let address = crate::redis::free_port();
            let file = place.join("sentinel.conf");
            let text = format!(
                "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor main {host} {port} 2\n\
                 sentinel down-after-milliseconds main {}\nsentinel failover-timeout main 6000\n",
                address.port(),
                place.display(),
                NODE_TIMEOUT.as_millis(),
            );
            std::fs::write(&file, text).expect("a file in the stack's directory");
            let mut command = Command::new("redis-server");
            command.arg(&file).arg("--sentinel");
            sentinels.push((Process::start("sentinel", command, &place), address));
        }
        let all = Self { servers: vec![primary, replica], sentinels };
        for at in 0..3 {
            // A Sentinel knows no QUIT, so the tool asks it.
            let port = all.sentinels[at].1.port().to_string();
            let knows_all = async || {
                let told = Command::new("redis-cli").args(["-p", &port, "SENTINEL", "MASTER", "main"]).output();
                let told = String::from_utf8_lossy(&told.expect("redis-cli runs").stdout).into_owned();
                told.contains("num-other-sentinels\n2\n") && told.contains("num-slaves\n1\n")
            };
            assert!(wait_until(START_DEADLINE, knows_all).await, "the Sentinels do not find each other");
        }
        all
    }

    /// The Sentinels, for `--redis`.
    pub fn urls(&self) -> String {
        self.sentinels.iter().map(|(_, address)| format!("redis://{address}")).collect::<Vec<_>>().join(",")
    }
}
