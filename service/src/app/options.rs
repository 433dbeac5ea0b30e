//! What the service is told at start. Bad options fail here, before anything is bound.
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use subtle::ConstantTimeEq;
use wire::{Retention, Secret};

use crate::{AdminTls, Allow, ListenerTls, Providers, ProvidersError, RedisOptions, SessionOptions, StoreId};

/// The most that a filter may allow an issuer's clock to differ.
pub const MAX_SKEW: Duration = Duration::from_secs(300);

/// No duration that somebody means is longer.
pub const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 86_400);

#[derive(Debug, Clone)]
pub struct Options {
    /// Where the filter asks. Port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where operators revoke.
    pub admin_listen: SocketAddr,
    /// Written once both are bound: `{"listen": "…", "admin": "…"}`.
    pub ports_file: Option<PathBuf>,
    pub redis: RedisOptions,
    /// The mirror: another store that every write is copied to before it is acknowledged.
    pub mirror_redis: Option<RedisOptions>,
    /// The only store to accept there.
    pub mirror_store_id: Option<StoreId>,
    /// As `min_replicas`, there; the same, without.
    pub mirror_min_replicas: Option<u32>,
    /// Bounds each connection attempt and each round trip.
    pub redis_timeout: Duration,
    /// Bounds the wait for a written revocation to be on disk and on replicas, on top of `redis_timeout`.
    pub confirm_timeout: Duration,
    /// Every live secret, the primary first. Revocations are written under all of them.
    pub secrets: Vec<Secret>,
    pub admin_token: AdminToken,
    /// TLS on the data listener.
    pub tls: Option<ListenerTls>,
    /// TLS on the admin listener.
    pub admin_tls: Option<AdminTls>,
    /// Calls of one caller of the admin listener in a second.
    pub admin_rate: u32,
    /// How long audit entries are kept.
    pub audit_retention: Duration,
    /// Which sessions it makes; none, without.
    pub sessions: Option<SessionOptions>,
    /// Write the store's sentinel if there is none. Without it an empty Redis is a lost store, not a new one.
    pub create_store: bool,
    /// The only store to accept. Without it, the first that is found.
    pub store_id: Option<StoreId>,
    pub dangerously_allow_eviction: bool,
    pub dangerously_allow_replica: bool,
    /// How many replicas must have a revocation before it is acknowledged.
    pub min_replicas: u32,
    /// Acknowledge only what Redis says is on its disk.
    pub require_disk: bool,
    /// The longest lifetime of a token that any filter accepts.
    pub max_lifetime: Duration,
    /// Issuers that revocations are taken for though no filter has told of them yet.
    pub issuers: Vec<String>,
    /// By issuer, the claims that name its tokens, in the order in which they count; of others, `wire::TOKEN_ID_CLAIMS`.
    pub token_claims: Vec<(String, Vec<String>)>,
    /// Who may end sessions by a logout token or a security event.
    pub providers: Providers,
    /// The longest from a login to the last use of a token of it that any filter accepts.
    pub max_session: Duration,
    /// How far an issuer's clock may run ahead.
    pub future_iat_tolerance: Duration,
    /// Requests in progress per listener, their bodies read; more are told 503 at once.
    pub max_requests: usize,
    /// Open connections per listener; more wait to be accepted.
    pub max_connections: usize,
    /// Of those, from one address and without a request that was made with our secret; more are closed at once.
    pub max_newcomers: usize,
}

/// The bearer secret of the admin listener.
#[derive(Clone)]
pub struct AdminToken(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("at least one secret file is needed")]
    NoSecret,
    #[error("two secret files hold the same secret")]
    SameSecretTwice,
    #[error("the admin token has {0} bytes, and at least {min} are needed", min = AdminToken::MIN_BYTES)]
    AdminTokenTooShort(usize),
    #[error("the admin token must be printable ASCII without white space, since it travels in a header")]
    AdminTokenForm,
    #[error("`{0}` must be longer than nothing and shorter than ten years")]
    Duration(&'static str),
    #[error("`max-session` must be at least `max-lifetime`, which is {0} s: a login lasts as long as a token of it")]
    MaxSession(u64),
    #[error(
        "`create-store` and `store-id` exclude each other: a lost store would come back empty under the id of the full one"
    )]
    CreatePinned,
    #[error(transparent)]
    Providers(#[from] ProvidersError),
    #[error("`token-claims` of `{0}` must have an issuer, once and one of `issuer` if there are any, and claims")]
    TokenClaims(String),
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    #[error("`{0}` must not be empty")]
    Empty(&'static str),
    #[error("`{0}` must be whole seconds, at least one")]
    Seconds(&'static str),
    #[error(
        "`session-lifetime` must be at most {0} s, the `max-lifetime`: a token without refresh lives as long as its session"
    )]
    SessionLifetime(u64),
    #[error("`refresh-grace` must be at most 60 s: for so long nobody can tell a thief from a race")]
    RefreshGrace,
    #[error("`signing-timeout` must be longer than nothing and at most {0:?}: the data listener answers within 5 s")]
    TokenTimeout(Duration),
    #[error("`signing-sessions` must be 1 to {0}")]
    TokenSessions(usize),
    #[error("`signing-sessions` of all keys in tokens together must be at most {0}")]
    TokenThreads(usize),
}

