use super::*;

fn rule(path: Option<PathMatch>, methods: &[&str], hosts: &[&str]) -> Match {
    let list = |items: &[&str]| (!items.is_empty()).then(|| items.iter().map(|item| item.to_string()).collect());
    Match { path, methods: list(methods), hosts: list(hosts) }
}

fn exact(path: &str) -> Option<PathMatch> {
    Some(PathMatch::Exact(path.into()))
}

fn prefix(path: &str) -> Option<PathMatch> {
    Some(PathMatch::Prefix(path.into()))
}

fn find(rules: &[Match], method: &str, path: &str, host: &str) -> Option<usize> {
    let path = PlainPath::check(path.as_bytes()).unwrap();
    Router::compile(rules).unwrap().find(method.as_bytes(), &path, &Host::parse(host.as_bytes()).unwrap())
}

fn matches(rule: Match, method: &str, path: &str, host: &str) -> bool {
    find(&[rule], method, path, host) == Some(0)
}

#[test]
fn without_rules_nothing_matches() {
    assert_eq!(find(&[], "GET", "/", "a"), None);
}

#[test]
fn a_rule_without_conditions_matches_everything_but_connect() {
    let anything = || rule(None, &[], &[]);
    for path in ["/", "/a", "/a/b/", "/?x"] {
        assert!(matches(anything(), "BREW", path, "any.example:1"));
    }
    assert!(!matches(anything(), "CONNECT", "/", "any.example"));
}

#[test]
fn an_exact_path_matches_itself_only() {
    for (path, expected) in
        [("/a/b", true), ("/a/b?c", true), ("/a/b/", false), ("/a", false), ("/a/b/c", false), ("/A/b", false)]
    {
        assert_eq!(matches(rule(exact("/a/b"), &[], &[]), "GET", path, "a"), expected, "{path}");
    }
    assert!(matches(rule(exact("/a/"), &[], &[]), "GET", "/a/", "a"));
    assert!(!matches(rule(exact("/a/"), &[], &[]), "GET", "/a", "a"));
    assert!(matches(rule(exact("/"), &[], &[]), "GET", "/", "a"));
    assert!(!matches(rule(exact("/"), &[], &[]), "GET", "/a", "a"));
}

#[test]
fn a_prefix_ends_at_a_segment_with_or_without_its_slash() {
    for written in ["/a", "/a/"] {
        for (path, expected) in
            [("/a", true), ("/a/", true), ("/a/b", true), ("/ab", false), ("/", false), ("/A", false), ("/b/a", false)]
        {
            assert_eq!(matches(rule(prefix(written), &[], &[]), "GET", path, "a"), expected, "{written} {path}");
        }
    }
    assert!(matches(rule(prefix("/"), &[], &[]), "GET", "/a/b", "a"));
}

#[test]
fn encoding_does_not_lead_round_a_rule() {
    let rules = [rule(exact("/user/@admin"), &[], &[]), rule(None, &[], &[])];
    assert_eq!(find(&rules, "GET", "/user/%40admin", "a"), Some(0));
    let rules = [rule(prefix("/caf%C3%A9"), &[], &[]), rule(None, &[], &[])];
    assert_eq!(find(&rules, "GET", "/caf%c3%a9/x", "a"), Some(0));
}

#[test]
fn the_first_rule_decides_not_the_longest() {
    let rules = [rule(prefix("/a"), &["GET"], &[]), rule(exact("/a/b"), &[], &[]), rule(None, &[], &["h"])];
    assert_eq!(find(&rules, "GET", "/a/b", "h"), Some(0));
    assert_eq!(find(&rules, "POST", "/a/b", "h"), Some(1));
    assert_eq!(find(&rules, "POST", "/a/c", "h"), Some(2));
    assert_eq!(find(&rules, "POST", "/a/c", "i"), None);
}

#[test]
fn methods_are_compared_with_regard_to_case() {
    for (method, expected) in [("GET", true), ("PUT", true), ("get", false), ("HEAD", false), ("GETS", false)] {
        assert_eq!(matches(rule(None, &["GET", "PUT"], &[]), method, "/", "a"), expected, "{method}");
    }
}

#[test]
fn hosts_are_compared_without_case_port_and_trailing_dot() {
    let api = || rule(None, &[], &["API.example.", "[2001:db8:0::1]"]);
    for host in ["api.example", "Api.Example:8443", "api.example.", "[2001:DB8::1]:443"] {
        assert!(matches(api(), "GET", "/", host), "{host}");
    }
    for host in ["example", "v1.api.example", "api.example.evil", "xapi.example"] {
        assert!(!matches(api(), "GET", "/", host), "{host}");
    }
}

#[test]
fn a_wildcard_matches_every_name_below_and_not_the_name_itself() {
    let wildcard = || rule(None, &[], &["*.Example.com"]);
    for host in ["a.example.com", "a.b.example.com", "A.EXAMPLE.COM.:1"] {
        assert!(matches(wildcard(), "GET", "/", host), "{host}");
    }
    for host in ["example.com", "aexample.com", "a.example.com.evil", "com"] {
        assert!(!matches(wildcard(), "GET", "/", host), "{host}");
    }
}

#[test]
fn no_names_lie_below_an_address() {
    for host in ["*.1", "*.0.0.1", "*.0x7f", "10.1", "0x7f.1", "2130706433"] {
        let (_, error) = Router::compile([&rule(None, &[], &[host])]).unwrap_err();
        assert_eq!(error.field, "hosts[0]", "{host}");
    }
    assert!(matches(rule(None, &[], &["10.0.0.1"]), "GET", "/", "10.0.0.1:80"));
}

