//! The whole stack: Redis, the service, an upstream and Envoy with the filter, and tokens that the filter accepts.
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use mint::{Alg, SigningKey, random_id};
use serde_json::{Value, json};

use crate::service::REDIS_PATIENCE;
use crate::{
    Connection, Directory, Envoy, EnvoyOptions, FilterHost, Redis, Request, Response, Service, ServiceOptions,
    ServiceTls, Tls, Upstream, exchange, wait_until,
};

pub const ISSUER: &str = "https://issuer.example";
/// A second issuer, for tests that end all that an issuer issued.
pub const OTHER_ISSUER: &str = "https://other.example";
/// How long an answer of the service counts in a mesh of [`MeshOptions::timed`]: the shortest that the filter takes.
pub const FRESHNESS: Duration = Duration::from_secs(1);
/// How long a request of such a mesh may wait for the service.
pub const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// Freshness and timeout of any other mesh: a busy machine may take hundreds of milliseconds for a check, and that is not
/// what its test is about.
const PATIENCE: Duration = Duration::from_secs(3);
/// The environment variable with the secret that filter and service share.
const SECRET: &str = "PORTCULLIS_SECRET";
/// Far more than a revocation may take.
const EVERYWHERE: Duration = Duration::from_secs(10);
/// A connection is counted by a worker a moment after it is made.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(5);

/// Fields drop in this order: the directory after the processes that write into it.
pub struct Mesh {
    pub envoy: Envoy,
    pub service: Option<Service>,
    pub redis: Option<Redis>,
    pub upstream: Upstream,
    pub keys: Keys,
    pub directory: Directory,
}

/// The keys of the issuers: both have all of them.
pub struct Keys {
    pub first: SigningKey,
    pub second: SigningKey,
    /// HS256: tokens of it cost little on both sides.
    pub shared: SigningKey,
}

pub struct MeshOptions {
    pub keys: Keys,
    /// The filter's configuration, to be changed as a test needs it.
    pub filter: Value,
    /// The service's, for one on a Redis that the test runs itself.
    pub service: Option<ServiceOptions>,
    /// As [`ServiceOptions::redis_timeout`], for a service that the mesh runs.
    pub redis_timeout: Option<Duration>,
    /// The service that filters ask, in place of a real one on a real Redis.
    pub check_address: Option<SocketAddr>,
    /// The cluster `idp`: it publishes keys, or introspects tokens.
    pub idp: Option<SocketAddr>,
    /// More variables that the filter may read.
    pub environment: Vec<(String, String)>,
    /// The upstream, in place of one that echoes.
    pub upstream: Option<Upstream>,
    pub tls: Option<Tls>,
    /// How the service is reached, if it speaks TLS.
    pub service_tls: Option<ServiceTls>,
    pub concurrency: u32,
    /// As [`EnvoyOptions::drain`].
    pub drain: Duration,
    pub listener_from_file: bool,
    /// In which form the filter runs.
    pub host: FilterHost,
    pub edit: fn(String) -> String,
}

impl Default for MeshOptions {
    fn default() -> Self {
        let keys = Keys::generate();
        let filter = filter(&keys, PATIENCE, PATIENCE);
        Self {
            keys,
            filter,
            service: None,
            redis_timeout: Some(REDIS_PATIENCE),
            check_address: None,
            idp: None,
            environment: Vec::new(),
            upstream: None,
            tls: None,
            service_tls: None,
            concurrency: 2,
            drain: crate::envoy::DRAIN,
            listener_from_file: false,
            host: FilterHost::chosen(),
            edit: |bootstrap| bootstrap,
        }
    }
}

impl MeshOptions {
    /// For tests about time: [`FRESHNESS`], [`CHECK_TIMEOUT`], and the service's own limit for Redis.
    pub fn timed() -> Self {
        let keys = Keys::generate();
        let filter = filter(&keys, FRESHNESS, CHECK_TIMEOUT);
        Self { keys, filter, redis_timeout: None, ..Self::default() }
    }

