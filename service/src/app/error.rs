//! Why the service does not start, or does not take a new configuration.
use std::io;
use std::net::SocketAddr;

use store_redis::RedisOptionsError;

use super::opened_store::OpenStoreError;
use super::options::OptionsError;
use super::tls::TlsError;
use crate::domain::clients::ClientsError;
use crate::domain::hijack::DatabaseError;
use crate::domain::provider_events::ProvidersError;
use crate::domain::transmitter::ReceiversError;
use crate::model::note::NoteError;
use crate::signing;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot write the ports file")]
    PortsFile(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    #[error("for `mirror-redis`")]
    Mirror(#[source] RedisOptionsError),
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    SigningKeys(#[from] signing::ReadError),
    #[error(transparent)]
    Clients(#[from] ClientsError),
    #[error(transparent)]
    Providers(#[from] ProvidersError),
    #[error("--event-receivers-file")]
    Receivers(#[from] ReceiversError),
    #[error("--geo-database")]
    GeoDatabase(#[from] DatabaseError),
}