#[test]
fn a_wrong_match_is_refused_with_its_rule_and_field() {
    let paths = |path: &str| [rule(exact(path), &[], &[]), rule(prefix(path), &[], &[])];
    for path in ["", "a", "*", "/a//b", "/a/../b", "/%2e", "/a;b", "/a b", "/caf\u{e9}", "/a?b", "/a?", "/a#b"] {
        let [exact, prefix] = paths(path);
        for (wrong, field) in [(exact, "path.exact"), (prefix, "path.prefix")] {
            let (index, error) = Router::compile([&Match::default(), &wrong]).unwrap_err();
            assert_eq!((index, error.field.as_str()), (1, field), "{path:?}");
        }
    }
    for (path, says) in [
        ("/admin/*", "prefix: /admin/"),
        ("/admin*", "prefix: /"),
        ("/a/{id}/b", "prefix: /a/"),
        ("/a/:id}", "%7D"),
        ("/a?", "query"),
    ] {
        for wrong in paths(path) {
            let (_, error) = Router::compile([&wrong]).unwrap_err();
            assert!(error.message.contains(says), "{path}: {}", error.message);
        }
    }
    for method in ["", "get", "Get", "G T", "GET,PUT", "CONNECT", "GET#", "GÉT"] {
        let (_, error) = Router::compile([&rule(None, &["GET", method], &[])]).unwrap_err();
        assert_eq!(error.field, "methods[1]", "{method:?}");
    }
    for host in
        ["", "*", "*.", "*.*.a", "a.*", "a:80", "a@b", "a/b", "[::1]:80", "[x]", "*.[::1]", "*.10.0.0.1", "a..b"]
    {
        let (_, error) = Router::compile([&rule(None, &[], &["a", host])]).unwrap_err();
        assert_eq!(error.field, "hosts[1]", "{host:?}");
    }
}

#[test]
fn an_empty_list_is_not_everything() {
    let no_methods = Match { methods: Some(Vec::new()), ..Match::default() };
    let no_hosts = Match { hosts: Some(Vec::new()), ..Match::default() };
    assert_eq!(Router::compile([&no_methods]).unwrap_err().1.field, "methods");
    assert_eq!(Router::compile([&no_hosts]).unwrap_err().1.field, "hosts");
}

#[test]
fn a_thousand_rules_for_one_place_are_kept_as_one_for_each_method() {
    let methods: [&[&str]; 4] = [&["GET"], &["GET", "PUT"], &["PUT"], &[]];
    let rules: Vec<_> = (0..1000).map(|n| rule(None, methods[n % 4], &[])).collect();
    assert_eq!(Router::compile(&rules).unwrap().any_host.prefix.0.len(), 3);
}

/// What the documentation says, word by word, without any index.
fn naive(rules: &[Match], method: &str, path: &str, host: &str) -> Option<usize> {
    let path = path.split('?').next().unwrap().replace("%40", "@");
    rules.iter().position(|rule| {
        let path_matches = match &rule.path {
            None => true,
            Some(PathMatch::Exact(exact)) => path == exact.replace("%40", "@"),
            Some(PathMatch::Prefix(prefix)) => {
                let prefix = prefix.replace("%40", "@");
                let prefix = prefix.trim_end_matches('/');
                path == prefix || path.starts_with(&format!("{prefix}/"))
            }
        };
        let host = host.split(':').next().unwrap().to_lowercase();
        let host = host.trim_end_matches('.');
        let host_matches = |own: &String| match own.strip_prefix('*') {
            Some(suffix) => host.ends_with(&suffix.to_lowercase()),
            None => host == own.to_lowercase(),
        };
        path_matches
            && rule.methods.as_ref().is_none_or(|methods| methods.iter().any(|own| own == method))
            && rule.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(host_matches))
    })
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn one_of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }

    fn some_of<'a>(&mut self, items: &[&'a str]) -> Vec<&'a str> {
        (0..self.below(3)).map(|_| self.one_of(items)).collect()
    }

    fn path(&mut self) -> String {
        let segments = self.below(4);
        let mut path: String =
            (0..segments).map(|_| format!("/{}", self.one_of(&["a", "b", "ab", "@", "%40"]))).collect();
        if path.is_empty() || self.below(4) == 0 {
            path.push('/');
        }
        path
    }

    fn rule(&mut self) -> Match {
        let path = match self.below(5) {
            0 => None,
            1 | 2 => exact(&self.path()),
            _ => prefix(&self.path()),
        };
        let methods = self.some_of(&["GET", "PUT", "POST"]);
        let hosts = self.some_of(&["a.example", "B.a.example", "*.example", "*.A.example", "example"]);
        rule(path, &methods, &hosts)
    }
}

#[test]
fn the_index_agrees_with_reading_the_rules_in_order() {
    let mut random = Random(1);
    let mut found = 0;
    for _ in 0..3000 {
        let rules: Vec<_> = (0..random.below(12)).map(|_| random.rule()).collect();
        let router = Router::compile(&rules).unwrap();
        for _ in 0..20 {
            let method = random.one_of(&["GET", "PUT", "POST", "HEAD"]);
            let path = random.path() + random.one_of(&["", "?a"]);
            let host =
                random.one_of(&["a.example", "A.Example:80", "b.a.example.", "c.b.a.example", "example", "other"]);
            let (plain, parsed) = (PlainPath::check(path.as_bytes()).unwrap(), Host::parse(host.as_bytes()).unwrap());
            let expected = naive(&rules, method, &path, host);
            found += usize::from(expected.is_some());
            assert_eq!(router.find(method.as_bytes(), &plain, &parsed), expected, "{method} {path} {host} {rules:#?}");
        }
    }
    assert!((15_000..45_000).contains(&found), "the comparison says little: {found} of 60000");
}
