//! What a reader that follows the log gets: from one view of the file, so that the news of all shards fit together.
use async_trait::async_trait;
use redb::{Error, ReadOnlyTable};
use store::{LogEntry, Place, RevocationLog, ShardNews, StoreError};
use wire::RevocationKey;

use crate::codec::Decoder;
use crate::embedded_store::EmbeddedStore;
use crate::engine::{LONG_READ, Reading};
use crate::log::{decode, place, shard};
use crate::revocation::left;
use crate::tables::{ENTRIES, HEADS, Kind, LOG, not_ours, within};

#[async_trait]
impl RevocationLog for EmbeddedStore {
    fn shards(&self) -> usize {
        1 + usize::from(u8::MAX)
    }

    fn shard_of(&self, key: &RevocationKey) -> usize {
        usize::from(shard(key))
    }

    async fn follow(&self, places: &[Option<Place>]) -> Result<Vec<ShardNews>, StoreError> {
        let places = places.to_vec();
        let follow = move |reading: &Reading| {
            let (heads, log) = (reading.table(HEADS)?, reading.table(LOG)?);
            let known = |shard: u8| places.get(usize::from(shard)).copied().flatten();
            (0..=u8::MAX).map(|shard| news(reading, &heads, &log, shard, known(shard))).collect()
        };
        self.engine.ask(LONG_READ, follow).await
    }
}

fn news(
    reading: &Reading,
    heads: &ReadOnlyTable<u8, (u64, u64)>,
    log: &ReadOnlyTable<(u8, u64), &'static [u8]>,
    shard: u8,
    known: Option<Place>,
) -> Result<ShardNews, Error> {
    let head = heads.get(shard)?.map(|head| place(head.value())).ok_or_else(not_ours)?;
    let entries = |from: u64| {
        let range = log.range((shard, from)..=(shard, head.sequence))?;
        range
            .map(|found| {
                let (key, value) = found?;
                decode(key.value().1, value.value()).ok_or_else(not_ours)
            })
            .collect::<Result<Vec<LogEntry>, Error>>()
    };
    match known {
        Some(known) if known == head => Ok(ShardNews::Nothing),
        Some(known) if known.sequence < head.sequence => {
            let entries = entries(known.sequence)?;
            match entries.split_first() {
                Some((first, rest)) if first.place == known => Ok(ShardNews::Entries(rest.to_vec())),
                _ => Ok(ShardNews::Gap),
            }
        }
        Some(_) => Ok(ShardNews::Gap),
        None => {
            let found = within(&reading.table(ENTRIES)?, &[Kind::Revocation.tag(), shard], reading.now)?;
            let revocation = |(entry, value): (Vec<u8>, Vec<u8>)| {
                let key = entry.get(1..).and_then(|key| key.try_into().ok()).map(RevocationKey)?;
                Some((key, left(Decoder(&value).number()?, reading.now)))
            };
            let revocations = found.into_iter().map(revocation).collect::<Option<_>>().ok_or_else(not_ours)?;
            Ok(ShardNews::Whole { revocations, place: head, recent: entries(0)? })
        }
    }
}
