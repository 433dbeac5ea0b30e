//! The options of `portcullis serve`. Each is stated once, here or in a part that is flattened in: its flag, environment
//! variable, default, bounds and help. `make docs` writes docs/cli.md from it.
#![allow(rustdoc::bare_urls, reason = "the doc comment of an option is its help text")]

mod admin;
mod changes;
mod event_receivers;
mod file_store;
mod join;
mod named_store;
mod providers_file;
mod redis;
mod secret_files;
mod sessions;
mod sightings;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use store::StoreId;
use store_redis::{Allow, RedisOptions};
use wire::{Retention, Secret};

use crate::app::tls::ListenerTls;
use crate::base::limits::{DEFAULT_UNAUTHENTICATED_PER_PEER, MAX_SKEW};
use crate::domain::clients::{self, ClientsError};
use crate::domain::provider_events::{Provider, Providers, ProvidersError};
use crate::domain::regions::{EXTRA_TTL, Peer, PeerError};
use crate::domain::revocations::Policy;
use crate::domain::transmitter::{EventType, Receivers};
use crate::domain::{feed, hijack};
use crate::http::admin::{AdminToken, AdminTokenError};
use crate::signing::{KeySource, UriError};
pub use admin::AdminOptions;
pub use changes::RELOADED_OPTIONS;
pub use event_receivers::{EventReceiverOptions, EventReceiversFileError};
pub use file_store::{FileStore, only_redis_to_create};
pub use join::JoinOptions;
pub use named_store::NamedStore;
pub use providers_file::ProvidersFileError;
pub use redis::{FromRedis, InspectedRedis, MirrorRedis, Redis, ToRedis};
pub use secret_files::SecretFileError;
pub use sessions::SessionOptions;
pub use sightings::{SightingOptions, SightingsFileError};

