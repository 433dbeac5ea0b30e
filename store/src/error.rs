//! Why a store did not do what was asked.
pub use wire::check::StoreError;

/// A write that is not acknowledged. The variants differ in what may be in the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("nothing was written: {}", .0.name())]
    NotWritten(StoreError),
    #[error("the store did not say whether it was written: {}", .0.name())]
    Unknown(StoreError),
    /// It is in the store, and may be lost: the durability that was asked for was not confirmed.
    #[error("it was written, but {0}")]
    Unconfirmed(String),
}

impl WriteError {
    /// The error without what is known about the write.
    pub fn store_error(&self) -> StoreError {
        match self {
            WriteError::NotWritten(error) | WriteError::Unknown(error) => *error,
            WriteError::Unconfirmed(_) => StoreError::StoreFailed,
        }
    }
}
