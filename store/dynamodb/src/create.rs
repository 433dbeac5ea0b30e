//! Gives a table its identity, once. The table itself must be there.
use std::sync::Arc;

use store::{StoreError, StoreId, Unobserved};

use crate::config::TableName;
use crate::item::{self, Name, SHARDS, string};
use crate::table::{If, Table};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    #[error("the table holds a store already, {0}")]
    Exists(StoreId),
    #[error("the table cannot be read or written: {}", .0.name())]
    Table(StoreError),
    /// A name without its copies, or copies with several ids.
    #[error(
        "a part of the store's id is missing or another: the table has lost data, or two commands created a store at the same time"
    )]
    Strange,
    #[error("the operating system gives no random numbers")]
    Random,
}

/// Writes the id into a table that has none. An unfinished creation is finished.
///
/// # Errors
/// See [`CreateError`].
pub async fn create_store(table: &TableName) -> Result<StoreId, CreateError> {
    create(&Table::connect(table, None, Arc::new(Unobserved)).await).await
}

pub(crate) async fn create(table: &Table) -> Result<StoreId, CreateError> {
    // The first copy decides, and is written last of all if it is not there: a table with it is complete.
    let mut copies = Vec::new();
    for shard in (0..SHARDS).rev() {
        copies.push(found(table, &item::sentinel(shard)).await?);
    }
    let begun = copies.iter().flatten().next().copied();
    if copies.iter().flatten().any(|id| Some(*id) != begun) {
        return Err(CreateError::Strange);
    }
    if let Some(Some(id)) = copies.last() {
        return if copies.iter().all(Option::is_some) {
            Err(CreateError::Exists(*id))
        } else {
            Err(CreateError::Strange)
        };
    }
    let id = match begun {
        Some(id) => id,
        None => {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).map_err(|_| CreateError::Random)?;
            StoreId::new(bytes)
        }
    };
    for shard in (0..SHARDS).rev() {
        let mut made = item::sentinel(shard).item();
        made.insert("id".to_owned(), string(&id.to_string()));
        let is_new = table.put(made, If::Absent).await.map_err(CreateError::Table)?;
        if !is_new && found(table, &item::sentinel(shard)).await? != Some(id) {
            return Err(CreateError::Strange);
        }
    }
    Ok(id)
}

async fn found(table: &Table, name: &Name) -> Result<Option<StoreId>, CreateError> {
    let item = table.get_unproved(name).await.map_err(CreateError::Table)?;
    let read = |item| item::text(&item, "id").and_then(|id| id.parse().ok()).ok_or(CreateError::Strange);
    item.map(read).transpose()
}
