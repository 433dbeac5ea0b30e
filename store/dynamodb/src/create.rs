//! Gives a table its identity, once: the store's id, and the mode with the regions for which it was created. The table itself must
//! be there.
use std::sync::Arc;

use store::{StoreError, StoreId, Unobserved};

use crate::config::TableName;
use crate::item::{self, Identity, Item, SHARDS};
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
    /// `store create` adds regions, and changes nothing else: entries in other items would no longer be read.
    #[error(
        "the table was created for `{made}`, and --store says `{ours}`: the mode must be the same, with all of these regions, and \
         our region must be one of them. `portcullis store create` can add regions, and change nothing else"
    )]
    Mode { made: String, ours: String },
}

/// Writes the id into a table that has none. An unfinished creation is finished. A store that exists gets further regions.
///
/// # Errors
/// See [`CreateError`].
pub async fn create_store(table: &TableName) -> Result<StoreId, CreateError> {
    let table = Table::connect(table, None, Arc::new(Unobserved)).await;
    match create(&table).await {
        Err(CreateError::Exists(id)) => add_regions(&table, id).await,
        made => made,
    }
}

pub(crate) async fn create(table: &Table) -> Result<StoreId, CreateError> {
    // The first copy decides, and is written last of all if it is not there: a table with it is complete.
    let mut copies = Vec::new();
    for shard in (0..SHARDS).rev() {
        copies.push(found(table, shard).await?.map(|(_, identity)| identity));
    }
    let begun = copies.iter().flatten().next();
    if copies.iter().flatten().any(|copy| begun.is_none_or(|begun| copy.id != begun.id)) {
        return Err(CreateError::Strange);
    }
    if let Some(Some(first)) = copies.last() {
        return if copies.iter().all(Option::is_some) {
            Err(CreateError::Exists(first.id))
        } else {
            Err(CreateError::Strange)
        };
    }
    let mode = table.mode.text();
    if let Some(begun) = begun.filter(|begun| begun.mode != mode) {
        return Err(CreateError::Mode { made: begun.mode.clone(), ours: mode });
    }
    let id = match begun {
        Some(begun) => begun.id,
        None => {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).map_err(|_| CreateError::Random)?;
            StoreId::new(bytes)
        }
    };
    let identity = Identity { id, mode };
    for shard in (0..SHARDS).rev() {
        let is_new = table.put(identity.item(shard), If::Absent).await.map_err(CreateError::Table)?;
        if !is_new && !is_there(table, shard, &identity).await? {
            return Err(CreateError::Strange);
        }
    }
    Ok(id)
}

/// Writes our regions into the table's identity if they include all that it has. It can be repeated if it did not finish.
async fn add_regions(table: &Table, id: StoreId) -> Result<StoreId, CreateError> {
    let identity = Identity { id, mode: table.mode.text() };
    let mut narrower = Vec::new();
    for shard in 0..SHARDS {
        let (item, copy) = found(table, shard).await?.filter(|(_, copy)| copy.id == id).ok_or(CreateError::Strange)?;
        if !table.mode.includes(&copy.mode) {
            return Err(CreateError::Mode { made: copy.mode, ours: identity.mode });
        }
        if copy != identity {
            narrower.push((shard, item));
        }
    }
    if narrower.is_empty() {
        return Err(CreateError::Exists(id));
    }
    for (shard, old) in narrower {
        let is_new = table.put(identity.item(shard), If::unchanged(Some(&old))).await.map_err(CreateError::Table)?;
        if !is_new && !is_there(table, shard, &identity).await? {
            return Err(CreateError::Strange);
        }
    }
    Ok(id)
}

/// Why every read of the table fails, if it is because of the mode.
pub(crate) async fn foreign_mode(table: &Table) -> Option<CreateError> {
    for shard in 0..SHARDS {
        let (_, copy) = found(table, shard).await.ok()??;
        if !table.fits(&copy.mode) {
            return Some(CreateError::Mode { made: copy.mode, ours: table.mode.text() });
        }
    }
    None
}

async fn is_there(table: &Table, shard: usize, identity: &Identity) -> Result<bool, CreateError> {
    Ok(found(table, shard).await?.is_some_and(|(_, copy)| copy == *identity))
}

async fn found(table: &Table, shard: usize) -> Result<Option<(Item, Identity)>, CreateError> {
    let item = table.get_unproved(&item::sentinel(shard)).await.map_err(CreateError::Table)?;
    let read = |item| Identity::read(&item).map(|identity| (item, identity)).ok_or(CreateError::Strange);
    item.map(read).transpose()
}
