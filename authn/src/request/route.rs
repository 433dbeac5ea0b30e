//! Finds the rule of a request: the first, in the order of the document, whose path, method and host all match.
//!
//! Rules are indexed by host and then by path segments, so a look-up costs one step for each segment of the path (and
//! for each label of the host, if rules have wildcards), however many rules there are.
use std::collections::BTreeMap;

use crate::config::{Invalid, Match, PathMatch};
use crate::request::host::Host;
use crate::request::path::PlainPath;
use crate::request::{CONNECT, is_method};

#[derive(Debug, Default)]
pub struct Router {
    any_host: Segment,
    by_host: BTreeMap<Box<[u8]>, Segment>,
    /// By the text after `*.`.
    by_suffix: BTreeMap<Box<[u8]>, Segment>,
}

impl Router {
    /// A rule without a `Match` is never found. The error says which rule, and which field of its `match`.
    pub fn compile<'c>(
        rules: impl IntoIterator<Item = impl Into<Option<&'c Match>>>,
    ) -> Result<Self, (usize, Invalid)> {
        let mut router = Self::default();
        for (index, rule) in rules.into_iter().enumerate() {
            let Some(rule) = rule.into() else { continue };
            router.add(index, rule).map_err(|error| (index, error))?;
        }
        Ok(router)
    }

    /// The index of the rule. None: no rule admits the request; this includes every CONNECT, which asks for a tunnel
    /// and not for a resource.
    pub fn find(&self, method: &[u8], path: &PlainPath<'_>, host: &Host) -> Option<usize> {
        if method == CONNECT {
            return None;
        }
        let mut first = None;
        let mut consider = |segment: Option<&Segment>| {
            first = segment.map_or(first, |segment| segment.find(method, path, first));
        };
        consider(Some(&self.any_host));
        consider(self.by_host.get(host.as_bytes()));
        if !self.by_suffix.is_empty() && !host.is_address() {
            let mut below = host.as_bytes();
            while let Some(dot) = below.iter().position(|byte| *byte == b'.') {
                below = below.get(dot.saturating_add(1)..).unwrap_or_default();
                consider(self.by_suffix.get(below));
            }
        }
        first
    }

    /// Does any rule compare hosts?
    pub fn compares_hosts(&self) -> bool {
        !self.by_host.is_empty() || !self.by_suffix.is_empty()
    }

    fn add(&mut self, index: usize, rule: &Match) -> Result<(), Invalid> {
        let path = compile_path(rule.path.as_ref())?;
        let methods = rule.methods.as_deref().map(compile_methods).transpose()?;
        let Some(hosts) = &rule.hosts else {
            self.any_host.insert(&path, index, methods.as_deref());
            return Ok(());
        };
        if hosts.is_empty() {
            return Err(Invalid::new("hosts", "an empty list matches nothing; leave it out to match every host"));
        }
        for (at, host) in hosts.iter().enumerate() {
            let invalid = |message| Invalid::new(format!("hosts[{at}]"), message);
            let (map, name) = match host.strip_prefix("*.") {
                Some(suffix) => (&mut self.by_suffix, suffix),
                None => (&mut self.by_host, host.as_str()),
            };
            let compiled = Host::from_name(name.as_bytes())
                .map_err(|cause| invalid(format!("{cause} (a name without port, *.name, or an address)")))?;
            if compiled.is_address() && host.starts_with('*') {
                return Err(invalid("an address has no names below it".into()));
            }
            map.entry(compiled.as_bytes().into()).or_default().insert(&path, index, methods.as_deref());
        }
        Ok(())
    }
}

/// One segment of a path, with the rules that end here and the segments below.
#[derive(Debug, Default)]
struct Segment {
    exact: Candidates,
    prefix: Candidates,
    below: BTreeMap<Box<[u8]>, Segment>,
}

impl Segment {
    fn insert(&mut self, path: &CompiledPath, index: usize, methods: Option<&[Box<[u8]>]>) {
        let mut segment = self;
        for name in &path.segments {
            segment = segment.below.entry(name.clone()).or_default();
        }
        let candidates = if path.is_prefix { &mut segment.prefix } else { &mut segment.exact };
        candidates.insert(index, methods);
    }

