//! JSON as allowed in a token: unambiguous (no duplicate member), bounded, and borrowed from its text.
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Nested objects and arrays; a flat object has depth 1.
pub const MAX_DEPTH: usize = 16;
/// Members of one object. Some issuers write roles as an object with one member for each.
pub const MAX_MEMBERS: usize = 1024;
/// Up to this number each member of an object is compared with each other.
const FEW_MEMBERS: usize = 24;
/// Room for the members of a usual payload: growing step by step costs three allocations more.
const USUAL_MEMBERS: usize = 16;

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

/// A number as written: with a fraction or exponent it is a `Float`, even if its value is whole. So is an integer that
/// does not fit 64 bits, with loss of precision.
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
    #[error("a duplicate member in one object")]
    Duplicate,
    #[error("more than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("more than {MAX_MEMBERS} members in one object")]
    TooManyMembers,
}

impl<'a> Json<'a> {
    /// The whole of `text`, followed by nothing but white space.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(text: &'a [u8]) -> Result<Self, JsonError> {
        // serde's errors carry only text, so the visitor leaves its own error here.
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

    /// The claim that `names` select in nested objects; an empty path is the value itself.
    pub fn path(&self, names: &[String]) -> Option<&Json<'a>> {
        names.iter().try_fold(self, |value, name| value.as_object()?.claim(name))
    }

    /// Compact JSON: no white space, members in their order, strings escaped only where necessary.
    pub fn to_text(&self) -> String {
        // A string-keyed tree of finite numbers always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'a> Object<'a> {
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// The claim of this name. A null claim is absent, as some providers send it.
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
            // Lengths differ for most pairs, so this is faster than sorting.
            let mut rest = self.members.as_slice();
            while let Some(((name, _), others)) = rest.split_first() {
                if others.iter().any(|(other, _)| other == name) {
                    return true;
                }
                rest = others;
            }
            return false;
        }
        // Sorted rather than hashed: a pure core has no hash seed, and sorting has no worst case to provoke.
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
    /// Open objects and arrays around this value.
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
        let mut object = Object { members: Vec::with_capacity(if self.depth == 0 { USUAL_MEMBERS } else { 0 }) };
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
mod tests;