impl Options {
    /// # Errors
    /// See [`OptionsError`].
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.secrets.is_empty() {
            return Err(OptionsError::NoSecret);
        }
        if self.secrets.iter().enumerate().any(|(at, secret)| self.secrets.iter().skip(at + 1).any(|s| s == secret)) {
            return Err(OptionsError::SameSecretTwice);
        }
        for (name, duration) in [
            ("redis-timeout", self.redis_timeout),
            ("confirm-timeout", self.confirm_timeout),
            ("max-lifetime", self.max_lifetime),
            ("max-session", self.max_session),
            ("audit-retention", self.audit_retention),
        ] {
            if duration.is_zero() || duration > MAX_DURATION {
                return Err(OptionsError::Duration(name));
            }
        }
        if self.future_iat_tolerance > MAX_SKEW {
            return Err(OptionsError::Duration("future-iat-tolerance"));
        }
        if self.max_session < self.max_lifetime {
            return Err(OptionsError::MaxSession(self.max_lifetime.as_secs()));
        }
        if self.create_store && self.store_id.is_some() {
            return Err(OptionsError::CreatePinned);
        }
        for (place, (issuer, names)) in self.token_claims.iter().enumerate() {
            let again = self.token_claims.iter().take(place).any(|(other, _)| other == issuer);
            if issuer.is_empty() || names.is_empty() || names.iter().any(String::is_empty) || again {
                return Err(OptionsError::TokenClaims(issuer.clone()));
            }
        }
        self.providers.check(&[])?;
        if let Some(sessions) = &self.sessions {
            sessions.check(self.max_lifetime)?;
        }
        if self.admin_rate == 0 {
            return Err(OptionsError::Zero("admin-rate"));
        }
        for (name, most) in [
            ("max-requests", self.max_requests),
            ("max-connections", self.max_connections),
            ("max-newcomers-per-peer", self.max_newcomers),
        ] {
            if most == 0 {
                return Err(OptionsError::Zero(name));
            }
        }
        Ok(())
    }

    /// The longest that one write and its confirmation may take, in the mirror too if there is one.
    pub fn write_limit(&self) -> Duration {
        let one = self.redis_timeout.saturating_add(self.confirm_timeout);
        match self.mirror_redis {
            // It is read back from the first in between, and removed names are looked at again.
            Some(_) => one.saturating_mul(3).saturating_add(self.redis_timeout.saturating_mul(2)),
            None => one,
        }
    }

    pub fn allow(&self) -> Allow {
        Allow { eviction: self.dangerously_allow_eviction, replica: self.dangerously_allow_replica }
    }

    /// How long revocations of single tokens are kept: every token that one ends has expired everywhere by then. Whole
    /// seconds, up.
    pub fn retention_seconds(&self) -> u64 {
        self.kept_for(self.max_lifetime)
    }

    /// How long revocations of sessions, users, clients and issuers are kept: every login that one ends is too old by then.
    pub fn login_retention_seconds(&self) -> u64 {
        self.kept_for(self.max_session)
    }

    /// What filters are told.
    pub fn keeps(&self) -> Retention {
        let seconds = |whole: u64| u32::try_from(whole).unwrap_or(u32::MAX);
        Retention { token: seconds(self.retention_seconds()), login: seconds(self.login_retention_seconds()) }
    }

    fn kept_for(&self, longest: Duration) -> u64 {
        let whole = longest.saturating_add(self.future_iat_tolerance).saturating_add(MAX_SKEW);
        whole.as_secs() + u64::from(whole.subsec_nanos() > 0)
    }

    /// Whole seconds, up: a revocation rather ends one second of logins too many.
    pub fn future_iat_tolerance_seconds(&self) -> u64 {
        self.future_iat_tolerance.as_secs() + u64::from(self.future_iat_tolerance.subsec_nanos() > 0)
    }
}

