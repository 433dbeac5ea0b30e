//! The binding of a token to its client.
use serde::Deserialize;

use super::defaults::default_true;
use super::{Mode, OneOrMany};

document! {
    /// What a token must be bound to. An absent field requires no binding.
    #[derive(Default)]
    pub struct Binding {
        /// `cnf.x5t#S256` (RFC 8705 section 3.1) against the client's certificate.
        pub certificate: Option<CertificateBinding>,
        /// A claim with one address or CIDR, or an array of them, against the client's address.
        pub address: Option<ClaimBinding>,
        /// A claim with the base64url SHA-256 of the User-Agent header.
        pub user_agent: Option<ClaimBinding>,
    }

    /// How a token's certificate is compared with the client's.
    pub struct CertificateBinding {
        /// The effect of a mismatch.
        pub mode: Mode,
        /// Refuse a token without `cnf.x5t#S256`. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
    }

    /// How a claim is compared with the client.
    pub struct ClaimBinding {
        /// The effect of a mismatch.
        pub mode: Mode,
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// Refuse a token without the claim. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
    }
}
