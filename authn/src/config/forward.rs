//! Forwarding to the upstream: claims as headers, and the token.
use serde::Deserialize;

use super::OneOrMany;

document! {
    /// What is forwarded to the upstream.
    #[derive(Default)]
    pub struct Forward {
        /// Claims that become request headers.
        #[serde(default)]
        pub claims: Vec<ForwardClaim>,
        /// A header with the payload as in the token (base64url JSON).
        pub payload_header: Option<String>,
        /// Whether the token is forwarded. Default: `remove`.
        #[serde(default)]
        pub token: TokenForwarding,
    }

    /// One claim as a request header.
    pub struct ForwardClaim {
        /// The claim: a name, or a list of names that selects a member of nested objects.
        pub claim: OneOrMany<String>,
        /// The request header. A client's header of this name is removed, on every route.
        pub header: String,
        /// The encoding of the value. Default: `plain`.
        #[serde(default)]
        pub encoding: Encoding,
    }
}

choice! {
    /// Whether the token is forwarded.
    #[derive(Default)]
    pub enum TokenForwarding {
        /// The token is removed.
        #[default]
        Remove,
        /// The token is forwarded; a token in a query parameter is removed anyway.
        Keep,
    }

    /// The encoding of a claim's value in a header.
    #[derive(Default)]
    pub enum Encoding {
        /// Unencoded. A token whose value has bytes outside 0x20–0x7e, or a space at either end, is refused.
        #[default]
        Plain,
        /// Always base64url without padding of its UTF-8. If only some values were encoded, two users could share one
        /// value.
        Base64url,
    }
}
