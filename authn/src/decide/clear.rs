//! The changes to every request before anything can end it: removes headers that only this filter may set, headers that
//! override the request line, and names that a backend could read as a token source; normalises the host.
use crate::policy::Policy;
use crate::request::Request;
use crate::request::headers::{Shape, is_token};
use crate::request::host::Host;
use crate::request::proxy_settings::{self, Settings};

/// One change to the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit<'r> {
    /// Removes the header with all of its values. The name is as the client sent it.
    Remove(&'r [u8]),
    /// One value that replaces all values under this name.
    Set(&'static str, Vec<u8>),
}

/// Connection options (RFC 9110 section 7.6.1) with a meaning for the next hop. Any other option would make it remove
/// the header of that name, possibly one that this filter sets.
const CONNECTION_OPTIONS: [&str; 5] = ["upgrade", "keep-alive", "close", "te", "http2-settings"];

impl Policy {
    /// Empty for most requests. Judge the request as received, and forward it changed.
    pub fn clear<'r>(&self, request: &Request<'r>) -> Vec<Edit<'r>> {
        let mut edits = Vec::new();
        let (mut has_connection, mut has_cookie) = (false, false);
        for (name, _) in request.headers() {
            // A pseudo header cannot be removed, and is never taken for another.
            if name.first() != Some(&b':') && self.is_cleared(name) {
                edits.push(Edit::Remove(name));
            }
            has_connection = has_connection || name.eq_ignore_ascii_case(b"connection");
            has_cookie = has_cookie || name.eq_ignore_ascii_case(b"cookie");
        }
        if has_connection && let Some(edit) = connection(request) {
            edits.push(edit);
        }
        if has_cookie && let Some(rest) = self.credentials.cookies_without_aliases(request) {
            edits.push(rest.map_or(Edit::Remove(b"cookie"), |rest| Edit::Set("cookie", rest)));
        }
        // A token in a URL ends up in logs, also if the request is refused.
        if let Some(path) = self.credentials.path_without_tokens(request.path()) {
            edits.push(Edit::Set(":path", path));
        }
        if let Some(authority) = self.tidied_authority(request) {
            edits.push(Edit::Set(":authority", authority));
        }
        edits
    }

    /// Is a header of this name removed from every request, whatever its value?
    pub fn is_cleared(&self, name: &[u8]) -> bool {
        let shape = Shape::of(name);
        (self.clear.may_have(shape) && self.clear.has_loosely(name)) || self.credentials.is_header_alias(name, shape)
    }

    /// Proxy settings that are missing according to headers and host of this request, as received.
    pub fn missing_proxy_settings(&self, request: &Request<'_>) -> Settings {
        proxy_settings::missing(request, self.router.compares_hosts())
    }

    /// Rules compare the host in one form, and the proxy routes by the host that the client wrote. To make both see the
    /// same host, the request gets the compared form. None if it has that form already, if no rule compares hosts, or
    /// if [`Policy::enter`] refuses the request.
    fn tidied_authority(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        if !self.router.compares_hosts() {
            return None;
        }
        let host = Host::parse(request.authority()).ok()?;
        (host.as_bytes() != request.authority()).then(|| host.as_bytes().to_vec())
    }
}

/// The Connection header without options that name other headers. None: it has none of them.
fn connection<'r>(request: &Request<'r>) -> Option<Edit<'r>> {
    let options = || {
        let values = request.header_values(b"connection");
        values.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    };
    let is_kept = |option: &[u8]| CONNECTION_OPTIONS.iter().any(|kept| option.eq_ignore_ascii_case(kept.as_bytes()));
    if options().all(is_kept) {
        return None;
    }
    let kept = options().filter(|option| is_token(option) && is_kept(option)).collect::<Vec<_>>().join(&b", "[..]);
    Some(if kept.is_empty() { Edit::Remove(b"connection") } else { Edit::Set("connection", kept) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Pair;

    fn options(values: &[&str]) -> Option<String> {
        let mut pairs: Vec<Pair<'_>> = vec![(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a")];
        pairs.extend(values.iter().map(|value| (&b"connection"[..], value.as_bytes())));
        match connection(&Request::from_pairs(&pairs).unwrap()) {
            None => None,
            Some(Edit::Set("connection", value)) => Some(String::from_utf8(value).unwrap()),
            Some(Edit::Remove(b"connection")) => Some(String::new()),
            Some(edit) => panic!("{edit:?}"),
        }
    }

    #[test]
    fn only_options_that_name_no_other_header_stay() {
        assert_eq!(options(&["Upgrade"]), None);
        assert_eq!(options(&["keep-alive, Upgrade", "close"]), None);
        assert_eq!(options(&["Upgrade, x-user-id"]).as_deref(), Some("Upgrade"));
        assert_eq!(options(&["x-user-id,upgrade,HTTP2-Settings"]).as_deref(), Some("upgrade, HTTP2-Settings"));
        assert_eq!(options(&["upgrade", "X_User_Id"]).as_deref(), Some("upgrade"));
        assert_eq!(options(&["authorization"]).as_deref(), Some(""));
        assert_eq!(options(&["upgrade,,"]).as_deref(), Some("upgrade"));
        assert_eq!(options(&["upgrade;x-user-id"]).as_deref(), Some(""));
    }
}
