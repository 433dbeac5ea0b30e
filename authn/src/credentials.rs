//! Finds a request's token, and ensures that there is only one. It does not judge the token.
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use self::chunks::{Chunk, ChunkedCookie, Chunks};
use self::header::HeaderToken;
use self::parts::{Kept, without_parts};
use self::spelling::{Reading, SourceName};
use self::websocket::WebsocketTokens;
use crate::reject::{Cause, Rejection};
use crate::request::headers::{HeaderNames, Shape};
use crate::request::path::{PlainPath, split_query};
use crate::request::{Request, scan};

mod chunks;
mod compatible;
mod compile;
mod header;
mod parts;
mod spelling;
mod websocket;

/// The places where tokens are read from.
#[derive(Debug)]
pub struct Credentials {
    headers: Vec<HeaderToken>,
    /// The names of `headers`, and that of subprotocols if these may hold tokens, to find names that fold to the same.
    header_names: HeaderNames,
    cookies: Vec<SourceName>,
    query: Vec<SourceName>,
    /// Parameters that contain no token but must not reach the upstream.
    removed_query: Vec<SourceName>,
    /// The cookies that may be in chunks.
    chunked: Vec<ChunkedCookie>,
    websocket: WebsocketTokens,
}

/// A token as found. Prints redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented<'a> {
    /// Visible ASCII without comma, quote and backslash; at least one byte.
    pub token: Cow<'a, [u8]>,
    pub source: Source,
}

/// Where a token was found, by its index in the configuration's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Header(usize),
    Cookie(usize),
    Query(usize),
    Websocket(usize),
}

/// RFC 9449 section 7.1. `dpop` lies above this module.
const DPOP_SCHEME: &[u8] = b"DPoP";

impl Credentials {
    /// None: no token anywhere. TOKEN_AMBIGUOUS: more than one, equal or not, valid or not, or a repeated header.
    /// TOKEN_MALFORMED: one place is used, and its value cannot be a token.
    pub fn find<'a>(&self, request: &Request<'a>, path: &PlainPath<'a>) -> Result<Option<Presented<'a>>, Rejection> {
        let mut seen = Seen::Nothing;
        let mut pairs = request.headers().iter();
        while let Some((name, value)) = pairs.next() {
            if name.eq_ignore_ascii_case(b"cookie") {
                self.look_in_cookies(value, &mut seen)?;
                continue;
            }
            if self.websocket.is_header(name) {
                for (index, written) in self.websocket.tokens(value) {
                    seen.add(Source::Websocket(index), written)?;
                }
            }
            for (index, header) in self.headers.iter().enumerate().filter(|(_, header)| header.is_named(name)) {
                if pairs.clone().any(|(other, _)| header.is_named(other)) {
                    return Err(Rejection::new(Cause::HeaderTwice));
                }
                if let Some(found) = header.look(value)? {
                    seen.add(Source::Header(index), found)?;
                }
            }
        }
        if !self.query.is_empty() {
            for parameter in path.query().unwrap_or_default().split(|byte| *byte == b'&') {
                if let Some(index) = self.query_index(parameter) {
                    seen.add(Source::Query(index), query_value(parameter))?;
                }
            }
        }
        let (source, token) = match seen {
            Seen::Nothing => return Ok(None),
            Seen::One(source @ Source::Websocket(index), written) => {
                (source, self.websocket.decode(index, written, request)?)
            }
            Seen::One(source, token) => (source, Cow::Borrowed(token)),
            Seen::Chunks(chunks) => (Source::Cookie(chunks.index), Cow::Owned(chunks.join()?)),
        };
        check_token(&token, source).map(|()| Some(Presented { token, source }))
    }

    /// Could a backend read this header as a token header, although it is not one of the configured ones?
    pub fn is_header_alias(&self, name: &[u8], shape: Shape) -> bool {
        // In the order of cost: every request has the header that is configured.
        self.header_names.may_have(shape)
            && !self.headers.iter().any(|header| header.is_named(name))
            && !self.websocket.is_header(name)
            && self.header_names.has_loosely(name)
    }

    /// The path for the backend: without every parameter that holds a token, that is listed for removal, or that some
    /// backend could read as one of these; the rest byte for byte. None if the path has no such parameter.
    pub fn path_without_tokens(&self, path_with_query: &[u8]) -> Option<Vec<u8>> {
        let (path, query) = split_query(path_with_query);
        let query = query.filter(|_| !self.query.is_empty() || !self.removed_query.is_empty())?;
        let is_removed = |part: &[u8]| {
            let name = Reading::of(part.split(|byte| *byte == b'=').next().unwrap_or_default());
            self.query.iter().chain(&self.removed_query).any(|own| own.is_read_as(&name))
        };
        let rest = without_parts(query, b'&', |parameter| match is_removed(parameter) {
            true => Kept::Nothing,
            // Some backends end a parameter at a semicolon.
            false => without_parts(parameter, b';', |part| if is_removed(part) { Kept::Nothing } else { Kept::All })
                .map_or(Kept::All, Kept::Part),
        })?;
        let mut result = Vec::with_capacity(path_with_query.len());
        result.extend_from_slice(path);
        if rest.iter().any(|byte| !b"&;".contains(byte)) {
            result.push(b'?');
            result.extend_from_slice(&rest);
        }
        Some(result)
    }

