//! The endpoints: parsing of requests, and the answer for each result.
pub mod accept;
pub mod admin;
pub mod check;
pub mod feed;
pub mod gate;
pub mod health;
pub mod join;
pub mod oauth2;
pub mod openapi;
pub mod provider_events;
pub mod sightings;
pub mod status_list;