    /// The secret that [`MeshOptions::filter`] shares with the service, for one that a test plays itself.
    pub fn secret() -> String {
        ServiceOptions::new(String::new()).secret
    }
}

impl Mesh {
    /// `name` is the test's.
    pub async fn start(name: &str) -> Self {
        Self::start_with(name, MeshOptions::default()).await
    }

    /// With [`MeshOptions::timed`].
    pub async fn start_timed(name: &str) -> Self {
        Self::start_with(name, MeshOptions::timed()).await
    }

    pub async fn start_with(name: &str, options: MeshOptions) -> Self {
        match Self::try_start(name, options).await {
            Ok(mesh) => mesh,
            Err(log) => panic!("envoy does not start:\n{log}"),
        }
    }

    /// # Errors
    /// Envoy's log, when it refuses the configuration.
    pub async fn try_start(name: &str, options: MeshOptions) -> Result<Self, String> {
        Self::try_start_in(Directory::new(name), options).await
    }

    /// In a directory where a test has begun to write.
    ///
    /// # Errors
    /// As for [`Mesh::try_start`].
    pub async fn try_start_in(directory: Directory, options: MeshOptions) -> Result<Self, String> {
        let upstream = match options.upstream {
            Some(upstream) => upstream,
            None => Upstream::start().await,
        };
        let (redis, service) = match (options.check_address, options.service) {
            (Some(_), _) => (None, None),
            (None, Some(service)) => (None, Some(Service::start(&directory, service).await)),
            (None, None) => {
                let redis = Redis::start(&directory).await;
                let service =
                    ServiceOptions { redis_timeout: options.redis_timeout, ..ServiceOptions::new(redis.url()) };
                let service = Service::start(&directory, service).await;
                (Some(redis), Some(service))
            }
        };
        let checked_at = options.check_address.or(service.as_ref().map(Service::address)).expect("a service");
        let mut envoy = EnvoyOptions::new(upstream.address(), checked_at, Some(options.filter));
        envoy.environment = vec![
            (SECRET.to_owned(), MeshOptions::secret()),
            ("KEY_SHARED".to_owned(), mint::to_base64url(options.keys.shared.secret().unwrap_or_default())),
        ];
        envoy.environment.extend(options.environment);
        envoy.idp = options.idp.unwrap_or(envoy.idp);
        envoy.tls = options.tls;
        envoy.service_tls = options.service_tls;
        envoy.concurrency = options.concurrency;
        envoy.drain = options.drain;
        envoy.listener_from_file = options.listener_from_file;
        envoy.host = options.host;
        envoy.edit = options.edit;
        let envoy = Envoy::try_start(&directory, envoy).await?;
        Ok(Self { envoy, service, redis, upstream, keys: options.keys, directory })
    }

    pub async fn send(&self, request: &Request) -> Response {
        exchange(self.envoy.address(), request).await.expect("Envoy answers")
    }

    /// `GET /api` with a token.
    pub async fn get(&self, token: &str) -> Response {
        self.send(&Request::get("/api").bearer(token)).await
    }

    /// A good token of its own session, user and client.
    pub fn token(&self) -> String {
        self.keys.first.mint(&claims())
    }

    /// Runs `portcullis revoke … --json` and returns its output.
    ///
    /// # Panics
    /// It failed.
    pub async fn revoke(&self, arguments: &[&str]) -> Value {
        self.service.as_ref().expect("a real service").revoke(arguments).await
    }

