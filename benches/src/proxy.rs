//! One Envoy on one core, and what it costs.
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use harness::{Directory, Process, Request, exchange};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::machine::{self, Cores};
use crate::scenario::Setup;

const START_DEADLINE: Duration = Duration::from_secs(30);
/// How exactly the start is measured.
const START_STEP: Duration = Duration::from_millis(2);

pub struct Proxy {
    process: Process,
    admin: SocketAddr,
    pub address: SocketAddr,
    /// From its start until its listener served.
    pub ready: Duration,
}

impl Proxy {
    /// # Errors
    /// It does not start: with its log.
    pub fn start(runtime: &Runtime, directory: &Directory, setup: &Setup, cores: Cores) -> anyhow::Result<Self> {
        let config = directory.write(&format!("{}.json", setup.name), bootstrap(setup).to_string());
        let admin_path = directory.path().join(format!("{}.admin", setup.name));
        let mut command = Command::new(harness::project().join(".venv/bin/envoy"));
        command
            .arg("--config-path")
            .arg(config)
            .arg("--admin-address-path")
            .arg(&admin_path)
            .args(["--concurrency", &setup.workers.to_string(), "--disable-hot-restart", "--log-level", "warning"])
            .args(["--component-log-level", "wasm:info"])
            .envs(setup.environment.iter().map(|(name, value)| (name, value)));
        let start = Instant::now();
        // A process inherits the core of the thread that starts it.
        machine::pin(cores.proxy)?;
        let mut process = Process::start(&setup.name, command, directory.path());
        machine::pin(cores.load)?;
        loop {
            if let Some((admin, address)) = runtime.block_on(serving(&admin_path)) {
                let ready = start.elapsed();
                return Ok(Self { process, admin, address, ready });
            }
            if !process.is_running() || start.elapsed() > START_DEADLINE {
                bail!("Envoy does not start for {}:\n{}", setup.name, process.log_tail());
            }
            std::thread::sleep(START_STEP);
        }
    }

    /// CPU time of all of its threads so far, while it is idle.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        machine::cpu_of(self.process.id())
    }

    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// Counters by name.
    pub fn stats(&self, runtime: &Runtime) -> anyhow::Result<Stats> {
        let text = runtime.block_on(admin(self.admin, "/stats")).context("Envoy's admin interface is silent")?;
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        Ok(Stats(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()))
    }

    /// Stopped while another is measured, so that its timers and ticks do not disturb.
    pub fn pause(&self) {
        self.process.pause();
    }

    pub fn resume(&self) {
        self.process.resume();
    }

    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

pub struct Stats(Vec<(String, u64)>);

impl Stats {
    /// The sum of all whose name ends so.
    pub fn sum(&self, end: &str) -> u64 {
        self.0.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, value)| value).sum()
    }
}

async fn serving(admin_path: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let address: SocketAddr = std::fs::read_to_string(admin_path).ok()?.trim().parse().ok()?;
    admin(address, "/ready").await?;
    let listeners: Value = serde_json::from_str(&admin(address, "/listeners?format=json").await?).ok()?;
    let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
    Some((address, SocketAddr::new(socket["address"].as_str()?.parse().ok()?, port)))
}

async fn admin(address: SocketAddr, path: &str) -> Option<String> {
    let response = exchange(address, &Request::get(path)).await.ok()?;
    (response.status == 200).then(|| response.text())
}

/// As envoy/envoy.yaml, but for what would be measured along: no upstream, since the route itself answers, and no
/// access log.
fn bootstrap(setup: &Setup) -> Value {
    let mut filters = setup.filters.clone();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    }));
    let loopback = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        "normalize_path": true,
        "merge_slashes": true,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "use_remote_address": true,
        "common_http_protocol_options": {
            "idle_timeout": "300s", "max_headers_count": 100, "headers_with_underscores_action": "DROP_HEADER",
        },
        "stream_idle_timeout": "30s",
        "request_headers_timeout": "10s",
        "request_timeout": "60s",
        "route_config": {
            "name": "main",
            "virtual_hosts": [{
                "name": "upstream", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }],
            }],
        },
        "http_filters": filters,
    });
    let chain = json!({
        "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }],
    });
    json!({
        "admin": { "address": loopback },
        "static_resources": {
            "listeners": [{
                "name": "main", "address": loopback,
                "per_connection_buffer_limit_bytes": 1_048_576, "filter_chains": [chain],
            }],
            "clusters": setup.clusters,
        },
    })
}
