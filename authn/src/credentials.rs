//! Where a request's token is, and that there is only one. Whether the token is any good is not for here.
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use self::chunks::{Chunk, ChunkedCookie, Chunks};
use self::spelling::{Reading, SourceName};
use self::websocket::WebsocketTokens;
use crate::config::{CookieSource, HeaderSource, Invalid, Sources};
use crate::reject::{Cause, Rejection};
use crate::request::headers::{CONNECTION, HeaderName, HeaderNames, is_token, is_token_byte};
use crate::request::path::{PlainPath, split_query};
use crate::request::{Request, scan};

mod chunks;
mod compatible;
mod spelling;
mod websocket;

/// The places where tokens are looked for.
#[derive(Debug)]
pub struct Credentials {
    headers: Vec<HeaderToken>,
    /// The names of `headers`, and that of subprotocols where these may hold tokens, to find what folds to the same.
    header_names: HeaderNames,
    cookies: Vec<SourceName>,
    query: Vec<SourceName>,
    /// Parameters that hold no token, and that no upstream is to see.
    removed_query: Vec<SourceName>,
    /// Those of the cookies that may be in chunks.
    chunked: Vec<ChunkedCookie>,
    websocket: WebsocketTokens,
}

/// A token as it was found. Prints redacted.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented<'a> {
    /// Visible ASCII without comma, quote and backslash; at least one byte.
    pub token: Cow<'a, [u8]>,
    pub source: Source,
}

/// Where a token was found, by its place in the configuration's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Header(usize),
    Cookie(usize),
    Query(usize),
    Websocket(usize),
}

impl Credentials {
    pub fn compile(sources: &Sources) -> Result<Self, Invalid> {
        let Sources { headers, cookies, query, websocket } = sources;
        let counts = [
            ("headers", headers.len()),
            ("cookies", cookies.len()),
            ("query", query.len()),
            ("websocket", websocket.len()),
        ];
        if counts.iter().all(|(_, count)| *count == 0) {
            return Err(Invalid::new("headers", "there is no place left where a token could be"));
        }
        for (field, count) in counts {
            if count > MAX_SOURCES {
                return Err(Invalid::new(field, format!("has more than {MAX_SOURCES} entries")));
            }
        }
        let mut compiled = Self {
            headers: Vec::new(),
            header_names: HeaderNames::default(),
            cookies: Vec::new(),
            query: Vec::new(),
            removed_query: Vec::new(),
            chunked: compile_chunked(cookies)?,
            websocket: WebsocketTokens::compile(websocket)?,
        };
        if !websocket.is_empty() {
            let name = HeaderName::of_request(websocket::HEADER);
            name.into_iter().for_each(|name| compiled.header_names.insert(name));
        }
        for (place, source) in headers.iter().enumerate() {
            let header = HeaderToken::compile(source).map_err(|error| error.within(format!("headers[{place}]")))?;
            if compiled.headers.iter().any(|earlier| earlier.overlaps(&header)) {
                return Err(Invalid::new(format!("headers[{place}]"), "repeats an earlier one"));
            }
            HeaderName::of_request(&source.name).into_iter().for_each(|name| compiled.header_names.insert(name));
            compiled.headers.push(header);
        }
        for (place, CookieSource { name, .. }) in cookies.iter().enumerate() {
            let wrong = (!is_token(name.as_bytes())).then_some("is not a cookie name (RFC 6265 section 4.1.1)");
            push_name(&mut compiled.cookies, name, wrong)
                .map_err(|message| Invalid::new(format!("cookies[{place}].name"), message))?;
        }
        for (place, name) in query.iter().enumerate() {
            push_name(&mut compiled.query, name, wrong_parameter(name))
                .map_err(|message| Invalid::new(format!("query[{place}]"), message))?;
        }
        Ok(compiled)
    }

