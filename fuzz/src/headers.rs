//! Header maps: the host's buffer and back; a request has one reading; and no header that only the filter may set is left
//! after it was cleared, in any spelling.
use std::sync::LazyLock;

use authn::decide::clear::Edit;
use authn::policy::Policy;
use authn::request::{MAX_HEADERS, Pair, Request};
use serde_json::json;

use crate::target::owned;

/// The filter's own, which is built as a Wasm module only.
#[path = "../../filter/src/pairs.rs"]
mod pairs;

/// Headers that the policy below sets.
const SET: [&str; 2] = ["x-user-id", "x-tenant"];

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let document = json!({
        "issuers": [{
            "issuer": "https://issuer.example",
            "audiences": ["api.example"],
            "algorithms": ["ES256"],
            "keys": [{ "jwk": {
                "kty": "EC", "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            } }],
        }],
        "forward": { "claims": [
            { "claim": "sub", "header": SET[0] },
            { "claim": "tid", "header": SET[1] },
        ] },
        "rules": [{ "match": { "path": { "prefix": "/" }, "hosts": ["api.example"] }, "access": "required" }],
    });
    Policy::from_json(document.to_string().as_bytes(), &|_| None).expect("a right configuration")
});

/// In this text a header is a line: name, tab, value.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    owned(&[
        b":method\tGET\n:path\t/a?b=c\n:authority\tAPI.example:443\n:scheme\thttps\naccept\t*/*\nauthorization\tBearer a.b.c",
        b":method\tOPTIONS\n:path\t/\n:authority\tapi.example\norigin\thttps://a.example\nx-user-id\troot\nX_USER_ID\troot",
        b":method\tPOST\n:path\t/\n:authority\tapi.example.\nconnection\tclose, x-user-id\nx.tenant\tb\ncookie\ta=b; c=d; a=e",
        b":method\tCONNECT\n:authority\ta:443\n:protocol\twebsocket\nhost\tb\nx-forwarded-host\tb\nupgrade\twebsocket",
        b":path\t/\n:path\t/b\n\tx\n:status\t200",
    ])
}

pub fn headers(input: &[u8]) {
    if let Some(pairs) = pairs::read(input) {
        assert_eq!(pairs::read(&pairs::write(&pairs)), Some(pairs), "a buffer of the host");
    }
    let pairs: Vec<Pair<'_>> = input.split(|byte| *byte == b'\n').map(pair).collect();
    assert_eq!(pairs::read(&pairs::write(&pairs)).as_ref(), Some(&pairs), "pairs written and read again");
    let Ok(request) = Request::from_pairs(&pairs) else { return };
    has_one_reading(&request, &pairs);

    let edits = POLICY.clear(&request);
    let cleared = edited(&pairs, &edits);
    for (name, _) in &cleared {
        let as_cgi = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
        let variable: Vec<u8> = name.iter().map(as_cgi).collect();
        assert!(SET.iter().all(|set| set.as_bytes() != variable), "{} is left", name.escape_ascii());
    }
    let again = Request::from_pairs(&cleared).map(|request| POLICY.clear(&request));
    assert_eq!(again.ok(), Some(Vec::new()), "nothing is left to be cleared");
}

fn pair(line: &[u8]) -> Pair<'_> {
    let mut parts = line.splitn(2, |byte| *byte == b'\t');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn has_one_reading(request: &Request<'_>, pairs: &[Pair<'_>]) {
    assert!(pairs.len() <= MAX_HEADERS);
    let values = |name: &[u8]| pairs.iter().filter(|(other, _)| *other == name).map(|pair| pair.1).collect::<Vec<_>>();
    assert_eq!(values(b":method"), [request.method()]);
    assert_eq!(values(b":authority"), [request.authority()]);
    assert!(values(b":path") == [request.path()] || (request.is_connect() && request.path().is_empty()));
    assert!(values(b":scheme").len() <= 1);
    assert!(!request.method().iter().any(u8::is_ascii_lowercase));
    for (name, _) in pairs {
        assert!(!name.is_empty() && !name.eq_ignore_ascii_case(b"host"));
        let known: [&[u8]; 5] = [b":method", b":path", b":authority", b":scheme", b":protocol"];
        assert!(!name.starts_with(b":") || known.contains(name));
    }
}

/// The header map after the edits, as the host makes it.
fn edited<'a>(pairs: &[Pair<'a>], edits: &'a [Edit<'a>]) -> Vec<Pair<'a>> {
    let mut edited = pairs.to_vec();
    for edit in edits {
        match edit {
            Edit::Remove(gone) => edited.retain(|(name, _)| !name.eq_ignore_ascii_case(gone)),
            Edit::Set(name, value) => {
                edited.retain(|(other, _)| !other.eq_ignore_ascii_case(name.as_bytes()));
                edited.push((name.as_bytes(), value));
            }
        }
    }
    edited
}
