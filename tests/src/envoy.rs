//! A real Envoy, started from the files in envoy/ that users start from.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::native_filter::{split, with_filter_of, with_native_listener};
use crate::template::{render, with_listener, with_transport_socket};
use crate::{Directory, Process, Request, START_DEADLINE, exchange, project, wait_until};

/// Short, so that tests see virtual machines go.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);

pub struct EnvoyOptions {
    pub upstream: SocketAddr,
    /// The revocation service. It need not run.
    pub service: SocketAddr,
    /// The identity provider, which publishes keys. It need not run.
    pub idp: SocketAddr,
    /// The filter's configuration. None starts Envoy without the filter.
    pub filter: Option<Value>,
    /// Environment variables that the filter may read: its secrets.
    pub environment: Vec<(String, String)>,
    /// Workers; each has a virtual machine of its own.
    pub concurrency: u32,
    /// How long an old listener goes on after an update. A busy machine may need longer to answer what it has accepted.
    pub drain: Duration,
    pub tls: Option<Tls>,
    /// How the service is reached, if it speaks TLS.
    pub service_tls: Option<ServiceTls>,
    pub host: FilterHost,
    /// With a second listener `native`, which differs from the Wasm filter's only in its host.
    pub beside_native: bool,
    /// With one more listener for each, which differs only in its name and in the filter's configuration. With the Wasm
    /// filter, all share their virtual machines.
    pub more_listeners: Vec<(String, Value)>,
    /// Take part in a hot restart.
    pub hot_restart: Option<HotRestart>,
    /// The listener stands in a file of its own that Envoy watches: see [`Envoy::update_listener`].
    pub listener_from_file: bool,
    /// Edits the rendered bootstrap, for the needs of one test.
    pub edit: fn(String) -> String,
}

/// One of several Envoys of which each takes over from the one before.
#[derive(Debug, Clone, Copy)]
pub struct HotRestart {
    /// The same for all of them. Envoy uses up to ten numbers from ten times this one.
    pub base_id: u32,
    /// 0 for the first.
    pub epoch: u32,
    /// Of the listener: sockets are handed over by their addresses.
    pub port: u16,
    /// When the one before ends, from the start of this one.
    pub parent_ends_after: Duration,
}

/// Files in PEM, for the TLS 1.3 listener.
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
}

/// Files in PEM, for the cluster of the service.
pub struct ServiceTls {
    /// In the service's certificate.
    pub name: String,
    pub authority: PathBuf,
    /// Envoy's own, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// The host that runs the filter inside Envoy. Each has a bootstrap in envoy/; the other files there are written for
/// Wasm, and `bootstrap` puts the dynamic module into them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterHost {
    Wasm {
        module: PathBuf,
    },
    /// dist/libportcullis.so.
    Native,
}

pub struct Envoy {
    process: Process,
    admin: SocketAddr,
    address: SocketAddr,
    listener: PathBuf,
    host: FilterHost,
}

impl EnvoyOptions {
    pub fn new(upstream: SocketAddr, service: SocketAddr, filter: Option<Value>) -> Self {
        Self {
            upstream,
            service,
            idp: nobody(),
            filter,
            environment: Vec::new(),
            concurrency: 2,
            drain: DRAIN,
            tls: None,
            service_tls: None,
            host: FilterHost::chosen(),
            beside_native: false,
            more_listeners: Vec::new(),
            hot_restart: None,
            listener_from_file: false,
            edit: |bootstrap| bootstrap,
        }
    }
}

impl FilterHost {
    /// The one that the variable `HOST` names, by default `wasm`.
    ///
    /// # Panics
    /// There is no such host.
    pub fn chosen() -> Self {
        match std::env::var("HOST").as_deref() {
            Ok("wasm") | Err(_) => Self::Wasm { module: Self::wasm_module() },
            Ok("native") => Self::Native,
            Ok(other) => panic!("HOST={other}: the hosts are `wasm` and `native`"),
        }
    }

