use super::compile::MAX_SOURCES;
use super::*;
use crate::config::{ChunkSeparator, CookieSource, HeaderSource, Sources, WebsocketEncoding, WebsocketSource};
use crate::reject::RejectReason;
use crate::request::Pair;

const AMBIGUOUS: Result<Option<(Source, &str)>, RejectReason> = Err(RejectReason::TokenAmbiguous);
const MALFORMED: Result<Option<(Source, &str)>, RejectReason> = Err(RejectReason::TokenMalformed);
const NONE: Result<Option<(Source, &str)>, RejectReason> = Ok(None);

fn header(name: &str, scheme: Option<&str>) -> HeaderSource {
    HeaderSource { name: name.into(), scheme: scheme.map(Into::into) }
}

fn cookie(name: &str) -> CookieSource {
    CookieSource { name: name.into(), chunks: None }
}

/// Header 0 is Authorization with Bearer, header 1 X-Token without a scheme.
fn credentials() -> Credentials {
    Credentials::compile(&Sources {
        headers: vec![header("Authorization", Some("Bearer")), header("X-Token", None)],
        cookies: vec![cookie("session"), cookie("__Host-t")],
        query: vec!["access_token".into(), "t".into()],
        websocket: Vec::new(),
    })
    .unwrap()
}

fn find_all<'a>(headers: &[(&'a str, &'a str)], path: &'a str) -> Result<Option<(Source, &'a str)>, RejectReason> {
    let mut pairs: Vec<Pair<'a>> = vec![(b":method", b"GET"), (b":path", path.as_bytes()), (b":authority", b"a")];
    pairs.extend(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    // Only in tests does the request outlive the call.
    let request = Request::from_pairs(pairs.leak()).unwrap();
    let path = PlainPath::check(path.as_bytes()).unwrap();
    match credentials().find(&request, &path) {
        Ok(found) => {
            Ok(found.map(|found| (found.source, &*String::from_utf8(found.token.into_owned()).unwrap().leak())))
        }
        Err(rejection) => Err(rejection.reason),
    }
}

fn find<'a>(headers: &[(&'a str, &'a str)]) -> Result<Option<(Source, &'a str)>, RejectReason> {
    find_all(headers, "/")
}

fn authorization(value: &str) -> Result<Option<(Source, &str)>, RejectReason> {
    find(&[("authorization", value)])
}

fn cookies(value: &str) -> Result<Option<(Source, &str)>, RejectReason> {
    find(&[("cookie", value)])
}

#[test]
fn a_request_without_a_token_has_none() {
    assert_eq!(find_all(&[("accept", "*/*"), ("cookie", "a=b; c")], "/?q=t"), NONE);
}

#[test]
fn the_scheme_is_compared_without_case_and_followed_by_spaces() {
    for value in ["Bearer x.y", "bearer x.y", "BEARER x.y", "Bearer   x.y", " Bearer x.y"] {
        assert_eq!(authorization(value), Ok(Some((Source::Header(0), "x.y"))), "{value:?}");
    }
}

#[test]
fn another_scheme_is_no_token() {
    for value in
        ["Basic eDp5", "Basic", "", "Bearerx y", "Bearer-x y", "xBearer y", "Digest a=b, c=d", "Basic a,Basic b"]
    {
        assert_eq!(authorization(value), NONE, "{value:?}");
    }
}

#[test]
fn our_scheme_without_one_clean_token_is_malformed() {
    for value in [
        "Bearer",
        "Bearer ",
        "Bearer   ",
        "Bearer\tx",
        "Bearer \tx",
        "Bearer=x",
        "Bearer x ",
        "Bearer x y",
        "Bearer x\t",
        "Bearer \"x\"",
        "Bearer x\u{e9}",
        "Bearer x\\",
        "Bearer Bearer x",
    ] {
        assert_eq!(authorization(value), MALFORMED, "{value:?}");
    }
}

