//! Bindings: tokens that count only for one client, by address, certificate or user agent.
mod client;
pub(crate) mod forwarded;
mod judge;
mod required;

pub use client::client_address;
pub use judge::Peer;
pub(crate) use judge::{Bound, bound, check};
pub(crate) use required::{AddressBinding, AgentBinding, Binding, CertificateBinding, ClientHeaders, Fingerprint};
