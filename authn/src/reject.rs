//! Why a request is refused: the reason that the client sees, and the cause for the log.
mod cause;
mod reason;
mod rejection;

pub use cause::Cause;
pub use reason::RejectReason;
pub use rejection::Rejection;
