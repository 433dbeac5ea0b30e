//! Compiles the configured sources of tokens, and refuses those that could be read as one another.
use super::Credentials;
use super::chunks::ChunkedCookie;
use super::header::HeaderToken;
use super::spelling::{Reading, SourceName};
use super::websocket::{self, WebsocketTokens};
use crate::config::{CookieSource, Invalid, Sources};
use crate::request::headers::{HeaderName, HeaderNames, is_token};

/// The most sources of one kind, since each is looked up in every request.
pub(super) const MAX_SOURCES: usize = 16;

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
            return Err(Invalid::new("headers", "no place for tokens is left"));
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
        for (index, source) in headers.iter().enumerate() {
            let header = HeaderToken::compile(source).map_err(|error| error.within(format!("headers[{index}]")))?;
            if compiled.headers.iter().any(|earlier| earlier.overlaps(&header)) {
                return Err(Invalid::new(format!("headers[{index}]"), "repeats an earlier one"));
            }
            HeaderName::of_request(&source.name).into_iter().for_each(|name| compiled.header_names.insert(name));
            compiled.headers.push(header);
        }
        for (index, CookieSource { name, .. }) in cookies.iter().enumerate() {
            let wrong = (!is_token(name.as_bytes())).then_some("is not a cookie name (RFC 6265 section 4.1.1)");
            push_name(&mut compiled.cookies, name, wrong)
                .map_err(|message| Invalid::new(format!("cookies[{index}].name"), message))?;
        }
        for (index, name) in query.iter().enumerate() {
            push_name(&mut compiled.query, name, wrong_parameter(name))
                .map_err(|message| Invalid::new(format!("query[{index}]"), message))?;
        }
        Ok(compiled)
    }

    /// Adds parameters that are removed from every query although they contain no token.
    pub fn removing_parameters(mut self, names: &[String]) -> Result<Self, Invalid> {
        const FIELD: &str = "remove_query_parameters";
        if names.len() > MAX_SOURCES {
            return Err(Invalid::new(FIELD, format!("has more than {MAX_SOURCES} entries")));
        }
        for (index, name) in names.iter().enumerate() {
            let invalid = |message| Invalid::new(format!("{FIELD}[{index}]"), message);
            let reading = Reading::of(name.as_bytes());
            if self.query.iter().any(|own| own.is_read_as(&reading)) {
                return Err(invalid("could be read as one of `tokens.query`, which is removed anyway"));
            }
            push_name(&mut self.removed_query, name, wrong_parameter(name)).map_err(invalid)?;
        }
        Ok(self)
    }
}

/// No name may be read as a chunk of another, nor have the same chunks in some reading.
fn compile_chunked(cookies: &[CookieSource]) -> Result<Vec<ChunkedCookie>, Invalid> {
    let chunked: Vec<ChunkedCookie> = cookies
        .iter()
        .enumerate()
        .filter_map(|(index, cookie)| Some(ChunkedCookie::new(index, &cookie.name, cookie.chunks?)))
        .collect();
    for (index, CookieSource { name, .. }) in cookies.iter().enumerate() {
        let mut others = chunked.iter().filter(|chunked| chunked.index != index);
        if others.any(|chunked| chunked.chunk(&Reading::of(name.as_bytes())).is_some() || chunked.is_read_as(name)) {
            return Err(Invalid::new(
                format!("cookies[{index}].name"),
                "could be read as another one, or as a chunk of it",
            ));
        }
    }
    Ok(chunked)
}

fn wrong_parameter(name: &str) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (name.is_empty() || !name.bytes().all(plain)).then_some("has characters other than A–Z a–z 0–9 - . _ ~")
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
