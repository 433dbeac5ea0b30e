//! Answers to browsers: headers that are added, never weakening what the upstream set, and the cookies that it sets.
mod answer;
mod csp;
mod framing;
mod set_cookie;

pub use answer::{Answer, Changes, Edit};
pub(crate) use csp::ContentPolicy;
pub(crate) use framing::FrameOptions;
pub(crate) use set_cookie::{CookieName, CookieRule};

use crate::config::CacheControl;
use crate::request::headers::HeaderName;

/// A section `browser`, compiled.
#[derive(Debug, Default)]
pub(crate) struct Browser {
    pub(crate) strict_transport_security: Option<String>,
    pub(crate) content_policies: Vec<ContentPolicy>,
    pub(crate) report_only: Option<ContentPolicy>,
    /// Present if one of the policies has a nonce.
    pub(crate) nonce_header: Option<HeaderName>,
    /// What the restriction of frames is as X-Frame-Options, if it can be said there.
    pub(crate) frame_options: Option<FrameOptions>,
    pub(crate) content_type_options: bool,
    pub(crate) referrer_policy: Option<&'static str>,
    pub(crate) permissions_policy: Option<String>,
    pub(crate) cache_control: Option<CacheControl>,
    pub(crate) cookies: Vec<CookieRule>,
    pub(crate) removed: Vec<HeaderName>,
}

impl Browser {
    /// Is a trailer of this name removed from the upstream's answer? No browser reads Set-Cookie there, but other clients may.
    pub(crate) fn removes_trailer(&self, name: &[u8]) -> bool {
        self.removes(name) || (!self.cookies.is_empty() && name.eq_ignore_ascii_case(b"set-cookie"))
    }

    /// Is there anything to remove from trailers?
    pub(crate) fn has_trailers_to_remove(&self) -> bool {
        !self.removed.is_empty() || !self.cookies.is_empty()
    }

    fn removes(&self, name: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed.matches_loosely(name))
    }
}