    /// New connections, at least `each` of them on every worker.
    pub async fn connections(&self, each: u64) -> Vec<Connection> {
        // A count of all that ever came: others may close theirs meanwhile.
        let accepted = async || -> Vec<u64> {
            let stats = self.envoy.stats(".downstream_cx_total").await;
            stats.into_iter().filter(|(name, _)| name.contains(".worker_")).map(|(_, value)| value).collect()
        };
        let before = accepted().await;
        let mut connections = Vec::new();
        loop {
            for _ in 0..4 {
                connections.push(Connection::open(self.envoy.address()).await.expect("Envoy listens"));
            }
            let wanted = before.iter().sum::<u64>() + u64::try_from(connections.len()).expect("few");
            let mut now = Vec::new();
            let all_are = wait_until(ACCEPT_DEADLINE, async || {
                now = accepted().await;
                now.iter().sum::<u64>() >= wanted
            });
            assert!(all_are.await && connections.len() < 1000, "the workers do not share connections: {now:?}");
            if now.iter().zip(&before).all(|(now, before)| now - before >= each) {
                return connections;
            }
        }
    }

    /// Waits until every worker answers a request with this token by this status. Workers ask the service independently, so
    /// one may see a revocation sooner than another.
    pub async fn becomes_everywhere(&self, token: &str, status: u16) -> bool {
        let request = Request::get("/api").bearer(token);
        wait_until(EVERYWHERE, async || {
            for mut connection in self.connections(1).await {
                if connection.send(&request).await.expect("Envoy answers").status != status {
                    return false;
                }
            }
            true
        })
        .await
    }

    /// Envoy's whole output, with the access log.
    pub fn envoy_log(&mut self) -> String {
        self.envoy.process().log()
    }
}

impl Keys {
    pub fn generate() -> Self {
        Self {
            first: SigningKey::generate(Alg::EdDSA, "first"),
            second: SigningKey::generate(Alg::EdDSA, "second"),
            shared: SigningKey::generate(Alg::HS256, "shared"),
        }
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// Claims that the filter accepts, each time of another token, session, user and client.
pub fn claims() -> Value {
    let now = unix_now();
    json!({
        "iss": ISSUER, "aud": "api", "iat": now, "exp": now + 600,
        "jti": random_id(), "sid": random_id(), "sub": random_id(), "client_id": random_id(),
    })
}

/// [`claims`] with these members added or replaced.
pub fn claims_with(members: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in members.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

fn filter(keys: &Keys, freshness: Duration, timeout: Duration) -> Value {
    let issuer = |name: &str, issuer: &str| {
        let jwk = |key: &SigningKey| json!({ "jwk": key.public_jwk().expect("a public key") });
        let shared =
            json!({ "kid": "shared", "alg": "HS256", "secret_env": "KEY_SHARED", "secret_encoding": "base64url" });
        json!({
            "name": name, "issuer": issuer, "audiences": ["api"], "algorithms": ["EdDSA", "HS256"],
            "keys": [jwk(&keys.first), jwk(&keys.second), shared],
        })
    };
    let rule = |name: &str, access: &str| json!({ "name": name, "match": { "path": { "prefix": format!("/{name}") } }, "access": access });
    let mut browser = rule("browser", "required");
    browser["cookie_origins"] = json!(["https://app.example"]);
    let mut bound = rule("bound", "required");
    bound["binding"] = json!({ "certificate": { "mode": "enforce" } });
    let mut unchecked = rule("unchecked", "required");
    unchecked["revocation"] = json!("off");
    json!({
        "issuers": [issuer("main", ISSUER), issuer("other", OTHER_ISSUER)],
        "tokens": {
            "headers": [{ "name": "authorization", "scheme": "Bearer" }],
            "cookies": [{ "name": "session" }],
        },
        "revocation": {
            "cluster": "session_service", "secret_env": SECRET,
            "freshness": format!("{}ms", freshness.as_millis()), "timeout": format!("{}ms", timeout.as_millis()),
        },
        "forward": { "claims": [{ "claim": "sub", "header": "x-user-id" }, { "claim": "role", "header": "x-role" }] },
        "rules": [
            rule("public", "public"), rule("optional", "optional"), browser, bound, unchecked,
            { "name": "api", "match": { "path": { "prefix": "/api" } }, "access": "required" },
        ],
    })
}
