use serde_json::{Value, json};

use super::*;
use crate::config::Document;

/// A document with every kind of field.
fn whole() -> Value {
    json!({
        "issuers": [
            {
                "issuer": "https://login.example", "audiences": ["a", "b"], "algorithms": ["RS256"], "skew": "1s",
                "keys": [{ "kid": "k", "jwk": { "kty": "RSA" } }, { "secret_env": "S", "secret_encoding": "raw" }],
                "tenants": "any", "provider": "entra", "padded": true,
                "revocation_claims": { "session": ["sid", ["x", "y"]] }, "required_header": { "h": ["a"] }
            },
            {
                "issuer": "b", "audiences": "any", "jwks": { "cluster": "c", "uri": "u", "refresh": "5m" },
                "introspection": {
                    "cluster": "c", "path": "/", "client_auth": "none", "format": { "shape": { "min_length": 20 } }
                }
            }
        ],
        "tokens": { "headers": [{ "name": "x" }], "cookies": [{ "name": "y", "chunks": "dot" }] },
        "rules": [
            {
                "match": { "path": { "prefix": "/" }, "methods": ["GET"], "hosts": ["h"] }, "access": "required",
                "scopes": { "all": ["s"] }, "binding": { "address": { "mode": "report", "claim": "ip" } },
                "claims": [{ "claim": ["a", "b"], "one_of": ["x", 1, true] }], "revocable_by": ["session"]
            },
            { "access": "public", "forward": { "claims": [{ "claim": "sub", "header": "x-sub" }], "token": "keep" } }
        ],
        "revocation": { "cluster": "c", "secret_env": "S", "kinds": ["token", "key"], "refresh_ahead": false },
        "faults": { "statuses": "rfc6750", "overrides": { "TOKEN_MISSING": 401 } },
        "limits": { "token_bytes": 8192 },
        "engine": "auto"
    })
}

fn pointers(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| pointers(value, format!("{at}/{name}"), into));
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| pointers(value, format!("{at}/{index}"), into));
        }
        _ => {}
    }
    into.push(at);
}

/// By `serde_path_to_error`, as the reference, without line and column.
fn tracked(text: &str) -> Result<(), Invalid> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize::<_, Document>(&mut reader).map(drop).map_err(|error| {
        let field = error.path().to_string().trim_matches('.').to_owned();
        let message = error.into_inner().to_string();
        Invalid::new(field, message.split(" at line ").next().unwrap())
    })
}

fn read(text: &str) -> Result<(), Invalid> {
    from_json::<Document>(text.as_bytes()).map(drop)
}

#[test]
fn has_the_errors_of_a_deserializer_that_tracks_the_path() {
    let whole = whole();
    assert_eq!(read(&whole.to_string()), Ok(()));
    let mut all = Vec::new();
    pointers(&whole, String::new(), &mut all);
    let mut errors = 0;
    let mut same = |document: &Value| {
        let text = document.to_string();
        let (found, expected) = (read(&text), tracked(&text));
        errors += usize::from(found.is_err());
        // Where the reference takes the fields of a struct from an array, or says no more than "expected value".
        let of_array = |error: &Invalid| error.message.starts_with("invalid type: sequence, expected struct");
        match (&found, &expected) {
            (Err(error), Ok(())) => assert!(of_array(error), "{text}: {error}"),
            (Err(error), Err(other)) if of_array(error) => {
                assert!(other.field.starts_with(&error.field), "{text}: {error}")
            }
            (Err(error), Err(other)) => {
                assert_eq!(error.field, other.field, "{text}");
                let vague = other.message == "expected value" || error.message.starts_with("invalid length");
                assert!(error.message == other.message || vague, "{text}: {error}, {other}");
            }
            (Ok(()), _) => assert_eq!(expected, Ok(()), "{text}"),
        }
    };
    for pointer in &all {
        let wrong = [
            json!(null),
            json!(true),
            json!(-1),
            json!(7),
            json!(0.5),
            json!("\"x}"),
            json!([]),
            json!([[]]),
            json!({}),
            json!({ "x": { "y": 1 } }),
        ];
        for wrong in wrong {
            let mut document = whole.clone();
            *document.pointer_mut(pointer).unwrap() = wrong;
            same(&document);
        }
        let Some(Value::Object(members)) = whole.pointer(pointer) else { continue };
        let change = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            let mut document = whole.clone();
            change(document.pointer_mut(pointer).unwrap().as_object_mut().unwrap());
            document
        };
        same(&change(&|members| drop(members.insert("aaa".into(), json!([{ "b": [] }])))));
        for name in members.keys() {
            same(&change(&|members| drop(members.remove(name))));
        }
    }
    assert!(errors > 500, "{errors}");
}

#[test]
fn says_which_field_is_there_twice() {
    let error = read(r#"{"issuers": [{"issuer": "a", "audiences": "any", "issuer": "b"}], "rules": []}"#).unwrap_err();
    assert_eq!(error.to_string(), "issuers[0]: duplicate field `issuer`");
}

#[test]
fn a_map_has_each_name_once() {
    let issuer = r#"{"issuer": "a", "audiences": "any", "required_header": {"typ": ["a"], "typ": ["a", "b"]}}"#;
    let error = read(&format!(r#"{{"issuers": [{issuer}], "rules": []}}"#)).unwrap_err();
    assert_eq!(error.to_string(), "issuers[0].required_header: duplicate field `typ`");
}

#[test]
fn says_where_the_text_is_not_json() {
    let error = read("{\n  \"issuers\": [,]}").unwrap_err();
    assert_eq!(error.to_string(), "expected value at line 2 column 15");
    assert_eq!(read("{} {}").unwrap_err().to_string(), "trailing characters at line 1 column 4");
}
