//! Where tokens are read from.
use serde::Deserialize;

document! {
    /// Where tokens are read from. More than one token in a request is refused.
    pub struct Sources {
        /// Request headers, at most 16. Default: `authorization` with the scheme `Bearer`.
        #[serde(default = "default_headers")]
        pub headers: Vec<HeaderSource>,
        /// Cookies, at most 16. On unsafe methods and upgrades they need an Origin from the rule's `cookie_origins`.
        #[serde(default)]
        pub cookies: Vec<CookieSource>,
        /// Query parameters, at most 16, removed from the path before it is forwarded. They end up in logs: prefer a
        /// header.
        #[serde(default)]
        pub query: Vec<String>,
        /// Subprotocols in `Sec-WebSocket-Protocol` that are tokens, at most 16, removed before the request is forwarded.
        #[serde(default)]
        pub websocket: Vec<WebsocketSource>,
    }

    /// The encoding of a token as a subprotocol of a WebSocket.
    pub struct WebsocketSource {
        /// The prefix of the subprotocol. The rest is the token. Default: that of Kubernetes' API server.
        #[serde(default = "default_websocket_prefix")]
        pub prefix: String,
        /// The encoding of the token after the prefix.
        #[serde(default)]
        pub encoding: WebsocketEncoding,
    }

    /// A request header that may carry a token.
    pub struct HeaderSource {
        /// The header's name, case-insensitive.
        pub name: String,
        /// The authentication scheme before the token, case-insensitive; absent: the value is the token.
        pub scheme: Option<String>,
    }

    /// A cookie that may carry a token.
    pub struct CookieSource {
        /// The cookie's name, case-sensitive (RFC 6265).
        pub name: String,
        /// The token may also be split into up to 16 cookies, numbered from 0, in any order. Default: one cookie only.
        pub chunks: Option<ChunkSeparator>,
    }
}

choice! {
    /// The separator between a cookie's name and the number of its chunk.
    pub enum ChunkSeparator {
        /// `name.0`, `name.1`, …
        Dot,
        /// `name_0`, `name_1`, …
        Underscore,
    }

    /// The encoding of a token after the prefix of its subprotocol.
    #[derive(Default)]
    pub enum WebsocketEncoding {
        /// Base64url without padding, as Kubernetes' API server expects it.
        #[default]
        Base64url,
        /// Unencoded.
        Plain,
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self { headers: default_headers(), cookies: Vec::new(), query: Vec::new(), websocket: Vec::new() }
    }
}

fn default_headers() -> Vec<HeaderSource> {
    vec![HeaderSource { name: "authorization".into(), scheme: Some("Bearer".into()) }]
}

fn default_websocket_prefix() -> String {
    "base64url.bearer.authorization.k8s.io.".into()
}
