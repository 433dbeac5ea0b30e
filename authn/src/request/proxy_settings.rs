//! Missing proxy settings, detected from a request: a header, path or host that a proxy with the settings of the README
//! would never have passed. It changes no decision.
use crate::request::Request;
use crate::request::host::split_port;
use crate::request::path::split_query;

/// A setting of Envoy's connection manager, by the sign that it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    HeadersWithUnderscores,
    NormalizePath,
    MergeSlashes,
    EscapedSlashes,
    /// Only if rules compare hosts, like the next one.
    StripHostPort,
    StripTrailingHostDot,
}

impl Setting {
    pub const ALL: [Self; 6] = [
        Self::HeadersWithUnderscores,
        Self::NormalizePath,
        Self::MergeSlashes,
        Self::EscapedSlashes,
        Self::StripHostPort,
        Self::StripTrailingHostDot,
    ];

    /// Its index in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Envoy's name of the field.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeadersWithUnderscores => "headers_with_underscores_action",
            Self::NormalizePath => "normalize_path",
            Self::MergeSlashes => "merge_slashes",
            Self::EscapedSlashes => "path_with_escaped_slashes_action",
            Self::StripHostPort => "strip_any_host_port",
            Self::StripTrailingHostDot => "strip_trailing_host_dot",
        }
    }

    /// What arrived without the setting.
    pub fn sign(self) -> &'static str {
        match self {
            Self::HeadersWithUnderscores => "a header with an underscore",
            Self::NormalizePath => "a path with a dot segment, an encoded dot or a backslash",
            Self::MergeSlashes => "a path with two slashes together",
            Self::EscapedSlashes => "a path with an encoded slash or backslash",
            Self::StripHostPort => "a host with a port",
            Self::StripTrailingHostDot => "a host with a trailing dot",
        }
    }
}

/// A set of settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings(u8);

