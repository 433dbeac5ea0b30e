//! The configuration as the host hands it over. Envoy gives a StringValue as its text, and a Struct, whatever its
//! documentation says of JSON, as protobuf bytes (tried on 1.40): so a Struct is read here, and both end as JSON.
use serde_json::{Map, Number, Value};

/// The document as JSON text. What is no Struct is left as it is, for the JSON reader to judge.
pub fn as_json(bytes: Vec<u8>) -> Vec<u8> {
    // A Struct begins with its first field's tag, which is also a line feed; no JSON text is a whole Struct.
    if bytes.first() != Some(&FIELDS) {
        return bytes;
    }
    match read_struct(&bytes, 0) {
        Some(document) => Value::Object(document).to_string().into_bytes(),
        None => bytes,
    }
}

/// `map<string, Value> fields = 1`, and the entries' `key = 1`, `value = 2`.
const FIELDS: u8 = 0x0a;
/// As deep as the JSON reader goes.
const MAX_DEPTH: usize = 64;

fn read_struct(mut bytes: &[u8], depth: usize) -> Option<Map<String, Value>> {
    let mut members = Map::new();
    while !bytes.is_empty() {
        let (1, Field::Bytes(mut entry)) = read_field(&mut bytes)? else { return None };
        let (mut key, mut value) = (String::new(), Value::Null);
        while !entry.is_empty() {
            match read_field(&mut entry)? {
                (1, Field::Bytes(text)) => key = std::str::from_utf8(text).ok()?.to_owned(),
                (2, Field::Bytes(inner)) => value = read_value(inner, depth)?,
                _ => return None,
            }
        }
        members.insert(key, value);
    }
    Some(members)
}

/// `oneof kind { null_value = 1, number_value = 2, string_value = 3, bool_value = 4, struct_value = 5, list_value = 6 }`
fn read_value(mut bytes: &[u8], depth: usize) -> Option<Value> {
    let depth = depth.checked_add(1).filter(|depth| *depth <= MAX_DEPTH)?;
    let mut value = Value::Null;
    while !bytes.is_empty() {
        value = match read_field(&mut bytes)? {
            (1, Field::Number(_)) => Value::Null,
            (2, Field::Double(number)) => Value::Number(whole(number)?),
            (3, Field::Bytes(text)) => Value::String(std::str::from_utf8(text).ok()?.to_owned()),
            (4, Field::Number(number)) => Value::Bool(number != 0),
            (5, Field::Bytes(inner)) => Value::Object(read_struct(inner, depth)?),
            (6, Field::Bytes(mut list)) => {
                let mut members = Vec::new();
                while !list.is_empty() {
                    let (1, Field::Bytes(member)) = read_field(&mut list)? else { return None };
                    members.push(read_value(member, depth)?);
                }
                Value::Array(members)
            }
            _ => return None,
        };
    }
    Some(value)
}

/// A Struct knows only doubles, and the configuration's numbers are whole ones.
fn whole(number: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        Some(Number::from(number as i64))
    } else {
        Number::from_f64(number)
    }
}

enum Field<'b> {
    Number(u64),
    Double(f64),
    Bytes(&'b [u8]),
}

/// A field's number and content (protobuf encoding, wire types 0, 1 and 2).
fn read_field<'b>(bytes: &mut &'b [u8]) -> Option<(u64, Field<'b>)> {
    let tag = read_varint(bytes)?;
    let field = match tag & 7 {
        0 => Field::Number(read_varint(bytes)?),
        1 => {
            let (double, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Field::Double(f64::from_le_bytes(*double))
        }
        2 => {
            let size = usize::try_from(read_varint(bytes)?).ok()?;
            let (content, rest) = bytes.split_at_checked(size)?;
            *bytes = rest;
            Field::Bytes(content)
        }
        _ => return None,
    };
    Some((tag >> 3, field))
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64u32).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, content.len() as u8];
        bytes.extend_from_slice(content);
        bytes
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
    }

    #[test]
    fn a_struct_becomes_the_json_that_it_stands_for() {
        let number = |value: f64| [&[0x11u8][..], &value.to_le_bytes()].concat();
        let list = field(6, &[field(1, &field(3, b"a")), field(1, &[0x20, 1])].concat());
        let bytes = [
            entry("n", &number(8192.0)),
            entry("f", &number(0.5)),
            entry("l", &list),
            entry("s", &field(5, &entry("x", &[0x08, 0]))),
        ]
        .concat();
        let json: Value = serde_json::from_slice(&as_json(bytes)).unwrap();
        assert_eq!(json, serde_json::json!({ "n": 8192, "f": 0.5, "l": ["a", true], "s": { "x": null } }));
    }

    #[test]
    fn text_stays_as_it_is_even_if_it_begins_like_a_struct() {
        for text in ["{}", "\n{\"issuers\": []}", "\n\n", ""] {
            assert_eq!(as_json(text.into()), text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn what_is_cut_or_too_deep_is_no_struct() {
        let whole = entry("key", &field(3, b"value"));
        for at in 1..whole.len() {
            assert_eq!(as_json(whole[..at].to_vec()), &whole[..at], "{at}");
        }
        let mut deep = field(3, b"x");
        for _ in 0..30 {
            deep = field(6, &field(1, &deep));
        }
        assert!(read_value(&deep, MAX_DEPTH - 10).is_none());
    }
}
