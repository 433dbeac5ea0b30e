//! What happens at each attempt, also at those that the SDK repeats: nothing is sent without protection, throttled ones are
//! counted, and the clock of the reply is compared with ours.
mod clock;

pub use clock::Clock;

use std::sync::Arc;

use aws_sdk_dynamodb::config::interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use store::Observer;
use store::clock::unix_millis;

use crate::config::is_protected;

/// What the error's code ends with, in the body of the reply.
const THROTTLED: [&[u8]; 3] = [b"ThroughputExceededException", b"ThrottlingException", b"RequestLimitExceeded"];

#[derive(Debug)]
pub struct Attempts {
    pub observer: Arc<dyn Observer>,
    pub clock: Arc<Clock>,
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "attempts"
    }

    /// The environment and the SDK's profile can name an endpoint as well.
    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match is_protected(context.request().uri()) {
            true => Ok(()),
            false => Err("the endpoint must begin with https://, or lead to this host".into()),
        }
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(response) = context.response() else { return Ok(()) };
        if let Some(date) = response.headers().get("date") {
            self.clock.compare(date, unix_millis());
        }
        let refused = Some(response).filter(|response| response.status().as_u16() >= 400);
        let body = refused.and_then(|response| response.body().bytes()).unwrap_or_default();
        if THROTTLED.iter().any(|code| body.windows(code.len()).any(|part| part == *code)) {
            self.observer.throttled();
        }
        Ok(())
    }
}
