//! Requests to the table. Every read is strongly consistent, and proves with the store's id that this is our store.
//!
//! The SDK repeats a request that was throttled or failed on the way: at most twice, with a pause, and only while its budget
//! for repeats lasts. After [`READ_LIMIT`] or [`WRITE_TRY_LIMIT`] there is an error.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, KeysAndAttributes, WriteRequest};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use store::throttle::Throttle;
use store::{Observer, StoreError, StoreId};
use tokio::time::{sleep, timeout};
use wire::RevocationKey;

use crate::attempts::{Attempts, Clock};
use crate::config::{Mode, TableName};
use crate::entry::{self, Together};
use crate::error::store_error;
use crate::item::{self, Identity, Item, Name, SHARDS, blob, string};

/// The longest that one read may take, with its repeats.
const READ_LIMIT: Duration = Duration::from_secs(1);
/// The same of one write.
const WRITE_TRY_LIMIT: Duration = Duration::from_secs(2);
const ATTEMPT_LIMIT: Duration = Duration::from_millis(600);
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// DynamoDB's own limits.
const MAX_GETS: usize = 100;
const MAX_WRITES: usize = 25;
/// Requests at the same time for one read or write of ours.
pub const CONCURRENT: usize = 32;
/// Between requests for what DynamoDB left out.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Table {
    pub client: Client,
    pub name: String,
    pub mode: Mode,
    /// In which we read and write.
    region: String,
    observer: Arc<dyn Observer>,
    clock: Arc<Clock>,
    /// The store that is answered from. It does not change once it is known.
    id: Mutex<Option<StoreId>>,
    health: Mutex<Result<(), StoreError>>,
}

/// What must be true of the item that is there, for a write to happen.
#[derive(Debug, Clone, Copy)]
pub enum If<'v> {
    Absent,
    /// It has this version.
    Version(&'v [u8]),
}

impl<'v> If<'v> {
    /// That nothing has changed since it was read.
    pub fn unchanged(item: Option<&'v Item>) -> Self {
        item.map_or(If::Absent, |item| If::Version(item::bytes(item, "v").unwrap_or_default()))
    }

    fn expression(self) -> (&'static str, Option<HashMap<String, AttributeValue>>) {
        match self {
            If::Absent => ("attribute_not_exists(p)", None),
            If::Version(version) => ("v = :v", Some(HashMap::from([(":v".to_owned(), blob(version))]))),
        }
    }
}

/// Which items of a partition, by their sort keys, both ends included.
#[derive(Debug, Clone)]
pub struct Range {
    pub from: String,
    pub to: String,
    pub limit: usize,
    pub newest_first: bool,
}