#[test]
fn values_joined_by_the_host_are_ambiguous() {
    for value in [
        "Bearer x,Bearer y",
        "Bearer x,Bearer x",
        "Bearer x, bearer y",
        "Basic x,Bearer y",
        "Bearer x,Basic y",
        "Basic x,\tBearer y",
        "Bearer x,",
        ",Bearer x",
        "Bearer,x",
        "Basic x,Bearer",
    ] {
        assert_eq!(authorization(value), AMBIGUOUS, "{value:?}");
    }
}

#[test]
fn a_header_for_tokens_that_is_there_twice_is_ambiguous_whatever_it_says() {
    for (one, other) in
        [("Bearer x", "Bearer x"), ("Bearer x", "Basic y"), ("Basic y", "Bearer x"), ("Basic x", "Basic y")]
    {
        assert_eq!(find(&[("authorization", one), ("accept", "*/*"), ("authorization", other)]), AMBIGUOUS);
    }
    assert_eq!(find(&[("x-token", "x"), ("X-Token", "x")]), AMBIGUOUS);
}

#[test]
fn without_a_scheme_the_value_is_the_token() {
    assert_eq!(find(&[("x-token", "x.y")]), Ok(Some((Source::Header(1), "x.y"))));
    assert_eq!(find(&[("x-token", "x,y")]), AMBIGUOUS);
    for value in ["", " ", "Bearer x", "x y"] {
        assert_eq!(find(&[("x-token", value)]), MALFORMED, "{value:?}");
    }
}

#[test]
fn a_cookie_is_found_among_others() {
    for value in ["session=x.y", "a=b; session=x.y; c=d", "a=b;session=x.y", "session=\"x.y\"", ";; session=x.y ;"] {
        assert_eq!(cookies(value), Ok(Some((Source::Cookie(0), "x.y"))), "{value:?}");
    }
    assert_eq!(cookies("__Host-t=x="), Ok(Some((Source::Cookie(1), "x="))));
}

#[test]
fn a_cookies_name_is_compared_with_case_and_whole() {
    for value in ["Session=x", "session2=x", "xsession=x", "a=session=x", "sess=x"] {
        assert_eq!(cookies(value), NONE, "{value:?}");
    }
}

#[test]
fn a_cookie_that_holds_no_token_is_malformed() {
    for value in [
        "session=",
        "session",
        "session=\"\"",
        "session=\"x",
        "session=x\"",
        "session=\"",
        "session=x y",
        "session= x",
        "session=x,y",
    ] {
        assert_eq!(cookies(value), MALFORMED, "{value:?}");
    }
}

#[test]
fn a_cookie_twice_is_ambiguous_within_a_header_and_across_headers() {
    for value in [
        "session=x; session=x",
        "session=x; session=y",
        "session=; session=x",
        "session=x; session",
        "session =x;session=x",
    ] {
        assert_eq!(cookies(value), AMBIGUOUS, "{value:?}");
    }
    assert_eq!(find(&[("cookie", "session=x"), ("a", "b"), ("cookie", "session=x")]), AMBIGUOUS);
    assert_eq!(cookies("session=x; __Host-t=x"), AMBIGUOUS);
    assert_eq!(find(&[("cookie", "a=b"), ("cookie", "session=x")]), Ok(Some((Source::Cookie(0), "x"))));
}

#[test]
fn a_query_token_is_taken_raw() {
    for path in ["/?access_token=x.y", "/?a=b&access_token=x.y&c", "/?access%5ftoken=x.y", "/?%61ccess_token=x.y"] {
        assert_eq!(find_all(&[], path), Ok(Some((Source::Query(0), "x.y"))), "{path}");
    }
    assert_eq!(find_all(&[], "/?t=x=="), Ok(Some((Source::Query(1), "x=="))));
    for path in
        ["/?access_token=", "/?access_token", "/?access_token=x%2ey", "/?access_token=x%", "/?access_token=\u{e9}"]
    {
        assert_eq!(find_all(&[], path), MALFORMED, "{path}");
    }
    for path in
        ["/access_token=x", "/?Access_token=x", "/?xaccess_token=x", "/?a=access_token=x", "/?access%255ftoken=x"]
    {
        assert_eq!(find_all(&[], path), NONE, "{path}");
    }
}

