//! A published key set (RFC 7517 section 5), or a map of PEM, read as the filter trusts it: what cannot be used is left out by name, and
//! what is no key set at all is refused whole.
use std::time::Duration;

use serde_json::{Map, Value};

use crate::alg::Algorithm;
use crate::json::Json;
use crate::keys::{Key, KeyError, KeySet};

mod pem_map;

/// The longest key set or discovery document that is read.
pub const MAX_BYTES: usize = 256 * 1024;
/// The most members of `keys` that are looked at.
pub const MAX_MEMBERS: usize = 128;

/// A key set as far as it can be used.
#[derive(Debug, Clone)]
pub struct Parsed {
    pub keys: KeySet,
    /// Each key that was left out, and why. Names its place and key id, never its material.
    pub left_out: Vec<String>,
}

/// It is no key set, or no discovery document of this issuer. The last good one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("it is neither an object with an array `keys` nor a map of key ids to PEM")]
    NoKeys,
    #[error("it has more than {MAX_MEMBERS} keys")]
    TooMany,
    #[error("the discovery document has no string `{0}`")]
    Discovery(&'static str),
    #[error("the discovery document is another issuer's")]
    OtherIssuer,
    #[error("`jwks_uri` is not a URL that can be fetched: {0}")]
    Url(&'static str),
}

/// `symmetric` takes `oct` keys as well, for issuers that publish a set to nobody but us.
///
/// # Errors
/// See [`Refused`]. An empty set is a set: its issuer has taken all of its keys away.
pub fn parse(text: &[u8], allowed: &[Algorithm], symmetric: bool) -> Result<Parsed, Refused> {
    if text.len() > MAX_BYTES {
        return Err(Refused::TooLong);
    }
    // The strict reader first: it refuses a member that is there twice, of which two readers may take different ones.
    let document = Json::parse(text).map_err(|error| Refused::NotJson(error.to_string()))?;
    if let Some(map) = pem_map::map(&document) {
        return pem_map::parse(map, allowed);
    }
    let count =
        document.as_object().and_then(|document| document.get("keys")?.as_array()).ok_or(Refused::NoKeys)?.len();
    if count > MAX_MEMBERS {
        return Err(Refused::TooMany);
    }
    let document: Value = serde_json::from_slice(text).map_err(|error| Refused::NotJson(error.to_string()))?;
    let members = document.get("keys").and_then(Value::as_array).ok_or(Refused::NoKeys)?;
    let mut keys: Vec<Key> = Vec::new();
    let mut left_out = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let name = match member.get("kid").and_then(Value::as_str) {
            Some(kid) => format!("keys[{place}] (kid {})", printable(kid)),
            None => format!("keys[{place}]"),
        };
        match key(member, allowed, symmetric) {
            Ok(key) => {
                let mut with = keys.clone();
                with.push(key);
                match KeySet::new(with) {
                    Ok(set) => keys = set.keys().to_vec(),
                    Err(error) => left_out.push(format!("{name}: {error}")),
                }
            }
            Err(why) => left_out.push(format!("{name}: {why}")),
        }
    }
    let keys = KeySet::new(keys).map_err(|_| Refused::TooMany)?;
    Ok(Parsed { keys, left_out })
}

fn key(member: &Value, allowed: &[Algorithm], symmetric: bool) -> Result<Key, String> {
    let Value::Object(jwk) = member else { return Err("is not an object".to_owned()) };
    if symmetric && jwk.get("kty").and_then(Value::as_str) == Some("oct") {
        return secret(jwk, allowed);
    }
    Key::from_jwk(jwk, None, None, allowed).map_err(|error: KeyError| error.to_string())
}

fn secret(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Key, String> {
    let text = |name: &str| match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("`{name}` is not a string")),
    };
    let alg = match text("alg")? {
        None => None,
        Some(name) => Some(Algorithm::from_name(name).ok_or("its `alg` is unknown here")?),
    };
    let bytes = crate::b64::decode(text("k")?.ok_or("has no `k`")?).map_err(|_| "`k` is not base64url")?;
    Key::from_secret(&bytes, text("kid")?.map(str::to_owned), alg, allowed).map_err(|error| error.to_string())
}

/// `jwks_uri` of an OpenID Provider's metadata (OpenID Connect Discovery 1.0 section 3; RFC 8414 section 2).
///
/// # Errors
/// [`Refused::OtherIssuer`] unless `issuer` is this one, byte by byte (section 4.3): else one provider could speak for
/// another.
pub fn parse_discovery(text: &[u8], issuer: &str) -> Result<Url, Refused> {
    if text.len() > MAX_BYTES {
        return Err(Refused::TooLong);
    }
    let document = Json::parse(text).map_err(|error| Refused::NotJson(error.to_string()))?;
    let member = |name| {
        let value = document.as_object().and_then(|document| document.get(name)?.as_str());
        value.ok_or(Refused::Discovery(name))
    };
    if member("issuer")? != issuer {
        return Err(Refused::OtherIssuer);
    }
    Url::parse(member("jwks_uri")?).map_err(Refused::Url)
}

/// Where to fetch from. The cluster decides who is connected to, and by TLS or not; these two only fill in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub authority: String,
    pub path: String,
}

