//! `portcullis serve`: the flags of the revocation service, its logs and its signals.
use std::env::VarError;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use service::{AdminToken, ListenerTls, Options, Service, StoreId};
use tokio::signal::unix::{SignalKind, signal};
use wire::{Secret, parse_duration};

use crate::redis_url::{AlsoRedis, Redis};
use crate::serve_sessions::{AdminArgs, SessionArgs};
use crate::{Outcome, log_filter, providers, secret_files};

/// For calls that cannot be cancelled, once everything else has stopped.
const STOP: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct Serve {
    /// The listener for filters. Port 0 lets the kernel choose.
    #[arg(long, env = "PORTCULLIS_LISTEN", default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// The certificate of --listen and its chain (PEM). It turns on TLS, and turns off plain HTTP. Read again when it
    /// changes.
    #[arg(long, env = "PORTCULLIS_TLS_CERT", value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "PORTCULLIS_TLS_KEY", value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Require client certificates signed by this CA (PEM) on --listen, also from probes and OAuth clients. Read again
    /// when it changes.
    #[arg(long, env = "PORTCULLIS_CLIENT_CA", value_name = "PATH", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// The listener for operators. Keep it away from the mesh.
    #[arg(long, env = "PORTCULLIS_ADMIN_LISTEN", default_value = "127.0.0.1:7701")]
    admin_listen: SocketAddr,
    /// Write both addresses to this file once they are bound, as {"listen": "…", "admin": "…"}.
    #[arg(long, env = "PORTCULLIS_PORTS_FILE", value_name = "PATH")]
    ports_file: Option<PathBuf>,
    #[command(flatten)]
    redis: Redis,
    /// The mirror, while the store moves (docs/migration.md): every write also goes to this store, which must confirm
    /// it. Checks are never answered from it.
    #[command(flatten)]
    redis_also: AlsoRedis,
    /// The only mirror store to accept. Default: the first one found.
    #[arg(long, env = "PORTCULLIS_REDIS_ALSO_STORE_ID", value_name = "ID", requires = "redis-also")]
    redis_also_store_id: Option<StoreId>,
    /// Like --min-replicas, for the mirror. Default: the same number.
    #[arg(long, env = "PORTCULLIS_REDIS_ALSO_MIN_REPLICAS", value_name = "N", requires = "redis-also")]
    redis_also_min_replicas: Option<u32>,
    /// The longest time for one connection attempt or one round trip.
    #[arg(long, env = "PORTCULLIS_REDIS_TIMEOUT", value_name = "TIME", default_value = "200ms", value_parser = parse_duration)]
    redis_timeout: Duration,
    /// The additional time that a write may take to be on disk and on replicas.
    #[arg(long, env = "PORTCULLIS_CONFIRM_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    confirm_timeout: Duration,
    /// A file with a secret that filters share, at least 32 bytes. Repeat it during a rotation; the first is the
    /// primary one.
    #[arg(
        long = "secret-file",
        env = "PORTCULLIS_SECRET_FILES",
        value_name = "PATH",
        value_delimiter = ',',
        required = true
    )]
    secret_files: Vec<PathBuf>,
    /// A file with the admin token, at least 32 bytes.
    #[arg(long, env = "PORTCULLIS_ADMIN_TOKEN_FILE", value_name = "PATH")]
    admin_token_file: PathBuf,
    /// Create the store if Redis holds none. For demos only: if Redis loses its data and the service restarts with this
    /// option, revoked tokens pass. Otherwise create the store once with `portcullis store create`; then an empty Redis
    /// counts as a lost store, and nothing is answered from it.
    #[arg(long, env = "PORTCULLIS_CREATE_STORE", conflicts_with = "store_id")]
    create_store: bool,
    /// The only store to answer from. Default: the first one found.
    #[arg(long, env = "PORTCULLIS_STORE_ID", value_name = "ID")]
    store_id: Option<StoreId>,
    /// Answer from a Redis that may evict revocations.
    #[arg(long, env = "PORTCULLIS_DANGEROUSLY_ALLOW_EVICTION")]
    dangerously_allow_eviction: bool,
    /// Answer from a replica, which may lag.
    #[arg(long, env = "PORTCULLIS_DANGEROUSLY_ALLOW_REPLICA")]
    dangerously_allow_replica: bool,
    /// How many replicas must have a revocation before it is acknowledged. With 0, a failover may lose acknowledged
    /// revocations. `on_disk` and `replicas` in a reply say what was confirmed.
    #[arg(long, env = "PORTCULLIS_MIN_REPLICAS", value_name = "N", default_value_t = 0)]
    min_replicas: u32,
    /// Acknowledge only writes that Redis confirms to be on its disk: WAITAOF, or `appendfsync always` before Redis
    /// 7.2.
    #[arg(long, env = "PORTCULLIS_REQUIRE_DISK")]
    require_disk: bool,
    /// The longest lifetime of a token that any filter accepts. Revocations of single tokens are kept this long.
    #[arg(long, env = "PORTCULLIS_MAX_LIFETIME", value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    max_lifetime: Duration,
    /// An issuer whose revocations are accepted although no filter has reported it. Repeatable. Filters report their
    /// issuers, and revocations for others are refused, since they are probably misspelt. `{tenant}` stands for one
    /// segment of the path, as in the filter's configuration.
    #[arg(long = "issuer", env = "PORTCULLIS_ISSUERS", value_name = "URL", value_delimiter = ',')]
    issuers: Vec<String>,
    /// The claims that identify an issuer's tokens, if the filters' `revocation_claims.token` for it is not the
    /// default, for example https://idp.example=token_id,jti. Repeat it for each issuer. Otherwise `revoke token` has
    /// no effect for that issuer.
    #[arg(long = "token-claims", env = "PORTCULLIS_TOKEN_CLAIMS", value_name = "URL=CLAIM,…", value_delimiter = ' ', value_parser = token_claims)]
    token_claims: Vec<(String, Vec<String>)>,
    /// A file, JSON or YAML, with the providers that may end sessions: by logout tokens at /oauth2/backchannel-logout
    /// and by security events at /ssf/events, both on --listen. docs/logout.md has its fields. Without it no provider
    /// may.
    #[arg(long, env = "PORTCULLIS_PROVIDERS_FILE", value_name = "PATH")]
    providers_file: Option<PathBuf>,
    /// The longest time from a login to the last use of one of its tokens that any filter accepts (its `max_session`).
    /// Revocations of sessions, users, clients and issuers are kept this long. Revoked signing keys are kept forever.
    /// Every name in Redis has an expiry, except the store's sentinels and revoked signing keys.
    #[arg(long, visible_alias = "session-retention", env = "PORTCULLIS_MAX_SESSION", value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    max_session: Duration,
    /// How far an issuer's clock may run ahead: at least the `future_iat_tolerance` of any filter.
    #[arg(long, env = "PORTCULLIS_FUTURE_IAT_TOLERANCE", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    future_iat_tolerance: Duration,
    /// Requests in progress per listener, including reading their bodies; further ones are refused at once.
    #[arg(long, env = "PORTCULLIS_MAX_REQUESTS", value_name = "N", default_value_t = 1024)]
    max_requests: usize,
    /// Open connections per listener. One more closes the oldest unauthenticated connection, and waits if there is
    /// none. Keep it below the limit of open files.
    #[arg(long, env = "PORTCULLIS_MAX_CONNECTIONS", value_name = "N", default_value_t = 4096)]
    max_connections: usize,
    /// Unauthenticated connections per address (per /64 in IPv6), which are those that have carried no request made
    /// with our secret yet. One more closes the oldest of them, and each is closed after 10 s. Connections that proxies
    /// use do not count, so the default is enough for a whole mesh behind one NAT address.
    #[arg(long, env = "PORTCULLIS_MAX_NEWCOMERS_PER_PEER", value_name = "N", default_value_t = 256)]
    max_newcomers_per_peer: usize,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    sessions: SessionArgs,
}