impl AdminToken {
    pub const MIN_BYTES: usize = 32;

    /// White space at the ends is dropped, so that a file's last newline is not part of the token.
    ///
    /// # Errors
    /// Too short, or not fit for a header.
    pub fn new(text: &str) -> Result<Self, OptionsError> {
        let text = text.trim_ascii();
        if text.len() < Self::MIN_BYTES {
            return Err(OptionsError::AdminTokenTooShort(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(OptionsError::AdminTokenForm);
        }
        Ok(Self(text.to_owned()))
    }

    /// In constant time for tokens of one length; the length is no secret.
    pub fn is(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn options() -> Options {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Options {
            listen: any,
            admin_listen: any,
            ports_file: None,
            redis: RedisOptions::single("redis://127.0.0.1:1"),
            mirror_redis: None,
            mirror_store_id: None,
            mirror_min_replicas: None,
            redis_timeout: Duration::from_millis(200),
            confirm_timeout: Duration::from_secs(2),
            secrets: vec![Secret::new(&[1; 32]).unwrap()],
            admin_token: AdminToken::new(&"t".repeat(32)).unwrap(),
            tls: None,
            admin_tls: None,
            admin_rate: 200,
            audit_retention: Duration::from_secs(90 * 86_400),
            sessions: None,
            create_store: false,
            store_id: None,
            dangerously_allow_eviction: false,
            dangerously_allow_replica: false,
            min_replicas: 0,
            require_disk: false,
            max_lifetime: Duration::from_secs(86_400),
            issuers: vec![],
            token_claims: vec![],
            providers: Providers::default(),
            max_session: Duration::from_secs(30 * 86_400),
            future_iat_tolerance: Duration::from_secs(1),
            max_requests: 1,
            max_connections: 1,
            max_newcomers: 1,
        }
    }

    #[test]
    fn retention_covers_lifetime_lead_and_skew_and_rounds_up() {
        assert_eq!(options().keeps(), Retention { token: 86_701, login: 30 * 86_400 + 301 });
        let odd = Options { future_iat_tolerance: Duration::from_millis(1), ..options() };
        assert_eq!((odd.retention_seconds(), odd.future_iat_tolerance_seconds()), (86_701, 1));
    }

    #[test]
    fn refuses_options_that_cannot_work() {
        assert_eq!(options().check(), Ok(()));
        assert_eq!(Options { secrets: vec![], ..options() }.check(), Err(OptionsError::NoSecret));
        let twice = [options().secrets, options().secrets].concat();
        assert_eq!(Options { secrets: twice, ..options() }.check(), Err(OptionsError::SameSecretTwice));
        let zero = Options { redis_timeout: Duration::ZERO, ..options() };
        assert_eq!(zero.check(), Err(OptionsError::Duration("redis-timeout")));
        let store_id = "000102030405060708090a0b0c0d0e0f".parse().ok();
        let pinned = Options { create_store: true, store_id, ..options() };
        assert_eq!(pinned.check(), Err(OptionsError::CreatePinned));
        let short = Options { max_session: Duration::from_secs(86_399), ..options() };
        assert_eq!(short.check(), Err(OptionsError::MaxSession(86_400)));
        for token_claims in [
            vec![(String::new(), vec!["jti".to_owned()])],
            vec![("i".to_owned(), vec![])],
            vec![("i".to_owned(), vec![String::new()])],
            vec![("i".to_owned(), vec!["jti".to_owned()]), ("i".to_owned(), vec!["uti".to_owned()])],
        ] {
            let bad = Options { token_claims, ..options() };
            assert!(matches!(bad.check(), Err(OptionsError::TokenClaims(_))));
        }
        let enough = Options { max_session: Duration::from_secs(86_400), ..options() };
        assert_eq!(enough.check(), Ok(()));
    }

    #[test]
    fn an_admin_token_is_long_printable_and_silent() {
        assert_eq!(AdminToken::new(&"x".repeat(31)).unwrap_err(), OptionsError::AdminTokenTooShort(31));
        assert_eq!(AdminToken::new(&"x y".repeat(20)).unwrap_err(), OptionsError::AdminTokenForm);
        let token = AdminToken::new(&format!("{}\n", "x".repeat(32))).unwrap();
        assert!(token.is(&[b'x'; 32]) && !token.is(&[b'x'; 31]) && !token.is(&[b'y'; 32]));
        assert_eq!(format!("{token:?}"), "AdminToken(redacted)");
    }
}