    /// The first rule for this path, or `best` if that comes before it.
    fn find(&self, method: &[u8], path: &PlainPath<'_>, best: Option<usize>) -> Option<usize> {
        let mut segment = self;
        let mut best = self.prefix.find(method, best);
        for name in path.decoded().split(|byte| *byte == b'/').skip(1) {
            let Some(below) = segment.below.get(name) else { return best };
            segment = below;
            best = segment.prefix.find(method, best);
        }
        segment.exact.find(method, best)
    }
}

/// Rules for one position, in order. Each has at least one method that none before it has, so the list cannot grow
/// beyond the number of methods.
#[derive(Debug, Default)]
struct Candidates(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    index: usize,
    /// None: every method.
    methods: Option<Box<[Box<[u8]>]>>,
}

impl Candidates {
    /// `index` is not smaller than any before it.
    fn insert(&mut self, index: usize, methods: Option<&[Box<[u8]>]>) {
        if self.0.iter().any(|earlier| earlier.methods.is_none()) {
            return;
        }
        let is_taken = |method: &[u8]| self.0.iter().any(|earlier| earlier.admits(method));
        let methods: Option<Box<[_]>> =
            methods.map(|methods| methods.iter().filter(|method| !is_taken(method)).cloned().collect());
        if methods.as_ref().is_none_or(|methods| !methods.is_empty()) {
            self.0.push(Candidate { index, methods });
        }
    }

    fn find(&self, method: &[u8], best: Option<usize>) -> Option<usize> {
        self.0
            .iter()
            .take_while(|candidate| best.is_none_or(|best| candidate.index < best))
            .find(|candidate| candidate.admits(method))
            .map_or(best, |candidate| Some(candidate.index))
    }
}

impl Candidate {
    fn admits(&self, method: &[u8]) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.iter().any(|own| **own == *method))
    }
}

#[derive(Debug)]
struct CompiledPath {
    segments: Vec<Box<[u8]>>,
    is_prefix: bool,
}

/// A prefix is compared segment by segment, and a trailing slash is ignored: `/a` and `/a/` both match `/a`, `/a/` and
/// `/a/b`, and neither matches `/ab`. An exact path is compared as a whole: `/a` is not `/a/`.
fn compile_path(path: Option<&PathMatch>) -> Result<CompiledPath, Invalid> {
    let (text, field, is_prefix) = match path {
        None => ("/", "path", true),
        Some(PathMatch::Exact(text)) => (text.as_str(), "path.exact", false),
        Some(PathMatch::Prefix(text)) => (text.as_str(), "path.prefix", true),
    };
    if let Some(wildcard) = text.chars().find(|character| "*?{}".contains(*character)) {
        return Err(Invalid::new(field, wildcard_in_path(text, wildcard)));
    }
    let plain = PlainPath::parse(text.as_bytes())
        .map_err(|cause| Invalid::new(field, format!("{cause}, so no request with such a path is admitted")))?;
    let path = plain.decoded();
    let path = if is_prefix { path.strip_suffix(b"/").unwrap_or(path) } else { path };
    Ok(CompiledPath { segments: path.split(|byte| *byte == b'/').skip(1).map(Box::from).collect(), is_prefix })
}

/// A path has no wildcards: a rule that is meant to match more would match nothing.
fn wildcard_in_path(text: &str, wildcard: char) -> String {
    if wildcard == '?' {
        return "has a `?`: rules do not match the query, and there is no wildcard for one character".into();
    }
    let before = text.split(wildcard).next().unwrap_or_default();
    let parent = before.rfind('/').and_then(|end| before.get(..=end)).unwrap_or("/");
    let literal = format!("%{:02X}", u32::from(wildcard));
    format!(
        "has a `{wildcard}`, which is not a wildcard here; to match everything below, use `prefix: {parent}` (the character itself is {literal})"
    )
}

fn compile_methods(methods: &[String]) -> Result<Vec<Box<[u8]>>, Invalid> {
    if methods.is_empty() {
        return Err(Invalid::new("methods", "an empty list matches nothing; leave it out to match every method"));
    }
    let compile = |(index, method): (usize, &String)| {
        let invalid = |message| Err(Invalid::new(format!("methods[{index}]"), message));
        let bytes = method.as_bytes();
        if !is_method(bytes) {
            return invalid("is not a method of A-Z 0-9 - _; requests with other methods are refused");
        }
        if bytes == CONNECT {
            return invalid("CONNECT asks for a tunnel and is never admitted");
        }
        Ok(bytes.into())
    };
    methods.iter().enumerate().map(compile).collect()
}

#[cfg(test)]
mod tests;
