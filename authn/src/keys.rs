//! The keys of issuers: where they are fetched from, when, and the set that each issuer has now.
pub mod answer;
pub mod discovery;
pub mod http_date;
pub mod rings;
pub mod source;
