//! The options that say how Redis is reached. Files are read for each connection, so that a rotated password or certificate
//! needs no restart.
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use redis::{ConnectionAddr, IntoConnectionInfo as _};

/// How the servers are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One server, the one of the URL.
    #[default]
    Single,
    /// The URLs are of Cluster nodes; the others are found through them.
    Cluster,
    /// The URLs are of Sentinels, which name the primary.
    Sentinel,
}

/// `Debug` shows no URL, since it may hold a password.
#[derive(Clone, Default)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS. For Sentinel, those of the Sentinels; the
    /// primary is reached by the same scheme, user, password and database.
    pub urls: Vec<String>,
    pub mode: Mode,
    /// The name of the primary in the Sentinels' configuration.
    pub sentinel_master: Option<String>,
    /// Instead of the URL's.
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    /// For the Sentinels, which have users of their own. Without it, no user is given to them.
    pub sentinel_username: Option<String>,
    pub sentinel_password_file: Option<PathBuf>,
    /// The certificate authorities to trust; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// The client certificate, a chain, and its key: both or none.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// Never shows a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisOptionsError {
    #[error("`redis`: at least one URL is needed")]
    NoUrl,
    #[error("`redis`: URL {0} cannot be used: use redis://[user:password@]host:port[/db], or rediss:// for TLS")]
    Url(usize),
    #[error("`redis`: the URLs must all have the same scheme, user, password and database")]
    Different,
    #[error("`redis`: several URLs need `redis-mode` cluster or sentinel")]
    Several,
    #[error("`redis`: a Cluster has no databases: leave out /{0}")]
    Database(i64),
    #[error("`sentinel-master` is needed with `redis-mode` sentinel, and only then")]
    Master,
    #[error("`{0}` is for `redis-mode` sentinel only")]
    SentinelOnly(&'static str),
    #[error("`{0}` is for rediss:// URLs only")]
    TlsOnly(&'static str),
    #[error("`redis-cert-file` and `redis-key-file` belong together")]
    HalfCertificate,
    #[error("`redis-username` needs a password, by `redis-password-file` or in the URL")]
    NoPassword,
    #[error("`{option}`: cannot read {path}: {why}")]
    File { option: &'static str, path: String, why: String },
}

/// The parsed options.
#[derive(Clone)]
pub struct Access {
    pub seeds: Vec<Address>,
    pub tls: bool,
    pub database: i64,
    pub options: RedisOptions,
    url_username: Option<String>,
    url_password: Option<String>,
}

/// The address of a server, not resolved: a name may lead to another server later.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// The kind of server that is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Redis,
    Sentinel,
}

pub struct Credentials {
    pub username: Option<String>,
    pub password: Option<String>,
}

impl RedisOptions {
    /// One server.
    pub fn single(url: &str) -> Self {
        Self { urls: vec![url.to_owned()], ..Self::default() }
    }

    /// # Errors
    /// See [`RedisOptionsError`]. Files are read once here, so that an unreadable one is reported at start.
    pub fn access(&self) -> Result<Access, RedisOptionsError> {
        use RedisOptionsError as E;
        let mut infos = Vec::new();
        for (at, url) in self.urls.iter().enumerate() {
            // The client's own TLS is not built in: certificates are checked here, and `#insecure` cannot be requested.
            let (tls, plain) = match url.strip_prefix("rediss://") {
                Some(rest) => (true, format!("redis://{rest}")),
                None => (false, url.clone()),
            };
            if !plain.starts_with("redis://") || plain.contains('#') {
                return Err(E::Url(at + 1));
            }
            let info = plain.as_str().into_connection_info().map_err(|_| E::Url(at + 1))?;
            let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(E::Url(at + 1)) };
            let address = Address { host: host.clone(), port: *port };
            let redis = info.redis_settings();
            let owned = |text: Option<&str>| text.map(str::to_owned);
            infos.push((address, (tls, redis.db(), owned(redis.username()), owned(redis.password()))));
        }
        let Some((_, first)) = infos.first().cloned() else { return Err(E::NoUrl) };
        if infos.iter().any(|(_, other)| *other != first) {
            return Err(E::Different);
        }
        let (tls, database, url_username, url_password) = first;
        if self.mode == Mode::Single && infos.len() > 1 {
            return Err(E::Several);
        }
        if self.mode == Mode::Cluster && database != 0 {
            return Err(E::Database(database));
        }
        if self.sentinel_master.is_some() != (self.mode == Mode::Sentinel) {
            return Err(E::Master);
        }
        for (name, given) in [
            ("sentinel-username", self.sentinel_username.is_some()),
            ("sentinel-password-file", self.sentinel_password_file.is_some()),
        ] {
            if given && self.mode != Mode::Sentinel {
                return Err(E::SentinelOnly(name));
            }
        }
        for (name, given) in [
            ("redis-ca-file", self.ca_file.is_some()),
            ("redis-cert-file", self.certificate_file.is_some()),
            ("redis-key-file", self.key_file.is_some()),
        ] {
            if given && !tls {
                return Err(E::TlsOnly(name));
            }
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return Err(E::HalfCertificate);
        }
        if self.username.is_some() && self.password_file.is_none() && url_password.is_none() {
            return Err(E::NoPassword);
        }
        if self.sentinel_username.is_some() && self.sentinel_password_file.is_none() {
            return Err(E::SentinelOnly("sentinel-username"));
        }
        let seeds = infos.into_iter().map(|(address, _)| address).collect();
        let access = Access { seeds, tls, database, options: self.clone(), url_username, url_password };
        access.credentials(Peer::Redis)?;
        access.credentials(Peer::Sentinel)?;
        Ok(access)
    }
}

