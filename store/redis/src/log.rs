//! The log of a bucket's revocations on Redis: its names and entries ([`crate::entry`]), and the scripts that write it.
use std::time::Duration;

use redis::{Cmd, Value};
use store::{Change, LogEntry, Place};
use wire::RevocationKey;

use crate::entry::{self, Bucket};

const LIFT: &str = concat!(include_str!("lua/log.lua"), include_str!("lua/lift.lua"));
const BEGIN: &str = concat!(include_str!("lua/log.lua"), include_str!("lua/begin_log.lua"));

/// Removes the revocation of `key`. Replies with how many there were.
pub fn lift(key: RevocationKey) -> Cmd {
    script(LIFT, &entry::name(key), Bucket::of(key.0))
}

/// Begins the log of a bucket, unless it has one.
pub fn begin(bucket: Bucket) -> Cmd {
    script(BEGIN, &bucket.sentinel(), bucket)
}

fn script(text: &str, name: &str, bucket: Bucket) -> Cmd {
    let mut eval = redis::cmd("EVAL");
    eval.arg(text).arg(3).arg(name).arg(bucket.head()).arg(bucket.log());
    eval
}

/// The place that a head names. `None` for a head that is missing or not ours: the log begins anew.
pub fn head(value: Option<&[u8]>) -> Option<Place> {
    let (sequence, chain) = std::str::from_utf8(value?).ok()?.split_once(':')?;
    place(sequence, chain)
}

fn place(sequence: &str, chain: &str) -> Option<Place> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let chain = (chain.len() == 16 && digits(chain)).then(|| u64::from_str_radix(chain, 16).ok()).flatten()?;
    Some(Place { sequence: sequence.parse().ok()?, chain: chain.to_be_bytes() })
}

/// The entries of a reply of XRANGE. `None` if one is not ours.
pub fn entries(reply: Value) -> Option<Vec<LogEntry>> {
    let found: Vec<(String, Vec<Vec<u8>>)> = redis::from_redis_value(reply).ok()?;
    found.iter().map(|(id, fields)| parse(id, fields.get(1)?)).collect()
}

fn parse(id: &str, entry: &[u8]) -> Option<LogEntry> {
    let mut parts = std::str::from_utf8(entry).ok()?.split(';');
    let (kind, chain, left, key) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let left: i64 = left.parse().ok()?;
    let key = key.parse();
    let change = match kind {
        "N" => Change::Begun,
        "R" => Change::Revoked { key: key.ok()?, expires_in: u64::try_from(left).ok().map(Duration::from_millis) },
        "L" => Change::Lifted { key: key.ok()? },
        _ => return None,
    };
    Some(LogEntry { place: place(id.strip_suffix("-0")?, chain)?, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_or_counts_as_missing() {
        let place = Place { sequence: 12, chain: [0, 1, 2, 3, 4, 5, 6, 0xff] };
        assert_eq!(head(Some(b"12:00010203040506ff")), Some(place));
        for strange in
            ["", "12", "12:", ":00010203040506ff", "12:00010203040506f", "x:00010203040506ff", "1:+0010203040506ff"]
        {
            assert_eq!(head(Some(strange.as_bytes())), None, "{strange}");
        }
        assert_eq!(head(None), None);
    }

    #[test]
    fn an_entry_is_read_or_refused() {
        let key = RevocationKey([7; 16]);
        let entry = |kind: &str, left: &str| parse("3-0", format!("{kind};00000000000000ff;{left};{key}").as_bytes());
        let place = Place { sequence: 3, chain: [0, 0, 0, 0, 0, 0, 0, 0xff] };
        let revoked = |expires_in| Some(LogEntry { place, change: Change::Revoked { key, expires_in } });
        assert_eq!(entry("R", "1500"), revoked(Some(Duration::from_millis(1500))));
        assert_eq!(entry("R", "-1"), revoked(None));
        assert_eq!(entry("L", "-1"), Some(LogEntry { place, change: Change::Lifted { key } }));
        assert_eq!(parse("3-0", b"N;00000000000000ff;-1;"), Some(LogEntry { place, change: Change::Begun }));
        assert_eq!(entry("X", "-1"), None);
        assert_eq!(entry("R", "x"), None);
        assert_eq!(parse("3-1", b"N;00000000000000ff;-1;"), None);
    }
}
