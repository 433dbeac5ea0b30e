//! One request under the module: its state between hooks.
use std::sync::Arc;

use crate::abi::{BodyStatus, HeadersStatus, TrailersStatus};
use crate::configuration::Configuration;
use crate::envoy::Stream;
use crate::reply::OwnedReply;

/// What is done about the stream when everything else about it has been done, since it may end the stream.
pub enum After {
    Nothing,
    #[allow(dead_code, reason = "nothing waits yet")]
    /// The request was held and goes on.
    Resume,
    Reply(OwnedReply),
}

pub struct Filter {
    configuration: Arc<Configuration>,
}

impl Filter {
    pub fn new(configuration: Arc<Configuration>, _stream: &Stream<'_>) -> Self {
        Self { configuration }
    }

    pub fn on_request_headers(&self, stream: &mut Stream<'_>, _ends: bool) -> (HeadersStatus, After) {
        // Closed until it decides.
        let reply = OwnedReply::unavailable("NOT_DECIDED", "the module does not decide yet");
        (HeadersStatus::StopIteration, After::Reply(reply.for_request(stream)))
    }

    pub fn on_request_body(&self) -> BodyStatus {
        BodyStatus::Continue
    }

    pub fn on_request_trailers(&self, _stream: &mut Stream<'_>) -> (TrailersStatus, After) {
        (TrailersStatus::Continue, After::Nothing)
    }

    pub fn on_response_headers(&self, _stream: &mut Stream<'_>) -> (HeadersStatus, After) {
        (HeadersStatus::Continue, After::Nothing)
    }

    pub fn on_complete(&self, _stream: &mut Stream<'_>) {}

    pub fn on_event(&self, _stream: &mut Stream<'_>, _event: u64) -> After {
        After::Nothing
    }

    /// A hook of this request panicked: it is refused, whatever it was about to become.
    pub fn on_fault(&self, stream: &mut Stream<'_>) -> After {
        let _ = stream.increment(self.configuration.faults, &[], 1);
        After::Reply(OwnedReply::unavailable("FAULT", "a fault in the filter").for_request(stream))
    }

    /// Envoy is done with this request.
    pub fn on_gone(&self) {}
}
