//! What answers to browsers have.
use serde::Deserialize;

use super::ConfigDuration;
use super::defaults::default_true;

document! {
    /// What answers to browsers have. Headers are added where the upstream sets none, and a header of the upstream is never
    /// weakened: docs/browsers.md has the rule for each. They are also in the filter's own refusals.
    #[derive(Default)]
    pub struct Browser {
        /// Strict-Transport-Security (RFC 6797). One that the upstream sends stays.
        pub strict_transport_security: Option<StrictTransportSecurity>,
        /// A Content-Security-Policy, beside those of the upstream: a page must comply with all of them. In it,
        /// `'nonce-{nonce}'` stands for a nonce that is new for each answer, and needs `nonce_header`.
        pub content_security_policy: Option<String>,
        /// The same as a Content-Security-Policy-Report-Only: violations are reported and not prevented.
        pub content_security_policy_report_only: Option<String>,
        /// The request header by which the upstream gets the nonce. A client's header of this name is removed, on every
        /// route.
        pub nonce_header: Option<String>,
        /// Pages that may embed the answer in a frame, as in the directive `frame-ancestors`: `'none'`, `'self'`, origins. It
        /// is a policy of its own. For `'none'` and `'self'` alone, X-Frame-Options says the same where the upstream
        /// does not set it. Default: no restriction.
        #[serde(default)]
        pub frame_ancestors: Vec<String>,
        /// `X-Content-Type-Options: nosniff`. Default false.
        #[serde(default)]
        pub content_type_options: bool,
        /// Referrer-Policy. One that the upstream sends stays.
        pub referrer_policy: Option<ReferrerPolicy>,
        /// Permissions-Policy. One that the upstream sends stays.
        pub permissions_policy: Option<String>,
        /// Cache-Control of answers to requests whose token was verified. Default: the upstream's.
        pub authenticated_cache_control: Option<CacheControl>,
        /// Attributes that cookies must have, by their names. The first entry that matches counts. At most 32. If there
        /// are any, a Set-Cookie without a name, or with a control character, is removed.
        #[serde(default)]
        pub cookies: Vec<SetCookieRule>,
        /// Headers and trailers that are removed from the upstream's answers. At most 32.
        #[serde(default)]
        pub remove_headers: Vec<String>,
    }

    /// Strict-Transport-Security.
    pub struct StrictTransportSecurity {
        /// How long browsers use HTTPS alone for this host, in whole seconds; 0s to 1000d. 0s ends it.
        pub max_age: ConfigDuration,
        /// For all hosts below this one too. Default false.
        #[serde(default)]
        pub include_subdomains: bool,
        /// The host may be put into the lists that browsers are shipped with, which is hard to undo. Needs
        /// `include_subdomains` and a `max_age` of at least 365d. Default false.
        #[serde(default)]
        pub preload: bool,
    }

    /// What a cookie of the upstream must have. A cookie whose name begins with `__Host-` or `__Secure-` must also have what
    /// these prefixes stand for.
    pub struct SetCookieRule {
        /// The name of the cookie; with `*` at its end, the beginning of the name.
        pub name: String,
        /// Only over HTTPS. Default true.
        #[serde(default = "default_true")]
        pub secure: bool,
        /// Not for scripts. Default true.
        #[serde(default = "default_true")]
        pub http_only: bool,
        /// The weakest SameSite that stays. Default: `lax`.
        #[serde(default)]
        pub same_site: SameSite,
        /// What happens to a Set-Cookie that lacks something. Default: `repair`.
        #[serde(default)]
        pub otherwise: CookieAction,
    }
}

choice! {
    /// The weakest SameSite that stays.
    #[derive(Default, PartialOrd, Ord)]
    pub enum SameSite {
        /// Any, or none.
        Any,
        /// `Lax` or `Strict`.
        #[default]
        Lax,
        /// `Strict`.
        Strict,
    }

    /// What happens to a Set-Cookie that lacks an attribute.
    #[derive(Default)]
    pub enum CookieAction {
        /// The attribute is added or corrected.
        #[default]
        Repair,
        /// The Set-Cookie is removed.
        Remove,
    }

    /// Cache-Control of an answer that is for one user.
    pub enum CacheControl {
        /// No cache stores it.
        NoStore,
        /// Only the browser's cache stores it. `no-store` of the upstream stays.
        Private,
    }
}

/// Referrer-Policy: what a browser says, in Referer, of the page that a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum ReferrerPolicy {
    /// Nothing.
    NoReferrer,
    /// The URL, but nothing from HTTPS to HTTP.
    NoReferrerWhenDowngrade,
    /// The origin.
    Origin,
    /// The URL to the same origin, the origin to others.
    OriginWhenCrossOrigin,
    /// The URL to the same origin, nothing to others.
    SameOrigin,
    /// The origin, but nothing from HTTPS to HTTP.
    StrictOrigin,
    /// The URL to the same origin, the origin to others, but nothing from HTTPS to HTTP. Browsers do this by default.
    StrictOriginWhenCrossOrigin,
    /// The URL.
    UnsafeUrl,
}

impl ReferrerPolicy {
    /// As in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoReferrer => "no-referrer",
            Self::NoReferrerWhenDowngrade => "no-referrer-when-downgrade",
            Self::Origin => "origin",
            Self::OriginWhenCrossOrigin => "origin-when-cross-origin",
            Self::SameOrigin => "same-origin",
            Self::StrictOrigin => "strict-origin",
            Self::StrictOriginWhenCrossOrigin => "strict-origin-when-cross-origin",
            Self::UnsafeUrl => "unsafe-url",
        }
    }
}
