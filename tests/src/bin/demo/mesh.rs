//! Redis, the service, an upstream that echoes and Envoy with envoy/filter.yaml; and the issuers: `mint`, and a partner
//! that publishes keys.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{
    Directory, Envoy, EnvoyOptions, Redis, Request, START_DEADLINE, Service, ServiceOptions, Upstream, exchange,
    project, wait_until,
};
use serde_json::{Value, json};

use crate::partner::Partner;
use crate::reply::{Ask, Reply};

pub const WORKERS: u32 = 2;

pub struct Mesh {
    pub envoy: Envoy,
    pub service: Service,
    pub redis: Redis,
    pub upstream: Upstream,
    pub issuer: Issuer,
    pub partner: Partner,
    /// The headers that only the filter may set.
    pub identity_headers: Vec<String>,
    /// How long an answer of the service counts.
    pub freshness: Duration,
    // Last, so that it is removed after the processes that write into it.
    directory: Directory,
}

/// The signer: the first issuer of envoy/filter.yaml, with its own keys.
pub struct Issuer {
    pub name: String,
    audience: String,
    keys: PathBuf,
}

/// The contents and signer of a token.
pub struct Login<'a> {
    /// An algorithm and the key's id, as in envoy/filter.yaml.
    pub key: (&'a str, &'a str),
    pub user: &'a str,
    pub session: &'a str,
    /// A JSON object of claims, which override all others.
    pub claims: Value,
    /// As `portcullis mint token --lifetime` takes it.
    pub lifetime: &'a str,
    /// A file with a key that is not the issuer's, but uses its key id.
    pub forged_with: Option<&'a Path>,
}

pub const RSA: (&str, &str) = ("RS256", "rsa-1");
pub const EC: (&str, &str) = ("ES256", "ec-1");

impl Mesh {
    /// Waits until all of it serves.
    ///
    /// # Panics
    /// A part does not start: with its log.
    pub async fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let mut filter = filter_configuration();
        let issuer = Issuer::make(&mut filter, directory.path());
        let partner = Partner::start(&filter["issuers"][1]).await;

        let redis = Redis::start(&directory).await;
        let mut options = ServiceOptions::new(redis.url());
        options.secret = random_secret();
        options.admin_token = random_secret();
        let secret = options.secret.clone();
        let service = Service::start(&directory, options).await;
        let upstream = Upstream::start().await;
        let mut options = EnvoyOptions::new(upstream.address(), service.address(), Some(filter.clone()));
        options.environment.push((text(&filter, "/revocation/secret_env"), secret));
        options.concurrency = WORKERS;
        options.idp = partner.address();
        let envoy = Envoy::start(&directory, options).await;

        let forwarded = filter["forward"]["claims"].as_array().into_iter().flatten();
        let mesh = Self {
            identity_headers: forwarded.map(|claim| text(claim, "/header")).collect(),
            freshness: seconds(&text(&filter, "/revocation/freshness")),
            envoy,
            service,
            redis,
            upstream,
            issuer,
            partner,
            directory,
        };
        let ready = wait_until(START_DEADLINE, async || {
            let service = exchange(mesh.service.admin_address(), &Request::get("/readyz")).await;
            service.is_ok_and(|response| response.status == 200) && mesh.send(&Ask::get("/healthz")).await.status == 200
        });
        assert!(ready.await, "the mesh is not ready");
        mesh
    }

    pub async fn send(&self, ask: &Ask) -> Reply {
        match exchange(self.envoy.address(), &ask.request(self.envoy.address())).await {
            Ok(response) => Reply::read(&response, &self.identity_headers),
            Err(error) => Reply::broken(&error),
        }
    }

    /// Runs `portcullis revoke …` and returns its JSON, or its error.
    pub fn revoke(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(Service::binary());
        for (name, value) in self.admin_environment() {
            command.env(name, value);
        }
        let output = command.args(arguments).arg("--json").output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// The environment variables for `portcullis revoke` that replace its options `--service` and `--token-file`.
    pub fn admin_environment(&self) -> [(&'static str, String); 2] {
        [
            ("PORTCULLIS_ADMIN", format!("http://{}", self.service.admin_address())),
            ("PORTCULLIS_ADMIN_TOKEN_FILE", short(&self.service.admin_token_file())),
        ]
    }

    pub fn keep_logs(&mut self) {
        self.directory.keep();
    }
}

impl Issuer {
    /// Makes a key for each one in the configuration and puts its public half there.
    fn make(filter: &mut Value, keys: &Path) -> Self {
        for key in filter["issuers"][0]["keys"].as_array_mut().into_iter().flatten() {
            let (alg, kid) = (text(key, "/jwk/alg"), text(key, "/jwk/kid"));
            let public = make_key(&alg, &file_of(keys, &kid));
            key["jwk"] = serde_json::from_str(&public).unwrap_or_else(|error| panic!("mint key: {error}"));
        }
        Self {
            name: text(filter, "/issuers/0/issuer"),
            audience: text(filter, "/issuers/0/audiences/0"),
            keys: keys.to_path_buf(),
        }
    }

    pub fn sign(&self, login: &Login<'_>) -> String {
        run(&self.mint(login)).trim().to_owned()
    }

    /// The arguments of `portcullis` that make such a token.
    pub fn mint(&self, login: &Login<'_>) -> Vec<String> {
        let (alg, kid) = login.key;
        let key = login.forged_with.map_or_else(|| file_of(&self.keys, kid), Path::to_path_buf);
        let (key, claims) = (short(&key), login.claims.to_string());
        [
            ["mint", "token"],
            ["--key", &key],
            ["--alg", alg],
            ["--kid", kid],
            ["--iss", &self.name],
            ["--aud", &self.audience],
            ["--sub", login.user],
            ["--sid", login.session],
            ["--claims", &claims],
            ["--lifetime", login.lifetime],
        ]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect()
    }

    /// A key that the filter does not know; returns its file.
    pub fn foreign_key(&self, alg: &str) -> PathBuf {
        let file = file_of(&self.keys, "somebody-else");
        make_key(alg, &file);
        file
    }
}

impl<'a> Login<'a> {
    /// With the scope that every rule of envoy/filter.yaml requires.
    pub fn new(key: (&'a str, &'a str), user: &'a str, session: &'a str) -> Self {
        let claims = json!({ "scope": "orders" });
        Self { key, user, session, claims, lifetime: "10m", forged_with: None }
    }
}

/// Relative to the user's directory, so that it is short and can be pasted.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

fn filter_configuration() -> Value {
    let path = project().join("envoy/filter.yaml");
    let read = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_norway::from_str(&read).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("envoy/filter.yaml has no text at {pointer}")).to_owned()
}

fn seconds(text: &str) -> Duration {
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    Duration::from_secs(number.unwrap_or_else(|| panic!("envoy/filter.yaml: `{text}` is not in whole seconds")))
}

fn file_of(keys: &Path, kid: &str) -> PathBuf {
    keys.join(format!("{kid}.pem"))
}

fn make_key(alg: &str, file: &Path) -> String {
    let arguments = ["mint", "key", "--alg", alg, "--out", &file.display().to_string()];
    run(&arguments.map(str::to_owned))
}

fn run(arguments: &[String]) -> String {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (output, errors, code) = Service::portcullis(&arguments);
    assert_eq!(code, 0, "portcullis {}: {errors}", arguments.join(" "));
    output
}

/// At least 32 bytes are required, on both sides.
fn random_secret() -> String {
    format!("{}{}", mint::random_id(), mint::random_id())
}
