//! Bounds on input and caches.
use serde::Deserialize;

document! {
    /// Bounds on input and caches, so that no client can make the filter's memory grow.
    pub struct Limits {
        /// The longest token; 256 to 65536 bytes. Envoy accepts 60 KiB of headers in all, unless
        /// `max_request_headers_kb` says otherwise.
        #[serde(default = "default_token_bytes")]
        pub token_bytes: usize,
        /// Tokens cached in each VM (one per worker thread); 0 to 65536.
        #[serde(default = "default_cached_tokens")]
        pub cached_tokens: usize,
        /// The approximate memory of these tokens together in each VM; 65536 to 268435456 bytes. A token larger than a
        /// 64th of it is verified each time.
        #[serde(default = "default_cached_token_bytes")]
        pub cached_token_bytes: usize,
        /// Verdicts cached for all workers of a process; 0 to 65536.
        #[serde(default = "default_shared_verdicts")]
        pub shared_verdicts: usize,
        /// Requests that wait for an answer of the service at once, in each VM; 1 to 16384. Further ones are refused.
        /// As many may wait for keys, and for each introspection server.
        #[serde(default = "default_waiting")]
        pub waiting_requests: usize,
        /// The memory of the revocations that the feed brings, in each VM; 65536 to 268435456 bytes. With more of them, each
        /// token is asked about.
        #[serde(default = "default_feed_bytes")]
        pub feed_bytes: usize,
        /// Requests and streams under rules with `streams` that are open at once, in each VM; 1 to 65536. Further requests of
        /// such rules are refused, and those of one token beyond a quarter of it.
        #[serde(default = "default_open_streams")]
        pub open_streams: usize,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            token_bytes: default_token_bytes(),
            cached_tokens: default_cached_tokens(),
            cached_token_bytes: default_cached_token_bytes(),
            shared_verdicts: default_shared_verdicts(),
            waiting_requests: default_waiting(),
            feed_bytes: default_feed_bytes(),
            open_streams: default_open_streams(),
        }
    }
}

/// Within Envoy's default limit for all headers together (60 KiB).
fn default_token_bytes() -> usize {
    32 * 1024
}

fn default_cached_tokens() -> usize {
    4096
}

fn default_cached_token_bytes() -> usize {
    16 * 1024 * 1024
}

fn default_shared_verdicts() -> usize {
    8192
}

fn default_feed_bytes() -> usize {
    64 * 1024 * 1024
}

fn default_open_streams() -> usize {
    4096
}

fn default_waiting() -> usize {
    1024
}
