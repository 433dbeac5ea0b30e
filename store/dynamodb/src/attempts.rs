//! Counts the attempts that DynamoDB throttled, also those that the SDK repeated with success.
use std::sync::Arc;

use aws_sdk_dynamodb::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use store::Observer;

/// What the error's code ends with, in the body of the reply.
const THROTTLED: [&[u8]; 3] = [b"ThroughputExceededException", b"ThrottlingException", b"RequestLimitExceeded"];

#[derive(Debug)]
pub struct Attempts(pub Arc<dyn Observer>);

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "attempts"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let refused = context.response().filter(|response| response.status().as_u16() >= 400);
        let body = refused.and_then(|response| response.body().bytes()).unwrap_or_default();
        if THROTTLED.iter().any(|code| body.windows(code.len()).any(|part| part == *code)) {
            self.0.throttled();
        }
        Ok(())
    }
}
