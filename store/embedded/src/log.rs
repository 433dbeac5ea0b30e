//! The log of revocations: one for each shard, which is the first byte of the key.
//!
//! ```text
//! chain (8 bytes) ‖ R ‖ milliseconds to live (8 bytes; all ones: no expiry) ‖ key   revoked
//!                   L ‖ key                                                         lifted
//!                   N                                                               the log begins
//! ```
//! A chain is a hash over the chain before, the entry and the time. So equal places have the same past, also in two files of
//! which one is an older copy.
use aws_lc_rs::digest::{SHA256, digest};
use redb::{Error, ReadableTable};
use store::{Change, LogEntry, Place};
use wire::RevocationKey;

use crate::codec::{Decoder, Encoder};
use crate::revocation::{NEVER, left};
use crate::session::millis;
use crate::tables::{Tables, not_ours};

/// The most entries that the log of a shard keeps.
const MAX_ENTRIES: u64 = 1024;

/// The shard of a key.
pub fn shard(key: &RevocationKey) -> u8 {
    let [first, ..] = key.0;
    first
}

/// Begins the log of every shard. Only for a new file; `seed` must be random.
pub fn begin(tables: &mut Tables<'_>, seed: [u8; 8]) -> Result<(), Error> {
    for shard in 0..=u8::MAX {
        tables.heads.insert(shard, (0, u64::from_be_bytes(seed)))?;
        append_to(tables, shard, Change::Begun)?;
    }
    Ok(())
}

/// In the transaction that makes the change.
pub fn append(tables: &mut Tables<'_>, change: Change) -> Result<(), Error> {
    match change {
        Change::Revoked { key, .. } | Change::Lifted { key } => append_to(tables, shard(&key), change),
        Change::Begun => Ok(()),
    }
}

fn append_to(tables: &mut Tables<'_>, shard: u8, change: Change) -> Result<(), Error> {
    let head = tables.heads.get(shard)?.map(|head| head.value()).map(place).ok_or_else(not_ours)?;
    let body = encode(change);
    let seed =
        Encoder::default().number(head.sequence).rest(&head.chain).byte(shard).number(tables.now).rest(&body).end();
    let chain = digest(&SHA256, &seed).as_ref().first_chunk::<8>().copied().unwrap_or_default();
    let sequence = head.sequence + 1;
    tables.log.insert((shard, sequence), &[&chain[..], &body].concat()[..])?;
    if let Some(old) = sequence.checked_sub(MAX_ENTRIES) {
        tables.log.remove((shard, old))?;
    }
    tables.heads.insert(shard, (sequence, u64::from_be_bytes(chain)))?;
    Ok(())
}

pub fn place((sequence, chain): (u64, u64)) -> Place {
    Place { sequence, chain: chain.to_be_bytes() }
}

fn encode(change: Change) -> Vec<u8> {
    let to = Encoder::default();
    match change {
        Change::Begun => to.byte(b'N').end(),
        Change::Lifted { key } => to.byte(b'L').rest(&key.0).end(),
        Change::Revoked { key, expires_in } => {
            to.byte(b'R').number(expires_in.map_or(NEVER, millis)).rest(&key.0).end()
        }
    }
}

/// `None`: not ours.
pub fn decode(sequence: u64, value: &[u8]) -> Option<LogEntry> {
    let mut from = Decoder(value);
    let chain = from.array()?;
    let change = match from.byte()? {
        b'N' => Change::Begun,
        b'L' => Change::Lifted { key: RevocationKey(from.array()?) },
        b'R' => {
            let expires_in = left(from.number()?, 0);
            Change::Revoked { key: RevocationKey(from.array()?), expires_in }
        }
        _ => return None,
    };
    from.end()?;
    Some(LogEntry { place: Place { sequence, chain }, change })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_or_refused() {
        let key = RevocationKey([7; 16]);
        let revoked = |expires_in| Change::Revoked { key, expires_in };
        let place = Place { sequence: 3, chain: [9; 8] };
        for change in [Change::Begun, Change::Lifted { key }, revoked(None), revoked(Some(Duration::from_millis(1500)))]
        {
            let value = [&[9; 8][..], &encode(change)].concat();
            assert_eq!(decode(3, &value), Some(LogEntry { place, change }));
            assert!((0..value.len()).all(|length| decode(3, &value[..length]).is_none()), "{change:?}");
        }
        assert_eq!(decode(3, b"12345678X"), None);
    }
}
