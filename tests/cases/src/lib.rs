//! The table of cases that the core and the real proxy must answer alike: read, and made into requests at a given time.
mod case;
mod provider_page;
mod table;
mod tampering;
mod times;

pub use case::{Case, Expect, IntrospectionSpec, ManyForm, ManySpec, RequestSpec, RevokedSpec, Store, Then, TokenSpec};
pub use mint::SigningKey as ProviderKey;
pub use provider_page::{ProviderPage, ProviderToken, provider_key};
pub use table::{Introspection, Ready, Table};

pub const ISSUER: &str = "https://issuer.example";
/// The VM's environment, apart from the secret shared with the service.
pub const SHARED_SECRET_ENV: &str = "PORTCULLIS_SECRET";
/// Who the filter is to the introspection server.
pub const CLIENT_ID: &str = "gateway";
pub const CLIENT_SECRET_ENV: &str = "CLIENT_SECRET";
pub const CLIENT_SECRET: &str = "a client secret of the tests";
pub const SHARED_SECRET: &str = "a secret of the tests, and of nothing else, long enough";
