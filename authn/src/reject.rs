//! Why a request is refused: a reason for the client and a cause for the log.
mod cause;
mod reason;
mod rejection;

pub use cause::Cause;
pub use reason::RejectReason;
pub use rejection::Rejection;
