//! Three instances of the service on a Redis Cluster of three primaries with a replica each, and an Envoy of each host.
//! Links are in front of the service, once for each Envoy and once for the followers alone, and of each node of the Cluster.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{
    Cluster, Directory, Envoy, EnvoyOptions, FilterHost, Link, MeshOptions, Service, ServiceOptions, Upstream,
};
use serde_json::json;

use super::LAG;

/// Two values, of which one is in use or both.
pub const SECRETS: [&str; 2] =
    ["the-first-shared-secret-of-the-feed-test", "the-second-shared-secret-of-the-feed-test"];
/// The variables with them.
const NAMES: [&str; 2] = ["FEED_SECRET_A", "FEED_SECRET_B"];
pub const PRIMARIES: usize = 3;
const INSTANCES: usize = 3;
/// Installed by scripts/checkers. Without it no clock jumps.
const FAKETIME: &str = ".venv/libfaketimeMT.so.1";

/// Fields drop in this order: the directories after the processes that write into them.
pub struct Stack {
    pub envoys: Vec<(&'static str, Envoy)>,
    pub services: Vec<Service>,
    pub cluster: Cluster,
    pub filter_links: Vec<Link>,
    pub follower_link: Link,
    pub redis_links: Vec<Link>,
    /// What the wall clock of the first instance is ahead.
    clock: Option<PathBuf>,
    service_directories: Vec<Directory>,
    _upstream: Upstream,
    _directories: Vec<Directory>,
}

impl Stack {
    pub async fn start(mut options: MeshOptions) -> (Self, mint::SigningKey) {
        let directory = Directory::new("feed-promise");
        let mut redis_links = Vec::new();
        for _ in 0..PRIMARIES * 2 {
            redis_links.push(Link::start(Vec::new()).await);
        }
        let cluster = Cluster::start_behind(&redis_links, directory.path(), PRIMARIES).await;
        let urls: Vec<_> = redis_links.iter().map(|link| format!("redis://{}/", link.address())).collect();
        let library = Some(harness::project().join(FAKETIME)).filter(|path| path.exists());
        let clock = library.is_some().then(|| directory.write("clock", "+0"));
        if clock.is_none() {
            eprintln!("no libfaketime: no clock jumps");
        }
        let (mut services, mut service_directories) = (Vec::new(), Vec::new());
        for at in 0..INSTANCES {
            let directory = Directory::new("feed-promise-service");
            let mut service = ServiceOptions::new(urls.join(","));
            service.secret = SECRETS[0].to_owned();
            service.redis_timeout = Some(Duration::from_millis(500));
            service.arguments =
                ["--redis-mode", "cluster", "--min-replicas", "1", "--confirm-timeout", "1s"].map(str::to_owned).into();
            if let (0, Some(clock), Some(library)) = (at, &clock, &library) {
                let set = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
                service.environment = vec![
                    set("LD_PRELOAD", library),
                    set("FAKETIME_TIMESTAMP_FILE", clock),
                    set("FAKETIME_CACHE_DURATION", Path::new("1")),
                    set("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
                    set("DONT_FAKE_MONOTONIC", Path::new("1")),
                    set("FAKETIME_DISABLE_SHM", Path::new("1")),
                ];
            }
            services.push(Service::start(&directory, service).await);
            service_directories.push(directory);
        }
        let addresses: Vec<_> = services.iter().map(Service::address).collect();
        let mut filter_links = Vec::new();
        for _ in 0..2 {
            filter_links.push(Link::start(addresses.clone()).await);
        }
        let follower_link = Link::start(addresses).await;

        options.filter["revocation"]["secret_env"] = json!(NAMES[0]);
        let upstream = Upstream::start().await;
        let (mut envoys, mut directories) = (Vec::new(), vec![directory]);
        let hosts = [("wasm", FilterHost::Wasm { module: FilterHost::wasm_module() }), ("native", FilterHost::Native)];
        for ((name, host), link) in hosts.into_iter().zip(&filter_links) {
            let directory = Directory::new(&format!("feed-promise-{name}"));
            let mut envoy = EnvoyOptions::new(upstream.address(), link.address(), Some(options.filter.clone()));
            envoy.host = host;
            envoy.listener_from_file = true;
            let shared = mint::to_base64url(options.keys.shared.secret().unwrap_or_default());
            envoy.environment =
                NAMES.iter().zip(SECRETS).map(|(name, value)| (name.to_string(), value.into())).collect();
            envoy.environment.push(("KEY_SHARED".to_owned(), shared));
            envoys.push((name, Envoy::start(&directory, envoy).await));
            directories.push(directory);
        }
        let stack = Self {
            envoys,
            services,
            cluster,
            filter_links,
            follower_link,
            redis_links,
            clock,
            service_directories,
            _upstream: upstream,
            _directories: directories,
        };
        (stack, options.keys.shared)
    }

    /// The options of all filters here.
    pub fn options() -> MeshOptions {
        let mut options = MeshOptions::timed();
        options.filter["revocation"]["feed"] = json!({ "lag": format!("{}ms", LAG.as_millis()) });
        // An answer of the service counts for no longer than a proof.
        options.filter["revocation"]["freshness"] = json!(format!("{}ms", LAG.as_millis()));
        options.filter["revocation"]["timeout"] = json!("1s");
        options
    }

    pub fn admins(&self) -> Vec<SocketAddr> {
        self.services.iter().map(Service::admin_address).collect()
    }

    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.filter_links.iter().chain([&self.follower_link]).chain(&self.redis_links)
    }

