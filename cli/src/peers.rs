//! The servers that the filter asks through Envoy's clusters: where they are, and requests to them.
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use authn::config::Document;
use clap::Args;
use driver::fake::{FakeReply, InFlight};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::outcome::{url, wrong_usage};

#[derive(Args)]
pub struct PeerArgs {
    /// The server behind a cluster of the configuration, for example session_service=http://127.0.0.1:7700. Repeatable.
    /// Clusters of key sets need none: their URL is in the configuration.
    #[arg(long = "cluster", value_name = "NAME=URL")]
    clusters: Vec<String>,
    /// The admin interface of an Envoy. It knows the addresses of its clusters.
    #[arg(long, value_name = "URL", value_parser = url)]
    envoy: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Args, Default)]
pub struct TlsArgs {
    /// Trust the CAs in this PEM file instead of those that browsers trust.
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// A client certificate (PEM), for servers that require one.
    #[arg(long, value_name = "PATH", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, value_name = "PATH", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

/// The longest body that is read, larger than any that the filter reads.
const MAX_BODY: u64 = 4 << 20;

#[derive(Clone)]
pub struct Peers {
    urls: BTreeMap<String, String>,
    tls: TlsConfig,
    /// Envoy's admin interface.
    pub envoy: Option<String>,
}

impl PeerArgs {
    /// # Errors
    /// A file cannot be read, or Envoy does not answer.
    pub fn peers(&self) -> Result<Peers> {
        let envoy = self.envoy.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        let mut peers = Peers { envoy, ..self.tls.peers()? };
        if let Some(envoy) = peers.envoy.clone() {
            peers.urls = peers.of_envoy(&envoy)?;
        }
        for pair in &self.clusters {
            match pair.split_once('=') {
                // It would be shown in errors.
                Some((_, url)) if url.contains('@') => wrong_usage("--cluster takes no user or password"),
                Some((name, url)) if url.contains("://") => {
                    peers.urls.insert(name.to_owned(), url.trim_end_matches('/').to_owned());
                }
                _ => wrong_usage("--cluster takes NAME=URL"),
            }
        }
        Ok(peers)
    }
}

impl TlsArgs {
    /// Of which only URLs are asked.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn peers(&self) -> Result<Peers> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &self.ca_file {
            tls = tls.root_certs(RootCerts::from(certificates(path)?));
        }
        if let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) {
            let chain = certificates(certificate)?;
            let key = PrivateKey::from_pem(&fs::read(key).with_context(|| format!("cannot read {}", key.display()))?)
                .with_context(|| format!("no private key in {}", key.display()))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        Ok(Peers { urls: BTreeMap::new(), tls: tls.build(), envoy: None })
    }
}

impl Peers {
    pub fn url(&self, cluster: &str) -> Option<&str> {
        self.urls.get(cluster).map(String::as_str)
    }

    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.urls.values().map(String::as_str)
    }

    /// The clusters of a configuration that have no known server, of those that are asked about tokens.
    pub fn missing<'d>(&self, document: &'d Document) -> Vec<&'d str> {
        let revocation = document.revocation.iter().map(|revocation| revocation.cluster.as_str());
        let introspection = document.issuers.iter().filter_map(|issuer| issuer.introspection.as_ref());
        let named = revocation.chain(introspection.map(|server| server.cluster.as_str()));
        let mut missing: Vec<&str> = named.filter(|name| self.url(name).is_none()).collect();
        missing.dedup();
        missing
    }

    /// Sends a callout of the filter to its cluster, and returns what Envoy would give the filter. `scheme`: of the URL that
    /// is asked if the cluster is not known.
    ///
    /// # Errors
    /// There is no answer; the text says why.
    pub fn send(&self, call: &InFlight, scheme: &str) -> Result<FakeReply, String> {
        let base = match self.url(&call.cluster) {
            Some(url) => url.to_owned(),
            None => format!("{scheme}://{}", call.header(":authority")),
        };
        let url = format!("{base}{}", call.header(":path"));
        let mut request = Request::builder().method(call.header(":method")).uri(&url);
        for (name, value) in &call.headers {
            if name == ":authority" {
                request = request.header("host", value);
            } else if !name.starts_with(':') && !name.starts_with("x-envoy-") {
                request = request.header(name, value);
            }
        }
        let request = request.body(call.body.clone()).map_err(|error| format!("{url}: {error}"))?;
        let response = self.agent(call.timeout).run(request).map_err(|error| format!("{url}: {error}"))?;
        reply(response).map_err(|error| format!("{url}: {error}"))
    }

    /// A document, with its headers.
    ///
    /// # Errors
    /// There is no answer; the text says why.
    pub fn get(&self, url: &str, timeout: Duration) -> Result<FakeReply, String> {
        let response = self.agent(timeout).get(url).call().map_err(|error| format!("{url}: {error}"))?;
        reply(response).map_err(|error| format!("{url}: {error}"))
    }

    fn agent(&self, timeout: Duration) -> Agent {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // The filter does not follow redirects.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(self.tls.clone());
        Agent::new_with_config(config.build())
    }

    /// One address of each cluster that has one.
    fn of_envoy(&self, envoy: &str) -> Result<BTreeMap<String, String>> {
        let wait = Duration::from_secs(10);
        let json = |path: &str| -> Result<Value> {
            let answer = self.get(&format!("{envoy}{path}"), wait).map_err(anyhow::Error::msg)?;
            serde_json::from_slice(&answer.body).with_context(|| format!("{envoy}{path} is not JSON"))
        };
        let clusters = json("/clusters?format=json")?;
        let dump = json("/config_dump")?;
        let with_tls = tls_clusters(&dump);
        let mut urls = BTreeMap::new();
        for cluster in clusters["cluster_statuses"].as_array().into_iter().flatten() {
            let Some(name) = cluster["name"].as_str() else { continue };
            let socket = &cluster["host_statuses"][0]["address"]["socket_address"];
            let (Some(host), Some(port)) = (socket["address"].as_str(), socket["port_value"].as_u64()) else {
                continue;
            };
            let scheme = if with_tls.contains(&name.to_owned()) { "https" } else { "http" };
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            urls.insert(name.to_owned(), format!("{scheme}://{host}:{port}"));
        }
        if urls.is_empty() {
            bail!("{envoy}/clusters has no cluster with an address: is it Envoy's admin interface?");
        }
        Ok(urls)
    }
}

/// The clusters of a configuration dump that speak TLS.
fn tls_clusters(dump: &Value) -> Vec<String> {
    let sections = dump["configs"].as_array().into_iter().flatten();
    let lists = sections.flat_map(|section| ["static_clusters", "dynamic_active_clusters"].map(|name| &section[name]));
    let clusters = lists.filter_map(Value::as_array).flatten().map(|entry| &entry["cluster"]);
    let with_tls = clusters.filter(|cluster| !cluster["transport_socket"].is_null());
    with_tls.filter_map(|cluster| cluster["name"].as_str().map(str::to_owned)).collect()
}

fn reply(response: Response<ureq::Body>) -> Result<FakeReply, String> {
    let (parts, body) = response.into_parts();
    let mut headers = vec![(":status".to_owned(), parts.status.as_u16().to_string())];
    for (name, value) in &parts.headers {
        headers.push((name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    }
    let mut bytes = Vec::new();
    body.into_reader().take(MAX_BODY).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(FakeReply { headers, body: bytes })
}

/// # Errors
/// There is none in the file.
pub fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.with_context(|| format!("no PEM in {}", path.display()))? {
            found.push(certificate);
        }
    }
    anyhow::ensure!(!found.is_empty(), "no certificate in {}", path.display());
    Ok(found)
}