impl Serve {
    pub fn run(self) -> Result<Outcome> {
        let wanted = match std::env::var("PORTCULLIS_LOG") {
            Ok(wanted) => Some(wanted),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => bail!("PORTCULLIS_LOG is not UTF-8"),
        };
        let filter = log_filter::parse(wanted.as_deref())?;
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
        secret_files::check_roles(&self.secret_files, &self.admin_token_file)?;
        let providers = self.providers_file.as_deref().map(providers::read).transpose()?.unwrap_or_default();
        let clients: Vec<&Path> =
            providers.providers.iter().filter_map(|provider| provider.secret_file.as_deref()).collect();
        let ours: Vec<&Path> = self.secret_files.iter().chain([&self.admin_token_file]).map(PathBuf::as_path).collect();
        secret_files::check_client_secrets(&clients, &ours)?;
        let files = self.secret_files.iter().chain([&self.admin_token_file]).chain(&self.tls_key);
        let files = files.map(PathBuf::as_path).chain(clients).collect::<Vec<_>>();
        for file in secret_files::readable_by_others(files) {
            tracing::warn!(file = %file.display(), "every user of this machine can read this secret: chmod o-r");
        }
        let options = self.options()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let service = Service::bind(options).await?;
            service
                .run(async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                })
                .await;
            Ok(Outcome::Done)
        });
        // A PKCS#11 module that hangs does not delay the exit.
        runtime.shutdown_timeout(STOP);
        outcome
    }

    fn options(self) -> Result<Options> {
        let secrets = self
            .secret_files
            .iter()
            .map(|path| Secret::new(&read(path)?).with_context(|| format!("the secret file {}", path.display())));
        let admin_token = String::from_utf8(read(&self.admin_token_file)?).unwrap_or_default();
        let admin_token = AdminToken::new(&admin_token)
            .with_context(|| format!("the admin token file {}", self.admin_token_file.display()))?;
        let tls = self.tls_cert.zip(self.tls_key);
        Ok(Options {
            listen: self.listen,
            tls: tls.map(|(certificate, key)| ListenerTls { certificate, key, client_ca: self.client_ca }),
            admin_listen: self.admin_listen,
            ports_file: self.ports_file,
            redis: self.redis.into(),
            redis_also: self.redis_also.options(),
            also_store_id: self.redis_also_store_id,
            also_min_replicas: self.redis_also_min_replicas,
            redis_timeout: self.redis_timeout,
            confirm_timeout: self.confirm_timeout,
            secrets: secrets.collect::<Result<_>>()?,
            admin_token,
            admin_tls: self.admin.tls(),
            admin_rate: self.admin.admin_rate,
            audit_retention: self.admin.audit_retention,
            sessions: self.sessions.options()?,
            create_store: self.create_store,
            store_id: self.store_id,
            dangerously_allow_eviction: self.dangerously_allow_eviction,
            dangerously_allow_replica: self.dangerously_allow_replica,
            min_replicas: self.min_replicas,
            require_disk: self.require_disk,
            max_lifetime: self.max_lifetime,
            issuers: self.issuers,
            token_claims: self.token_claims,
            providers: self.providers_file.as_deref().map(providers::read).transpose()?.unwrap_or_default(),
            max_session: self.max_session,
            future_iat_tolerance: self.future_iat_tolerance,
            max_requests: self.max_requests,
            max_connections: self.max_connections,
            max_newcomers: self.max_newcomers_per_peer,
        })
    }
}

/// An issuer may have `=` in its query; the name of a claim may not.
fn token_claims(text: &str) -> Result<(String, Vec<String>), String> {
    let (issuer, names) = text.rsplit_once('=').ok_or("write it as URL=CLAIM,CLAIM")?;
    Ok((issuer.to_owned(), names.split(',').map(str::to_owned).collect()))
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