    /// The value of the Cookie headers for the backend: without every cookie that holds a token or that some backend
    /// could read as one; the rest byte for byte. None if nothing is left and the header must be removed.
    pub fn without_cookie_token(&self, value: &[u8]) -> Option<Vec<u8>> {
        match self.without_cookies(value, true) {
            Some(rest) => left_of_cookies(&rest),
            None => left_of_cookies(value),
        }
    }

    /// The Cookie headers as one, without the cookies that some backend could read as a token cookie. `None`: there are
    /// none. `Some(None)`: nothing is left.
    pub fn cookies_without_aliases(&self, request: &Request<'_>) -> Option<Option<Vec<u8>>> {
        if self.cookies.is_empty() {
            return None;
        }
        if !request.header_values(b"cookie").any(|value| self.without_cookies(value, false).is_some()) {
            return None;
        }
        let whole = request.header_values(b"cookie").collect::<Vec<_>>().join(&b"; "[..]);
        Some(left_of_cookies(&self.without_cookies(&whole, false).unwrap_or_default()))
    }

    /// Without the aliases, and without token cookies if these are removed. None: nothing is removed. Each name is
    /// decoded once, since the client chooses how many there are.
    fn without_cookies(&self, value: &[u8], tokens_go: bool) -> Option<Vec<u8>> {
        let is_alias = |reading: &Reading<'_>| self.cookies.iter().any(|own| own.is_read_as(reading));
        without_parts(value, b';', |cookie| {
            let (name, _) = split_cookie(cookie);
            let is_token = self.whole_cookie_index(name).is_some() || {
                let reading = Reading::of(name);
                if is_alias(&reading) {
                    return Kept::Nothing;
                }
                self.chunk(&reading).is_some()
            };
            if is_token {
                return if tokens_go { Kept::Nothing } else { Kept::All };
            }
            // Some backends start another cookie at a comma (RFC 2965 section 3.3.4), which was not examined.
            let mut is_first = true;
            without_parts(cookie, b',', |part| {
                if std::mem::take(&mut is_first) {
                    return Kept::All;
                }
                let reading = Reading::of(split_cookie(part).0);
                match is_alias(&reading) || self.chunk(&reading).is_some() {
                    true => Kept::Nothing,
                    false => Kept::All,
                }
            })
            .map_or(Kept::All, Kept::Part)
        })
    }

    /// The header, in lower case, that must be removed if the backend must not see a token from this source. None: a
    /// cookie or parameter is cut out instead.
    pub fn header_to_remove(&self, source: Source) -> Option<Arc<[u8]>> {
        match source {
            Source::Header(index) => self.headers.get(index).map(|header| Arc::clone(&header.name)),
            Source::Cookie(_) | Source::Query(_) | Source::Websocket(_) => None,
        }
    }

    /// The value of `Sec-WebSocket-Protocol` without tokens. `None`: it has none. `Some(None)`: nothing is left, and
    /// the header must be removed.
    pub fn subprotocols_without_tokens(&self, request: &Request<'_>) -> Option<Option<Vec<u8>>> {
        self.websocket.without_tokens(request)
    }

    /// Did the token come under the scheme of bound tokens?
    pub fn is_dpop(&self, source: Source) -> bool {
        match source {
            Source::Header(index) => self.headers.get(index).is_some_and(|header| header.has_scheme(DPOP_SCHEME)),
            Source::Cookie(_) | Source::Query(_) | Source::Websocket(_) => false,
        }
    }

    /// The headers of this request with one of the configured schemes.
    pub fn token_headers<'c>(&'c self, request: &Request<'c>) -> impl Iterator<Item = Arc<[u8]>> + use<'c> {
        let pairs = request.headers();
        let holds_token =
            |header: &HeaderToken| pairs.iter().any(|(name, value)| header.is_named(name) && header.may_hold(value));
        self.headers.iter().filter(move |header| holds_token(header)).map(|header| Arc::clone(&header.name))
    }

    pub fn has_cookie_token(&self, request: &Request<'_>) -> bool {
        !self.cookies.is_empty()
            && request
                .header_values(b"cookie")
                .flat_map(|value| value.split(|byte| *byte == b';'))
                .any(|cookie| self.cookie_index(split_cookie(cookie).0).is_some())
    }