#[derive(Clone, Args)]
pub struct Options {
    /// The listener for filters. Port 0 lets the kernel choose.
    #[arg(long, env = "PORTCULLIS_LISTEN", default_value = "127.0.0.1:7700", help_heading = "Listeners")]
    pub listen: SocketAddr,
    /// The certificate of --listen and its chain (PEM). It turns on TLS, and turns off plain HTTP. Read again when it
    /// changes.
    #[arg(long, env = "PORTCULLIS_TLS_CERT", value_name = "PATH", requires = "tls_key", help_heading = "Listeners")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, env = "PORTCULLIS_TLS_KEY", value_name = "PATH", requires = "tls_cert", help_heading = "Listeners")]
    pub tls_key: Option<PathBuf>,
    /// Require client certificates signed by this CA (PEM) on --listen, also from probes and OAuth clients. Read again
    /// when it changes.
    #[arg(long, env = "PORTCULLIS_CLIENT_CA", value_name = "PATH", requires = "tls_cert", help_heading = "Listeners")]
    pub client_ca: Option<PathBuf>,
    /// The listener for operators. Keep it away from the mesh.
    #[arg(long, env = "PORTCULLIS_ADMIN_LISTEN", default_value = "127.0.0.1:7701", help_heading = "Listeners")]
    pub admin_listen: SocketAddr,
    /// Write both addresses to this file once they are bound, as {"listen": "…", "admin": "…"}.
    #[arg(long, env = "PORTCULLIS_PORTS_FILE", value_name = "PATH", help_heading = "Listeners")]
    pub ports_file: Option<PathBuf>,
    /// Keep the store in a file on a local disk, for this instance alone, in place of Redis: file:PATH. It has everything
    /// that Redis would have. A build with DynamoDB takes dynamodb:TABLE too. docs/stores.md says what each store promises.
    #[arg(long, env = "PORTCULLIS_STORE", value_name = "file:PATH", conflicts_with_all = file_store::only_redis(), help_heading = "Store")]
    pub store: Option<NamedStore>,
    /// The most contents of the file; the file may become about three times as large. Beyond it nothing is added; the last
    /// tenth is for revocations.
    #[arg(long, env = "PORTCULLIS_STORE_MAX_SIZE", value_name = "SIZE", default_value = "1GiB", requires = "store", value_parser = file_store::size, help_heading = "Store")]
    pub store_max_size: u64,
    #[command(flatten)]
    pub redis: Redis,
    #[command(flatten)]
    pub mirror: MirrorRedis,
    /// The only mirror store to accept. Default: the first one found.
    #[arg(
        long,
        env = "PORTCULLIS_MIRROR_REDIS_STORE_ID",
        value_name = "ID",
        requires = "mirror-redis",
        help_heading = "Store"
    )]
    pub mirror_redis_store_id: Option<StoreId>,
    /// Like --min-replicas, for the mirror. Default: the same number.
    #[arg(
        long,
        env = "PORTCULLIS_MIRROR_REDIS_MIN_REPLICAS",
        value_name = "N",
        requires = "mirror-redis",
        help_heading = "Store"
    )]
    pub mirror_redis_min_replicas: Option<u32>,
    /// The longest that one connection attempt or one round trip may take.
    #[arg(long, env = "PORTCULLIS_REDIS_TIMEOUT", value_name = "TIME", default_value = "200ms", value_parser = values::duration, help_heading = "Store")]
    pub redis_timeout: Duration,
    /// The additional time that a write may take to be on disk and on replicas.
    #[arg(long, env = "PORTCULLIS_CONFIRM_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = values::duration, help_heading = "Store")]
    pub confirm_timeout: Duration,
    /// A file with a secret that filters share, at least 32 bytes. Repeat it during a rotation; the first is the
    /// primary one.
    #[arg(
        long = "secret-file",
        env = "PORTCULLIS_SECRET_FILES",
        value_name = "PATH",
        value_delimiter = ',',
        required = true,
        help_heading = "Secrets"
    )]
    pub secret_files: Vec<PathBuf>,
    /// A file with the admin token, at least 32 bytes.
    #[arg(long, env = "PORTCULLIS_ADMIN_TOKEN_FILE", value_name = "PATH", help_heading = "Secrets")]
    pub admin_token_file: PathBuf,
    /// Start although every user of this machine can read a file with a secret, and only log it. Without this it is an
    /// error.
    #[arg(long, env = "PORTCULLIS_ALLOW_READABLE_SECRETS", help_heading = "Secrets")]
    pub allow_readable_secrets: bool,
    /// Create the store if Redis holds none, or if the file is missing. For demos only: if Redis loses its data, or the file
    /// its disk, and the service restarts with this option, revoked tokens pass. Otherwise create the store once with
    /// `portcullis store create`; then an empty Redis, or a missing file, counts as a lost store, and nothing is answered from
    /// it.
    #[arg(long, env = "PORTCULLIS_CREATE_STORE", conflicts_with = "store_id", help_heading = "Store")]
    pub create_store: bool,
    /// The only store to answer from. Default: the first one found.
    #[arg(long, env = "PORTCULLIS_STORE_ID", value_name = "ID", help_heading = "Store")]
    pub store_id: Option<StoreId>,
    /// Answer from a Redis that may evict revocations.
    #[arg(long, env = "PORTCULLIS_DANGEROUSLY_ALLOW_EVICTION", help_heading = "Store")]
    pub dangerously_allow_eviction: bool,
    /// Answer from a replica, which may lag.
    #[arg(long, env = "PORTCULLIS_DANGEROUSLY_ALLOW_REPLICA", help_heading = "Store")]
    pub dangerously_allow_replica: bool,
    /// How many replicas must have a revocation before it is acknowledged. With 0, a failover may lose acknowledged
    /// revocations. `on_disk` and `replicas` in a reply say what was confirmed.
    #[arg(long, env = "PORTCULLIS_MIN_REPLICAS", value_name = "N", default_value_t = 0, help_heading = "Store")]
    pub min_replicas: u32,
    /// Acknowledge only writes that Redis confirms to be on its disk: WAITAOF, or `appendfsync always` before Redis
    /// 7.2.
    #[arg(long, env = "PORTCULLIS_REQUIRE_DISK", help_heading = "Store")]
    pub require_disk: bool,
    /// The longest lifetime of a token that any filter accepts. Revocations of single tokens are kept this long.
    #[arg(long, env = "PORTCULLIS_MAX_LIFETIME", value_name = "TIME", default_value = "24h", value_parser = values::duration, help_heading = "Revocations")]
    pub max_lifetime: Duration,
    /// An issuer whose revocations are accepted although no filter has reported it. Repeatable. Filters report their
    /// issuers, and revocations for others are refused, since they are probably misspelt. `{tenant}` stands for one
    /// segment of the path, as in the filter's configuration.
    #[arg(
        long = "issuer",
        env = "PORTCULLIS_ISSUERS",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Revocations"
    )]
    pub issuers: Vec<String>,
    /// The claims that identify an issuer's tokens, if the filters' `revocation_claims.token` for it is not the
    /// default, for example https://idp.example=token_id,jti. Repeat it for each issuer. Otherwise `revoke token` has
    /// no effect for that issuer.
    #[arg(long = "token-claims", env = "PORTCULLIS_TOKEN_CLAIMS", value_name = "URL=CLAIM,…", value_delimiter = ' ', value_parser = values::token_claims, help_heading = "Revocations")]
    pub token_claims: Vec<(String, Vec<String>)>,
    /// A file, JSON or YAML, with the providers that may end sessions: by logout tokens at /oauth2/backchannel-logout,
    /// by security events at /ssf/events or fetched from them, and by requests at /oauth2/global-token-revocation, all
    /// on --listen. docs/logout.md and docs/events.md have its fields. Without it no provider may.
    #[arg(long, env = "PORTCULLIS_PROVIDERS_FILE", value_name = "PATH", help_heading = "Revocations")]
    pub providers_file: Option<PathBuf>,
    /// The longest time from a login to the last use of one of its tokens that any filter accepts (its `max_session`).
    /// Revocations of sessions, users, clients and issuers are kept this long. Revoked signing keys are kept forever.
    /// Every name in Redis has an expiry, except the store's sentinels and revoked signing keys.
    #[arg(long, visible_alias = "session-retention", env = "PORTCULLIS_MAX_SESSION", value_name = "TIME", default_value = "30d", value_parser = values::duration, help_heading = "Revocations")]
    pub max_session: Duration,
    /// How far an issuer's clock may run ahead: at least the `future_iat_tolerance` of any filter.
    #[arg(long, env = "PORTCULLIS_FUTURE_IAT_TOLERANCE", value_name = "TIME", default_value = "5s", value_parser = values::skew, help_heading = "Revocations")]
    pub future_iat_tolerance: Duration,
    /// Requests in progress per listener, including reading their bodies; further ones are refused at once.
    #[arg(long, env = "PORTCULLIS_MAX_REQUESTS", value_name = "N", default_value = "1024", value_parser = values::count, help_heading = "Listeners")]
    pub max_requests: usize,
    /// Open connections per listener. One more closes the oldest unauthenticated connection, and waits if there is
    /// none. Keep it below the limit of open files.
    #[arg(long, env = "PORTCULLIS_MAX_CONNECTIONS", value_name = "N", default_value = "4096", value_parser = values::count, help_heading = "Listeners")]
    pub max_connections: usize,
    /// Unauthenticated connections per address (per /64 in IPv6), which are those that have carried no request made
    /// with our secret yet. One more closes the oldest of them, and each is closed after 10 s. Connections that proxies
    /// use do not count, so the default is enough for a whole mesh behind one NAT address.
    #[arg(long, env = "PORTCULLIS_MAX_UNAUTHENTICATED_PER_PEER", value_name = "N", default_value_t = DEFAULT_UNAUTHENTICATED_PER_PEER, value_parser = values::count, help_heading = "Listeners")]
    pub max_unauthenticated_per_peer: usize,
    /// Filters that may follow the feed of revocations at the same time, at POST /v1/feed. Further ones are told to wait, and
    /// ask about each token meanwhile. 0 turns the feed off. Nothing is read for it while no filter follows.
    #[arg(long, env = "PORTCULLIS_MAX_FOLLOWERS", value_name = "N", default_value = "2000", value_parser = values::followers, help_heading = "Revocations")]
    pub max_followers: usize,
    /// How often the feed reads what is new in Redis, while filters follow it.
    #[arg(long, env = "PORTCULLIS_FEED_ROUND", value_name = "TIME", default_value = "50ms", value_parser = values::feed_round, help_heading = "Revocations")]
    pub feed_round: Duration,
    #[command(flatten)]
    pub admin: AdminOptions,
    #[command(flatten)]
    pub sessions: SessionOptions,
    #[command(flatten)]
    pub join: JoinOptions,
    #[command(flatten)]
    pub sightings: SightingOptions,
    #[command(flatten)]
    pub event_receivers: EventReceiverOptions,
}

