//! The form of the contents: names of items, and typed access to their attributes.
//!
//! ```text
//! p (partition)      s (sort)           what
//! i#<shard>          id                 see `Identity`; 8 copies, so that no partition is read for all checks
//! r#<bucket>         <key>#<region>     a revocation: see `entry`
//! h#<shard>#<region> head               the newest batch of a log: see `log`
//! l#<shard>#<region> <last sequence>    an earlier batch
//! s#<name>           <region>           a session
//! x#<subject>        <sid>              an entry of a subject's index
//! m#<digest>         -                  a used token
//! g#<key>            -                  sightings
//! a                  <millis>-<number>  an entry of the audit log
//! u                  <region>           known issuers
//! ```
//! Regions are `-` unless the table is a global one with eventual consistency. There, each region writes only its own items
//! of revocations, logs, ends of sessions and issuers, so that no write replaces one of another region.
//!
//! Every item that is changed has a version in `v`: eight random bytes. A change names the version that it was made from.
//! Expiries are Unix milliseconds in `x`, and we judge them. `t` is DynamoDB's TTL attribute, for removal alone.
use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use store::StoreId;
use wire::RevocationKey;

pub type Item = HashMap<String, AttributeValue>;

/// Shards of the log, and copies of the store's id.
pub const SHARDS: usize = 8;
/// Removed by DynamoDB this long after the expiry, so that a clock that differs removes nothing early.
const LINGER_SECONDS: u64 = 3600;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub partition: String,
    pub sort: String,
}

/// Which store this is, in `id`, and for which mode and regions it was created, in `m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub id: StoreId,
    pub mode: String,
}

impl Identity {
    pub fn read(item: &Item) -> Option<Self> {
        let mode = text(item, "m").unwrap_or_default().to_owned();
        Some(Self { id: text(item, "id")?.parse().ok()?, mode })
    }

    pub fn item(&self, shard: usize) -> Item {
        let mut made = sentinel(shard).item();
        made.insert("id".to_owned(), string(&self.id.to_string()));
        made.insert("m".to_owned(), string(&self.mode));
        made.insert("v".to_owned(), blob(&version()));
        made
    }
}

pub fn shard_of(key: &RevocationKey) -> usize {
    let [first, ..] = key.0;
    usize::from(first >> 5)
}

/// The buckets of a shard, in the order of their keys.
pub fn buckets(shard: usize) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(move |bucket| usize::from(bucket >> 5) == shard)
}

pub fn bucket(bucket: u8) -> String {
    format!("r#{bucket:02x}")
}

pub fn sentinel(shard: usize) -> Name {
    Name::new(format!("i#{shard}"), "id")
}

pub fn revocation(key: &RevocationKey, region: &str) -> Name {
    let [first, ..] = key.0;
    Name::new(bucket(first), format!("{}#{region}", Hex(&key.0)))
}

/// The key and the region of a revocation's item.
pub fn key_of(item: &Item) -> Option<(RevocationKey, &str)> {
    let (key, region) = text(item, "s")?.split_once('#')?;
    Some((RevocationKey(u128::from_str_radix(key, 16).ok().filter(|_| key.len() == 32)?.to_be_bytes()), region))
}

/// Sorts as the bytes do.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Name {
    pub fn new(partition: impl Into<String>, sort: impl Into<String>) -> Self {
        Self { partition: partition.into(), sort: sort.into() }
    }

    pub fn item(&self) -> Item {
        HashMap::from([("p".to_owned(), string(&self.partition)), ("s".to_owned(), string(&self.sort))])
    }

    pub fn of(item: &Item) -> Option<Self> {
        Some(Self::new(text(item, "p")?, text(item, "s")?))
    }
}

pub fn string(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub fn blob(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub fn integer(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub fn text<'i>(item: &'i Item, name: &str) -> Option<&'i str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub fn bytes<'i>(item: &'i Item, name: &str) -> Option<&'i [u8]> {
    item.get(name)?.as_b().ok().map(Blob::as_ref)
}

pub fn number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// `None`: it never expires.
pub fn set_expiry(item: &mut Item, expires: Option<u64>) {
    if let Some(expires) = expires {
        item.insert("x".to_owned(), integer(expires));
        item.insert("t".to_owned(), integer((expires / 1000).saturating_add(LINGER_SECONDS)));
    }
}

/// Is it absent by our clock?
pub fn has_expired(item: &Item, now: u64) -> bool {
    number(item, "x").is_some_and(|expires| expires <= now)
}

/// A new version.
pub fn version() -> [u8; 8] {
    let mut version = [0; 8];
    // Without randomness nothing of this process works; a constant would only make a concurrent change go unnoticed.
    if getrandom::fill(&mut version).is_err() {
        tracing::error!("the operating system gives no random bytes");
    }
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_keys() {
        let key = RevocationKey([0xfe; 16]);
        let name = revocation(&key, "eu-west-1");
        assert_eq!(key_of(&name.item()), Some((key, "eu-west-1")));
        assert_eq!(name.partition, "r#fe");
        assert_eq!(Name::of(&name.item()), Some(name));
        assert!(buckets(7).eq(224..=255) && shard_of(&key) == 7);
    }
}