#[test]
fn a_parameter_twice_is_ambiguous_however_it_is_written() {
    for path in [
        "/?access_token=x&access_token=x",
        "/?access_token=x&access%5Ftoken=y",
        "/?access_token&access_token=x",
        "/?access_token=x&t=x",
    ] {
        assert_eq!(find_all(&[], path), AMBIGUOUS, "{path}");
    }
}

#[test]
fn two_sources_are_ambiguous_even_with_one_value() {
    let (header, other): ((&str, &str), (&str, &str)) = (("authorization", "Bearer x"), ("x-token", "x"));
    let cookie = ("cookie", "session=x");
    for headers in
        [[header, other], [header, cookie], [other, cookie], [cookie, header], [("authorization", "Bearer"), cookie]]
    {
        assert_eq!(find(&headers), AMBIGUOUS, "{headers:?}");
    }
    assert_eq!(find_all(&[header], "/?t=x"), AMBIGUOUS);
    assert_eq!(find_all(&[cookie], "/?t="), AMBIGUOUS);
    assert_eq!(find(&[("authorization", "Basic x"), cookie]), Ok(Some((Source::Cookie(0), "x"))));
}

#[test]
fn what_is_not_configured_is_not_read() {
    let only_header = Credentials::compile(&Sources::default()).unwrap();
    let pairs: [Pair<'_>; 6] = [
        (b":method", b"GET"),
        (b":path", b"/?access_token=x&access_token=y"),
        (b":authority", b"a"),
        (b"cookie", b"session=x; session=y"),
        (b"x-token", b"x"),
        (b"authorization", b"bearer z"),
    ];
    let request = Request::from_pairs(&pairs).unwrap();
    let found = only_header.find(&request, &PlainPath::check(request.path()).unwrap()).unwrap().unwrap();
    assert_eq!((found.source, &*found.token), (Source::Header(0), &b"z"[..]));
    assert_eq!(only_header.header_to_remove(found.source).as_deref(), Some(&b"authorization"[..]));
    assert_eq!(only_header.header_to_remove(Source::Cookie(0)), None);
}

#[test]
fn two_schemes_may_share_a_header() {
    let sources = Sources {
        headers: vec![header("authorization", Some("Bearer")), header("authorization", Some("Token"))],
        ..Sources::default()
    };
    let credentials = Credentials::compile(&sources).unwrap();
    let find = |value: &'static [u8]| {
        let pairs: [Pair<'_>; 4] =
            [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"authorization", value)];
        let found = credentials.find(&Request::from_pairs(&pairs).unwrap(), &PlainPath::check(b"/").unwrap());
        found.map(|found| found.unwrap().source).map_err(|rejection| rejection.reason)
    };
    assert_eq!(find(b"token x"), Ok(Source::Header(1)));
    assert_eq!(find(b"Bearer x"), Ok(Source::Header(0)));
    assert_eq!(find(b"Basic z,Token x"), Err(RejectReason::TokenAmbiguous));
}