    /// With parameters that are removed from every query, though they hold no token.
    pub fn removing_parameters(mut self, names: &[String]) -> Result<Self, Invalid> {
        const FIELD: &str = "remove_query_parameters";
        if names.len() > MAX_SOURCES {
            return Err(Invalid::new(FIELD, format!("has more than {MAX_SOURCES} entries")));
        }
        for (place, name) in names.iter().enumerate() {
            let invalid = |message| Invalid::new(format!("{FIELD}[{place}]"), message);
            let reading = Reading::of(name.as_bytes());
            if self.query.iter().any(|own| own.is_read_as(&reading)) {
                return Err(invalid("could be read as one of `tokens.query`, which is removed anyway"));
            }
            push_name(&mut self.removed_query, name, wrong_parameter(name)).map_err(invalid)?;
        }
        Ok(self)
    }

    /// None: no token anywhere. TOKEN_AMBIGUOUS: more than one, equal or not, good or not, or a header that is there
    /// twice. TOKEN_MALFORMED: one place is used, and what is in it cannot be a token.
    pub fn find<'a>(&self, request: &Request<'a>, path: &PlainPath<'a>) -> Result<Option<Presented<'a>>, Rejection> {
        let mut seen = Seen::Nothing;
        let mut pairs = request.headers().iter();
        while let Some((name, value)) = pairs.next() {
            if name.eq_ignore_ascii_case(b"cookie") {
                self.look_in_cookies(value, &mut seen)?;
                continue;
            }
            if self.websocket.is_header(name) {
                for (place, written) in self.websocket.tokens(value) {
                    seen.add(Source::Websocket(place), written)?;
                }
            }
            for (place, header) in self.headers.iter().enumerate().filter(|(_, header)| header.is_named(name)) {
                if pairs.clone().any(|(other, _)| header.is_named(other)) {
                    return Err(Rejection::new(Cause::HeaderTwice));
                }
                if let Some(found) = header.look(value)? {
                    seen.add(Source::Header(place), found)?;
                }
            }
        }
        if !self.query.is_empty() {
            for parameter in path.query().unwrap_or_default().split(|byte| *byte == b'&') {
                if let Some(place) = self.query_place(parameter) {
                    seen.add(Source::Query(place), query_value(parameter))?;
                }
            }
        }
        let (source, token) = match seen {
            Seen::Nothing => return Ok(None),
            Seen::One(source @ Source::Websocket(place), written) => {
                (source, self.websocket.decode(place, written, request)?)
            }
            Seen::One(source, token) => (source, Cow::Borrowed(token)),
            Seen::Chunks(chunks) => (Source::Cookie(chunks.place), Cow::Owned(chunks.join()?)),
        };
        check_token(&token, source).map(|()| Some(Presented { token, source }))
    }

    /// Could a backend read this header as one that holds a token, though it is none of those that are looked into?
    pub fn is_header_alias(&self, name: &[u8]) -> bool {
        self.header_names.has_loosely(name)
            && !self.websocket.is_header(name)
            && !self.headers.iter().any(|header| header.is_named(name))
    }

    /// The path for the backend: without every parameter that is a token's, is to be removed, or that some backend could
    /// read as one of these, the rest byte for byte. None where the path has no such parameter.
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

    /// The value of the Cookie headers for the backend: without every cookie that is a token's or that some backend could
    /// read as one, the rest byte for byte. None when nothing is left and the header is to go.
    pub fn without_cookie_token(&self, value: &[u8]) -> Option<Vec<u8>> {
        match self.without_cookies(value, true) {
            Some(rest) => left_of_cookies(&rest),
            None => left_of_cookies(value),
        }
    }

    /// The Cookie headers as one, without the cookies that some backend could read as one that holds a token. `None`: there
    /// are none. `Some(None)`: nothing is left.
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

