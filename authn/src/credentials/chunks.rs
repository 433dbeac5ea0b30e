//! A token in several cookies, since browsers store 4 KiB in one: `name.0`, `name.1` and so on, or `name_0`, `name_1`.
use super::spelling::{Reading, ends, folded};
use crate::config::ChunkSeparator;
use crate::reject::{Cause, Rejection};

/// The most cookies for one token.
pub(super) const MAX_CHUNKS: usize = 16;

/// A cookie's name that may also have chunks.
#[derive(Debug)]
pub(super) struct ChunkedCookie {
    /// Its index among the cookies.
    pub index: usize,
    name: Box<[u8]>,
    /// The name and a separator, in the form for comparing spellings.
    folded: Box<[u8]>,
    separator: u8,
}

/// What a cookie's name says about a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Number(usize),
    /// Some backends read it as a chunk, and others do not: another case, percent-encoding, the other separator,
    /// leading zeros, or a number beyond [`MAX_CHUNKS`].
    Misspelt,
}

/// The chunks of one token, in order of arrival.
pub(super) struct Chunks<'a> {
    pub index: usize,
    found: Vec<(usize, &'a [u8])>,
}

impl ChunkedCookie {
    pub fn new(index: usize, name: &str, separator: ChunkSeparator) -> Self {
        let separator = match separator {
            ChunkSeparator::Dot => b'.',
            ChunkSeparator::Underscore => b'_',
        };
        Self { index, name: name.as_bytes().into(), folded: folded(&format!("{name}_")), separator }
    }

    /// None: the cookie is not a chunk in any reading.
    pub fn chunk(&self, name: &Reading<'_>) -> Option<Chunk> {
        let is_chunk = name.begins_with(&self.folded, |number| {
            let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
            digits > 0 && number.get(digits..).is_some_and(ends)
        });
        if !is_chunk {
            return None;
        }
        Some(self.exact(name.written()).map_or(Chunk::Misspelt, Chunk::Number))
    }

    /// Do both names have the same chunks in some reading?
    pub fn is_read_as(&self, other: &str) -> bool {
        self.folded.strip_suffix(b"_").is_some_and(|own| *own == *folded(other))
    }

    fn exact(&self, name: &[u8]) -> Option<usize> {
        let digits = name.strip_prefix(&*self.name)?.strip_prefix(&[self.separator])?;
        // `parse` would accept a sign and leading zeros.
        let is_plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
        let number = std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()?;
        (number < MAX_CHUNKS).then_some(number)
    }
}

impl<'a> Chunks<'a> {
    pub fn new(index: usize) -> Self {
        Self { index, found: Vec::new() }
    }

    /// Returns whether it is the first of its number.
    pub fn add(&mut self, number: usize, value: &'a [u8]) -> bool {
        let is_new = self.found.iter().all(|(other, _)| *other != number);
        // Numbers are below `MAX_CHUNKS`, so this is bounded.
        if is_new {
            self.found.push((number, value));
        }
        is_new
    }

    /// All of them in a row.
    ///
    /// # Errors
    /// `TokenMalformed` if one is missing.
    pub fn join(mut self) -> Result<Vec<u8>, Rejection> {
        self.found.sort_unstable_by_key(|(number, _)| *number);
        if self.found.iter().enumerate().any(|(at, (number, _))| at != *number) {
            return Err(Rejection::new(Cause::ChunkMissing));
        }
        Ok(self.found.iter().flat_map(|(_, value)| value.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_chunks_from_their_misspellings_and_from_other_cookies() {
        let dot = ChunkedCookie::new(0, "app.session", ChunkSeparator::Dot);
        let chunk = |name: &str| dot.chunk(&Reading::of(name.as_bytes()));
        assert_eq!(chunk("app.session.0"), Some(Chunk::Number(0)));
        assert_eq!(chunk("app.session.15"), Some(Chunk::Number(15)));
        for name in [
            "app.session.16",
            "app.session.00",
            "app.session.01",
            "app.session_0",
            "app_session.0",
            "App.Session.0",
            "app%2esession.0",
            "app.session%2E0",
            "app.session.%30",
            "%20app.session.0",
            "+app.session.0",
            "app.session.0%20",
            "app.session.0[]",
            "app.session.0%00x",
            "\"app.session.0\"",
            "app.session.99999999999999999999999",
            "app.session.%2530",
            "app.session.%u0030",
            "app.session.\u{ff10}",
            "app.\u{17f}ession.0",
            "app.se\u{df}ion.0",
        ] {
            assert_eq!(chunk(name), Some(Chunk::Misspelt), "{name}");
        }
        for name in
            ["", "app.session", "app.session.", "app.session.a", "app.session.0a", "app.session.+1", "app.session0"]
        {
            assert_eq!(chunk(name), None, "{name}");
        }
        let underscore = ChunkedCookie::new(0, "s", ChunkSeparator::Underscore);
        assert_eq!(underscore.chunk(&Reading::of(b"s_1")), Some(Chunk::Number(1)));
        assert_eq!(underscore.chunk(&Reading::of(b"s.1")), Some(Chunk::Misspelt));
    }
}