    /// Its bootstrap in envoy/.
    pub fn bootstrap(&self) -> &'static str {
        match self {
            Self::Wasm { .. } => "envoy.yaml",
            Self::Native => "envoy-native.yaml",
        }
    }

    /// Is it the dynamic module? It has one memory for all workers, and no virtual machines.
    pub fn is_native() -> bool {
        Self::chosen() == Self::Native
    }

    /// The directory with libportcullis.so: dist, or the one that `PORTCULLIS_MODULES` names.
    pub fn native_modules() -> PathBuf {
        let named = std::env::var_os("PORTCULLIS_MODULES").map(PathBuf::from);
        named.unwrap_or_else(|| project().join("dist"))
    }

    /// dist/portcullis.wasm, which ships, or the file that `PORTCULLIS_WASM` names.
    pub fn wasm_module() -> PathBuf {
        let named = std::env::var_os("PORTCULLIS_WASM").map(PathBuf::from);
        named.unwrap_or_else(|| project().join("dist/portcullis.wasm"))
    }
}

impl Envoy {
    /// Waits until its listener serves.
    ///
    /// # Panics
    /// It does not start: with its log.
    pub async fn start(directory: &Directory, options: EnvoyOptions) -> Self {
        match Self::try_start(directory, options).await {
            Ok(envoy) => envoy,
            Err(log) => panic!("envoy does not start:\n{log}"),
        }
    }

