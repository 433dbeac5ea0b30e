//! One connection to one server: TCP, TLS, credentials, and the meaning of failures.
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

use crate::health::ServerHealth;
use crate::options::{Access, Address, Peer, read};
use store::StoreError;

/// Why there is no connection, or why it was closed. `reason` is for the log and holds no secret.
#[derive(Debug, Clone)]
pub struct ConnectionError {
    pub error: StoreError,
    pub reason: String,
}

/// A shared connection. It is closed with its last owner.
#[derive(Debug)]
pub struct Connection {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
    /// Why it was closed, as [`StoreError::code`]; 0 while it is open.
    closed: AtomicU8,
}

impl Connection {
    /// Connects, authenticates and switches to RESP3, all within `limit`. The kernel still accepts connections for a
    /// stopped Redis.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn open(
        access: &Access,
        address: &Address,
        peer: Peer,
        limit: Duration,
    ) -> Result<Self, ConnectionError> {
        match timeout(limit, Self::open_in(access, address, peer)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                Err(ConnectionError { error: StoreError::StoreSlow, reason: format!("no connection within {limit:?}") })
            }
        }
    }

    async fn open_in(access: &Access, address: &Address, peer: Peer) -> Result<Self, ConnectionError> {
        let credentials = access.credentials(peer).map_err(|error| failed(&error))?;
        let mut info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        if peer == Peer::Redis {
            info = info.set_db(access.database);
        }
        if let Some(username) = credentials.username {
            info = info.set_username(username);
        }
        if let Some(password) = credentials.password {
            info = info.set_password(password);
        }
        // Only our own limits apply: the client's defaults are too long for a check, and too short for WAITAOF.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| refused(&error))?;
        tcp.set_nodelay(true).map_err(|error| refused(&error))?;
        if access.tls {
            let name = ServerName::try_from(address.host.clone()).map_err(|error| failed(&error))?;
            let tls = TlsConnector::from(Arc::new(tls_config(access)?));
            let stream = tls.connect(name, tcp).await.map_err(|error| refused(&format!("TLS: {error}")))?;
            let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
            Ok(Self { connection, driver: tokio::spawn(driver), closed: AtomicU8::new(0) })
        } else {
            let (connection, driver) = MultiplexedConnection::new_with_config(&info, tcp, config).await?;
            Ok(Self { connection, driver: tokio::spawn(driver), closed: AtomicU8::new(0) })
        }
    }

    /// One reply for each command. An error reply belongs to its command. When a reply is late, the connection is
    /// closed, because the reply might be outdated when it comes.
    ///
    /// # Errors
    /// No replies within `limit`.
    pub async fn ask(
        &self,
        asks: &Pipeline,
        limit: Duration,
    ) -> Result<Vec<Result<Value, RedisError>>, ConnectionError> {
        let mut connection = self.connection.clone();
        let asked = match timeout(limit, asks.query_async(&mut connection)).await {
            Ok(Ok(replies)) => Ok(replies),
            Ok(Err(error)) => Err(ConnectionError::from(error)),
            Err(_) => {
                Err(ConnectionError { error: StoreError::StoreSlow, reason: format!("no answer within {limit:?}") })
            }
        };
        if let Err(failure) = &asked {
            self.close(failure.error);
        }
        asked
    }

    /// One command whose error is a failure.
    ///
    /// # Errors
    /// As for [`Connection::ask`], or the command's error.
    pub async fn ask_one<T: redis::FromRedisValue>(
        &self,
        ask: redis::Cmd,
        limit: Duration,
    ) -> Result<T, ConnectionError> {
        let mut asks = pipeline();
        asks.add_command(ask);
        let reply = self.ask(&asks, limit).await?.pop().ok_or_else(|| failed(&"no reply"))??;
        redis::from_redis_value(reply).map_err(|error| failed(&error))
    }

    /// The server's own report of its state.
    ///
    /// # Errors
    /// As for [`Connection::ask_one`].
    pub async fn ask_health(&self, limit: Duration) -> Result<ServerHealth, ConnectionError> {
        let info: String = self.ask_one(redis::cmd("INFO"), limit).await?;
        Ok(ServerHealth::parse(&info))
    }

    /// Closes it. It is not used again.
    pub fn close(&self, error: StoreError) {
        self.closed.store(error.code(), Ordering::Relaxed);
    }

    /// Why it was closed, if it was.
    pub fn closed(&self) -> Option<StoreError> {
        let code = self.closed.load(Ordering::Relaxed);
        StoreError::ALL.into_iter().find(|error| error.code() == code)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Errors of single commands stay with them.
pub fn pipeline() -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    pipeline
}

/// Made for each connection, since the files may have changed.
fn tls_config(access: &Access) -> Result<ClientConfig, ConnectionError> {
    let mut roots = RootCertStore::empty();
    match &access.options.ca_file {
        Some(path) => {
            let text = read("redis-ca-file", path).map_err(|error| failed(&error))?;
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let certificate = certificate.map_err(|error| failed(&format!("redis-ca-file: {error}")))?;
                roots.add(certificate).map_err(|error| failed(&format!("redis-ca-file: {error}")))?;
            }
            if roots.is_empty() {
                return Err(failed(&"redis-ca-file: it contains no certificate"));
            }
        }
        // An unreadable one is skipped: another may be the right one.
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

/// The server works, and does not have the slot, or not wholly.
pub fn is_about_slots(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN"))
}

fn refused(reason: &impl ToString) -> ConnectionError {
    ConnectionError { error: StoreError::StoreRefused, reason: reason.to_string() }
}

pub fn failed(reason: &impl ToString) -> ConnectionError {
    ConnectionError { error: StoreError::StoreFailed, reason: reason.to_string() }
}

impl From<RedisError> for ConnectionError {
    fn from(error: RedisError) -> Self {
        let kind = if error.is_timeout() {
            StoreError::StoreSlow
        } else if error.is_io_error() || error.is_connection_dropped() || error.is_connection_refusal() {
            StoreError::StoreRefused
        } else {
            StoreError::StoreFailed
        };
        Self { error: kind, reason: error.to_string() }
    }
}