#[test]
fn parameters_that_name_another_method_are_cut_out_where_they_are_to_be() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let credentials = Credentials::compile(&Sources::default()).unwrap();
    let credentials = credentials.removing_parameters(&names(&["_method", "rest_route"])).unwrap();
    let rest =
        |path: &str| credentials.path_without_tokens(path.as_bytes()).map(|path| String::from_utf8(path).unwrap());
    for (path, left) in [
        ("/a?_method=DELETE", "/a"),
        ("/a?b=1&_METHOD=DELETE&c=2", "/a?b=1&c=2"),
        ("/a?b=1;_method=DELETE", "/a?b=1"),
        ("/a?%5fmethod=DELETE", "/a"),
        ("/a?.method=DELETE&+_method=PUT&_method[]=x", "/a"),
        ("/a?_method", "/a"),
        ("/a?rest.route=/wp/v2/users&b", "/a?b"),
    ] {
        assert_eq!(rest(path).as_deref(), Some(left), "{path}");
    }
    for path in ["/a", "/a?method=x", "/a?_methods=x", "/_method?b=_method", "/a?access_token=x"] {
        assert_eq!(rest(path), None, "{path}");
    }
    let wrong = |wrong: &[&str]| {
        let tokens = Sources { query: names(&["access_token"]), ..Sources::default() };
        Credentials::compile(&tokens).unwrap().removing_parameters(&names(wrong)).unwrap_err().field
    };
    assert_eq!(wrong(&["a", ""]), "remove_query_parameters[1]");
    assert_eq!(wrong(&["a b"]), "remove_query_parameters[0]");
    assert_eq!(wrong(&["_method", "_method"]), "remove_query_parameters[1]");
    assert_eq!(wrong(&["Access.Token"]), "remove_query_parameters[0]");
    assert_eq!(wrong(&["a"; MAX_SOURCES + 1]), "remove_query_parameters");
}

#[test]
fn the_query_token_is_cut_out_and_the_rest_stays_byte_for_byte() {
    for (path, expected) in [
        ("/a?access_token=x", "/a"),
        ("/a?access_token=x&b=%2f", "/a?b=%2f"),
        ("/a?b=c&access_token=x", "/a?b=c"),
        ("/a?b=c&access_token=x&d&e=", "/a?b=c&d&e="),
        ("/a?access%5Ftoken=x&t=y&b", "/a?b"),
        ("/a?access_token=x&", "/a"),
        ("/a?&access_token=x&", "/a"),
        ("/a?b=?&access_token=x", "/a?b=?"),
        ("/a%40?access_token", "/a%40"),
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("/a?b&&c", "/a?b&&c"),
    ] {
        assert_eq!(without_query_tokens(path), expected, "{path}");
    }
}

#[test]
fn the_token_cookie_is_cut_out_and_the_rest_stays() {
    for (value, expected) in [
        ("session=x", None),
        ("session=x; a=b", Some("a=b")),
        ("a=b; session=x", Some("a=b")),
        ("a=b; session=x; c=\"d\"", Some("a=b; c=\"d\"")),
        ("a=b;session=x;c", Some("a=b;c")),
        ("session=x; __Host-t=y", None),
        (" session = x ; ", None),
        ("a=b", Some("a=b")),
        ("", None),
    ] {
        let rest = credentials().without_cookie_token(value.as_bytes());
        assert_eq!(rest.as_deref(), expected.map(str::as_bytes), "{value:?}");
    }
}

#[test]
fn nothing_that_was_cut_can_be_found_again() {
    for path in ["/?access_token=x", "/?a&t=x&access%5ftoken=y&%74=z", "/?&t&t=&"] {
        assert_eq!(find_all(&[], &without_query_tokens(path)), NONE, "{path}");
    }
    let rest = credentials().without_cookie_token(b"a=b; session=x; session ; \tsession=y;__Host-t").unwrap();
    assert_eq!(cookies(std::str::from_utf8(&rest).unwrap()), NONE);
}

#[test]
fn a_presented_token_prints_redacted() {
    let presented = Presented { token: b"secret".into(), source: Source::Query(0) };
    assert_eq!(format!("{presented:?}"), "Presented { source: Query(0), .. }");
}

