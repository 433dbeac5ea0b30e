//! The attributes of a cookie that the upstream sets, read as browsers read them (RFC 6265bis section 5.6).
use crate::config::{CookieAction, SameSite};

/// What cookies of one name, or of names that begin alike, must have.
#[derive(Debug)]
pub(crate) struct CookieRule {
    pub(crate) name: CookieName,
    pub(crate) secure: bool,
    pub(crate) http_only: bool,
    pub(crate) same_site: SameSite,
    pub(crate) otherwise: CookieAction,
}

#[derive(Debug)]
pub(crate) enum CookieName {
    Whole(String),
    Beginning(String),
}

/// What becomes of one Set-Cookie.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Replace(Vec<u8>),
    Remove,
}

/// Browsers ignore an attribute with a longer value.
const MAX_ATTRIBUTE_VALUE: usize = 1024;

/// Of several attributes of one name, the last counts.
#[derive(Debug, Default)]
struct Attributes<'c> {
    secure: bool,
    http_only: bool,
    same_site: Option<SameSite>,
    path: Option<&'c [u8]>,
    domain: bool,
}

/// What a Set-Cookie must have.
struct Needs {
    secure: bool,
    http_only: bool,
    same_site: SameSite,
    /// No Domain, and the path `/`.
    host_only: bool,
}

pub(super) fn judge(rules: &[CookieRule], cookie: &[u8]) -> Verdict {
    let mut segments = cookie.split(|byte| *byte == b';');
    let pair = segments.next().unwrap_or_default().trim_ascii();
    let equals = pair.iter().position(|byte| *byte == b'=');
    let name = equals.and_then(|at| pair.get(..at)).unwrap_or_default().trim_ascii();
    // A browser sends a cookie without a name as its value alone, so `=session=x` would become `session=x`.
    if name.is_empty() || cookie.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Verdict::Remove;
    }
    let Some(rule) = rules.iter().find(|rule| rule.name.matches(name)) else { return Verdict::Keep };
    let (has, needs) = (Attributes::read(segments.clone()), Needs::of(rule, name));
    if needs.are_met(&has) {
        return Verdict::Keep;
    }
    match rule.otherwise {
        CookieAction::Remove => Verdict::Remove,
        CookieAction::Repair => Verdict::Replace(repaired(pair, segments, &has, &needs)),
    }
}

/// The attributes that do not suffice are left out, and added as they must be.
fn repaired<'c>(pair: &[u8], segments: impl Iterator<Item = &'c [u8]>, has: &Attributes<'_>, needs: &Needs) -> Vec<u8> {
    let mut cookie = pair.to_vec();
    let mut add = |attribute: &[u8]| {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(attribute);
    };
    let (fixes_same_site, fixes_path) = (!needs.same_site_is_met(has), !needs.path_is_met(has));
    for segment in segments.map(<[u8]>::trim_ascii).filter(|segment| !segment.is_empty()) {
        let is_left_out = match attribute(segment).0.to_ascii_lowercase().as_slice() {
            b"samesite" => fixes_same_site,
            b"path" => fixes_path,
            b"domain" => needs.host_only,
            _ => false,
        };
        if !is_left_out {
            add(segment);
        }
    }
    if fixes_path {
        add(b"Path=/");
    }
    if needs.secure && !has.secure {
        add(b"Secure");
    }
    if needs.http_only && !has.http_only {
        add(b"HttpOnly");
    }
    if fixes_same_site {
        add(if needs.same_site == SameSite::Strict { b"SameSite=Strict" } else { b"SameSite=Lax" });
    }
    cookie
}

impl CookieName {
    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Whole(whole) => whole.as_bytes() == name,
            Self::Beginning(beginning) => name.starts_with(beginning.as_bytes()),
        }
    }
}

impl<'c> Attributes<'c> {
    fn read(segments: impl Iterator<Item = &'c [u8]>) -> Self {
        let mut read = Self::default();
        for segment in segments {
            let (name, value) = attribute(segment);
            if value.len() > MAX_ATTRIBUTE_VALUE {
                continue;
            }
            match name.to_ascii_lowercase().as_slice() {
                b"secure" => read.secure = true,
                b"httponly" => read.http_only = true,
                b"path" => read.path = Some(value),
                b"domain" => read.domain = true,
                b"samesite" => {
                    read.same_site = match value.to_ascii_lowercase().as_slice() {
                        b"strict" => Some(SameSite::Strict),
                        b"lax" => Some(SameSite::Lax),
                        _ => None,
                    }
                }
                _ => {}
            }
        }
        read
    }
}

/// Name and value, without space around them.
fn attribute(segment: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = segment.splitn(2, |byte| *byte == b'=');
    (parts.next().unwrap_or_default().trim_ascii(), parts.next().unwrap_or_default().trim_ascii())
}

impl Needs {
    fn of(rule: &CookieRule, name: &[u8]) -> Self {
        // Browsers compare the prefixes without regard to case (RFC 6265bis section 4.1.3).
        let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let host_only = begins(b"__host-");
        Self {
            secure: rule.secure || host_only || begins(b"__secure-"),
            http_only: rule.http_only,
            same_site: rule.same_site,
            host_only,
        }
    }

    fn are_met(&self, has: &Attributes<'_>) -> bool {
        (has.secure || !self.secure)
            && (has.http_only || !self.http_only)
            && self.same_site_is_met(has)
            && self.path_is_met(has)
            && !(self.host_only && has.domain)
    }

    fn same_site_is_met(&self, has: &Attributes<'_>) -> bool {
        has.same_site.unwrap_or(SameSite::Any) >= self.same_site
    }

    fn path_is_met(&self, has: &Attributes<'_>) -> bool {
        !self.host_only || has.path == Some(b"/")
    }
}

#[cfg(test)]
mod tests;
