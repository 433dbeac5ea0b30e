//! The configuration as a tree of JSON values, and serde's deserializer of it.
//!
//! Its errors know the path of their field. `serde_path_to_error` does the same by a wrapper around each type, which was a
//! seventh of the Wasm module: docs/decisions/0118-a-smaller-wasm-module.md. Here most of the work is not generic.
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, Unexpected, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Number;

use super::Invalid;

/// A value as written. A member's name may occur twice: the type that is read from the object refuses that.
enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// # Errors
/// The first error, with the path of its field; line and column if the text is not JSON.
pub fn from_json<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, Invalid> {
    let tree: Tree = serde_json::from_slice(text).map_err(|error| Invalid::new("", error.to_string()))?;
    T::deserialize(&tree).map_err(|PathError(invalid)| *invalid)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        // JSON has no other numbers than finite ones.
        Ok(Number::from_f64(value).map_or(Tree::Null, Tree::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::String(value.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Tree::Array(values))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Object(members))
    }
}

/// An error whose path grows on its way to the document. In a box, since every field of every type passes it on.
#[derive(Debug)]
struct PathError(Box<Invalid>);

impl PathError {
    #[cold]
    #[inline(never)]
    fn new(message: String) -> Self {
        Self(Box::new(Invalid::new("", message)))
    }

    #[cold]
    #[inline(never)]
    fn in_member(mut self, name: &str) -> Self {
        self.0.field = match self.0.field.as_str() {
            "" => name.to_owned(),
            field if field.starts_with('[') => [name, field].concat(),
            field => [name, ".", field].concat(),
        };
        self
    }

    #[cold]
    #[inline(never)]
    fn in_element(self, index: usize) -> Self {
        self.in_member(&format!("[{index}]"))
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for PathError {}

impl de::Error for PathError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(match unexpected {
            Unexpected::Unit => format!("invalid type: null, expected {expected}"),
            unexpected => format!("invalid type: {unexpected}, expected {expected}"),
        })
    }
}

impl Tree {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Tree::Null => Unexpected::Unit,
            Tree::Bool(value) => Unexpected::Bool(*value),
            Tree::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Unexpected::Unsigned(number),
                (None, Some(number)) => Unexpected::Signed(number),
                (None, None) => Unexpected::Float(number.as_f64().unwrap_or_default()),
            },
            Tree::String(text) => Unexpected::Str(text),
            Tree::Array(_) => Unexpected::Seq,
            Tree::Object(_) => Unexpected::Map,
        }
    }

    #[cold]
    #[inline(never)]
    fn mistyped(&self, expected: &dyn Expected) -> PathError {
        de::Error::invalid_type(self.unexpected(), expected)
    }
}

impl<'de> Deserializer<'de> for &'de Tree {
    type Error = PathError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
            Tree::String(text) => visitor.visit_borrowed_str(text),
            Tree::Array(values) => visitor.visit_seq(Elements { values, index: 0 }),
            Tree::Object(members) => visitor.visit_map(Members { members, current: None }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self {
            Tree::Bool(value) => visitor.visit_bool(*value),
            other => Err(other.mistyped(&visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self {
            Tree::String(text) => visitor.visit_borrowed_str(text),
            other => Err(other.mistyped(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self {
            Tree::Null => visitor.visit_none(),
            some => visitor.visit_some(some),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self {
            Tree::Array(values) => visitor.visit_seq(Elements { values, index: 0 }),
            other => Err(other.mistyped(&visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PathError> {
        match self {
            Tree::Object(members) => {
                // A map takes the last of two values. A struct has its own message.
                for (at, (name, _)) in members.iter().enumerate() {
                    if members.iter().take(at).any(|(earlier, _)| earlier == name) {
                        return Err(de::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                }
                visitor.visit_map(Members { members, current: None })
            }
            other => Err(other.mistyped(&visitor)),
        }
    }

    /// Only from an object. serde_json also takes an array of the fields in the order of the type. Not inlined: the
    /// whole document would become one function, which V8 compiles more slowly than its parts.
    #[inline(never)]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PathError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PathError> {
        match self {
            Tree::String(name) => visitor.visit_enum(Variant { name, content: None }),
            Tree::Object(members) => match members.as_slice() {
                [(name, content)] => visitor.visit_enum(Variant { name, content: Some(content) }),
                _ => Err(de::Error::invalid_length(members.len(), &"one member")),
            },
            other => Err(other.mistyped(&visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, PathError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

struct Elements<'de> {
    values: &'de [Tree],
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = PathError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, PathError> {
        let Some(value) = self.values.get(self.index) else { return Ok(None) };
        let read = seed.deserialize(value).map_err(|error| error.in_element(self.index))?;
        self.index = self.index.saturating_add(1);
        Ok(Some(read))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len().saturating_sub(self.index))
    }
}

struct Members<'de> {
    members: &'de [(String, Tree)],
    /// Its name was read, its value was not.
    current: Option<&'de (String, Tree)>,
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = PathError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, PathError> {
        let Some((member, rest)) = self.members.split_first() else { return Ok(None) };
        (self.members, self.current) = (rest, Some(member));
        seed.deserialize(BorrowedStrDeserializer::new(&member.0))
            .map(Some)
            .map_err(|error: PathError| error.in_member(&member.0))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, PathError> {
        let Some((name, value)) = self.current.take() else { return Err(de::Error::custom("a value without a name")) };
        seed.deserialize(value).map_err(|error| error.in_member(name))
    }
}

/// A variant of an enum: its name, or an object with its name and content.
struct Variant<'de> {
    name: &'de str,
    content: Option<&'de Tree>,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = PathError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), PathError> {
        Ok((seed.deserialize(BorrowedStrDeserializer::new(self.name))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = PathError;

    fn unit_variant(self) -> Result<(), PathError> {
        match self.content {
            None | Some(Tree::Null) => Ok(()),
            Some(other) => Err(other.mistyped(&"nothing").in_member(self.name)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, PathError> {
        let content = self.content.ok_or_else(|| de::Error::invalid_type(Unexpected::UnitVariant, &"newtype variant"));
        seed.deserialize(content?).map_err(|error| error.in_member(self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, PathError> {
        self.content.unwrap_or(&Tree::Null).deserialize_seq(visitor).map_err(|error| error.in_member(self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PathError> {
        self.content.unwrap_or(&Tree::Null).deserialize_map(visitor).map_err(|error| error.in_member(self.name))
    }
}

#[cfg(test)]
mod tests;
