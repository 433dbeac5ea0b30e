//! A published key set (RFC 7517 section 5), or a map of PEM, read as the filter trusts it: what cannot be used is left out by name, and
//! what is no key set at all is refused whole.
use std::time::Duration;

use serde_json::{Map, Value};

use crate::alg::Algorithm;
use crate::json::Json;
use crate::keys::{Key, KeyError, KeySet, KeySetError, PRIVATE_MEMBERS, is_for_verifying};

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
    /// How many members there are beyond [`MAX_MEMBERS`], none of which was looked at.
    pub beyond: usize,
    /// Keys that are not for signatures: nothing is wrong with them.
    pub for_encryption: Vec<String>,
}

/// The most keys that one line names.
const MOST_NAMED: usize = 8;

impl Parsed {
    /// How many keys were left out, and for the first of them why: one line for the log.
    pub fn summary(&self) -> Option<String> {
        let count = self.left_out.len().saturating_add(self.beyond);
        let of = count.saturating_add(self.keys.keys().len());
        let mut named = self.left_out.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>();
        let unnamed = self.left_out.len().saturating_sub(MOST_NAMED);
        if unnamed > 0 {
            named.push(format!("and {unnamed} more"));
        }
        if self.beyond > 0 {
            named.push(format!("{} beyond the first {MAX_MEMBERS} members, which alone are looked at", self.beyond));
        }
        (count > 0).then(|| format!("{count} of {of} keys left out: {}", named.join("; ")))
    }
}

