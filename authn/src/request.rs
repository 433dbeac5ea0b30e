//! A request as the proxy received it: head, path, host, headers, origin, and the rule that it matches.
pub(crate) mod authority;
mod head;
pub mod headers;
pub(crate) mod hex;
pub mod host;
pub mod origin;
pub mod overrides;
pub mod path;
pub mod proxy_settings;
pub mod route;
pub mod scan;

pub(crate) use head::{CONNECT, is_method};
pub use head::{MAX_HEADERS, Pair, Request};