impl Access {
    /// # Errors
    /// A file cannot be read.
    pub fn credentials(&self, peer: Peer) -> Result<Credentials, RedisOptionsError> {
        let options = &self.options;
        let read = |option, path: &Path| read(option, path).map(|text| text.trim_ascii().to_owned());
        match peer {
            Peer::Redis => {
                let username = options.username.clone().or_else(|| self.url_username.clone());
                let password = match &options.password_file {
                    Some(path) => Some(read("redis-password-file", path)?),
                    None => self.url_password.clone(),
                };
                Ok(Credentials { username, password })
            }
            Peer::Sentinel => {
                let username = options.sentinel_username.clone();
                let password = options.sentinel_password_file.as_deref();
                let password = password.map(|path| read("sentinel-password-file", path)).transpose()?;
                Ok(Credentials { username, password })
            }
        }
    }
}

/// # Errors
/// It cannot be read, or is not text.
pub fn read(option: &'static str, path: &Path) -> Result<String, RedisOptionsError> {
    let wrong = |why| RedisOptionsError::File { option, path: path.display().to_string(), why };
    std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "single" => Ok(Mode::Single),
            "cluster" => Ok(Mode::Cluster),
            "sentinel" => Ok(Mode::Sentinel),
            _ => Err("must be single, cluster or sentinel".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions").field("urls", &self.urls.len()).field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("seeds", &self.seeds).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: &RedisOptions) -> RedisOptionsError {
        options.access().map(|_| ()).unwrap_err()
    }

    fn cluster(urls: &[&str]) -> RedisOptions {
        RedisOptions { urls: urls.iter().map(ToString::to_string).collect(), mode: Mode::Cluster, ..Default::default() }
    }

    #[test]
    fn urls_say_where_and_how() {
        let access = RedisOptions::single("rediss://u:p%2c@redis.example:7000/3").access().unwrap();
        assert_eq!(access.seeds, [Address { host: "redis.example".into(), port: 7000 }]);
        let credentials = access.credentials(Peer::Redis).unwrap();
        assert_eq!((access.tls, access.database), (true, 3));
        assert_eq!((credentials.username.as_deref(), credentials.password.as_deref()), (Some("u"), Some("p,")));
        assert_eq!(cluster(&["redis://a:1", "redis://b:2"]).access().unwrap().seeds.len(), 2);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_by_name() {
        use RedisOptionsError as E;
        let single = |url| RedisOptions::single(url);
        assert_eq!(refused(&RedisOptions::default()), E::NoUrl);
        for url in ["", "localhost", "http://a", "unix:///tmp/s", "rediss://a:1/#insecure"] {
            assert_eq!(refused(&single(url)), E::Url(1), "{url}");
        }
        let two = RedisOptions { mode: Mode::Single, ..cluster(&["redis://a:1", "redis://b:2"]) };
        assert_eq!(refused(&two), E::Several);
        assert_eq!(refused(&cluster(&["redis://a:1", "rediss://b:2"])), E::Different);
        assert_eq!(refused(&cluster(&["redis://:x@a:1", "redis://:y@b:2"])), E::Different);
        assert_eq!(refused(&cluster(&["redis://a:1/2"])), E::Database(2));
        let with_ca = RedisOptions { ca_file: Some("/x".into()), ..single("redis://a:1") };
        assert_eq!(refused(&with_ca), E::TlsOnly("redis-ca-file"));
        let half = RedisOptions { key_file: Some("/x".into()), ..single("rediss://a:1") };
        assert_eq!(refused(&half), E::HalfCertificate);
        let no_master = RedisOptions { mode: Mode::Sentinel, ..single("redis://a:1") };
        assert_eq!(refused(&no_master), E::Master);
        let no_password = RedisOptions { username: Some("u".into()), ..single("redis://a:1") };
        assert_eq!(refused(&no_password), E::NoPassword);
        let no_file = RedisOptions { password_file: Some("/no/such/file".into()), ..single("redis://a:1") };
        assert!(refused(&no_file).to_string().contains("redis-password-file"));
    }

    #[test]
    fn no_password_is_printed() {
        let options = RedisOptions::single("redis://user:hunter2@a:1");
        assert!(!format!("{options:?} {:?}", options.access().unwrap()).contains("hunter2"));
        let bad = RedisOptions::single("redis//:hunter2@a:1");
        assert!(!refused(&bad).to_string().contains("hunter2"));
    }
}
