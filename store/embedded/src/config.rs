//! What one instance of the service needs to know about the file.
use std::path::PathBuf;

use store::StoreId;

/// Of contents. About 5 million revocations with notes of 100 bytes.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;
/// Less would not hold a store that is used.
pub const MIN_MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub struct Config {
    pub path: PathBuf,
    /// Create the file if there is none.
    pub create: bool,
    /// The only store to answer from. `None`: the one in the file.
    pub store_id: Option<StoreId>,
    /// The most bytes of contents.
    pub max_bytes: u64,
    /// How far an issuer's clock may run ahead.
    pub future_iat_tolerance_seconds: u64,
}
