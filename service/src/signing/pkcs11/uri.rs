//! PKCS#11 URIs (RFC 7512): which key of which token, the module that reaches it, and the file with its PIN. An attribute
//! that we would not look at is refused, since it could have chosen another key.
use std::path::PathBuf;
use std::str::FromStr;

const SCHEME: &str = "pkcs11:";
/// No longer than what any token keeps: `object` and `id` have no bound of their own.
const MAX_URI: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Uri {
    pub module: PathBuf,
    /// One line: the PIN.
    pub pin: PathBuf,
    /// CKA_LABEL of the private key, and of the public one.
    pub object: Option<String>,
    /// CKA_ID of both.
    pub id: Option<Vec<u8>>,
    /// The token's label.
    pub token: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub serial: Option<String>,
    pub slot: Option<u64>,
}

/// Never has a value, which may be a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the PKCS#11 URI's `{attribute}` {what}")]
pub struct UriError {
    attribute: String,
    what: &'static str,
}

impl Pkcs11Uri {
    /// Whether it is meant as one, right or not: wherever the scheme stands. In quotes or after a space it would else be
    /// taken for a path, which errors show, and a PIN in it too.
    pub fn is_one(text: &str) -> bool {
        // Its case does not matter (RFC 3986 section 3.1).
        text.to_ascii_lowercase().contains(SCHEME)
    }
}

impl FromStr for Pkcs11Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let scheme = text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        if !scheme || text.len() > MAX_URI {
            return Err(wrong(SCHEME, "must be at its begin, and 4096 bytes at the most altogether"));
        }
        // Before anything else is said: a PIN with `&` in it looks like more attributes, whose names errors show.
        if text.to_ascii_lowercase().contains("pin-value=") {
            return Err(wrong("pin-value", "would show the PIN to whoever lists processes: give `pin-source`"));
        }
        let rest = text.get(SCHEME.len()..).unwrap_or_default();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in path.split(';').chain(query.split('&')).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| wrong(name_of(pair), "has no `=`"))?;
            if seen.iter().any(|(known, _)| known == name) {
                return Err(wrong(name_of(name), "is there twice"));
            }
            seen.push((name.to_owned(), decoded(name, value)?));
        }
        let mut take = |name: &str| {
            let at = seen.iter().position(|(known, _)| known == name)?;
            Some(seen.swap_remove(at).1)
        };
        if take("module-name").is_some() {
            return Err(wrong("module-name", "would be searched for: give `module-path`"));
        }
        if take("type").is_some_and(|kind| kind != b"private") {
            return Err(wrong("type", "must be `private`"));
        }
        let id = take("id");
        let mut text = |name: &str| take(name).map(|value| utf8(name, value)).transpose();
        let module = PathBuf::from(text("module-path")?.ok_or_else(|| wrong("module-path", "is missing"))?);
        if !module.is_absolute() {
            return Err(wrong("module-path", "must be an absolute path"));
        }
        let source = text("pin-source")?.ok_or_else(|| wrong("pin-source", "is missing"))?;
        let pin = source.strip_prefix("file:").unwrap_or(&source);
        let pin = PathBuf::from(pin.strip_prefix("//").unwrap_or(pin));
        if !pin.is_absolute() {
            return Err(wrong("pin-source", "must be `file:` and an absolute path"));
        }
        let slot = text("slot-id")?.map(|slot| slot.parse()).transpose();
        let uri = Self {
            module,
            pin,
            object: text("object")?,
            id,
            token: text("token")?,
            manufacturer: text("manufacturer")?,
            model: text("model")?,
            serial: text("serial")?,
            slot: slot.map_err(|_| wrong("slot-id", "must be a number"))?,
        };
        if let Some((name, _)) = seen.first() {
            return Err(wrong(name_of(name), "is not an attribute that is looked at here"));
        }
        if uri.object.as_ref().is_none_or(String::is_empty) && uri.id.as_ref().is_none_or(Vec::is_empty) {
            return Err(wrong("object", "or `id` must name the key"));
        }
        Ok(uri)
    }
}

fn wrong(attribute: &str, what: &'static str) -> UriError {
    UriError { attribute: attribute.to_owned(), what }
}

/// How an unknown name is shown: it could be a piece of a value.
fn name_of(name: &str) -> &str {
    let plain = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if plain { name } else { "(unreadable)" }
}

fn utf8(name: &str, value: Vec<u8>) -> Result<String, UriError> {
    String::from_utf8(value).map_err(|_| wrong(name, "must be UTF-8"))
}