    /// Without the aliases, and without the cookies that hold tokens if these go. None: nothing is to go. Each name is read
    /// once, since a stranger chooses how much there is to decode.
    fn without_cookies(&self, value: &[u8], tokens_go: bool) -> Option<Vec<u8>> {
        let is_alias = |reading: &Reading<'_>| self.cookies.iter().any(|own| own.is_read_as(reading));
        without_parts(value, b';', |cookie| {
            let (name, _) = split_cookie(cookie);
            let is_token = self.whole_cookie_place(name).is_some() || {
                let reading = Reading::of(name);
                if is_alias(&reading) {
                    return Kept::Nothing;
                }
                self.chunk(&reading).is_some()
            };
            if is_token {
                return if tokens_go { Kept::Nothing } else { Kept::All };
            }
            // Some backends begin another cookie at a comma (RFC 2965 section 3.3.4): it was not looked at.
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

    /// The header, in lower case, that is to go when the backend is not to see a token from this source. None: a cookie
    /// or parameter is to be cut out instead.
    pub fn header_to_remove(&self, source: Source) -> Option<Arc<[u8]>> {
        match source {
            Source::Header(place) => self.headers.get(place).map(|header| Arc::clone(&header.name)),
            Source::Cookie(_) | Source::Query(_) | Source::Websocket(_) => None,
        }
    }

    /// The value of `Sec-WebSocket-Protocol` without tokens. `None`: it has none. `Some(None)`: nothing is left, and the
    /// header is to go.
    pub fn subprotocols_without_tokens(&self, request: &Request<'_>) -> Option<Option<Vec<u8>>> {
        self.websocket.without_tokens(request)
    }

    /// The headers of this request that hold one of the configured schemes.
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
                .any(|cookie| self.cookie_place(split_cookie(cookie).0).is_some())
    }

    fn look_in_cookies<'a>(&self, value: &'a [u8], seen: &mut Seen<'a>) -> Result<(), Rejection> {
        if self.cookies.is_empty() {
            return Ok(());
        }
        for cookie in value.split(|byte| *byte == b';') {
            let (name, value) = split_cookie(cookie);
            match self.chunk_of(name) {
                Some((place, Chunk::Number(number))) => seen.add_chunk(place, number, value)?,
                Some((_, Chunk::Misspelt)) => {
                    return Err(Rejection::new(Cause::ChunkMisspelt));
                }
                // Some backends begin another cookie at a comma (RFC 2965 section 3.3.4).
                None if !self.chunked.is_empty() => {
                    let mut others = cookie.split(|byte| *byte == b',').skip(1);
                    if others.any(|other| self.chunk_of(split_cookie(other).0).is_some()) {
                        return Err(Rejection::new(Cause::ChunkBehindComma));
                    }
                }
                None => {}
            }
            if let Some(place) = self.whole_cookie_place(name) {
                seen.add(Source::Cookie(place), value)?;
            }
        }
        Ok(())
    }

    /// Of a token, or of a chunk of one.
    fn cookie_place(&self, name: &[u8]) -> Option<usize> {
        self.whole_cookie_place(name).or_else(|| self.chunk_of(name).map(|(place, _)| place))
    }

    fn chunk_of(&self, name: &[u8]) -> Option<(usize, Chunk)> {
        if self.chunked.is_empty() { None } else { self.chunk(&Reading::of(name)) }
    }

    fn chunk(&self, name: &Reading<'_>) -> Option<(usize, Chunk)> {
        self.chunked.iter().find_map(|chunked| Some((chunked.place, chunked.chunk(name)?)))
    }

    fn whole_cookie_place(&self, name: &[u8]) -> Option<usize> {
        self.cookies.iter().position(|own| own.is(name))
    }

    /// The names are compared decoded, as a backend reads them: `access%5ftoken` is `access_token`.
    fn query_place(&self, parameter: &[u8]) -> Option<usize> {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        self.query.iter().position(|own| own.is_encoded(name))
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What has been found so far. Only the last step judges the value: of two, one that is broken is still one of two.
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

    fn add_chunk(&mut self, place: usize, number: usize, value: &'a [u8]) -> Result<(), Rejection> {
        if matches!(self, Seen::Nothing) {
            *self = Seen::Chunks(Chunks::new(place));
        }
        let is_added = match self {
            Seen::Chunks(chunks) => chunks.place == place && chunks.add(number, value),
            Seen::Nothing | Seen::One(..) => false,
        };
        if is_added { Ok(()) } else { Err(Rejection::new(Cause::SeveralTokens)) }
    }
}

#[derive(Debug)]
struct HeaderToken {
    /// Lower case.
    name: Arc<[u8]>,
    scheme: Option<Box<[u8]>>,
}

impl HeaderToken {
    fn compile(source: &HeaderSource) -> Result<Self, Invalid> {
        let name = source.name.to_ascii_lowercase();
        if !is_token(name.as_bytes()) {
            return Err(Invalid::new("name", "is not a header name (RFC 9110 section 5.1)"));
        }
        if name == "cookie" || name == "set-cookie" {
            return Err(Invalid::new("name", "tokens in cookies are looked for under `cookies`"));
        }
        if CONNECTION.contains(&name.as_str()) {
            return Err(Invalid::new("name", "belongs to the connection and never holds a token"));
        }
        let scheme = source.scheme.as_deref().map(str::as_bytes);
        if scheme.is_some_and(|scheme| !is_token(scheme)) {
            return Err(Invalid::new("scheme", "is not an authentication scheme (RFC 9110 section 11.1)"));
        }
        Ok(Self { name: name.into_bytes().into(), scheme: scheme.map(Box::from) })
    }

    /// Could both find a token in one header's value?
    fn overlaps(&self, other: &Self) -> bool {
        let same_scheme = match (&self.scheme, &other.scheme) {
            (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
            _ => true,
        };
        self.name == other.name && same_scheme
    }

    fn is_named(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Could somebody take this value for a token, a good one or not?
    fn may_hold(&self, value: &[u8]) -> bool {
        !matches!(self.look(value), Ok(None))
    }

    /// What stands in the token's place, unjudged. None: this header speaks of something else.
    fn look<'a>(&self, value: &'a [u8]) -> Result<Option<&'a [u8]>, Rejection> {
        // Envoy joins a repeated header with commas (RFC 9110 section 5.3), and no token has one.
        let has_comma = scan::has_byte(value, b',');
        let first = match self.scheme {
            None => Some(value),
            Some(_) => self.after_scheme(value),
        };
        let is_ours = |part: &[u8]| self.after_scheme(part).is_some();
        match first {
            None if !has_comma || !value.split(|byte| *byte == b',').any(is_ours) => return Ok(None),
            _ if has_comma => {
                return Err(Rejection::new(Cause::HeaderSeveralValues));
            }
            _ => {}
        }
        let after = first.unwrap_or_default();
        if self.scheme.is_none() {
            return Ok(Some(after));
        }
        // RFC 9110 section 11.4: 1*SP, and no other delimiter. Nothing but blanks comes before the scheme.
        let begins = value.trim_ascii_start().first().is_some_and(|byte| is_token_byte(*byte));
        let is_spaced = begins && after.first() == Some(&b' ');
        let start = after.iter().position(|byte| *byte != b' ');
        Ok(Some(start.filter(|_| is_spaced).and_then(|start| after.get(start..)).unwrap_or_default()))
    }

    /// What follows the scheme, when the value begins with it as a whole word. What comes before does not hide it where it
    /// is no part of a word: a backend may trim what we do not, such as a no-break space.
    fn after_scheme<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let scheme = self.scheme.as_deref()?;
        let start = value.iter().position(|byte| is_token_byte(*byte))?;
        let (word, after) = value.get(start..)?.split_at_checked(scheme.len())?;
        let ends = after.first().is_none_or(|byte| !is_token_byte(*byte));
        (ends && word.eq_ignore_ascii_case(scheme)).then_some(after)
    }
}

fn check_token(token: &[u8], source: Source) -> Result<(), Rejection> {
    if token.is_empty() {
        return Err(Cause::SourceEmpty.into());
    }
    if !scan::are_token_bytes(token) {
        return Err(Cause::TokenCharacters.into());
    }
    // A token needs no encoding, and one that has some could be read in two ways.
    if matches!(source, Source::Query(_)) && token.contains(&b'%') {
        return Err(Cause::TokenPercentEncoded.into());
    }
    Ok(())
}

/// Name and value of one cookie of a Cookie header (RFC 6265 section 5.4), with the quotes off that section 4.1.1 allows
/// round the value. A cookie without `=` has an empty value.
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

/// What stays of a part of a list.
enum Kept {
    All,
    Nothing,
    Part(Vec<u8>),
}

/// The list without what is not kept of its parts, and without the separators before parts that go. None: all is kept.
fn without_parts(list: &[u8], separator: u8, mut keep: impl FnMut(&[u8]) -> Kept) -> Option<Vec<u8>> {
    let mut result: Option<Vec<u8>> = None;
    let mut at = 0usize;
    let mut is_first = true;
    for part in list.split(|byte| *byte == separator) {
        let kept = keep(part);
        if result.is_none() && !matches!(kept, Kept::All) {
            // Up to here all was kept.
            result = Some(list.get(..at.saturating_sub(1)).unwrap_or_default().to_vec());
            is_first = at == 0;
        }
        if let Some(result) = &mut result {
            let bytes = match &kept {
                Kept::All => Some(part),
                Kept::Part(part) => Some(part.as_slice()),
                Kept::Nothing => None,
            };
            if let Some(bytes) = bytes {
                if !is_first {
                    result.push(separator);
                }
                result.extend_from_slice(bytes);
                is_first = false;
            }
        }
        at = at.saturating_add(part.len()).saturating_add(1);
    }
    result
}

fn left_of_cookies(value: &[u8]) -> Option<Vec<u8>> {
    let kept = value.trim_ascii_start();
    kept.iter().any(|byte| !b"; \t".contains(byte)).then(|| kept.to_vec())
}

/// No name may be read as a chunk of another, nor have the same chunks in some reading.
fn compile_chunked(cookies: &[CookieSource]) -> Result<Vec<ChunkedCookie>, Invalid> {
    let chunked: Vec<ChunkedCookie> = cookies
        .iter()
        .enumerate()
        .filter_map(|(place, cookie)| Some(ChunkedCookie::new(place, &cookie.name, cookie.chunks?)))
        .collect();
    for (place, CookieSource { name, .. }) in cookies.iter().enumerate() {
        let mut others = chunked.iter().filter(|chunked| chunked.place != place);
        if others.any(|chunked| chunked.chunk(&Reading::of(name.as_bytes())).is_some() || chunked.is_read_as(name)) {
            return Err(Invalid::new(
                format!("cookies[{place}].name"),
                "could be read as another one, or as a chunk of it",
            ));
        }
    }
    Ok(chunked)
}

fn wrong_parameter(name: &str) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (name.is_empty() || !name.bytes().all(plain)).then_some("has other characters than A–Z a–z 0–9 - . _ ~")
}

fn push_name(names: &mut Vec<SourceName>, name: &str, wrong: Option<&'static str>) -> Result<(), &'static str> {
    if let Some(message) = wrong {
        return Err(message);
    }
    if names.iter().any(|earlier| earlier.is(name.as_bytes())) {
        return Err("repeats an earlier one");
    }
    names.push(SourceName::new(name));
    Ok(())
}

/// The most sources of one kind, since each is looked for in every request.
const MAX_SOURCES: usize = 16;

#[cfg(test)]
mod tests;