/// Options that cannot be used together, or a file of theirs that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("two files of `{0}` contain the same secret")]
    SameSecretTwice(&'static str),
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error("every user of this machine can read the secrets in {0}: chmod o-r, or set `allow-readable-secrets`")]
    Readable(String),
    #[error("the admin token file {path}")]
    AdminToken { path: PathBuf, source: AdminTokenError },
    #[error(
        "`max-session` must be at least `max-lifetime`, which is {0} s: a login lasts at least as long as its tokens"
    )]
    MaxSession(u64),
    #[error("`create-store` and `store-id` exclude each other: a lost store could be created empty under its old id")]
    CreatePinned,
    #[error(transparent)]
    ProvidersFile(#[from] ProvidersFileError),
    #[error(transparent)]
    Providers(#[from] ProvidersError),
    #[error(transparent)]
    SightingsFile(#[from] SightingsFileError),
    #[error(transparent)]
    EventReceiversFile(#[from] EventReceiversFileError),
    #[error(transparent)]
    Clients(#[from] ClientsError),
    #[error("`token-claims` of `{0}` is given twice")]
    TokenClaims(String),
    #[error("`{0}` must not be empty")]
    Empty(&'static str),
    #[error(
        "`session-lifetime` must be at most {0} s, the `max-lifetime`: a token without refresh lives as long as its session"
    )]
    SessionLifetime(u64),
    #[error("--signing-key, the {nth}. one")]
    SigningKey { nth: usize, source: UriError },
    /// A filter, a provider or an operator could pose as a region.
    #[error(
        "--join-secret-file {join} contains the same secret as {other}, which others than our regions have; use two"
    )]
    JoinSecret { join: PathBuf, other: PathBuf },
    #[error(
        "`join-secret-file` and `dangerously-allow-replica` exclude each other: nobody knows whether a replica has every revocation"
    )]
    JoinReplica,
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("`signing-sessions` of all keys in tokens together must be at most {0}")]
    TokenThreads(usize),
}

