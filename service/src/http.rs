//! The endpoints: what is read of a request and how each outcome is answered.
pub mod admin;
pub mod check;
pub mod gate;
pub mod health;
pub mod oauth2;
pub mod openapi;
pub mod provider_events;
