//! Random requests for comparing two hosts: requests of the table with parts of others, and small changes.
use crate::{Ready, Store, Table};

/// An endless sequence of requests: first each of the table as it is, then changed ones. The same seed and time give the same
/// sequence.
#[derive(Clone)]
pub struct Variations {
    bases: Vec<(String, Ready)>,
    /// The first so many are the table's. The others are the same with another proof, since each proof counts once.
    of_table: usize,
    /// The parts of all bases.
    headers: Vec<(String, String)>,
    paths: Vec<String>,
    authorities: Vec<String>,
    random: Random,
    /// How many were given as they are.
    given: usize,
}

/// One request for one of the table's configurations.
#[derive(Debug, Clone)]
pub struct Variation {
    pub config: String,
    pub ready: Ready,
}

/// A request keeps its configuration in all but one of so many.
const STRANGERS: usize = 8;
/// How many more proofs a request with one has.
const MORE_PROOFS: usize = 2;
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "get", "PROPFIND"];
/// Bytes that mean something to one of the parsers.
const BYTES: &[u8] = b"aZ09-_.~/%\\;:=,\"'{}[]()&?#@!$*+| \t\x7f";
const HEADERS: [(&str, &str); 12] = [
    ("x-user", "mallory"),
    ("X_User", "mallory"),
    ("x-title", ""),
    ("origin", "https://app.example"),
    ("origin", "null"),
    ("cookie", "session=a; session=b"),
    ("cookie", "other=1"),
    ("authorization", "Basic YTpi"),
    ("user-agent", "differential/1"),
    ("x-forwarded-for", "10.1.2.3"),
    ("access-control-request-method", "PUT"),
    ("content-type", "application/grpc"),
];

impl Variations {
    /// From the cases of some configurations whose answers do not need a failing store.
    ///
    /// # Errors
    /// A case cannot be made into a request.
    pub fn new(table: &Table, is_wanted: impl Fn(&str) -> bool, now: u64, seed: u64) -> anyhow::Result<Self> {
        let wanted = |case: &&crate::Case| case.store == Store::Up && is_wanted(&case.config);
        let base = |case: &crate::Case| Ok((case.config.clone(), table.ready(case, now)?));
        let mut bases = table.cases.iter().filter(wanted).map(base).collect::<anyhow::Result<Vec<_>>>()?;
        let of_table = bases.len();
        let has_proof = |case: &&crate::Case| case.request.headers.iter().any(|(_, value)| value.contains("{proof}"));
        for more in 0..MORE_PROOFS {
            // The name of a case is in the `jti` of its proof.
            let renamed = |case: &crate::Case| crate::Case { name: format!("{} {more}", case.name), ..case.clone() };
            let proving = table.cases.iter().filter(wanted).filter(has_proof).map(renamed);
            bases.extend(proving.map(|case| base(&case)).collect::<anyhow::Result<Vec<_>>>()?);
        }
        let all = |part: fn(&Ready) -> &String| {
            let mut parts: Vec<_> = bases.iter().map(|(_, ready)| part(ready).clone()).collect();
            parts.sort();
            parts.dedup();
            parts
        };
        let (paths, authorities) = (all(|ready| &ready.path), all(|ready| &ready.authority));
        let mut headers: Vec<_> = bases.iter().flat_map(|(_, ready)| ready.headers.clone()).collect();
        headers.extend(HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(Self { bases, of_table, headers, paths, authorities, random: Random(seed), given: 0 })
    }

    /// Another sequence of the same parts, of changed requests only.
    #[must_use]
    pub fn reseeded(&self, seed: u64) -> Self {
        Self { random: Random(seed), given: self.bases.len(), ..self.clone() }
    }

    /// Every request before it is changed: what the introspection server must know.
    pub fn bases(&self) -> impl Iterator<Item = &Ready> {
        self.bases.iter().map(|(_, ready)| ready)
    }

    fn change(&mut self, ready: &mut Ready) {
        let Self { headers, paths, authorities, random, .. } = self;
        let at = random.below(ready.headers.len());
        match random.below(16) {
            0 | 1 => ready.path.clone_from(random.one_of(paths)),
            2 => ready.path = random.changed(&ready.path),
            3 => ready.path.push_str("?access_token=a&x=%41"),
            4 => ready.method = (*random.one_of(&METHODS)).to_owned(),
            5 => ready.authority.clone_from(random.one_of(authorities)),
            6..=8 => {
                let added = random.one_of(headers).clone();
                // Two tokens would hide whatever else is changed.
                ready.headers.retain(|(name, _)| added.0 == "cookie" || !name.eq_ignore_ascii_case(&added.0));
                ready.headers.push(added);
            }
            9 if !ready.headers.is_empty() => drop(ready.headers.remove(at)),
            10 => {
                let added = HEADERS[random.below(HEADERS.len())];
                ready.headers.push((added.0.to_owned(), added.1.to_owned()));
            }
            11 => {
                // A token that was not meant for this request, or a second one.
                let other = random.below(self.bases.len());
                ready.headers.push(("authorization".to_owned(), format!("Bearer {}", self.bases[other].1.token)));
            }
            _ if ready.headers.is_empty() => {}
            12 => ready.headers.push(ready.headers[at].clone()),
            13 => {
                let name = &mut ready.headers[at].0;
                *name = if random.below(2) == 0 { name.to_uppercase() } else { name.replace('-', "_") };
            }
            _ => ready.headers[at].1 = random.changed(&ready.headers[at].1),
        }
    }
}

impl Iterator for Variations {
    type Item = Variation;

    fn next(&mut self) -> Option<Variation> {
        if let Some((config, ready)) = self.bases.get(self.given).filter(|_| self.given < self.of_table) {
            self.given += 1;
            return Some(Variation { config: config.clone(), ready: ready.clone() });
        }
        let (config, mut ready) = self.random.one_of(&self.bases).clone();
        for _ in 0..=self.random.below(3) {
            self.change(&mut ready);
        }
        let config = match self.random.below(STRANGERS) {
            0 => self.random.one_of(&self.bases).0.clone(),
            _ => config,
        };
        Some(Variation { config, ready })
    }
}

/// SplitMix64: small, and good enough to choose.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 if the bound is.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).expect("below a usize")
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// With one character changed, added or removed.
    fn changed(&mut self, text: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        let at = self.below(characters.len() + 1);
        let new = char::from(*self.one_of(BYTES));
        match self.below(4) {
            0 if at < characters.len() => characters[at] = new,
            1 if at < characters.len() => drop(characters.remove(at)),
            2 if at < characters.len() => characters.truncate(at),
            _ => characters.insert(at, new),
        }
        characters.into_iter().collect()
    }
}
