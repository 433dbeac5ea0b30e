//! JSON as a token may hold it: one reading only (no member twice), bounded, and borrowed from its text.
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Objects and arrays within each other; a flat object has depth 1.
pub const MAX_DEPTH: usize = 16;
/// Members of one object. Some issuers write roles as an object with one member for each.
pub const MAX_MEMBERS: usize = 1024;
/// Up to here each member of an object is compared with each other.
const FEW_MEMBERS: usize = 24;

#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    /// Unescaped; borrowed where the text has no escape.
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Object<'a>),
}

/// A number as it is written: with a fraction or exponent it is a `Float`, even when its value is whole. So is an integer
/// that does not fit 64 bits, with the loss that this means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Unsigned(u64),
    Negative(i64),
    /// Finite.
    Float(f64),
}

/// Members in the order of the text, each name once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, Json<'a>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not JSON, not UTF-8, or a number out of range")]
    Syntax,
    #[error("a member twice in one object")]
    Duplicate,
    #[error("more than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("more than {MAX_MEMBERS} members in one object")]
    TooManyMembers,
}

impl<'a> Json<'a> {
    /// The whole of `text`, with nothing after it but white space.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        // serde's errors carry only text, so what our own visitor refused is left here.
        let refused = Cell::new(None);
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let seed = ValueSeed { depth: 0, refused: &refused };
        seed.deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value))
            .map_err(|_| refused.get().unwrap_or(JsonError::Syntax))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(string) => Some(string),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Json::Object(object) => Some(object),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Json<'a>]> {
        match self {
            Json::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The claim that `names` lead to through nested objects; an empty path is the value itself.
    pub fn path(&self, names: &[String]) -> Option<&Json<'a>> {
        names.iter().try_fold(self, |value, name| value.as_object()?.claim(name))
    }

    /// Compact JSON: no white space, members in their order, strings escaped only where they must be.
    pub fn to_text(&self) -> String {
        // A string-keyed tree of finite numbers always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a> Object<'a> {
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// The claim of this name. One that is null is absent, as some providers write it.
    pub fn claim(&self, name: &str) -> Option<&Json<'a>> {
        self.get(name).filter(|value| **value != Json::Null)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json<'a>)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), value))
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn has_duplicates(&self) -> bool {
        if self.members.len() <= FEW_MEMBERS {
            // Lengths differ for most pairs, so this is quicker than to sort.
            let mut rest = self.members.as_slice();
            while let Some(((name, _), others)) = rest.split_first() {
                if others.iter().any(|(other, _)| other == name) {
                    return true;
                }
                rest = others;
            }
            return false;
        }
        // Sorted rather than hashed: no hash seed to be had in a pure core, and no worst case to provoke.
        let mut names: Vec<&str> = self.members.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(Number::Unsigned(value)) => serializer.serialize_u64(*value),
            Json::Number(Number::Negative(value)) => serializer.serialize_i64(*value),
            Json::Number(Number::Float(value)) => serializer.serialize_f64(*value),
            Json::String(value) => serializer.serialize_str(value),
            Json::Array(values) => serializer.collect_seq(values),
            Json::Object(object) => {
                let mut map = serializer.serialize_map(Some(object.len()))?;
                for (name, value) in object.iter() {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[derive(Clone, Copy)]
struct ValueSeed<'c> {
    /// Objects and arrays that are open round this value.
    depth: usize,
    refused: &'c Cell<Option<JsonError>>,
}

impl ValueSeed<'_> {
    fn refuse<E: de::Error>(self, error: JsonError) -> E {
        self.refused.set(Some(error));
        E::custom("")
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_add(1) {
            Some(depth) if depth <= MAX_DEPTH => Ok(Self { depth, ..self }),
            _ => Err(self.refuse(JsonError::TooDeep)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(Number::Unsigned(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(u64::try_from(value).map_or(Number::Negative(value), Number::Unsigned)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        if !value.is_finite() {
            return Err(self.refuse(JsonError::Syntax));
        }
        Ok(Json::Number(Number::Float(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let seed = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(seed)? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let seed = self.deeper()?;
        let mut object = Object::default();
        while let Some(name) = map.next_key_seed(NameSeed)? {
            if object.len() == MAX_MEMBERS {
                return Err(self.refuse(JsonError::TooManyMembers));
            }
            object.members.push((name, map.next_value_seed(seed)?));
        }
        if object.has_duplicates() {
            return Err(self.refuse(JsonError::Duplicate));
        }
        Ok(Json::Object(object))
    }
}

/// A member's name, unescaped, so that `"a"` and `"\u0061"` are the same name.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json<'_>, JsonError> {
        Json::parse(text.as_bytes())
    }

    fn names(path: &[&str]) -> Vec<String> {
        path.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn reads_each_kind_of_value() {
        let text = r#" {"n":null,"t":true,"f":false,"s":"x","e":"a\"\u00e9","a":[1,[]],"o":{}} "#;
        let json = parse(text).unwrap();
        let object = json.as_object().unwrap();
        assert_eq!(object.get("n"), Some(&Json::Null));
        assert_eq!(object.get("t"), Some(&Json::Bool(true)));
        assert_eq!(object.get("f"), Some(&Json::Bool(false)));
        assert_eq!(object.get("e").unwrap().as_str(), Some("a\"é"));
        assert_eq!(object.get("a").unwrap().as_array().unwrap().len(), 2);
        assert_eq!(object.get("absent"), None);
        assert_eq!(object.len(), 7);
        assert_eq!(object.iter().map(|(name, _)| name).collect::<String>(), "ntfseao");
    }

    #[test]
    fn borrows_strings_without_escapes() {
        let json = parse(r#"["plain","esc\u0061ped"]"#).unwrap();
        let [Json::String(Cow::Borrowed("plain")), Json::String(Cow::Owned(escaped))] = json.as_array().unwrap() else {
            panic!("{json:?}");
        };
        assert_eq!(escaped, "escaped");
    }

    #[test]
    fn tells_integers_from_fractions() {
        for (text, number) in [
            ("0", Number::Unsigned(0)),
            ("1", Number::Unsigned(1)),
            ("18446744073709551615", Number::Unsigned(u64::MAX)),
            ("-1", Number::Negative(-1)),
            ("-9223372036854775808", Number::Negative(i64::MIN)),
            ("1.0", Number::Float(1.0)),
            ("1e3", Number::Float(1000.0)),
            ("-0", Number::Float(-0.0)),
            ("18446744073709551616", Number::Float(18446744073709551616.0)),
            ("1e308", Number::Float(1e308)),
            ("1e-400", Number::Float(0.0)),
        ] {
            assert_eq!(parse(text), Ok(Json::Number(number)), "{text}");
        }
    }

    #[test]
    fn refuses_numbers_that_are_not_finite() {
        let huge = "9".repeat(400);
        for text in ["1e309", "-1e309", "1e999999999999", huge.as_str(), "NaN", "Infinity", "-Infinity"] {
            assert_eq!(parse(text), Err(JsonError::Syntax), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in
            ["", " ", "{", "{}x", "{} {}", "{}\0", "[1,]", "{\"a\":1,}", "{a:1}", "'a'", "01", "+1", ".5", "1.", "tru"]
        {
            assert_eq!(parse(text), Err(JsonError::Syntax), "{text:?}");
        }
        for text in
            ["\u{feff}{}", "\"\n\"", r#""\x""#, r#""\ud800""#, r#""\udc00\ud800""#, "// c\n1", "{\"a\":1 \"b\":2}"]
        {
            assert_eq!(parse(text), Err(JsonError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn refuses_invalid_utf8_wherever_it_stands() {
        for text in [&b"\"\xff\""[..], b"{\"\xc3\":1}", b"\xff", b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"\"a\\n\xff\""]
        {
            assert_eq!(Json::parse(text), Err(JsonError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn refuses_a_member_twice_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"a":3}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"é":1,"\u00e9":2}"#,
            r#"{"😀":1,"\ud83d\ude00":2}"#,
            r#"{"":1,"":2}"#,
            r#"{"o":{"a":[{"b":1,"b":2}]}}"#,
            r#"[[{"b":1,"c":{},"b":2}]]"#,
        ] {
            assert_eq!(parse(text), Err(JsonError::Duplicate), "{text}");
        }
        // The same name in different objects, other case, and another normalisation are other names.
        for text in [r#"{"a":{"a":{"a":1}}}"#, r#"[{"a":1},{"a":1}]"#, r#"{"a":1,"A":1}"#, r#"{"é":1,"e\u0301":1}"#] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn finds_a_duplicate_among_few_and_among_many() {
        for count in 2..=2 * FEW_MEMBERS {
            let mut members: Vec<String> = (0..count).map(|place| format!("\"m{place}\":0")).collect();
            assert!(parse(&format!("{{{}}}", members.join(","))).is_ok(), "{count}");
            members[count - 1] = format!("\"m{}\":1", count / 3);
            assert_eq!(parse(&format!("{{{}}}", members.join(","))), Err(JsonError::Duplicate), "{count}");
        }
    }

    #[test]
    fn finds_the_one_duplicate_among_the_most_members() {
        let members = |count: usize| (0..count).map(|i| format!("\"m{i}\":0")).collect::<Vec<_>>();
        assert!(parse(&format!("{{{}}}", members(MAX_MEMBERS).join(","))).is_ok());
        let mut twice = members(MAX_MEMBERS - 1);
        twice.push("\"m0\":0".into());
        assert_eq!(parse(&format!("{{{}}}", twice.join(","))), Err(JsonError::Duplicate));
        assert_eq!(parse(&format!("{{{}}}", members(MAX_MEMBERS + 1).join(","))), Err(JsonError::TooManyMembers));
    }

    #[test]
    fn refuses_one_level_too_many() {
        let nested = |open: &str, close: &str, depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            assert!(parse(&nested(open, close, MAX_DEPTH)).is_ok());
            assert_eq!(parse(&nested(open, close, MAX_DEPTH + 1)), Err(JsonError::TooDeep));
            assert_eq!(parse(&nested(open, close, 60_000)), Err(JsonError::TooDeep));
            assert_eq!(parse(&open.repeat(60_000)), Err(JsonError::TooDeep));
        }
    }

    #[test]
    fn walks_nested_objects() {
        let json = parse(r#"{"realm_access":{"roles":["a"]},"a.b":1,"s":"x"}"#).unwrap();
        assert_eq!(json.path(&names(&["realm_access", "roles"])).unwrap().to_text(), r#"["a"]"#);
        assert_eq!(json.path(&names(&["a.b"])), Some(&Json::Number(Number::Unsigned(1))));
        assert_eq!(json.path(&[]), Some(&json));
        let nulls = parse(r#"{"a":null,"o":{"a":null}}"#).unwrap();
        for path in [&["a"][..], &["a", "b"], &["o", "a"]] {
            assert_eq!(nulls.path(&names(path)), None, "{path:?}");
        }
        for path in [&["a", "b"][..], &["s", "x"], &["realm_access", "roles", "0"], &["realm_access", ""]] {
            assert_eq!(json.path(&names(path)), None, "{path:?}");
        }
    }

    #[test]
    fn writes_compact_text_that_reads_back_the_same() {
        let text = r#"{"z":1,"a":[null,true,-5,1.5,1.0,"x"],"o":{"k":{}},"q":"a\"\\\n\u0001é😀"}"#;
        let json = parse(text).unwrap();
        assert_eq!(json.to_text(), text);
        assert_eq!(parse(&json.to_text()), Ok(json));
    }
}
