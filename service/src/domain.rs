//! What the service does, without HTTP: issuers, sessions, provider events, the audit log.
pub mod audit;
pub mod issuers;
pub mod provider_events;
pub mod sessions;
pub mod tenants;
