//! The changes to one answer, by the rule of its request and by what the upstream sent.
use super::set_cookie::{self, Verdict};
use super::{Browser, framing};
use crate::config::CacheControl;
use crate::request::Pair;

/// What is known about the request of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The filter itself replied.
    pub is_ours: bool,
    /// Its token was verified.
    pub is_authenticated: bool,
    /// The token came in a cookie.
    pub is_cookie_session: bool,
    /// The nonce that the upstream was given.
    pub nonce: Option<String>,
    /// For the client's next proofs of possession (RFC 9449 section 8.2).
    pub dpop_nonce: Option<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Removes all values of this name.
    Remove(Vec<u8>),
    /// One value that replaces all values of this name.
    Set(&'static str, Vec<u8>),
    /// One more value.
    Append(&'static str, Vec<u8>),
}

/// All changes to one answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub edits: Vec<Edit>,
    /// How many Set-Cookies were repaired.
    pub repaired: usize,
    /// How many Set-Cookies were removed.
    pub removed: usize,
}

const SET_COOKIE: &str = "set-cookie";
const CACHE_CONTROL: &str = "cache-control";
const CONTENT_SECURITY_POLICY: &str = "content-security-policy";

impl Changes {
    /// `browser`: the section of the answer's rule, if it has one.
    pub(crate) fn new(browser: Option<&Browser>, answer: &Answer, headers: &[Pair<'_>]) -> Self {
        let mut changes = Self::default();
        if answer.is_cookie_session {
            changes.set(CACHE_CONTROL, "no-store");
            if browser.is_none_or(|browser| browser.referrer_policy.is_none()) {
                changes.set("referrer-policy", "same-origin");
            }
        }
        if answer.is_cookie_session || browser.is_some_and(|browser| browser.content_type_options) {
            changes.set("x-content-type-options", "nosniff");
        }
        let Some(browser) = browser else { return changes };
        let mut kept = headers.to_vec();
        if !answer.is_ours {
            changes.remove_named(browser, &mut kept);
        }
        let headers = kept.as_slice();
        changes.protect_cookies(browser, headers);
        if answer.is_authenticated && !answer.is_cookie_session && !answer.is_ours {
            changes.restrict_caches(browser, headers);
        }
        for (name, value) in [
            ("strict-transport-security", browser.strict_transport_security.as_deref()),
            ("referrer-policy", browser.referrer_policy),
            ("permissions-policy", browser.permissions_policy.as_deref()),
        ] {
            if let Some(value) = value.filter(|_| values(headers, name).next().is_none()) {
                changes.set(name, value);
            }
        }
        changes.add_policies(browser, answer, headers);
        changes
    }

    /// The changes if the host cannot read the answer: nothing that could weaken what is in it.
    pub(crate) fn blind(browser: Option<&Browser>) -> Self {
        let Some(browser) = browser else { return Self::default() };
        let cookies = (!browser.cookies.is_empty()).then(|| SET_COOKIE.as_bytes().to_vec());
        let names = browser.removed.iter().map(|name| name.as_bytes().to_vec()).chain(cookies);
        Self { edits: names.map(Edit::Remove).collect(), ..Self::default() }
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.edits.push(Edit::Set(name, value.as_bytes().to_vec()));
    }

    fn remove_named(&mut self, browser: &Browser, headers: &mut Vec<Pair<'_>>) {
        headers.retain(|(name, _)| {
            let is_removed = browser.removes(name);
            if is_removed {
                self.edits.push(Edit::Remove(name.to_vec()));
            }
            !is_removed
        });
    }

    /// Hosts cannot change one of several values, so all of them are written anew.
    fn protect_cookies(&mut self, browser: &Browser, headers: &[Pair<'_>]) {
        if browser.cookies.is_empty() {
            return;
        }
        let cookies: Vec<(&[u8], Verdict)> =
            values(headers, SET_COOKIE).map(|cookie| (cookie, set_cookie::judge(&browser.cookies, cookie))).collect();
        if cookies.iter().all(|(_, verdict)| *verdict == Verdict::Keep) {
            return;
        }
        self.edits.push(Edit::Remove(SET_COOKIE.as_bytes().to_vec()));
        for (cookie, verdict) in cookies {
            match verdict {
                Verdict::Keep => self.edits.push(Edit::Append(SET_COOKIE, cookie.to_vec())),
                Verdict::Replace(repaired) => {
                    self.repaired = self.repaired.saturating_add(1);
                    self.edits.push(Edit::Append(SET_COOKIE, repaired));
                }
                Verdict::Remove => self.removed = self.removed.saturating_add(1),
            }
        }
    }

    fn restrict_caches(&mut self, browser: &Browser, headers: &[Pair<'_>]) {
        let Some(wanted) = browser.cache_control else { return };
        let directives = || {
            let values = values(headers, CACHE_CONTROL).flat_map(|value| value.split(|byte| *byte == b','));
            values.map(<[u8]>::trim_ascii).filter(|directive| !directive.is_empty())
        };
        let is = |directive: &[u8], name: &str| {
            let own = directive.split(|byte| *byte == b'=').next().unwrap_or_default();
            own.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
        };
        if directives().any(|directive| directive.eq_ignore_ascii_case(b"no-store")) {
            return;
        }
        match wanted {
            CacheControl::NoStore => self.set(CACHE_CONTROL, "no-store"),
            CacheControl::Private => {
                let is_shared = |directive: &[u8]| is(directive, "public") || is(directive, "s-maxage");
                if directives().any(|directive| directive.eq_ignore_ascii_case(b"private"))
                    && !directives().any(is_shared)
                {
                    return;
                }
                let kept = directives().filter(|directive| !is_shared(directive) && !is(directive, "private"));
                let all = std::iter::once(&b"private"[..]).chain(kept).collect::<Vec<_>>().join(&b", "[..]);
                self.edits.push(Edit::Set(CACHE_CONTROL, all));
            }
        }
    }

    fn add_policies(&mut self, browser: &Browser, answer: &Answer, headers: &[Pair<'_>]) {
        // A 304 changes the headers of a stored answer, whose body has the nonce of that time (RFC 9111 section 3.2).
        let is_not_modified = values(headers, ":status").any(|status| status == b"304");
        let nonce = answer.nonce.as_deref().filter(|_| !is_not_modified);
        for policy in &browser.content_policies {
            if let Some(policy) = policy.with_nonce(nonce) {
                self.edits.push(Edit::Append(CONTENT_SECURITY_POLICY, policy));
            }
        }
        if let Some(policy) = browser.report_only.as_ref().and_then(|policy| policy.with_nonce(nonce)) {
            self.edits.push(Edit::Append("content-security-policy-report-only", policy));
        }
        if browser.content_policies.iter().any(|policy| policy.restricts_frames()) {
            // With `frame-ancestors` in any policy, browsers ignore X-Frame-Options. The upstream's must still count.
            if let Some(options) = framing::effective(headers) {
                self.edits.push(Edit::Append(CONTENT_SECURITY_POLICY, options.policy().as_bytes().to_vec()));
            }
            if let Some(options) = browser.frame_options.filter(|_| values(headers, "x-frame-options").next().is_none())
            {
                self.set("x-frame-options", options.header());
            }
        }
    }
}

fn values<'h>(headers: &[Pair<'h>], wanted: &str) -> impl Iterator<Item = &'h [u8]> {
    let named = move |(name, _): &&Pair<'h>| name.eq_ignore_ascii_case(wanted.as_bytes());
    headers.iter().filter(named).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests;