/// The files that options name, read.
#[derive(Debug)]
pub struct Files {
    /// Every live secret, the primary first. Revocations are written under all of them.
    pub secrets: Vec<Secret>,
    /// What sessions are named and encrypted with. Empty: the shared secrets.
    pub session_secrets: Vec<Secret>,
    pub admin_token: AdminToken,
    pub providers: Providers,
    /// What other regions are asked and answered with, the primary one first. Empty: none may ask.
    pub join_secrets: Vec<Secret>,
    /// `None`: there is no hijack detection.
    pub sightings: Option<hijack::Settings>,
    /// `None`: no security events are sent.
    pub receivers: Option<Receivers>,
}

impl Options {
    /// # Errors
    /// The options do not fit together.
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.max_session < self.max_lifetime {
            return Err(OptionsError::MaxSession(self.max_lifetime.as_secs()));
        }
        if self.create_store && self.store_id.is_some() {
            return Err(OptionsError::CreatePinned);
        }
        for (index, (issuer, _)) in self.token_claims.iter().enumerate() {
            if self.token_claims.iter().take(index).any(|(other, _)| other == issuer) {
                return Err(OptionsError::TokenClaims(issuer.clone()));
            }
        }
        if self.dangerously_allow_replica && !self.join.join_secret_files.is_empty() {
            return Err(OptionsError::JoinReplica);
        }
        self.sessions.keys()?;
        self.session_config().map(drop)
    }

    /// # Errors
    /// A file that cannot be used.
    pub fn read_files(&self) -> Result<Files, OptionsError> {
        let of_filters: Vec<PathBuf> =
            self.secret_files.iter().chain(&self.sessions.agent_secret_file).cloned().collect();
        secret_files::check_roles(&of_filters, &self.admin_token_file)?;
        let providers = self.providers_file.as_deref().map(providers_file::read).transpose()?.unwrap_or_default();
        providers.check(&[])?;
        let more = self.key_files()?;
        let clients = self.sessions.clients_file.as_deref().map(clients::secret_files).transpose()?.unwrap_or_default();
        let sightings = self.sightings.settings()?;
        let webhook = sightings.as_ref().and_then(hijack::Settings::token_file);
        let receivers = self.event_receivers.receivers(self.sessions.session_issuer.as_deref())?;
        let has_receiver = receivers.as_ref().is_some_and(|receivers| receivers.get(EventType::RiskLevelChange));
        if !has_receiver && sightings.as_ref().is_some_and(hijack::Settings::sends_events) {
            return Err(EventReceiversFileError::NoReceiver.into());
        }
        let of_receivers = receivers.iter().flat_map(Receivers::token_files);
        let of_clients = clients.iter().map(PathBuf::as_path).chain(webhook).chain(of_receivers);
        let theirs = providers.providers.iter().flat_map(Provider::secret_files).chain(of_clients);
        let ours = of_filters.iter().chain(&self.sessions.session_secret_files).chain([&self.admin_token_file]);
        for join in &self.join.join_secret_files {
            let secret = secret_files::read(join)?;
            for other in ours.clone() {
                if secret_files::read(other)?.trim_ascii() == secret.trim_ascii() {
                    return Err(OptionsError::JoinSecret { join: join.clone(), other: other.clone() });
                }
            }
        }
        let ours = ours.chain(&self.join.join_secret_files);
        secret_files::check_client_secrets(theirs.clone(), ours.clone())?;
        let files = ours.chain(&more).chain(&self.join.join_key).map(PathBuf::as_path).chain(theirs);
        let readable: Vec<String> =
            secret_files::readable_by_others(files).iter().map(|file| file.display().to_string()).collect();
        if !readable.is_empty() {
            let files = readable.join(", ");
            if !self.allow_readable_secrets {
                return Err(OptionsError::Readable(files));
            }
            tracing::warn!(files, "every user of this machine can read a secret: chmod o-r");
        }
        let token = String::from_utf8(secret_files::read(&self.admin_token_file)?).unwrap_or_default();
        let admin_token = AdminToken::new(&token)
            .map_err(|source| OptionsError::AdminToken { path: self.admin_token_file.clone(), source })?;
        Ok(Files {
            secrets: secret_files::read_secrets("secret-file", &self.secret_files)?,
            session_secrets: self.sessions.secrets()?,
            admin_token,
            providers,
            join_secrets: self.join.secrets()?,
            sightings,
            receivers,
        })
    }

    /// The files with private keys, PINs, and passwords of Redis.
    fn key_files(&self) -> Result<Vec<PathBuf>, OptionsError> {
        let of_redis = |redis: RedisOptions| [redis.password_file, redis.sentinel_password_file, redis.key_file];
        let redis = [Some(self.redis.clone().into()), self.mirror_redis()].into_iter().flatten().flat_map(of_redis);
        let signing = self.sessions.keys()?.into_iter().map(|key| match key {
            KeySource::File(path) => path,
            KeySource::Token(uri) => uri.pin,
        });
        let listeners = [self.tls_key.clone(), self.admin.admin_tls_key.clone()];
        Ok(redis.chain(listeners).flatten().chain(signing).collect())
    }

    pub fn tls(&self) -> Option<ListenerTls> {
        Some(ListenerTls {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.client_ca.clone(),
        })
    }

    pub fn mirror_redis(&self) -> Option<RedisOptions> {
        self.mirror.clone().options()
    }

    /// # Errors
    /// The options about sessions do not fit together.
    pub fn session_config(&self) -> Result<Option<crate::domain::sessions::Config>, OptionsError> {
        self.sessions.config(self.max_lifetime, self.future_iat_tolerance.saturating_add(MAX_SKEW))
    }

    /// The issuers that are known without a filter that reports them.
    pub fn known_issuers(&self, providers: &Providers) -> Vec<String> {
        let own = self.issuers.iter().chain(&self.sessions.session_issuer);
        own.chain(providers.subject_issuers()).cloned().collect()
    }

    pub fn revocation_policy(&self, providers: &Providers) -> Policy {
        Policy {
            retention: self.retention(),
            token_claims: self.token_claims.clone(),
            reuse_session_ids: providers.reuse_session_ids().cloned().collect(),
            extra_ttl: if self.join.join_secret_files.is_empty() { Duration::ZERO } else { EXTRA_TTL },
        }
    }

    /// The longest that one write and its confirmation may take, in the mirror as well if there is one.
    pub fn write_limit(&self) -> Duration {
        match &self.store {
            None => {}
            Some(NamedStore::File(_)) => return store_embedded::WRITE_LIMIT,
            #[cfg(feature = "dynamodb")]
            Some(NamedStore::DynamoDb(_)) => return store_dynamodb::WRITE_LIMIT,
        }
        let one = self.redis_timeout.saturating_add(self.confirm_timeout);
        match self.mirror_redis() {
            // In between it is read back from the first store, and removed names are checked again.
            Some(_) => one.saturating_mul(3).saturating_add(self.redis_timeout.saturating_mul(2)),
            None => one,
        }
    }

    /// The longest that a verified provider event takes: it is claimed, revoked and remembered, after the writer connected.
    pub fn event_limit(&self) -> Duration {
        let writes = if self.mirror_redis().is_some() { 5 } else { 3 };
        self.redis_timeout * 6 + self.write_limit() * writes + Duration::from_secs(2)
    }

    pub fn feed_config(&self) -> feed::Config {
        feed::Config {
            round: self.feed_round,
            max_followers: self.max_followers,
            serves_regions: !self.join.join_secret_files.is_empty(),
        }
    }

    pub fn allow(&self) -> Allow {
        Allow { eviction: self.dangerously_allow_eviction, replica: self.dangerously_allow_replica }
    }

    /// How long revocations are kept, in whole seconds, rounded up: no token that one ends is valid any more by then.
    pub fn retention(&self) -> Retention {
        let kept = |longest: Duration| {
            let whole = longest.saturating_add(self.future_iat_tolerance).saturating_add(MAX_SKEW);
            u32::try_from(round_up(whole)).unwrap_or(u32::MAX)
        };
        Retention { token: kept(self.max_lifetime), login: kept(self.max_session) }
    }

    /// Rounded up: a revocation rather ends one second of logins too many.
    pub fn future_iat_tolerance_seconds(&self) -> u64 {
        round_up(self.future_iat_tolerance)
    }
}

/// The other regions that are followed.
///
/// # Errors
/// A URL or a file that cannot be used.
pub fn peers(options: &Options, files: &Files) -> Result<Vec<Peer>, OptionsError> {
    match files.join_secrets.first() {
        Some(secret) => Ok(options.join.peers(secret)?),
        None => Ok(Vec::new()),
    }
}

fn round_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