#[test]
fn a_wrong_source_is_refused_with_its_field() {
    let headers = |headers: Vec<HeaderSource>| Sources { headers, ..Sources::default() };
    let names = [
        "",
        ":path",
        "a b",
        "a:",
        "Host",
        "connection",
        "Content-Length",
        "transfer-encoding",
        "upgrade",
        "Cookie",
        "te",
    ];
    for name in names {
        let error = Credentials::compile(&headers(vec![header(name, None)])).unwrap_err();
        assert_eq!(error.field, "headers[0].name", "{name:?}");
    }
    for scheme in ["", "Bearer ", "Be arer", "B,c"] {
        let error = Credentials::compile(&headers(vec![header("a", Some(scheme))])).unwrap_err();
        assert_eq!(error.field, "headers[0].scheme", "{scheme:?}");
    }
    for (one, other) in [(None, None), (Some("Bearer"), None), (Some("Bearer"), Some("bearer"))] {
        let error = Credentials::compile(&headers(vec![header("a", one), header("A", other)])).unwrap_err();
        assert_eq!(error.field, "headers[1]", "{one:?} {other:?}");
    }
    for name in ["", "a b", "a=b", "a;b", "a,b", "\u{e9}", "ok"] {
        let sources = Sources { cookies: vec![cookie("ok"), cookie(name)], ..Sources::default() };
        assert_eq!(Credentials::compile(&sources).unwrap_err().field, "cookies[1].name", "{name:?}");
    }
    for name in ["", "a b", "a%20", "a=b", "a&b", "a[]", "a+b", "ok"] {
        let sources = Sources { query: vec!["ok".into(), name.into()], ..Sources::default() };
        assert_eq!(Credentials::compile(&sources).unwrap_err().field, "query[1]", "{name:?}");
    }
    assert_eq!(Credentials::compile(&headers(Vec::new())).unwrap_err().field, "headers");
    let many = |count: usize| Sources { query: (0..count).map(|n| format!("q{n}")).collect(), ..Sources::default() };
    assert!(Credentials::compile(&many(MAX_SOURCES)).is_ok());
    assert_eq!(Credentials::compile(&many(MAX_SOURCES + 1)).unwrap_err().field, "query");
}

fn without_query_tokens(path: &str) -> String {
    let rest = credentials().path_without_tokens(path.as_bytes());
    rest.map_or_else(|| path.to_owned(), |rest| String::from_utf8(rest).unwrap())
}

#[test]
fn parameters_that_could_be_read_as_a_tokens_are_cut_out_and_the_rest_stays() {
    for (path, expected) in [
        ("/a?Access_Token=x", "/a"),
        ("/a?b=c&access.token=x&d", "/a?b=c&d"),
        ("/a?%20access_token=x&b", "/a?b"),
        ("/a?access%5Btoken=x", "/a"),
        ("/a?access_token[]=x&b=1", "/a?b=1"),
        ("/a?b=c;access_token=x", "/a?b=c"),
        ("/a?;access_token=x", "/a"),
        ("/a?;Access_Token=x;d&e", "/a?;d&e"),
        ("/a?b=1&T=x", "/a?b=1"),
        ("/a?access-token=x&tt=y&b=t", "/a?access-token=x&tt=y&b=t"),
        ("/a?b=c;d=e&f", "/a?b=c;d=e&f"),
    ] {
        assert_eq!(without_query_tokens(path), expected, "{path}");
    }
}

#[test]
fn cookies_that_could_be_read_as_a_tokens_are_cut_out_and_the_rest_stays() {
    for (value, expected) in [
        ("session=x", None),
        ("a=b; session=x", None),
        ("Session=y", Some("")),
        ("session=x; SESSION=y", Some("session=x")),
        ("a=b; %73ession=y; session=x", Some("a=b; session=x")),
        ("a=b,session=y; c=d", Some("a=b; c=d")),
        ("a=b, Session=y,e; session=x", Some("a=b,e; session=x")),
        ("a=b,c; session=x", None),
        ("sessions=y; my-session=z", None),
    ] {
        let pairs: Vec<Pair<'_>> =
            vec![(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"cookie", value.as_bytes())];
        let rest = credentials().cookies_without_aliases(&Request::from_pairs(&pairs).unwrap());
        let rest = rest.map(|rest| String::from_utf8(rest.unwrap_or_default()).unwrap());
        assert_eq!(rest.as_deref(), expected, "{value:?}");
    }
}

