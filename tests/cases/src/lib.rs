//! The table of cases that the core and the real proxy must answer alike: read, and made into requests at a given time.
//!
//! ```
//! use std::path::Path;
//!
//! # fn main() -> anyhow::Result<()> {
//! let table = cases::Table::read(Path::new(env!("CARGO_MANIFEST_DIR")))?;
//! let now = 1_700_000_000;
//! let case = table.cases.iter().find(|case| case.name == "A token signed with HS256 passes").unwrap();
//! // Tokens are signed and placeholders are filled in.
//! let request = table.ready(case, now)?;
//! assert!(request.headers.iter().any(|(name, value)| name == "authorization" && value.contains(&request.token)));
//! # Ok(())
//! # }
//! ```
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "for tests: a case that cannot be built is a failed test"
)]
mod case;
mod proof;
mod provider_page;
mod table;
mod tampering;
mod times;
mod variation;

pub use case::{
    Case, Expect, IntrospectionSpec, ManyForm, ManySpec, NonceSpec, ProofSpec, RequestSpec, RevokedSpec, Store, Then,
    TokenSpec, UpstreamSpec,
};
pub use mint::SigningKey as ProviderKey;
pub use provider_page::{ProviderPage, ProviderToken, provider_key};
pub use table::{Introspection, Ready, Table};
pub use variation::{Variation, Variations};

pub const ISSUER: &str = "https://issuer.example";
/// The VM's environment, apart from the secret shared with the service.
pub const SHARED_SECRET_ENV: &str = "PORTCULLIS_SECRET";
/// The filter's client id at the introspection server.
pub const CLIENT_ID: &str = "gateway";
pub const CLIENT_SECRET_ENV: &str = "CLIENT_SECRET";
pub const CLIENT_SECRET: &str = "a client secret of the tests";
pub const SHARED_SECRET: &str = "a secret of the tests, and of nothing else, long enough";
