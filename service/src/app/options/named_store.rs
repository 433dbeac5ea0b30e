//! The store that `--store` names: a file, or a table of DynamoDB in a build that has it.
use std::str::FromStr;

use super::file_store::FileStore;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedStore {
    File(FileStore),
    #[cfg(feature = "dynamodb")]
    DynamoDb(store_dynamodb::TableName),
}

impl NamedStore {
    pub fn file(&self) -> Option<&FileStore> {
        match self {
            Self::File(file) => Some(file),
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(_) => None,
        }
    }
}

impl FromStr for NamedStore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.starts_with("dynamodb:") {
            true => table(text),
            false => text.parse().map(Self::File),
        }
    }
}

#[cfg(feature = "dynamodb")]
fn table(text: &str) -> Result<NamedStore, String> {
    text.parse().map(NamedStore::DynamoDb).map_err(|error: store_dynamodb::TableNameError| error.to_string())
}

#[cfg(not(feature = "dynamodb"))]
fn table(_: &str) -> Result<NamedStore, String> {
    Err("this build has no DynamoDB; `cargo build --features dynamodb -p portcullis-cli` makes one that has".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_only_where_the_build_has_dynamodb() {
        let named = "dynamodb:portcullis".parse::<NamedStore>();
        assert_eq!(named.is_ok(), cfg!(feature = "dynamodb"), "{named:?}");
        assert!(matches!("file:store".parse(), Ok(NamedStore::File(_))));
    }
}
