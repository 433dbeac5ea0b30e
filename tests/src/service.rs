//! The revocation service: `portcullis serve`, the binary that ships.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::issuers::{ISSUER, OTHER_ISSUER};
use crate::{Directory, Process, START_DEADLINE, project, wait_until};

/// Less than a mesh waits for a check, so that the service still says that Redis is slow.
pub(crate) const REDIS_PATIENCE: Duration = Duration::from_secs(2);

pub struct ServiceOptions {
    /// Or `file:PATH`: a store in a file. Or `dynamodb:TABLE`.
    pub redis_url: String,
    /// Shared with the filter.
    pub secret: String,
    /// The admin interface's bearer secret.
    pub admin_token: String,
    /// Known before a filter has told of them.
    pub issuers: Vec<String>,
    /// How long Redis may take. None: the service's default, which a busy machine can exceed.
    pub redis_timeout: Option<Duration>,
    /// More of the command line.
    pub arguments: Vec<String>,
    /// More variables.
    pub environment: Vec<(String, String)>,
}

pub struct Service {
    process: Process,
    options: ServiceOptions,
    directory: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
}

impl ServiceOptions {
    pub fn new(redis_url: String) -> Self {
        Self {
            redis_url,
            secret: "a-shared-secret-of-the-tests-long-enough".to_owned(),
            admin_token: "an-admin-secret-of-the-tests-long-enough".to_owned(),
            issuers: vec![ISSUER.to_owned(), OTHER_ISSUER.to_owned()],
            redis_timeout: Some(REDIS_PATIENCE),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

impl ServiceOptions {
    /// With its store in a file of this directory, and no Redis.
    pub fn in_file(directory: &Directory) -> Self {
        let file = format!("file:{}", directory.path().join("store").display());
        Self { redis_timeout: None, ..Self::new(file) }
    }
}

impl Service {
    /// Starts it with `--create-store` and waits until it listens.
    ///
    /// # Panics
    /// It does not start: with its log.
    pub async fn start(directory: &Directory, options: ServiceOptions) -> Self {
        let started = Self::try_start(directory, options).await;
        started.unwrap_or_else(|log| panic!("portcullis serve does not start:\n{log}"))
    }

    /// # Errors
    /// The end of its log, when it does not start.
    pub async fn try_start(directory: &Directory, options: ServiceOptions) -> Result<Self, String> {
        directory.write("shared-secret", &options.secret);
        directory.write("admin-token", &options.admin_token);
        let any = "127.0.0.1:0".parse().expect("an address");
        let arguments = ["--create-store".to_owned()];
        let directory = directory.path();
        let (process, address, admin) = spawn(directory, &options, any, any, &arguments).await?;
        Ok(Self { process, options, directory: directory.to_path_buf(), address, admin })
    }

    /// The data listener, which filters use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The file that holds the admin interface's secret, for `portcullis revoke --token-file`.
    pub fn admin_token_file(&self) -> PathBuf {
        self.directory.join("admin-token")
    }

    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again on the same ports, without `--create-store`.
    pub async fn restart(&mut self) {
        self.process.stop();
        let started = spawn(&self.directory, &self.options, self.address, self.admin, &[]).await;
        let (process, ..) = started.unwrap_or_else(|log| panic!("portcullis serve does not start again:\n{log}"));
        self.process = process;
    }

    /// [`Service::restart`] with other options.
    pub async fn restart_with(&mut self, change: impl FnOnce(&mut ServiceOptions)) {
        change(&mut self.options);
        self.restart().await;
    }

    /// The tool, beside this binary: of the same build.
    pub fn binary() -> PathBuf {
        if let Some(path) = std::env::var_os("PORTCULLIS") {
            return path.into();
        }
        let built = crate::built().join("portcullis");
        if built.exists() { built } else { project().join("target/debug/portcullis") }
    }

    /// Runs `portcullis revoke … --json` and returns its output.
    ///
    /// # Panics
    /// It failed.
    pub async fn revoke(&self, arguments: &[&str]) -> Value {
        let (output, errors, code) = self.try_revoke(arguments).await;
        assert_eq!(code, 0, "{errors}{output}");
        output
    }

    /// Runs `portcullis revoke … --json`: its output, its errors, its exit code.
    pub async fn try_revoke(&self, arguments: &[&str]) -> (Value, String, i32) {
        let url = format!("http://{}", self.admin_address());
        let file = self.admin_token_file().display().to_string();
        let mut all: Vec<String> =
            ["revoke", "--service", &url, "--token-file", &file, "--json"].map(str::to_owned).into();
        all.extend(arguments.iter().map(ToString::to_string));
        let ran =
            tokio::task::spawn_blocking(move || Self::portcullis(&all.iter().map(String::as_str).collect::<Vec<_>>()));
        let (output, errors, code) = ran.await.expect("the tool runs");
        (serde_json::from_str(&output).unwrap_or(Value::String(output)), errors, code)
    }

    /// Runs the tool with these arguments: its output, its errors, its exit code.
    pub fn portcullis(arguments: &[&str]) -> (String, String, i32) {
        let output = Command::new(Self::binary()).args(arguments).output().expect("the tool runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
    }
}

async fn spawn(
    directory: &Path,
    options: &ServiceOptions,
    address: SocketAddr,
    admin: SocketAddr,
    arguments: &[String],
) -> Result<(Process, SocketAddr, SocketAddr), String> {
    let ports_file = directory.join("service.ports");
    let _ = std::fs::remove_file(&ports_file);
    let mut command = Command::new(Service::binary());
    let is_store = ["file:", "dynamodb:"].iter().any(|start| options.redis_url.starts_with(start));
    command
        .args(["serve", "--listen", &address.to_string(), "--admin-listen", &admin.to_string()])
        .arg("--ports-file")
        .arg(&ports_file)
        .args([if is_store { "--store" } else { "--redis" }, &options.redis_url])
        .arg("--secret-file")
        .arg(directory.join("shared-secret"))
        .arg("--admin-token-file")
        .arg(directory.join("admin-token"))
        .args(arguments)
        .args(options.redis_timeout.map(|timeout| format!("--redis-timeout={}ms", timeout.as_millis())))
        .args(options.issuers.iter().flat_map(|issuer| ["--issuer", issuer]))
        .args(&options.arguments)
        .envs(options.environment.iter().map(|(name, value)| (name, value)));
    let mut process = Process::start("service", command, directory);

    let mut found = None;
    wait_until(START_DEADLINE, async || {
        found = ports(&ports_file);
        found.is_some() || !process.is_running()
    })
    .await;
    let (address, admin) = found.ok_or_else(|| process.log_tail())?;
    Ok((process, address, admin))
}

/// `{"listen": "127.0.0.1:1", "admin": "127.0.0.1:2"}`, written once both are bound.
fn ports(path: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let ports: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    Some((ports["listen"].as_str()?.parse().ok()?, ports["admin"].as_str()?.parse().ok()?))
}
