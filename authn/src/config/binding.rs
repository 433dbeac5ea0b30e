//! The binding of a token to its client.
use serde::Deserialize;

use super::defaults::default_true;
use super::{Mode, OneOrMany, SecretEncoding};

document! {
    /// What a token must be bound to. An absent field requires no binding.
    #[derive(Default)]
    pub struct Binding {
        /// `cnf.x5t#S256` (RFC 8705 section 3.1) against the client's certificate.
        pub certificate: Option<CertificateBinding>,
        /// A claim with one address or CIDR, or an array of them, against the client's address.
        pub address: Option<AddressBinding>,
        /// A claim with the base64url SHA-256 of the User-Agent header, or with its HMAC.
        pub user_agent: Option<AgentBinding>,
    }

    /// How a token's certificate is compared with the client's.
    pub struct CertificateBinding {
        /// The effect of a mismatch.
        pub mode: Mode,
        /// Refuse a token without `cnf.x5t#S256`. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
        /// The proxy before this one that ends the client's TLS, by the URI in its own certificate, such as
        /// `spiffe://cluster.local/ns/istio-system/sa/gateway`. The client's certificate is then the one that it names in
        /// X-Forwarded-Client-Cert, and only requests over a connection with that certificate count. Envoy must keep the
        /// header (`forward_client_cert_details`). Default: the certificate of the connection is the client's.
        pub forwarded_by: Option<String>,
    }

    /// How a claim is compared with the client's address.
    pub struct AddressBinding {
        /// The effect of a mismatch.
        pub mode: Mode,
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// Refuse a token without the claim. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
        /// How many bits of an address in the claim must be those of the client's. A CIDR in the claim has its own prefix.
        /// Default: all.
        pub prefix: Option<AddressPrefix>,
    }

    /// The bits of an address that are compared, by family.
    pub struct AddressPrefix {
        /// Of an IPv4 address; 8 to 32. 24 is a usual choice.
        pub v4: u8,
        /// Of an IPv6 address; 16 to 128. 56 is a usual choice: providers give their customers a /56 or a /64.
        pub v6: u8,
    }

    /// How a claim is compared with the User-Agent header.
    pub struct AgentBinding {
        /// The effect of a mismatch.
        pub mode: Mode,
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// Refuse a token without the claim. Default true.
        #[serde(default = "default_true")]
        pub required: bool,
        /// The environment variable of the VM that holds a secret of at least 32 bytes, shared with the issuer. The claim is
        /// then the base64url HMAC-SHA-256 of the header under this secret, which reveals nothing about the browser.
        /// Default: the claim is the SHA-256.
        pub secret_env: Option<String>,
        /// The encoding of that secret. Default: `raw`.
        #[serde(default)]
        pub secret_encoding: SecretEncoding,
    }

    /// How the client's address is determined.
    pub struct ClientAddress {
        /// The n-th address from the right in X-Forwarded-For, as the filter sees it; 1 to 16. Envoy with
        /// `use_remote_address` appends the address of the connection, which is the first. So with one trusted proxy before
        /// this one it is 2. All further left may be the client's own words, and is ignored.
        pub forwarded_for: u8,
    }
}
