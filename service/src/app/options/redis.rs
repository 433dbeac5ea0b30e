//! The location of Redis and how to connect to it, for every command that uses it.
use std::path::PathBuf;

use clap::Args;
use store_redis::{Mode, RedisOptions};

use super::file_store::FileStore;

#[derive(Clone, Args)]
#[command(next_help_heading = "Redis")]
pub struct Redis {
    /// The URL of Redis; rediss:// for TLS. Repeat it for more nodes of a Cluster, or for each Sentinel. A user and
    /// password in it apply to all servers; a password file is safer.
    #[arg(
        long = "redis",
        env = "PORTCULLIS_REDIS",
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379",
        value_delimiter = ',',
        hide_env_values = true
    )]
    urls: Vec<String>,
    /// How to find the servers. `single`: the one in the URL. `cluster`: the URLs name some nodes of a Cluster.
    /// `sentinel`: the URLs name Sentinels.
    #[arg(long, env = "PORTCULLIS_REDIS_MODE", value_name = "MODE", default_value = "single")]
    redis_mode: Mode,
    /// The name of the primary in the Sentinels' configuration.
    #[arg(long, env = "PORTCULLIS_SENTINEL_MASTER", value_name = "NAME")]
    sentinel_master: Option<String>,
    /// The ACL user, instead of the URL's.
    #[arg(long, env = "PORTCULLIS_REDIS_USERNAME", value_name = "NAME")]
    redis_username: Option<String>,
    /// A file with the password, instead of the URL's. It is read for each connection, so it can be replaced.
    #[arg(long, env = "PORTCULLIS_REDIS_PASSWORD_FILE", value_name = "PATH")]
    redis_password_file: Option<PathBuf>,
    /// The ACL user for the Sentinels, whose users are separate from Redis's.
    #[arg(long, env = "PORTCULLIS_SENTINEL_USERNAME", value_name = "NAME")]
    sentinel_username: Option<String>,
    /// A file with the password for the Sentinels.
    #[arg(long, env = "PORTCULLIS_SENTINEL_PASSWORD_FILE", value_name = "PATH")]
    sentinel_password_file: Option<PathBuf>,
    /// The only CAs to trust (PEM). Default: the system's. Read for each connection.
    #[arg(long, env = "PORTCULLIS_REDIS_CA_FILE", value_name = "PATH")]
    redis_ca_file: Option<PathBuf>,
    /// A client certificate and its chain (PEM), for servers that require one. Read for each connection.
    #[arg(long, env = "PORTCULLIS_REDIS_CERT_FILE", value_name = "PATH")]
    redis_cert_file: Option<PathBuf>,
    /// The private key of the client certificate (PEM).
    #[arg(long, env = "PORTCULLIS_REDIS_KEY_FILE", value_name = "PATH")]
    redis_key_file: Option<PathBuf>,
}

impl From<Redis> for RedisOptions {
    fn from(redis: Redis) -> Self {
        Self {
            urls: redis.urls,
            mode: redis.redis_mode,
            sentinel_master: redis.sentinel_master,
            username: redis.redis_username,
            password_file: redis.redis_password_file,
            sentinel_username: redis.sentinel_username,
            sentinel_password_file: redis.sentinel_password_file,
            ca_file: redis.redis_ca_file,
            certificate_file: redis.redis_cert_file,
            key_file: redis.redis_key_file,
        }
    }
}