/// Cookie 0 may be in chunks, cookie 1 may not.
fn find_chunked(value: &'static str) -> Result<Option<(Source, Vec<u8>)>, RejectReason> {
    let cookies = vec![CookieSource { chunks: Some(ChunkSeparator::Dot), ..cookie("session") }, cookie("other")];
    let credentials = Credentials::compile(&Sources { cookies, ..Sources::default() }).unwrap();
    let pairs: [Pair<'_>; 4] =
        [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"cookie", value.as_bytes())];
    let found = credentials.find(&Request::from_pairs(&pairs).unwrap(), &PlainPath::check(b"/").unwrap());
    found.map(|found| found.map(|found| (found.source, found.token.into_owned()))).map_err(|rejection| rejection.reason)
}

#[test]
fn chunks_of_a_cookie_are_joined_by_their_numbers() {
    for value in [
        "session=abc",
        "session.0=abc",
        "session.0=a; x=y; session.1=bc",
        "session.1=bc; session.0=a",
        "session.2=c;session.0=\"a\";session.1=b",
        "session_a=z; session.0=abc; sessions.1=z; session.=z",
    ] {
        assert_eq!(find_chunked(value), Ok(Some((Source::Cookie(0), b"abc".to_vec()))), "{value}");
    }
    for value in ["session.1=a", "session.0=a; session.2=b", "session.0=", "session.0=a b", "session.16=a"] {
        assert_eq!(find_chunked(value), Err(RejectReason::TokenMalformed), "{value}");
    }
    for value in [
        "session=abc; session.0=abc",
        "session.0=abc; session=abc",
        "session.0=a; session.1=b; session.1=b",
        "session.0=a; other=b",
        "other=b; session.0=a",
    ] {
        assert_eq!(find_chunked(value), Err(RejectReason::TokenAmbiguous), "{value}");
    }
    // Names that some backend reads as a chunk.
    for value in ["session.0=a; session_1=b", "Session.0=a", "session%2e0=a", "x=y,session.0=a", "session.00=a"] {
        assert_eq!(find_chunked(value), Err(RejectReason::TokenMalformed), "{value}");
    }
    assert_eq!(find_chunked("other.0=a; session0=b; a=session.0=c"), Ok(None));
}

#[test]
fn no_cookie_can_be_a_chunk_of_another() {
    let compile = |names: &[(&str, bool)]| {
        let cookies = names.iter().map(|(name, is_chunked)| CookieSource {
            chunks: is_chunked.then_some(ChunkSeparator::Underscore),
            ..cookie(name)
        });
        let sources = Sources { cookies: cookies.collect(), ..Sources::default() };
        Credentials::compile(&sources).map(|_| ()).map_err(|invalid| invalid.field)
    };
    assert_eq!(compile(&[("a", true), ("b", true), ("a_b", false), ("A_", false)]), Ok(()));
    for other in ["a_0", "a.3", "A_0", "A"] {
        assert_eq!(compile(&[("a", true), (other, false)]), Err("cookies[1].name".to_owned()), "{other}");
    }
}

#[test]
fn what_comes_before_the_scheme_does_not_hide_it() {
    for value in ["\u{a0}Bearer x", "\u{b}Bearer x", "\"Bearer x", "\u{2003}bearer x", "=Bearer x"] {
        let pairs: Vec<Pair<'_>> =
            vec![(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"authorization", value.as_bytes())];
        let request = Request::from_pairs(&pairs).unwrap();
        let rejection = credentials().find(&request, &request.plain_path().unwrap()).unwrap_err();
        assert_eq!(rejection.reason, RejectReason::TokenMalformed, "{value:?}");
    }
}

