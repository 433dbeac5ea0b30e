//! One connection to one server: TCP, TLS, credentials, and what its failures mean.
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, Value};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::redis_options::{Access, Address, Whom, read};
use super::standing::Standing;
use store::StoreError;

/// Why there is no connection, or why it is left. `why` is for the log and holds no secret.
#[derive(Debug, Clone)]
pub struct Failure {
    pub trouble: StoreError,
    pub why: String,
}

/// A connection that all who hold it share. It ends with the last of them.
#[derive(Debug)]
pub struct Wire {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    /// Why nobody may use it any more, as [`StoreError::code`]; 0 while they may.
    left: AtomicU8,
}

impl Wire {
    /// Connects, authenticates and speaks RESP3, all of it within `limit`: a stopped Redis still lets the kernel accept.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn open(access: &Access, address: &Address, whom: Whom, limit: Duration) -> Result<Self, Failure> {
        match timeout(limit, Self::open_in(access, address, whom)).await {
            Ok(Ok(wire)) => Ok(wire),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure { trouble: StoreError::StoreSlow, why: format!("no connection within {limit:?}") }),
        }
    }

    async fn open_in(access: &Access, address: &Address, whom: Whom) -> Result<Self, Failure> {
        let credentials = access.credentials(whom).map_err(|error| failed(&error))?;
        let mut info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        if whom == Whom::Redis {
            info = info.set_db(access.database);
        }
        if let Some(username) = credentials.username {
            info = info.set_username(username);
        }
        if let Some(password) = credentials.password {
            info = info.set_password(password);
        }
        // Our own limits are the only ones: the client's defaults are too long for a check, too short for WAITAOF.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| refused(&error))?;
        tcp.set_nodelay(true).map_err(|error| refused(&error))?;
        if access.tls {
            let name = ServerName::try_from(address.host.clone()).map_err(|error| failed(&error))?;
            let tls = TlsConnector::from(Arc::new(tls_config(access)?));
            let stream = tls.connect(name, tcp).await.map_err(|error| refused(&format!("TLS: {error}")))?;
            let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
            Ok(Self { connection, driver: tokio::spawn(driver), left: AtomicU8::new(0) })
        } else {
            let (connection, driver) = MultiplexedConnection::new_with_config(&info, tcp, config).await?;
            Ok(Self { connection, driver: tokio::spawn(driver), left: AtomicU8::new(0) })
        }
    }

    /// One reply for each command; a reply that is an error of Redis is that command's.
    ///
    /// Nobody uses the connection any more once a reply is late: what it would still say might be old by then.
    ///
    /// # Errors
    /// No replies within `limit`.
    pub async fn ask(&self, asks: &Pipeline, limit: Duration) -> Result<Vec<Result<Value, RedisError>>, Failure> {
        let mut connection = self.connection.clone();
        let asked = match timeout(limit, asks.query_async(&mut connection)).await {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(error)) => Err(Failure::from(error)),
            Err(_) => Err(Failure { trouble: StoreError::StoreSlow, why: format!("no answer within {limit:?}") }),
        };
        if let Err(failure) = &asked {
            self.leave(failure.trouble);
        }
        asked
    }

    /// One command whose error is a failure.
    ///
    /// # Errors
    /// As for [`Wire::ask`], or the command's error.
    pub async fn ask_one<T: redis::FromRedisValue>(&self, ask: redis::Cmd, limit: Duration) -> Result<T, Failure> {
        let mut asks = pipeline();
        asks.add_command(ask);
        let reply = self.ask(&asks, limit).await?.pop().ok_or_else(|| failed(&"no reply"))??;
        redis::from_redis_value(reply).map_err(|error| failed(&error))
    }

    /// What the server says of itself now.
    ///
    /// # Errors
    /// As for [`Wire::ask_one`].
    pub async fn ask_standing(&self, limit: Duration) -> Result<Standing, Failure> {
        let info: String = self.ask_one(redis::cmd("INFO"), limit).await?;
        Ok(Standing::parse(&info))
    }

    /// From now on nobody uses it.
    pub fn leave(&self, trouble: StoreError) {
        self.left.store(trouble.code(), Ordering::Relaxed);
    }

    /// Why it was left, if it was.
    pub fn left(&self) -> Option<StoreError> {
        let code = self.left.load(Ordering::Relaxed);
        StoreError::ALL.into_iter().find(|trouble| trouble.code() == code)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Errors of single commands stay theirs.
pub fn pipeline() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    pipeline
}

/// Made anew for each connection: the files may have changed.
fn tls_config(access: &Access) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match &access.options.ca_file {
        Some(path) => {
            let text = read("redis-ca-file", path).map_err(|error| failed(&error))?;
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let certificate = certificate.map_err(|error| failed(&format!("redis-ca-file: {error}")))?;
                roots.add(certificate).map_err(|error| failed(&format!("redis-ca-file: {error}")))?;
            }
            if roots.is_empty() {
                return Err(failed(&"redis-ca-file: it holds no certificate"));
            }
        }
        // One that cannot be read is left out: another may be the one.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&access.options.certificate_file, &access.options.key_file) else {
        return Ok(config.with_no_client_auth());
    };
    let chain = read("redis-cert-file", certificate).map_err(|error| failed(&error))?;
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&format!("redis-cert-file: {error}")))?;
    let key = read("redis-key-file", key).map_err(|error| failed(&error))?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| failed(&format!("redis-key-file: {error}")))?;
    config.with_client_auth_cert(chain, key).map_err(|error| failed(&format!("redis-cert-file: {error}")))
}

fn refused(why: &impl ToString) -> Failure {
    Failure { trouble: StoreError::StoreRefused, why: why.to_string() }
}

pub fn failed(why: &impl ToString) -> Failure {
    Failure { trouble: StoreError::StoreFailed, why: why.to_string() }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let trouble = if error.is_timeout() {
            StoreError::StoreSlow
        } else if error.is_io_error() || error.is_connection_dropped() || error.is_connection_refusal() {
            StoreError::StoreRefused
        } else {
            StoreError::StoreFailed
        };
        Self { trouble, why: error.to_string() }
    }
}
