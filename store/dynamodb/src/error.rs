//! What DynamoDB's errors mean to us, and one log line a second about them.
use std::sync::LazyLock;
use std::time::Instant;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use store::throttle::Throttle;
use store::{StoreError, WriteError};

/// After all retries. Throttling counts as slow: the table has too little capacity, or a partition of it has.
pub fn store_error<E, R>(what: &'static str, error: &SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    static LINES: LazyLock<Throttle> = LazyLock::new(Throttle::default);
    let (mapped, why) = match error {
        SdkError::TimeoutError(_) => (StoreError::StoreSlow, "timeout"),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (StoreError::StoreSlow, "timeout"),
        SdkError::DispatchFailure(failure) if failure.is_io() => (StoreError::StoreRefused, "connection"),
        SdkError::ServiceError(error) => match error.err().code().unwrap_or_default() {
            // The table is gone, or another one is being made.
            "ResourceNotFoundException" => (StoreError::StoreChanged, "no table"),
            "ProvisionedThroughputExceededException" | "ThrottlingException" | "RequestLimitExceeded" => {
                (StoreError::StoreSlow, "throttled")
            }
            _ => (StoreError::StoreFailed, "refused"),
        },
        _ => (StoreError::StoreFailed, "failed"),
    };
    if let Some(left_out) = LINES.pass(Instant::now()) {
        let error = DisplayErrorContext(error);
        tracing::warn!(what, why, %error, left_out, "DynamoDB did not do what was asked");
    }
    mapped
}

/// Before anything was sent that changes something.
pub fn not_written(error: StoreError) -> WriteError {
    WriteError::NotWritten(error)
}

pub fn unknown(error: StoreError) -> WriteError {
    WriteError::Unknown(error)
}