#[test]
fn chunks_are_cut_out_with_the_cookie() {
    let cookies = vec![CookieSource { chunks: Some(ChunkSeparator::Dot), ..cookie("session") }];
    let credentials = Credentials::compile(&Sources { cookies, ..Sources::default() }).unwrap();
    let rest = |value: &str| credentials.without_cookie_token(value.as_bytes());
    assert_eq!(rest("session.0=a; b=c; session.1=d; session_1=e; SESSION.1=f"), Some(b"b=c".to_vec()));
    assert_eq!(rest("session.0=a"), None);
}

// Regression: each of 16 cookies with chunks decoded each name again.
#[test]
fn a_name_is_decoded_once_however_many_are_configured() {
    let readings = |count: usize| {
        let chunked =
            |index: usize| CookieSource { chunks: Some(ChunkSeparator::Dot), ..cookie(&format!("session-{index}-s")) };
        let cookies = (0..count).map(chunked).collect();
        let credentials = Credentials::compile(&Sources { cookies, ..Sources::default() }).unwrap();
        let pairs: [Pair<'_>; 4] =
            [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"cookie", b"x%41=1, y%41=2; z%2541=3")];
        let request = Request::from_pairs(&pairs).unwrap();
        let before = spelling::READINGS.get();
        assert_eq!(credentials.find(&request, &PlainPath::check(b"/").unwrap()), Ok(None));
        let found = spelling::READINGS.get() - before;
        assert_eq!(credentials.cookies_without_aliases(&request), None);
        (found, spelling::READINGS.get() - before - found)
    };
    assert_eq!(readings(16), (3, 3), "two cookies, and what comes after a comma");
    assert_eq!(readings(16), readings(1));
}

fn find_subprotocol(headers: &[(&'static str, &'static str)]) -> Result<Option<(Source, Vec<u8>)>, RejectReason> {
    let websocket = vec![WebsocketSource { prefix: "bearer.".into(), encoding: WebsocketEncoding::Plain }];
    let credentials = Credentials::compile(&Sources { websocket, ..Sources::default() }).unwrap();
    let mut pairs: Vec<Pair<'_>> =
        vec![(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a"), (b"upgrade", b"websocket")];
    pairs.extend(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let found = credentials.find(&Request::from_pairs(&pairs).unwrap(), &PlainPath::check(b"/").unwrap());
    found.map(|found| found.map(|found| (found.source, found.token.into_owned()))).map_err(|rejection| rejection.reason)
}

#[test]
fn a_token_among_subprotocols_is_one_like_any_other() {
    let name = "sec-websocket-protocol";
    let token = Ok(Some((Source::Websocket(0), b"x.y".to_vec())));
    assert_eq!(find_subprotocol(&[(name, "chat, bearer.x.y")]), token);
    assert_eq!(find_subprotocol(&[(name, "chat"), ("Sec-WebSocket-Protocol", "bearer.x.y")]), token);
    assert_eq!(find_subprotocol(&[(name, "chat, superchat")]), Ok(None));
    for headers in [
        &[(name, "chat, bearer.x, bearer.x")][..],
        &[(name, "chat, bearer.x, Bearer.x")],
        &[(name, "chat, bearer.x"), (name, "bearer.x")],
        &[(name, "chat, bearer.x"), ("authorization", "Bearer x")],
        &[("authorization", "Bearer x"), (name, "bearer.x")],
    ] {
        assert_eq!(find_subprotocol(headers), Err(RejectReason::TokenAmbiguous), "{headers:?}");
    }
    for value in ["chat, bearer.", "bearer.x", "chat, bearer.x y", "chat, bearer.\"x\""] {
        assert_eq!(find_subprotocol(&[(name, value)]), Err(RejectReason::TokenMalformed), "{value}");
    }
}
