//! What the service does, without HTTP: revocations, the feed of
//! revocations, joined regions, known issuers, sessions, clients, provider events, events that
//! are sent, the audit log.
pub mod audit;
pub mod clients;
pub mod feed;
pub mod hijack;
pub mod issuers;
pub mod provider_events;
pub mod regions;
pub mod revocations;
pub mod sessions;
pub mod status_lists;
pub mod transmitter;