/// The same options for another Redis, each under a name that begins with `$flag`.
macro_rules! other_redis {
    ($(#[$doc:meta])* $name:ident, $heading:literal, $flag:literal, $env:literal $(, $required:ident = $when:literal)?) => {
        $(#[$doc])*
        #[derive(Clone, Args)]
        #[command(next_help_heading = $heading)]
        pub struct $name {
            /// The URL of this Redis; rediss:// for TLS. Like --redis of `serve`, and so are the following.
            #[arg(
                id = $flag, long = $flag, env = $env, value_name = "URL", value_delimiter = ',',
                hide_env_values = true $(, $required = $when)?
            )]
            urls: Vec<String>,
            /// `single`, `cluster` or `sentinel`.
            #[arg(
                id = concat!($flag, "-mode"), long = concat!($flag, "-mode"), env = concat!($env, "_MODE"),
                value_name = "MODE", default_value = "single"
            )]
            mode: Mode,
            /// The name of the primary in the Sentinels' configuration.
            #[arg(
                id = concat!($flag, "-sentinel-master"), long = concat!($flag, "-sentinel-master"),
                env = concat!($env, "_SENTINEL_MASTER"), value_name = "NAME"
            )]
            sentinel_master: Option<String>,
            /// The ACL user.
            #[arg(
                id = concat!($flag, "-username"), long = concat!($flag, "-username"),
                env = concat!($env, "_USERNAME"), value_name = "NAME"
            )]
            username: Option<String>,
            /// A file with the password.
            #[arg(
                id = concat!($flag, "-password-file"), long = concat!($flag, "-password-file"),
                env = concat!($env, "_PASSWORD_FILE"), value_name = "PATH"
            )]
            password_file: Option<PathBuf>,
            /// The ACL user for the Sentinels.
            #[arg(
                id = concat!($flag, "-sentinel-username"), long = concat!($flag, "-sentinel-username"),
                env = concat!($env, "_SENTINEL_USERNAME"), value_name = "NAME"
            )]
            sentinel_username: Option<String>,
            /// A file with the password for the Sentinels.
            #[arg(
                id = concat!($flag, "-sentinel-password-file"), long = concat!($flag, "-sentinel-password-file"),
                env = concat!($env, "_SENTINEL_PASSWORD_FILE"), value_name = "PATH"
            )]
            sentinel_password_file: Option<PathBuf>,
            /// The only CAs to trust (PEM).
            #[arg(
                id = concat!($flag, "-ca-file"), long = concat!($flag, "-ca-file"),
                env = concat!($env, "_CA_FILE"), value_name = "PATH"
            )]
            ca_file: Option<PathBuf>,
            /// A client certificate and its chain (PEM).
            #[arg(
                id = concat!($flag, "-cert-file"), long = concat!($flag, "-cert-file"),
                env = concat!($env, "_CERT_FILE"), value_name = "PATH"
            )]
            certificate_file: Option<PathBuf>,
            /// The private key of the client certificate (PEM).
            #[arg(
                id = concat!($flag, "-key-file"), long = concat!($flag, "-key-file"),
                env = concat!($env, "_KEY_FILE"), value_name = "PATH"
            )]
            key_file: Option<PathBuf>,
        }

        impl From<$name> for RedisOptions {
            fn from(redis: $name) -> Self {
                Self {
                    urls: redis.urls,
                    mode: redis.mode,
                    sentinel_master: redis.sentinel_master,
                    username: redis.username,
                    password_file: redis.password_file,
                    sentinel_username: redis.sentinel_username,
                    sentinel_password_file: redis.sentinel_password_file,
                    ca_file: redis.ca_file,
                    certificate_file: redis.certificate_file,
                    key_file: redis.key_file,
                }
            }
        }
    };
}

other_redis!(
    /// The mirror: the other store that is written to while a store moves.
    MirrorRedis, "Mirror: the other Redis while a store moves", "mirror-redis", "PORTCULLIS_MIRROR_REDIS"
);
other_redis!(
    /// The store to copy from. In place of Redis: file:PATH, the file of a service that is stopped.
    FromRedis, "Redis to copy from", "from", "PORTCULLIS_FROM", required_unless_present = "prepare"
);
other_redis!(
    /// The store to copy to.
    ToRedis, "Redis to copy to", "to", "PORTCULLIS_TO", required = true
);

other_redis!(
    /// The Redis that is looked at.
    InspectedRedis, "Redis", "redis", "PORTCULLIS_REDIS"
);

impl InspectedRedis {
    /// `None`: no URL was given.
    pub fn options(self) -> Option<RedisOptions> {
        let options = RedisOptions::from(self);
        (!options.urls.is_empty()).then_some(options)
    }
}

impl FromRedis {
    /// The file, if one is named in place of Redis.
    ///
    /// # Errors
    /// It is not well named, or has options of Redis beside it.
    pub fn file(&self) -> Result<Option<FileStore>, String> {
        let [url] = &self.urls[..] else { return Ok(None) };
        if !url.starts_with("file:") {
            return Ok(None);
        }
        let beside = [
            ("from-mode", self.mode != Mode::Single),
            ("from-sentinel-master", self.sentinel_master.is_some()),
            ("from-username", self.username.is_some()),
            ("from-password-file", self.password_file.is_some()),
            ("from-sentinel-username", self.sentinel_username.is_some()),
            ("from-sentinel-password-file", self.sentinel_password_file.is_some()),
            ("from-ca-file", self.ca_file.is_some()),
            ("from-cert-file", self.certificate_file.is_some()),
            ("from-key-file", self.key_file.is_some()),
        ];
        match beside.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(format!("--{name} is for Redis, and --from names a file")),
            None => url.parse().map(Some),
        }
    }
}

impl MirrorRedis {
    /// `None`: no URL was given. Options without it would have no effect, so they are refused like a `redis` without
    /// one.
    pub fn options(self) -> Option<RedisOptions> {
        let options = RedisOptions::from(self);
        let is_given = !options.urls.is_empty()
            || options.mode != Mode::Single
            || options.sentinel_master.is_some()
            || options.username.is_some()
            || options.password_file.is_some()
            || options.sentinel_username.is_some()
            || options.sentinel_password_file.is_some()
            || options.ca_file.is_some()
            || options.certificate_file.is_some()
            || options.key_file.is_some();
        is_given.then_some(options)
    }
}