impl Table {
    /// # Errors
    /// Never for a table that cannot be reached: it is asked when it is used.
    pub async fn connect(named: &TableName, store_id: Option<StoreId>, observer: Arc<dyn Observer>) -> Self {
        let retries = RetryConfig::standard()
            .with_max_attempts(3)
            .with_initial_backoff(Duration::from_millis(20))
            .with_max_backoff(Duration::from_millis(200));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_LIMIT)
            .operation_attempt_timeout(ATTEMPT_LIMIT)
            .operation_timeout(WRITE_TRY_LIMIT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).retry_config(retries).timeout_config(timeouts);
        if let Some(region) = &named.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &named.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = aws_sdk_dynamodb::Config::from(&loader.load().await).to_builder();
        let clock = Arc::new(Clock::default());
        let attempts = Attempts { observer: Arc::clone(&observer), clock: Arc::clone(&clock) };
        let config = config.interceptor(attempts).build();
        // Without a region the SDK sends nothing.
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let mut mode = named.mode.clone();
        if let Mode::Strong { regions } = &mut mode
            && regions.is_empty()
        {
            regions.push(region.clone());
        }
        Self {
            client: Client::from_conf(config),
            name: named.table.clone(),
            mode,
            region,
            observer,
            clock,
            id: Mutex::new(store_id),
            health: Mutex::new(Err(StoreError::StoreRefused)),
        }
    }

    pub fn id(&self) -> Option<StoreId> {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn health(&self) -> Result<(), StoreError> {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_health(&self, health: Result<(), StoreError>) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
        self.observer.ready(health.is_ok());
    }

    /// Reads `names`, in no order. Absent ones are left out. Every change begins with this.
    ///
    /// # Errors
    /// Nothing was read, it is not our store, or our clock is too far off to judge what is there.
    pub async fn read(&self, names: Vec<Name>) -> Result<Vec<Item>, StoreError> {
        let read = timeout(READ_LIMIT, self.read_all(names)).await.unwrap_or(Err(StoreError::StoreSlow));
        let read = self.clock.judge().and(read);
        self.set_health(read.as_ref().map(|_| ()).map_err(|error| *error));
        read
    }

    /// What all regions have under `keys`.
    ///
    /// # Errors
    /// As for [`Table::read`].
    pub async fn together<'k>(
        &self,
        keys: impl Iterator<Item = &'k RevocationKey>,
    ) -> Result<BTreeMap<RevocationKey, Together>, StoreError> {
        let regions = || [self.mode.home()].into_iter().chain(self.mode.others().map(String::as_str));
        let names = keys.flat_map(|key| entry::names(key, regions())).collect();
        Together::read(&self.read(names).await?)
    }

    /// # Errors
    /// As for [`Table::read`].
    pub async fn read_one(&self, name: &Name) -> Result<Option<Item>, StoreError> {
        Ok(self.read(vec![name.clone()]).await?.into_iter().next())
    }

    async fn read_all(&self, names: Vec<Name>) -> Result<Vec<Item>, StoreError> {
        let mut asked = HashSet::new();
        let names: Vec<_> = names.into_iter().filter(|name| asked.insert(name.clone())).collect();
        if names.is_empty() {
            return self.read_batch(&[]).await;
        }
        let batches: Vec<_> = names.chunks(MAX_GETS - 1).map(|batch| self.read_batch(batch)).collect();
        let all: Vec<Vec<Item>> = stream::iter(batches).buffer_unordered(CONCURRENT).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }

    /// With the store's id, in one request.
    async fn read_batch(&self, names: &[Name]) -> Result<Vec<Item>, StoreError> {
        // Any copy of the id is as good.
        let sentinel = item::sentinel(usize::from(item::version()[0]) % SHARDS);
        let mut keys: Vec<Item> = names.iter().chain([&sentinel]).map(Name::item).collect();
        let mut found = Vec::new();
        loop {
            let asked = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
            let asked = asked.map_err(|_| StoreError::StoreFailed)?;
            let sent = self.client.batch_get_item().request_items(&self.name, asked).send().await;
            let reply = sent.map_err(|error| store_error("read", &error))?;
            found.extend(reply.responses.unwrap_or_default().remove(&self.name).unwrap_or_default());
            let left = reply.unprocessed_keys.unwrap_or_default().remove(&self.name);
            match left.map(|left| left.keys).filter(|keys| !keys.is_empty()) {
                None => break,
                Some(left) => keys = left,
            }
            // The caller has a deadline.
            sleep(PAUSE).await;
        }
        let at = found.iter().position(|item| Name::of(item).as_ref() == Some(&sentinel));
        self.recognise(at.map(|at| found.swap_remove(at)).as_ref())?;
        Ok(found)
    }

    /// One item of a table whose identity is not known yet.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn get_unproved(&self, name: &Name) -> Result<Option<Item>, StoreError> {
        let asked = self.client.get_item().table_name(&self.name).set_key(Some(name.item())).consistent_read(true);
        let sent = timeout(READ_LIMIT, asked.send()).await.map_err(|_| StoreError::StoreSlow)?;
        sent.map(|reply| reply.item).map_err(|error| store_error("get", &error))
    }

    /// May we use a table that was created for `made`?
    pub fn fits(&self, made: &str) -> bool {
        self.mode.fits(made, &self.region)
    }

    /// A store that lost its data, or that is another one, proves nothing. Nor does one in which there may be revocations that we
    /// do not read.
    fn recognise(&self, sentinel: Option<&Item>) -> Result<(), StoreError> {
        static LINES: LazyLock<Throttle> = LazyLock::new(Throttle::default);
        let found = sentinel.and_then(Identity::read).ok_or(StoreError::StoreChanged)?;
        if !self.fits(&found.mode) {
            if let Some(left_out) = LINES.pass(Instant::now()) {
                let (made, ours) = (found.mode, self.mode.text());
                tracing::error!(made, ours, left_out, "the table was created for another mode or for further regions");
            }
            return Err(StoreError::StoreChanged);
        }
        let mut known = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        match *known.get_or_insert(found.id) == found.id {
            true => Ok(()),
            false => Err(StoreError::StoreChanged),
        }
    }

    /// Items of one partition. Afterwards the store's id is read, since it is not in the same request.
    ///
    /// # Errors
    /// As for [`Table::read`].
    pub async fn range(&self, partition: &str, range: Range) -> Result<Vec<Item>, StoreError> {
        let found = self.range_unproved(partition, range).await?;
        self.read(Vec::new()).await?;
        Ok(found)
    }

    /// The same, for a caller that calls [`Table::read`] afterwards.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn range_unproved(&self, partition: &str, range: Range) -> Result<Vec<Item>, StoreError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let left = range.limit.saturating_sub(found.len());
            let asked = self
                .client
                .query()
                .table_name(&self.name)
                .consistent_read(true)
                .key_condition_expression("p = :p AND s BETWEEN :from AND :to")
                .expression_attribute_values(":p", string(partition))
                .expression_attribute_values(":from", string(&range.from))
                .expression_attribute_values(":to", string(&range.to))
                .scan_index_forward(!range.newest_first)
                .limit(i32::try_from(left).unwrap_or(i32::MAX))
                .set_exclusive_start_key(after);
            let sent = timeout(READ_LIMIT, asked.send()).await.map_err(|_| StoreError::StoreSlow)?;
            let reply = sent.map_err(|error| store_error("query", &error))?;
            found.extend(reply.items.unwrap_or_default());
            after = reply.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() || found.len() >= range.limit {
                return Ok(found);
            }
        }
    }

    /// Writes a whole item. False: what is there is not what `condition` says.
    ///
    /// # Errors
    /// It is not known whether it was written.
    pub async fn put(&self, item: Item, condition: If<'_>) -> Result<bool, StoreError> {
        let (expression, values) = condition.expression();
        let asked = self.client.put_item().table_name(&self.name).set_item(Some(item));
        let sent = asked.condition_expression(expression).set_expression_attribute_values(values).send().await;
        match sent {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error))
                if matches!(
                    error.err(),
                    PutItemError::ConditionalCheckFailedException(_)
                        | PutItemError::ReplicatedWriteConflictException(_)
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(store_error("put", &error)),
        }
    }

    /// Writes an item whatever is there.
    ///
    /// # Errors
    /// As for [`Table::put`].
    pub async fn put_always(&self, item: Item) -> Result<(), StoreError> {
        let sent = self.client.put_item().table_name(&self.name).set_item(Some(item)).send().await;
        sent.map(drop).map_err(|error| store_error("put", &error))
    }

    /// Removes an attribute of the item that has this version.
    ///
    /// # Errors
    /// As for [`Table::put`].
    pub async fn clear(&self, name: &Name, attribute: &str, version: &[u8]) -> Result<bool, StoreError> {
        let (expression, values) = If::Version(version).expression();
        let asked = self.client.update_item().table_name(&self.name).set_key(Some(name.item()));
        let asked = asked.update_expression("REMOVE #a").expression_attribute_names("#a", attribute);
        let sent = asked.condition_expression(expression).set_expression_attribute_values(values).send().await;
        match sent {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), UpdateItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(store_error("update", &error)),
        }
    }

    /// # Errors
    /// As for [`Table::put`].
    pub async fn delete(&self, name: &Name, version: Option<&[u8]>) -> Result<bool, StoreError> {
        let asked = self.client.delete_item().table_name(&self.name).set_key(Some(name.item()));
        let asked = match version.map(|version| If::Version(version).expression()) {
            None => asked,
            Some((expression, values)) => {
                asked.condition_expression(expression).set_expression_attribute_values(values)
            }
        };
        match asked.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), DeleteItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(store_error("delete", &error)),
        }
    }

    /// Removes items that nothing depends on.
    ///
    /// # Errors
    /// Some may be left.
    pub async fn delete_all(&self, names: &[Name]) -> Result<(), StoreError> {
        for names in names.chunks(MAX_WRITES) {
            let mut requests = Vec::new();
            for name in names {
                let delete = DeleteRequest::builder().set_key(Some(name.item())).build();
                let delete = delete.map_err(|_| StoreError::StoreFailed)?;
                requests.push(WriteRequest::builder().delete_request(delete).build());
            }
            // What was not processed once more; what is left then is removed by DynamoDB when it has expired.
            for _ in 0..2 {
                let sent = self.client.batch_write_item().request_items(&self.name, requests).send().await;
                let left = sent.map_err(|error| store_error("delete", &error))?.unprocessed_items;
                requests = left.unwrap_or_default().remove(&self.name).unwrap_or_default();
                if requests.is_empty() {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}