impl Url {
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let rest = rest.ok_or("it begins with neither https:// nor http://")?;
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at_checked(at).ok_or("it is malformed")?,
            None => (rest, "/"),
        };
        let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if authority.is_empty() || !authority.bytes().all(host_byte) {
            return Err("its host is malformed");
        }
        if !path.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#') {
            return Err("its path has a character that no request line may have");
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), path })
    }

    /// `<issuer>/.well-known/openid-configuration` (OpenID Connect Discovery 1.0 section 4).
    ///
    /// # Errors
    /// The issuer is no URL.
    pub fn discovery(issuer: &str) -> Result<Self, &'static str> {
        Self::parse(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
    }
}

/// `max-age` of a Cache-Control value (RFC 9111 section 5.2.2.1); zero for `no-store` and `no-cache`.
pub fn max_age(cache_control: &str) -> Option<Duration> {
    let mut age = None;
    for directive in cache_control.split(',') {
        let directive = directive.trim();
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.trim().eq_ignore_ascii_case("max-age")
        {
            age = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    age
}

/// A key id for a log line: whoever publishes the set must not write into our log.
pub fn printable(kid: &str) -> String {
    kid.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::MAX_KEYS;
    use crate::vectors;

    fn rsa(kid: &str) -> Value {
        let mut jwk = Value::Object(vectors::public_jwk(crate::alg::Family::Rsa));
        jwk["kid"] = kid.into();
        jwk
    }

    fn parse_set(keys: Value) -> Parsed {
        parse(serde_json::json!({ "keys": keys }).to_string().as_bytes(), Algorithm::ALL, false).unwrap()
    }

    #[test]
    fn takes_what_it_can_use_and_names_what_it_cannot() {
        let mut private = rsa("private");
        private["d"] = "AQAB".into();
        let parsed = parse_set(serde_json::json!([
            rsa("good"), private, { "kty": "EC", "crv": "secp256k1", "kid": "k1" }, 7, { "kty": "oct", "k": "AAAA" },
            rsa("good"), { "kty": "unheard of", "kid": "line\nbreak" },
        ]));
        assert_eq!(parsed.keys.keys().len(), 1);
        assert_eq!(parsed.left_out.len(), 6);
        assert!(parsed.left_out[0].starts_with("keys[1] (kid private): "), "{:?}", parsed.left_out);
        assert!(parsed.left_out[5].contains("line?break"), "{:?}", parsed.left_out);
    }

    #[test]
    fn secrets_are_taken_only_where_the_issuer_says_so() {
        let text =
            r#"{"keys":[{"kty":"oct","kid":"s","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","alg":"HS256"}]}"#;
        assert_eq!(parse(text.as_bytes(), &[Algorithm::Hs256], true).unwrap().keys.keys().len(), 1);
        assert_eq!(parse(text.as_bytes(), &[Algorithm::Hs256], false).unwrap().keys.keys().len(), 0);
    }

    #[test]
    fn an_empty_set_is_a_set_and_anything_else_is_not() {
        assert!(parse_set(serde_json::json!([])).keys.keys().is_empty());
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]} x"#, "<html>"] {
            assert!(parse(bad.as_bytes(), Algorithm::ALL, false).is_err(), "{bad}");
        }
        assert_eq!(parse(&vec![b' '; MAX_BYTES + 1], Algorithm::ALL, false).unwrap_err(), Refused::TooLong);
        let many = serde_json::json!({ "keys": vec![0; MAX_MEMBERS + 1] }).to_string();
        assert_eq!(parse(many.as_bytes(), Algorithm::ALL, false).unwrap_err(), Refused::TooMany);
    }

    #[test]
    fn more_keys_than_are_taken_leave_the_first_ones() {
        let keys: Vec<Value> = (0..MAX_KEYS + 2).map(|at| rsa(&at.to_string())).collect();
        let parsed = parse_set(Value::Array(keys));
        assert_eq!((parsed.keys.keys().len(), parsed.left_out.len()), (MAX_KEYS, 2));
    }

    #[test]
    fn discovery_is_believed_only_for_its_own_issuer() {
        let text = br#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/a?v=1"}"#;
        let url = parse_discovery(text, "https://a.example").unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("keys.example", "/a?v=1"));
        assert_eq!(parse_discovery(text, "https://a.example/"), Err(Refused::OtherIssuer));
        assert_eq!(parse_discovery(b"{}", "https://a.example"), Err(Refused::Discovery("issuer")));
    }

    #[test]
    fn urls_that_could_break_a_request_line_are_refused() {
        for bad in
            ["ftp://a/", "https://", "https:///x", "https://a b/", "https://a/b c", "https://a/\r\nx", "https://u@a/"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Url::parse("http://a:1").unwrap(), Url { authority: "a:1".into(), path: "/".into() });
        assert_eq!(Url::discovery("https://a/t/").unwrap().path, "/t/.well-known/openid-configuration");
    }

    #[test]
    fn max_age_is_read_and_nothing_else_is_taken_for_it() {
        assert_eq!(max_age("public, max-age=60"), Some(Duration::from_secs(60)));
        assert_eq!(max_age("Max-Age=\"5\""), Some(Duration::from_secs(5)));
        assert_eq!(max_age("max-age=60, no-store"), Some(Duration::ZERO));
        for none in ["", "s-maxage=5", "max-age", "max-age=-1", "max-age=x"] {
            assert_eq!(max_age(none), None, "{none}");
        }
    }
}
