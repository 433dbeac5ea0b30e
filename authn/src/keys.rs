//! The keys of issuers over time: where they are fetched, when, and the set that each issuer has at this moment.
pub mod answer;
pub mod discovery;
mod http_date;
pub mod rings;
pub mod source;