impl Settings {
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn has(self, setting: Setting) -> bool {
        self.0 & Self::bit(setting) != 0
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn with(self, setting: Setting) -> Self {
        Self(self.0 | Self::bit(setting))
    }

    pub fn iter(self) -> impl Iterator<Item = Setting> {
        Setting::ALL.into_iter().filter(move |setting| self.has(*setting))
    }

    fn bit(setting: Setting) -> u8 {
        match setting {
            Setting::HeadersWithUnderscores => 1,
            Setting::NormalizePath => 1 << 1,
            Setting::MergeSlashes => 1 << 2,
            Setting::EscapedSlashes => 1 << 3,
            Setting::StripHostPort => 1 << 4,
            Setting::StripTrailingHostDot => 1 << 5,
        }
    }
}

/// The settings that a request, as received, shows to be missing by its headers and host.
pub fn missing(request: &Request<'_>, rules_compare_hosts: bool) -> Settings {
    let mut missing = Settings::default();
    if request.headers().iter().any(|(name, _)| name.contains(&b'_')) {
        missing = missing.with(Setting::HeadersWithUnderscores);
    }
    match rules_compare_hosts {
        true => missing_for_host(request.authority(), missing),
        false => missing,
    }
}

fn missing_for_host(authority: &[u8], mut missing: Settings) -> Settings {
    let Ok((host, port)) = split_port(authority) else { return missing };
    // Envoy leaves an empty port where it is.
    if port.is_some_and(|port| !port.is_empty()) {
        missing = missing.with(Setting::StripHostPort);
    }
    if host.len() > 1 && host.ends_with(b".") {
        missing = missing.with(Setting::StripTrailingHostDot);
    }
    missing
}

/// Those that a path shows, with its query or without. Only a refused path (PATH_SUSPICIOUS) shows any.
pub fn missing_by_path(path: &[u8]) -> Settings {
    let mut missing = Settings::default();
    let (path, _) = split_query(path);
    // `*` of OPTIONS, and the empty path of CONNECT: no proxy normalises them.
    if path.first() != Some(&b'/') {
        return missing;
    }
    // A path of slashes only becomes `//` in Envoy, also with merging.
    let has_name = path.iter().any(|byte| *byte != b'/');
    let mut before = 0;
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'/', [b'.'] | [b'.', b'.'] | [b'.', b'/', ..] | [b'.', b'.', b'/', ..]) | (b'\\', _) => {
                missing = missing.with(Setting::NormalizePath);
            }
            (b'%', [b'2', b'e' | b'E', ..]) => missing = missing.with(Setting::NormalizePath),
            (b'%', [b'2', b'f' | b'F', ..] | [b'5', b'c' | b'C', ..]) => {
                missing = missing.with(Setting::EscapedSlashes);
            }
            _ => {}
        }
        if has_name && *byte == b'/' && before == b'/' {
            missing = missing.with(Setting::MergeSlashes);
        }
        before = *byte;
        rest = after;
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Pair;
    use crate::request::path::PlainPath;

    fn names(path: &str, authority: &str, header: &str, hosts: bool) -> Vec<&'static str> {
        let pairs: [Pair<'_>; 4] = [
            (b":method", b"GET"),
            (b":path", path.as_bytes()),
            (b":authority", authority.as_bytes()),
            (header.as_bytes(), b"a_b"),
        ];
        let by_path = missing_by_path(path.as_bytes());
        assert!(by_path.is_empty() || PlainPath::check(path.as_bytes()).is_err(), "{path} is not refused");
        let missing = missing(&Request::from_pairs(&pairs).unwrap(), hosts);
        Settings::from_bits(missing.bits() | by_path.bits()).iter().map(Setting::name).collect()
    }

    #[test]
    fn a_request_that_a_good_proxy_lets_through_says_nothing() {
        for path in [
            "/",
            "/a/b",
            "/a/.b/c..",
            "/a/...",
            "/a?x=//&y=/../&z=%2f\\",
            "/a%20b",
            "/a%252fb",
            "*",
            "/a%2",
            "/%",
            "//",
            "///",
        ] {
            assert_eq!(names(path, "a.test", "x-a", true), [""; 0], "{path}");
        }
        assert_eq!(names("/", "[::1]", "x-a", true), [""; 0]);
        assert_eq!(names("/", "a:", "x-a", true), [""; 0]);
        assert_eq!(names("/", "a.test.:80", "x-a", false), [""; 0]);
    }

    #[test]
    fn each_sign_names_its_setting() {
        for header in ["x_user", "_", "x-user_id"] {
            assert_eq!(names("/", "a", header, false), ["headers_with_underscores_action"], "{header}");
        }
        for path in ["/.", "/..", "/a/./b", "/a/../b", "/a/..", "/a\\b", "/%2e%2E/a", "/a%2eb"] {
            assert_eq!(names(path, "a", "x-a", false), ["normalize_path"], "{path}");
        }
        for path in ["//a", "/a//b", "/a//?x"] {
            assert_eq!(names(path, "a", "x-a", false), ["merge_slashes"], "{path}");
        }
        for path in ["/a%2fb", "/a%2Fb", "/%5c", "/%5C"] {
            assert_eq!(names(path, "a", "x-a", false), ["path_with_escaped_slashes_action"], "{path}");
        }
        for authority in ["a:80", "[::1]:443"] {
            assert_eq!(names("/", authority, "x-a", true), ["strip_any_host_port"], "{authority}");
        }
        assert_eq!(names("/", "a.", "x-a", true), ["strip_trailing_host_dot"]);
        let all = Setting::ALL.map(Setting::name);
        assert_eq!(names("/a/../%2f//", "a.:1", "x_a", true), all);
    }

    #[test]
    fn a_set_is_what_its_bits_say() {
        for (index, setting) in Setting::ALL.into_iter().enumerate() {
            let one = Settings::default().with(setting);
            assert!(!one.is_empty() && Settings::from_bits(one.bits()) == one);
            assert_eq!(setting.index(), index);
            assert_eq!(one.iter().collect::<Vec<_>>(), [setting]);
        }
    }
}
