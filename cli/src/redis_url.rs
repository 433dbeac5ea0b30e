//! Where Redis is and how it is reached, for every verb that speaks to it.
use std::path::PathBuf;

use clap::Args;
use service::{Mode, RedisOptions};

#[derive(Args)]
pub struct Redis {
    /// Where Redis is; rediss:// for TLS. Repeat it for more nodes of a Cluster, or for each Sentinel. A user and password
    /// in it hold for all of the servers; better give them by file.
    #[arg(
        long = "redis",
        env = "PORTCULLIS_REDIS",
        value_name = "URL",
        default_value = "redis://127.0.0.1:6379",
        value_delimiter = ',',
        hide_env_values = true
    )]
    urls: Vec<String>,
    /// How the servers are found: `single` is the one of the URL; `cluster`: the URLs are of some nodes of a Cluster;
    /// `sentinel`: they are of Sentinels.
    #[arg(long, env = "PORTCULLIS_REDIS_MODE", value_name = "MODE", default_value = "single")]
    redis_mode: Mode,
    /// The name that the Sentinels know the primary by.
    #[arg(long, env = "PORTCULLIS_SENTINEL_MASTER", value_name = "NAME")]
    sentinel_master: Option<String>,
    /// The ACL user, in place of the URL's.
    #[arg(long, env = "PORTCULLIS_REDIS_USERNAME", value_name = "NAME")]
    redis_username: Option<String>,
    /// A file with the password, in place of the URL's. Read again for each connection, so it may be replaced.
    #[arg(long, env = "PORTCULLIS_REDIS_PASSWORD_FILE", value_name = "PATH")]
    redis_password_file: Option<PathBuf>,
    /// The ACL user of the Sentinels, which know none of Redis's.
    #[arg(long, env = "PORTCULLIS_SENTINEL_USERNAME", value_name = "NAME")]
    sentinel_username: Option<String>,
    /// A file with the password of the Sentinels.
    #[arg(long, env = "PORTCULLIS_SENTINEL_PASSWORD_FILE", value_name = "PATH")]
    sentinel_password_file: Option<PathBuf>,
    /// The only authorities whose certificates are good (PEM); without it, the system's. Read again for each connection.
    #[arg(long, env = "PORTCULLIS_REDIS_CA_FILE", value_name = "PATH")]
    redis_ca_file: Option<PathBuf>,
    /// Our certificate and what signed it (PEM), for servers that ask for one. Read again for each connection.
    #[arg(long, env = "PORTCULLIS_REDIS_CERT_FILE", value_name = "PATH")]
    redis_cert_file: Option<PathBuf>,
    /// The key of our certificate (PEM).
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
