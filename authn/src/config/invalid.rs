//! What is wrong with a configuration, and where. The words are for whoever wrote it.
use std::fmt;

/// One field that cannot be used. The part that finds it names the field as it knows it, and each caller up to the
/// document puts its own name in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// As in `rules[3].match.path.prefix`; empty for the document itself.
    pub field: String,
    pub message: String,
}

impl Invalid {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same error, seen from the object that holds the field: `within("rules[3].match")`.
    pub fn within(self, outer: impl fmt::Display) -> Self {
        Self { field: format!("{outer}.{}", self.field), message: self.message }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_before_what() {
        let error = Invalid::new("path.prefix", "must begin with /").within("match").within("rules[3]");
        assert_eq!(error.to_string(), "rules[3].match.path.prefix: must begin with /");
        assert_eq!(Invalid::new("", "is no JSON").to_string(), "is no JSON");
    }
}