    /// # Errors
    /// The log's end, when Envoy ends instead of starting: a configuration that it or the filter refuses.
    pub async fn try_start(directory: &Directory, options: EnvoyOptions) -> Result<Self, String> {
        let mut config = bootstrap(&options);
        let listener = directory.path().join("listeners.yaml");
        if options.listener_from_file {
            let listeners;
            (config, listeners) = with_listener_file(&config, &listener);
            directory.write("listeners.yaml", listeners);
        }
        let config = directory.write("envoy.yaml", config);
        let admin_path = directory.path().join("envoy.admin");
        let _ = std::fs::remove_file(&admin_path);
        let binary = project().join(".venv/bin/envoy");
        assert!(binary.exists(), "no {}: run `make setup`", binary.display());

        let mut command = Command::new(binary);
        command
            .arg("--config-path")
            .arg(config)
            .arg("--admin-address-path")
            .arg(&admin_path)
            .args(["--concurrency", &options.concurrency.to_string()])
            .args(["--log-level", "warning", "--component-log-level", "wasm:info,dynamic_modules:info"])
            .args(["--drain-time-s", &options.drain.as_secs().to_string()])
            .env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", FilterHost::native_modules())
            .envs(options.environment);
        match options.hot_restart {
            None => command.arg("--disable-hot-restart"),
            Some(HotRestart { base_id, epoch, parent_ends_after, .. }) => command
                .args(["--base-id", &base_id.to_string(), "--restart-epoch", &epoch.to_string()])
                .args(["--parent-shutdown-time-s", &parent_ends_after.as_secs().to_string()]),
        };
        let mut process = Process::start("envoy", command, directory.path());

        let mut found = None;
        wait_until(START_DEADLINE, async || {
            found = ready(&admin_path).await;
            found.is_some() || !process.is_running()
        })
        .await;
        match found {
            Some((admin, address)) => Ok(Self { process, admin, address, listener, host: options.host }),
            None => Err(process.log_tail()),
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect to another of its listeners.
    ///
    /// # Panics
    /// It has no such listener.
    pub async fn address_of(&self, listener: &str) -> SocketAddr {
        let listeners: Value = serde_json::from_str(&self.admin("GET", "/listeners?format=json").await).expect("JSON");
        address_of(&listeners, listener).unwrap_or_else(|| panic!("there is no listener `{listener}`"))
    }

    /// Its admin interface.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Replaces a text in the file of an Envoy that was started with `listener_from_file`, and moves it into place,
    /// which is what Envoy watches for.
    ///
    /// # Panics
    /// The text is not there.
    pub fn update_listener(&self, old: &str, new: &str) {
        let listener = std::fs::read_to_string(&self.listener).expect("a listener in a file");
        assert!(listener.contains(old), "the listener has no `{old}`");
        let moved = self.listener.with_extension("new");
        std::fs::write(&moved, listener.replace(old, new)).expect("the stack's directory takes a file");
        std::fs::rename(&moved, &self.listener).expect("the file can be moved");
    }

    /// The reply of the admin interface at a path.
    pub async fn admin(&self, method: &str, path: &str) -> String {
        admin(self.admin, method, path).await.unwrap_or_else(|| panic!("the admin interface has no {path}"))
    }

    /// Every counter and gauge whose name contains `part`, with the labels still in the name. The filter's have the same
    /// names in both hosts.
    pub async fn stats(&self, part: &str) -> Vec<(String, u64)> {
        let mut all = self.admin("GET", "/stats").await;
        if self.host == FilterHost::Native {
            all = all.replace("dynamicmodulescustom.", "wasmcustom.");
        }
        let pairs = all.lines().filter_map(|line| line.split_once(": "));
        let named = pairs.filter(|(name, _)| name.contains(part));
        named.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }

    /// One of them by its whole name; 0 where there is none yet.
    pub async fn stat(&self, name: &str) -> u64 {
        self.stats(name).await.into_iter().find(|(seen, _)| seen == name).map_or(0, |(_, value)| value)
    }

    /// As Prometheus sees them, labels and all.
    pub async fn prometheus(&self) -> String {
        self.admin("GET", "/stats/prometheus").await
    }

    /// The bytes that Envoy's allocator has handed out. V8's memory is not among them: see [`Process::resident_bytes`].
    pub async fn allocated_bytes(&self) -> u64 {
        let memory: Value = serde_json::from_str(&self.admin("GET", "/memory").await).unwrap_or_default();
        memory["allocated"].as_str().and_then(|bytes| bytes.parse().ok()).expect("/memory has `allocated`")
    }
}

/// An address that refuses connections.
fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

/// The admin address and the listener's, as soon as Envoy serves.
async fn ready(admin_path: &PathBuf) -> Option<(SocketAddr, SocketAddr)> {
    let address = std::fs::read_to_string(admin_path).ok()?.trim().parse().ok()?;
    admin(address, "GET", "/ready").await?;
    let listeners: Value = serde_json::from_str(&admin(address, "GET", "/listeners?format=json").await?).ok()?;
    Some((address, address_of(&listeners, "main")?))
}

fn address_of(listeners: &Value, name: &str) -> Option<SocketAddr> {
    let listener = listeners["listener_statuses"].as_array()?.iter().find(|listener| listener["name"] == name)?;
    let socket = &listener["local_address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
    Some(SocketAddr::new(socket["address"].as_str()?.parse().ok()?, port))
}

async fn admin(address: SocketAddr, method: &str, path: &str) -> Option<String> {
    let response = exchange(address, &Request::new(method, path)).await.ok()?;
    (response.status == 200).then(|| response.text())
}

fn bootstrap(options: &EnvoyOptions) -> String {
    let read = |name: &str| {
        let path = project().join("envoy").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let names: Vec<_> = options.environment.iter().map(|(name, _)| name).collect();
    let document = |filter: &Value| json!(filter.to_string());
    let mut values = vec![
        ("LISTEN_ADDRESS", json!("127.0.0.1")),
        ("LISTEN_PORT", json!(options.hot_restart.map_or(0, |restart| restart.port))),
        ("ADMIN_PORT", json!(0)),
        ("UPSTREAM_ADDRESS", json!(options.upstream.ip())),
        ("UPSTREAM_PORT", json!(options.upstream.port())),
        ("SERVICE_ADDRESS", json!(options.service.ip())),
        ("SERVICE_PORT", json!(options.service.port())),
        ("IDP_ADDRESS", json!(options.idp.ip())),
        ("IDP_PORT", json!(options.idp.port())),
        ("SECRET_ENV", json!(names)),
        (FILTER_CONFIG, options.filter.as_ref().map(document).unwrap_or_default()),
    ];
    let mut template = read(options.host.bootstrap());
    if let Some(tls) = &options.tls {
        template = with_listener(&template, &with_filter_of(&read("listener-tls13.yaml"), &template));
        values.push(("TLS_CERTIFICATE", json!(tls.certificate)));
        values.push(("TLS_KEY", json!(tls.key)));
        values.push(("CLIENT_CA", json!(tls.client_ca)));
    }
    if let Some(tls) = &options.service_tls {
        let mut socket = read("service-tls.yaml");
        match &tls.client {
            Some((certificate, key)) => {
                values.push(("CLIENT_CERTIFICATE", json!(certificate)));
                values.push(("CLIENT_KEY", json!(key)));
            }
            None => socket = without_client(&socket),
        }
        template = with_transport_socket(&template, "session_service", &socket);
        values.push(("SERVICE_NAME", json!(tls.name)));
        values.push(("SERVICE_CA", json!(tls.authority)));
    }
    if options.beside_native {
        template = with_native_listener(&template, &read(FilterHost::Native.bootstrap()));
    }
    match (&options.filter, &options.host) {
        (None, _) => template = without_filter(&template),
        (Some(_), FilterHost::Native) => {}
        (Some(_), FilterHost::Wasm { module }) => values.push(("WASM", json!(module))),
    }
    let mut bootstrap = render(&template, &values);
    for (name, filter) in &options.more_listeners {
        values.retain(|(placeholder, _)| *placeholder != FILTER_CONFIG);
        values.push((FILTER_CONFIG, document(filter)));
        bootstrap = with_listener_too(&bootstrap, &render(&template, &values), name);
    }
    (options.edit)(bootstrap)
}

const FILTER_CONFIG: &str = "FILTER_CONFIG";

/// The bootstrap, and after its listeners the one of another bootstrap under this name.
fn with_listener_too(bootstrap: &str, other: &str, name: &str) -> String {
    let (before, listeners, clusters) = split_listeners(bootstrap);
    let (_, listener, _) = split_listeners(other);
    let listener = listener.replacen("    - name: main\n", &format!("    - name: {}\n", json!(name)), 1);
    format!("{before}  listeners:\n{listeners}\n{listener}\n  clusters:\n{clusters}")
}

/// What comes before the listeners, these, and what comes after the head of the clusters.
fn split_listeners(bootstrap: &str) -> (&str, &str, &str) {
    let (before, rest) = bootstrap.split_once("  listeners:\n").expect("envoy.yaml has listeners");
    let (listeners, clusters) =
        rest.split_once("\n  clusters:\n").expect("envoy.yaml has clusters after its listeners");
    (before, listeners, clusters)
}

/// The bootstrap without its listeners, and the file that holds them.
fn with_listener_file(bootstrap: &str, path: &Path) -> (String, String) {
    let (before, listeners, clusters) = split_listeners(bootstrap);
    let kind = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let typed = listeners.replacen("    - name: main\n", &format!("    - \"@type\": {kind}\n      name: main\n"), 1);
    let watch = json!({ "lds_config": { "path_config_source": { "path": path } } });
    let node = json!({ "id": "test", "cluster": "test" });
    let bootstrap = format!("node: {node}\ndynamic_resources: {watch}\n{before}  clusters:\n{clusters}");
    (bootstrap, format!("resources:\n{typed}\n"))
}

/// As the file says for a service without `--client-ca`.
fn without_client(socket: &str) -> String {
    let (before, rest) = socket.split_once("      tls_certificates:\n").expect("it has a client's certificate");
    let (_, after) = rest.split_once("      validation_context:\n").expect("then what it expects of the service");
    format!("{before}      validation_context:\n{after}")
}

fn without_filter(template: &str) -> String {
    let (before, _, router) = split(template);
    format!("{before}{router}")
}
