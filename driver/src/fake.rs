//! A proxy in memory, with simulated time and network: what a test, `explain` or a simulation drives in place of Envoy.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "never part of a filter: a misuse of the simulation ends it"
)]

mod exchange;
mod host;
mod proxy;
mod service;

pub use exchange::{FakeExchange, FakeResponse, Sent};
pub use host::{FakeHost, InFlight, SharedData};
pub use proxy::{FakeProxy, Request, Seen};
pub use service::FakeService;

use crate::host::{CalloutReply, HostError};

/// A reply to a callout, whole.
#[derive(Debug, Clone, Default)]
pub struct FakeReply {
    /// Empty for a reply that broke off or never came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl FakeReply {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers =
            vec![(":status".to_owned(), status.to_string()), ("content-type".to_owned(), content_type.to_owned())];
        Self { headers, body: body.into() }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the host reports when a connection breaks off.
    pub fn broken_off() -> Self {
        Self::default()
    }
}

impl CalloutReply for FakeReply {
    fn header(&self, name: &[u8]) -> Option<Vec<u8>> {
        let found = self.headers.iter().find(|(other, _)| other.as_bytes() == name)?;
        Some(found.1.clone().into_bytes())
    }

    fn body(&self, max: usize) -> Result<Vec<u8>, HostError> {
        Ok(self.body.get(..max).unwrap_or(&self.body).to_vec())
    }
}