    fn look_in_cookies<'a>(&self, value: &'a [u8], seen: &mut Seen<'a>) -> Result<(), Rejection> {
        if self.cookies.is_empty() {
            return Ok(());
        }
        for cookie in value.split(|byte| *byte == b';') {
            let (name, value) = split_cookie(cookie);
            match self.chunk_of(name) {
                Some((index, Chunk::Number(number))) => seen.add_chunk(index, number, value)?,
                Some((_, Chunk::Misspelt)) => {
                    return Err(Rejection::new(Cause::ChunkMisspelt));
                }
                // Some backends start another cookie at a comma (RFC 2965 section 3.3.4).
                None if !self.chunked.is_empty() => {
                    let mut others = cookie.split(|byte| *byte == b',').skip(1);
                    if others.any(|other| self.chunk_of(split_cookie(other).0).is_some()) {
                        return Err(Rejection::new(Cause::ChunkBehindComma));
                    }
                }
                None => {}
            }
            if let Some(index) = self.whole_cookie_index(name) {
                seen.add(Source::Cookie(index), value)?;
            }
        }
        Ok(())
    }

    /// Of a token, or of a chunk of one.
    fn cookie_index(&self, name: &[u8]) -> Option<usize> {
        self.whole_cookie_index(name).or_else(|| self.chunk_of(name).map(|(index, _)| index))
    }

    fn chunk_of(&self, name: &[u8]) -> Option<(usize, Chunk)> {
        if self.chunked.is_empty() { None } else { self.chunk(&Reading::of(name)) }
    }

    fn chunk(&self, name: &Reading<'_>) -> Option<(usize, Chunk)> {
        self.chunked.iter().find_map(|chunked| Some((chunked.index, chunked.chunk(name)?)))
    }

    fn whole_cookie_index(&self, name: &[u8]) -> Option<usize> {
        self.cookies.iter().position(|own| own.is(name))
    }

    /// Names are compared decoded, as a backend reads them: `access%5ftoken` is `access_token`.
    fn query_index(&self, parameter: &[u8]) -> Option<usize> {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        self.query.iter().position(|own| own.is_encoded(name))
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("source", &self.source).finish_non_exhaustive()
    }
}

/// The result so far. Only the last step judges the value: a broken token also counts as a second one.
enum Seen<'a> {
    Nothing,
    One(Source, &'a [u8]),
    Chunks(Chunks<'a>),
}

impl<'a> Seen<'a> {
    fn add(&mut self, source: Source, value: &'a [u8]) -> Result<(), Rejection> {
        // Two tokens: the backend may read the one that we did not check.
        if !matches!(self, Seen::Nothing) {
            return Err(Rejection::new(Cause::SeveralTokens));
        }
        *self = Seen::One(source, value);
        Ok(())
    }

    fn add_chunk(&mut self, index: usize, number: usize, value: &'a [u8]) -> Result<(), Rejection> {
        if matches!(self, Seen::Nothing) {
            *self = Seen::Chunks(Chunks::new(index));
        }
        let is_added = match self {
            Seen::Chunks(chunks) => chunks.index == index && chunks.add(number, value),
            Seen::Nothing | Seen::One(..) => false,
        };
        if is_added { Ok(()) } else { Err(Rejection::new(Cause::SeveralTokens)) }
    }
}

fn check_token(token: &[u8], source: Source) -> Result<(), Rejection> {
    if token.is_empty() {
        return Err(Cause::SourceEmpty.into());
    }
    if !scan::are_token_bytes(token) {
        return Err(Cause::TokenCharacters.into());
    }
    // A token needs no encoding, and an encoded one could be read in two ways.
    if matches!(source, Source::Query(_)) && token.contains(&b'%') {
        return Err(Cause::TokenPercentEncoded.into());
    }
    Ok(())
}

/// Name and value of one cookie of a Cookie header (RFC 6265 section 5.4), without the quotes that section 4.1.1 allows
/// around the value. A cookie without `=` has an empty value.
fn split_cookie(cookie: &[u8]) -> (&[u8], &[u8]) {
    let cookie = cookie.trim_ascii();
    let mut parts = cookie.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default().trim_ascii_end();
    let value = parts.next().unwrap_or_default();
    match value {
        [b'"', inner @ .., b'"'] => (name, inner),
        _ => (name, value),
    }
}

/// Raw, and empty without `=`.
fn query_value(parameter: &[u8]) -> &[u8] {
    parameter.splitn(2, |byte| *byte == b'=').nth(1).unwrap_or_default()
}

fn left_of_cookies(value: &[u8]) -> Option<Vec<u8>> {
    let kept = value.trim_ascii_start();
    kept.iter().any(|byte| !b"; \t".contains(byte)).then(|| kept.to_vec())
}

#[cfg(test)]
mod tests;