    /// The nodes that are primaries now.
    pub async fn primaries(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for at in 0..self.cluster.nodes.len() {
            if self.role(at).await.contains("master") {
                found.push(at);
            }
        }
        found
    }

    async fn role(&self, node: usize) -> String {
        let asked = tokio::time::timeout(Duration::from_secs(1), self.cluster.nodes[node].command(&["ROLE"]));
        asked.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Why the Cluster is not as it was at first, if it is not.
    pub async fn cluster_trouble(&self) -> Option<String> {
        let primaries = self.primaries().await;
        if primaries.len() != PRIMARIES {
            return Some(format!("{} primaries", primaries.len()));
        }
        for at in 0..self.cluster.nodes.len() {
            let node = &self.cluster.nodes[at];
            let told = node.command(&["INFO", "replication"]).await.unwrap_or_default();
            let is_well = match primaries.contains(&at) {
                true => told.contains("connected_slaves:1") && told.contains("state=online"),
                false => told.contains("master_link_status:up"),
            };
            let state = node.command(&["CLUSTER", "INFO"]).await.unwrap_or_default();
            if !is_well || !state.contains("cluster_state:ok") {
                return Some(format!("node {at} of the Cluster"));
            }
        }
        None
    }

    pub fn can_set_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// The wall clock of the first instance is ahead by this many seconds from within a second on.
    pub fn set_clock(&self, ahead: i64) {
        if let Some(path) = &self.clock {
            std::fs::write(path, format!("{ahead:+}")).expect("the stack's directory takes a file");
        }
    }

    /// Every service with both secrets. `from` stays the primary.
    pub async fn add_secret(&mut self, from: usize) {
        for (service, directory) in self.services.iter_mut().zip(&self.service_directories) {
            let path = directory.write("other-secret", SECRETS[1 - from]).display().to_string();
            service.restart_with(|options| options.arguments.extend(["--secret-file".to_owned(), path])).await;
        }
    }

    /// The filters with the other secret.
    pub fn switch_filters(&self, from: usize) {
        let variable = |name: &str| format!(r#"\"secret_env\":\"{name}\""#);
        for (_, envoy) in &self.envoys {
            envoy.update_listener(&variable(NAMES[from]), &variable(NAMES[1 - from]));
        }
    }

    /// Every service with the new secret alone.
    pub async fn remove_secret(&mut self, from: usize) {
        for (service, directory) in self.services.iter_mut().zip(&self.service_directories) {
            directory.write("shared-secret", SECRETS[1 - from]);
            service.restart_with(|options| options.arguments.truncate(options.arguments.len() - 2)).await;
        }
    }
}