/// It is no key set, or no discovery document of this issuer. The last good one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("it is empty")]
    Empty,
    #[error("it is compressed by {0}, though only `identity` was asked for and is read")]
    Compressed(&'static str),
    #[error("it is in UTF-16, and JSON is UTF-8 (RFC 8259 section 8.1)")]
    Utf16,
    #[error("it is HTML or XML and not JSON: a page for people perhaps, to sign in or with an error")]
    Markup,
    #[error("it is neither an object with an array `keys` nor a map of key ids to PEM")]
    NoKeys,
    #[error("the discovery document has no string `{0}`")]
    Discovery(&'static str),
    #[error("the discovery document is another issuer's")]
    OtherIssuer,
    #[error("`jwks_uri` is not a URL that can be fetched: {0}")]
    Url(&'static str),
}

/// A body as the JSON in it: without a byte order mark, which a reader may ignore (RFC 8259 section 8.1).
///
/// # Errors
/// It is too long, or something else than JSON that can be told by how it begins.
pub fn json_text(body: &[u8]) -> Result<&[u8], Refused> {
    if body.len() > MAX_BYTES {
        return Err(Refused::TooLong);
    }
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match text.trim_ascii_start() {
        [] => Err(Refused::Empty),
        [0x1f, 0x8b, ..] => Err(Refused::Compressed("gzip")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(Refused::Compressed("zstd")),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [b'{', 0, ..] | [0, b'{', ..] => Err(Refused::Utf16),
        [b'<', ..] => Err(Refused::Markup),
        _ => Ok(text),
    }
}

/// `symmetric` takes `oct` keys as well, for issuers that publish a set to nobody but us.
///
/// # Errors
/// See [`Refused`]. An empty set is a set: its issuer has taken all of its keys away.
pub fn parse(text: &[u8], allowed: &[Algorithm], symmetric: bool) -> Result<Parsed, Refused> {
    let text = json_text(text)?;
    // The strict reader first: it refuses a member that is there twice, of which two readers may take different ones.
    let document = Json::parse(text).map_err(|error| Refused::NotJson(error.to_string()))?;
    if let Some(map) = pem_map::map(&document) {
        return Ok(pem_map::parse(map, allowed));
    }
    document.as_object().and_then(|document| document.get("keys")?.as_array()).ok_or(Refused::NoKeys)?;
    let document: Value = serde_json::from_slice(text).map_err(|error| Refused::NotJson(error.to_string()))?;
    let members = document.get("keys").and_then(Value::as_array).ok_or(Refused::NoKeys)?;
    let beyond = members.len().saturating_sub(MAX_MEMBERS);
    let mut parsed = Parsed { keys: KeySet::default(), left_out: Vec::new(), beyond, for_encryption: Vec::new() };
    for (place, member) in members.iter().take(MAX_MEMBERS).enumerate() {
        let name = match member.get("kid").and_then(Value::as_str) {
            Some(kid) => format!("keys[{place}] (kid {})", printable(kid)),
            None => format!("keys[{place}]"),
        };
        match key(member, allowed, symmetric) {
            Ok(key) => match parsed.keys.add(key) {
                // Nothing is lost.
                Ok(()) | Err(KeySetError::DuplicateKey) => {}
                Err(error) => parsed.left_out.push(format!("{name}: {error}")),
            },
            Err(_) if is_for_encryption(member) => parsed.for_encryption.push(name),
            Err(why) => parsed.left_out.push(format!("{name}: {why}")),
        }
    }
    Ok(parsed)
}

fn key(member: &Value, allowed: &[Algorithm], symmetric: bool) -> Result<Key, String> {
    let Value::Object(jwk) = member else { return Err("is not an object".to_owned()) };
    if symmetric && jwk.get("kty").and_then(Value::as_str) == Some("oct") {
        return secret(jwk, allowed);
    }
    Key::from_jwk(jwk, None, None, allowed).map_err(|error: KeyError| error.to_string())
}

/// Does the key say of itself that it is for encryption (RFC 7517 sections 4.2 to 4.4; RFC 7518 section 4.1)? Providers
/// publish such keys beside those that sign. Not one that is exposed: that is worth a warning whatever it is for.
fn is_for_encryption(member: &Value) -> bool {
    const OPERATIONS: [&str; 6] = ["encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"];
    let text = |name: &str| member.get(name).and_then(Value::as_str);
    let is_exposed = text("kty") != Some("oct") && PRIVATE_MEMBERS.iter().any(|name| member.get(name).is_some());
    let operations = member.get("key_ops").and_then(Value::as_array).filter(|operations| !operations.is_empty());
    let by_operations = operations.is_some_and(|operations| {
        operations.iter().all(|operation| operation.as_str().is_some_and(|name| OPERATIONS.contains(&name)))
    });
    let by_algorithm = text("alg").is_some_and(|alg| {
        ["RSA1_5", "RSA-OAEP", "ECDH-ES", "PBES2-"].iter().any(|family| alg.starts_with(family))
            || alg == "dir"
            || (alg.starts_with('A') && alg.ends_with("KW"))
    });
    !is_exposed && (text("use") == Some("enc") || (text("use").is_none() && (by_operations || by_algorithm)))
}

fn secret(jwk: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Key, String> {
    let text = |name: &str| match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(format!("`{name}` is not a string")),
    };
    is_for_verifying(jwk).map_err(|error| error.to_string())?;
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
    let text = json_text(text)?;
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
        // The same key once more is no loss.
        assert_eq!(parsed.left_out.len(), 5);
        assert!(parsed.left_out[0].starts_with("keys[1] (kid private): "), "{:?}", parsed.left_out);
        assert!(parsed.left_out[4].contains("line?break"), "{:?}", parsed.left_out);
        let summary = parsed.summary().unwrap();
        assert!(summary.starts_with("5 of 6 keys left out: keys[1] (kid private): the JWK has"), "{summary}");
    }

    #[test]
    fn several_keys_of_one_kid_are_taken_up_to_the_bound() {
        let key = |number: u8| {
            serde_json::json!({
                "kty": "oct", "kid": "k", "alg": "HS256", "k": crate::b64::encode([number; 32]),
            })
        };
        let text = serde_json::json!({ "keys": (0..11).map(key).collect::<Vec<_>>() }).to_string();
        let parsed = parse(text.as_bytes(), Algorithm::ALL, true).unwrap();
        assert_eq!((parsed.keys.keys().len(), parsed.left_out.len()), (crate::keys::MAX_CANDIDATES, 3));
        assert!(parsed.summary().unwrap().starts_with("3 of 11 keys left out: keys[8] (kid k): "));
    }

    #[test]
    fn keys_for_encryption_are_neither_used_nor_a_warning() {
        let with = |members: Value| {
            let mut jwk = rsa("k");
            members.as_object().unwrap().iter().for_each(|(name, value)| jwk[name] = value.clone());
            jwk
        };
        for quiet in [
            with(serde_json::json!({ "use": "enc" })),
            with(serde_json::json!({ "use": "enc", "alg": "RS256" })),
            with(serde_json::json!({ "alg": "RSA-OAEP-256" })),
            with(serde_json::json!({ "key_ops": ["wrapKey", "encrypt"] })),
            serde_json::json!({ "kty": "oct", "use": "enc", "k": "AAAA" }),
            serde_json::json!({ "kty": "OKP", "crv": "X25519", "use": "enc", "x": "AAAA" }),
            serde_json::json!({ "kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A128KW" }),
        ] {
            let parsed = parse_set(serde_json::json!([quiet]));
            assert_eq!((parsed.keys.keys().len(), parsed.for_encryption.len()), (0, 1), "{quiet}");
            assert_eq!(parsed.summary(), None, "{quiet}");
        }
        for loud in [
            with(serde_json::json!({ "use": "enc", "d": "AQAB" })),
            with(serde_json::json!({ "use": "SIG" })),
            with(serde_json::json!({ "use": 1 })),
            with(serde_json::json!({ "key_ops": [] })),
            with(serde_json::json!({ "key_ops": ["sign"] })),
            with(serde_json::json!({ "use": "sig", "alg": "RSA-OAEP" })),
            with(serde_json::json!({ "alg": "AES" })),
        ] {
            let parsed = parse_set(serde_json::json!([loud]));
            assert_eq!((parsed.keys.keys().len(), parsed.left_out.len()), (0, 1), "{loud}");
        }
        let secret = r#"{"keys":[{"kty":"oct","use":"enc","k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}]}"#;
        let parsed = parse(secret.as_bytes(), Algorithm::ALL, true).unwrap();
        assert_eq!((parsed.keys.keys().len(), parsed.for_encryption.len()), (0, 1));
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
    }

    #[test]
    fn a_byte_order_mark_is_read_over_and_what_is_no_json_is_named() {
        let document = br#"{"issuer":"https://a.example","jwks_uri":"https://a.example/keys"}"#;
        let marked = [b"\xef\xbb\xbf".as_slice(), document].concat();
        assert!(parse_discovery(&marked, "https://a.example").is_ok());
        let set = [b"\xef\xbb\xbf\n".as_slice(), br#"{"keys":[]}"#].concat();
        assert!(parse(&set, Algorithm::ALL, false).is_ok());
        let twice = [b"\xef\xbb\xbf".as_slice(), &set].concat();
        assert!(parse(&twice, Algorithm::ALL, false).is_err());
        let utf16: Vec<u8> = r#"{"keys":[]}"#.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let little: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bad, expected) in [
            (b"\x1f\x8b\x08\0rest".as_slice(), Refused::Compressed("gzip")),
            (b"\x28\xb5\x2f\xfd\0", Refused::Compressed("zstd")),
            (b"", Refused::Empty),
            (b" \r\n", Refused::Empty),
            (b"\xef\xbb\xbf", Refused::Empty),
            (b"\n<!doctype html>", Refused::Markup),
            (&utf16, Refused::Utf16),
            (&little, Refused::Utf16),
        ] {
            assert_eq!(parse(bad, Algorithm::ALL, false).unwrap_err(), expected, "{bad:?}");
            assert_eq!(parse_discovery(bad, "https://a.example").unwrap_err(), expected, "{bad:?}");
        }
    }

    #[test]
    fn more_keys_than_are_taken_leave_the_first_ones() {
        let keys: Vec<Value> = (0..MAX_KEYS + 2).map(|at| rsa(&at.to_string())).collect();
        let parsed = parse_set(Value::Array(keys));
        assert_eq!((parsed.keys.keys().len(), parsed.left_out.len()), (MAX_KEYS, 2));
        let keys: Vec<Value> = (0..MAX_MEMBERS + 9).map(|at| rsa(&at.to_string())).collect();
        let parsed = parse_set(Value::Array(keys));
        assert_eq!((parsed.left_out.len(), parsed.beyond), (MAX_MEMBERS - MAX_KEYS, 9));
        let summary = parsed.summary().unwrap();
        assert!(summary.starts_with("73 of 137 keys left out: keys[64] (kid 64): more than 64"), "{summary}");
        assert!(
            summary.ends_with("; and 56 more; 9 beyond the first 128 members, which alone are looked at"),
            "{summary}"
        );
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
