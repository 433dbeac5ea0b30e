//! JSON bodies, read strictly: the first field that is wrong is named.
use serde::Deserialize;

use super::field_error::FieldError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("the body must be one JSON object: {0}")]
    Body(String),
}

/// # Errors
/// The body is not one JSON object, or its first field that is wrong.
pub fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, JsonError> {
    // serde would take an array for an object, its elements for the fields in their order.
    if body.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        return Err(JsonError::Body(if is_json { "it is of another type" } else { "it is not JSON" }.to_owned()));
    }
    let reader = &mut serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut *reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // A missing, unknown or duplicate member belongs to the object around it: its name is only in the message.
        let named = inner.to_string().split('`').nth(1).map(str::to_owned).filter(|_| !inner.is_syntax());
        match (path.as_str(), named) {
            _ if inner.is_syntax() || inner.is_eof() => JsonError::Body(inner.to_string()),
            (".", Some(field)) => FieldError::new(field, format!("is wrong: {inner}")).into(),
            (".", None) => JsonError::Body(inner.to_string()),
            (path, _) => FieldError::new(path, format!("is wrong: {inner}")).into(),
        }
    })?;
    reader.end().map_err(|error| JsonError::Body(error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: Option<String>,
    }

    #[test]
    fn a_body_is_one_object() {
        assert_eq!(read::<Body>(b" { } "), Ok(Body { name: None }));
        for body in ["", "[]", r#"["a"]"#, "null", "{", "{} {}"] {
            assert!(matches!(read::<Body>(body.as_bytes()), Err(JsonError::Body(_))), "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_called_so() {
        let error = |body: &str| read::<Body>(body.as_bytes()).unwrap_err().to_string();
        assert!(error("not json").ends_with("it is not JSON") && error("[]").ends_with("it is of another type"));
    }

    #[test]
    fn the_wrong_field_is_named() {
        for (field, body) in [("name", r#"{"name":5}"#), ("name", r#"{"name":"a","name":"b"}"#), ("x", r#"{"x":1}"#)] {
            assert!(matches!(read::<Body>(body.as_bytes()), Err(JsonError::Field(error)) if error.field == field));
        }
    }
}