/// RFC 7512 section 2.3, without `,`, which separates keys in an environment variable.
fn decoded(name: &str, value: &str) -> Result<Vec<u8>, UriError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let pair = digit(rest.next()).zip(digit(rest.next()));
                let (high, low) =
                    pair.ok_or_else(|| wrong(name_of(name), "has a `%` without two hexadecimal digits"))?;
                u8::try_from(high << 4 | low).unwrap_or_default()
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+=/|".contains(&byte) => byte,
            _ => return Err(wrong(name_of(name), "has a character that must be percent-encoded")),
        };
        bytes.push(byte);
    }
    if bytes.contains(&0) && name != "id" {
        return Err(wrong(name_of(name), "has a NUL"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "?module-path=/usr/lib/m.so&pin-source=file:/etc/pin";

    fn read(text: &str) -> Result<Pkcs11Uri, String> {
        text.parse().map_err(|error: UriError| error.to_string())
    }

    #[test]
    fn names_module_token_key_and_pin() {
        let uri = read(
            "pkcs11:token=My%20Token;serial=0a;object=k%C3%A9y;id=%00%ff;type=private;slot-id=7?module-path=/m.so&pin-source=/p",
        );
        let expected = Pkcs11Uri {
            module: "/m.so".into(),
            pin: "/p".into(),
            object: Some("kéy".into()),
            id: Some(vec![0, 255]),
            token: Some("My Token".into()),
            manufacturer: None,
            model: None,
            serial: Some("0a".into()),
            slot: Some(7),
        };
        assert_eq!(uri, Ok(expected));
        for source in ["file:/etc/pin", "file:///etc/pin", "/etc/pin"] {
            let uri = read(&format!("PKCS11:id=1?pin-source={source}&module-path=/m.so")).unwrap();
            assert_eq!(uri.pin, PathBuf::from("/etc/pin"), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is_shown() {
        for (attribute, text) in [
            ("pkcs11:", "file:/x".to_owned()),
            ("pkcs11:", format!("pkcs11:object={}{REST}", "x".repeat(4096))),
            ("object", format!("pkcs11:token=t{REST}")),
            ("object", format!("pkcs11:object=;id={REST}")),
            ("object", format!("pkcs11:object=a;object=a{REST}")),
            ("object", format!("pkcs11:object=%f{REST}")),
            ("object", format!("pkcs11:object=%+f{REST}")),
            ("object", format!("pkcs11:object=%00{REST}")),
            ("object", format!("pkcs11:object=%ff{REST}")),
            ("object", format!("pkcs11:object=a b{REST}")),
            ("object", format!("pkcs11:object=a,b{REST}")),
            ("object", format!("pkcs11:object{REST}")),
            ("type", format!("pkcs11:object=a;type=public{REST}")),
            ("slot-id", format!("pkcs11:object=a;slot-id=-1{REST}")),
            ("library-version", format!("pkcs11:object=a;library-version=3{REST}")),
            ("colour", format!("pkcs11:object=a{REST}&colour=red")),
            ("pin-value", format!("pkcs11:object=a{REST}&pin-value=12345678")),
            // Whose own characters are not encoded.
            ("pin-value", format!("pkcs11:object=a{REST}&pin-value=0&12345678")),
            ("pin-value", format!("pkcs11:object=a{REST}&pin-value=0&12345678=1")),
            ("pin-value", format!("pkcs11:object=a{REST}&Pin-Value=0&12345678")),
            ("module-name", format!("pkcs11:object=a{REST}&module-name=x")),
            ("module-path", "pkcs11:object=a?pin-source=/p".to_owned()),
            ("module-path", "pkcs11:object=a?pin-source=/p&module-path=m.so".to_owned()),
            ("pin-source", "pkcs11:object=a?module-path=/m".to_owned()),
            ("pin-source", "pkcs11:object=a?module-path=/m&pin-source=12345678".to_owned()),
            ("pin-source", "pkcs11:object=a?module-path=/m&pin-source=|/bin/pin".to_owned()),
            ("pin-source", "pkcs11:object=a?module-path=/m&pin-source=https://host/pin".to_owned()),
            ("(unreadable)", format!("pkcs11:object=a{REST}&12345678;secret words=1")),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(&format!("`{attribute}`")), "{text} gave {error}");
            assert!(!error.contains("12345678"), "{error}");
        }
    }
}
