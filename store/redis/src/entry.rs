//! The form of a revocation in Redis: its name, its value, and the sentinel of its bucket.
//!
//! ```text
//! portcullis:{<bucket>}:sentinel  the store's id: 32 hexadecimal digits, no expiry; `new:` or `copy:` before it while
//!                                 the store is created, or filled from another
//! portcullis:{<bucket>}:r:<key>   D;<sealed note>                dead
//!                                 B<unix seconds>;<sealed note>  dead if issued before
//! portcullis:{<bucket>}:head      <sequence>:<chain> of the last entry of the log
//! portcullis:{<bucket>}:log       a stream of about the last 1,024 changes. The id is the sequence. The entry has one field:
//!                                 R;<chain>;<milliseconds to live, -1: no expiry>;<key>   revoked
//!                                 L;<chain>;-1;<key>                                      lifted
//!                                 N;<chain>;-1;                                           the log begins
//! portcullis:{<bucket>}:m:<key>   see lag.rs
//! ```
//! A bucket is two hexadecimal digits, the first byte of the key. It is the name's hash tag: a Cluster keeps a bucket
//! together when its slot migrates, so one MGET asks for its sentinel and its entries on any server.
//!
//! A revocation of a signing key has no expiry unless one was asked for, since a stolen key can sign at any time. Every other
//! revocation has one. So all names expire, except those revocations and the sentinel, head and log of each bucket.
//!
//! A chain is 16 hexadecimal digits of a hash over the head before, the entry and the time. So equal heads have the same
//! past: if a failover loses entries, the next one may have the same sequence, and it has another chain. A log that is lost
//! begins again, and readers read the bucket anew. Changes to revocations, and only they, are appended, in the same script.
//!
//! Names carry no store id: completing a store that lost sentinels keeps the revocations that were not lost.
use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use store::{Ending, StoreId};
use wire::RevocationKey;

/// Revocations, for SCAN.
pub const PATTERN: &str = "portcullis:{??}:r:*";

/// Times must be exact in Redis's Lua, whose numbers are doubles.
pub const MAX_BEFORE: u64 = 1 << 53;

/// The content of a bucket's sentinel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sentinel {
    Missing,
    /// The store is being created: some of its sentinels may not be there yet.
    New(StoreId),
    /// The store is being filled from another: an absent entry may not have been copied yet. It is written to, and checks
    /// are not answered from it.
    Filling(StoreId),
    /// All of the store's sentinels were present once.
    Whole(StoreId),
    /// The value is not ours.
    Strange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub ending: Ending,
    pub sealed: &'a [u8],
}

/// A part of the store that stays on one server: all of its names have one hash tag. There are 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u8);

impl Bucket {
    /// The bucket of names that exist once: the audit log, the issuers. Its sentinel is written first.
    pub const FIRST: Self = Self(0);

    pub fn all() -> impl Iterator<Item = Bucket> {
        (0..=u8::MAX).map(Bucket)
    }

    /// The bucket of a digest. Only the first byte counts, which must be as good as random.
    pub fn of(digest: [u8; 16]) -> Self {
        let [first, ..] = digest;
        Self(first)
    }

    /// The bucket of a name that is not a digest in binary form.
    pub fn of_text(text: &str) -> Self {
        Self(digest(&SHA256, text.as_bytes()).as_ref().first().copied().unwrap_or_default())
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// A name in this bucket: `portcullis:{<bucket>}:<rest>`.
    pub fn name(self, rest: impl fmt::Display) -> String {
        format!("portcullis:{{{self}}}:{rest}")
    }

    pub fn sentinel(self) -> String {
        self.name("sentinel")
    }

    pub fn head(self) -> String {
        self.name("head")
    }

    pub fn log(self) -> String {
        self.name("log")
    }
}

/// Two hexadecimal digits, the hash tag.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

/// Twice the longest freshness. After that no client was waiting: the session was not used.
pub const MARK_TTL: Duration = Duration::from_secs(10);
/// The name of the mark beside `key`'s entry.
pub fn mark_name(key: RevocationKey) -> String {
    Bucket::of(key.0).name(format_args!("m:{key}"))
}

/// The length of a revocation's name.
pub const NAME_BYTES: usize = 40;

/// Without `format!`, since every key of every check needs one.
pub fn name(key: RevocationKey) -> String {
    let [first, ..] = key.0;
    let mut name = String::with_capacity(NAME_BYTES);
    name.push_str("portcullis:{");
    for digit in [first >> 4, first & 15] {
        name.extend(char::from_digit(digit.into(), 16));
    }
    name.push_str("}:r:");
    URL_SAFE_NO_PAD.encode_string(key.0, &mut name);
    name
}

/// `None`: not the name of a revocation.
pub fn key_of(found: &[u8]) -> Option<RevocationKey> {
    let (_, key) = std::str::from_utf8(found).ok()?.rsplit_once(':')?;
    let key = key.parse().ok()?;
    (name(key).as_bytes() == found).then_some(key)
}

impl Sentinel {
    const NEW: &'static str = "new:";
    const FILLING: &'static str = "copy:";

    pub fn parse(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Sentinel::Missing };
        let text = std::str::from_utf8(value).unwrap_or_default();
        if let Some(id) = text.strip_prefix(Self::NEW) {
            return id.parse().map_or(Sentinel::Strange, Sentinel::New);
        }
        if let Some(id) = text.strip_prefix(Self::FILLING) {
            return id.parse().map_or(Sentinel::Strange, Sentinel::Filling);
        }
        text.parse().map_or(Sentinel::Strange, Sentinel::Whole)
    }

    /// The value of [`Sentinel::Filling`].
    pub fn filling(id: StoreId) -> String {
        format!("{}{id}", Self::FILLING)
    }

    /// The value of [`Sentinel::New`].
    pub fn begun(id: StoreId) -> String {
        format!("{}{id}", Self::NEW)
    }
}

impl<'a> Entry<'a> {
    /// `None` for a value that we did not write. It must not be taken for "live".
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        if let Some(sealed) = value.strip_prefix(b"D;") {
            return Some(Self { ending: Ending::Dead, sealed });
        }
        let rest = value.strip_prefix(b"B")?;
        let end = rest.iter().position(|byte| *byte == b';')?;
        let (digits, sealed) = rest.split_at_checked(end)?;
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let before = std::str::from_utf8(digits).ok()?.parse().ok().filter(|before| *before <= MAX_BEFORE)?;
        Some(Self { ending: Ending::Before(before), sealed: sealed.get(1..)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of the value before the encrypted note; revoke.lua writes it.
    fn head(ending: Ending) -> String {
        match ending {
            Ending::Dead => "D;".to_owned(),
            Ending::Before(before) => format!("B{before};"),
        }
    }

    #[test]
    fn entries_are_read_back_as_written() {
        for ending in [Ending::Dead, Ending::Before(0), Ending::Before(MAX_BEFORE)] {
            let value = [head(ending).as_bytes(), b"sealed;D;"].concat();
            assert_eq!(Entry::parse(&value), Some(Entry { ending, sealed: b"sealed;D;" }));
        }
    }

    #[test]
    fn whatever_we_did_not_write_is_no_entry() {
        for bad in ["", "D", "d;", "L;", "B;", "B1", "B-1;", "B+1;", "B 1;", "B1.5;", "B99999999999999999999;", "1"] {
            assert_eq!(Entry::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Entry::parse(format!("B{};", MAX_BEFORE + 1).as_bytes()), None);
    }

    #[test]
    fn names_lead_back_to_keys() {
        let key = RevocationKey([7; 16]);
        assert_eq!(key_of(name(key).as_bytes()), Some(key));
        assert_eq!(name(key), format!("portcullis:{{07}}:r:{key}"));
        assert_eq!(name(key).len(), NAME_BYTES);
        let key = RevocationKey([0xfe; 16]);
        assert_eq!(name(key), Bucket::of(key.0).name(format_args!("r:{key}")));
        assert_eq!(key_of(b"portcullis:{07}:sentinel"), None);
        assert_eq!(key_of(format!("portcullis:{{08}}:r:{key}").as_bytes()), None, "not where it is looked for");
    }

    #[test]
    fn sentinels_are_whole_only_when_the_store_is() {
        let id = StoreId::new([7; 16]);
        assert_eq!(Sentinel::parse(Some(id.to_string().as_bytes())), Sentinel::Whole(id));
        assert_eq!(Sentinel::parse(Some(Sentinel::begun(id).as_bytes())), Sentinel::New(id));
        assert_eq!(Sentinel::parse(Some(Sentinel::filling(id).as_bytes())), Sentinel::Filling(id));
        assert_eq!(Sentinel::parse(None), Sentinel::Missing);
        for strange in [
            "",
            "new:",
            "copy:",
            "another",
            "copy:new:07070707070707070707070707070707",
            "new:new:07070707070707070707070707070707",
        ] {
            assert_eq!(Sentinel::parse(Some(strange.as_bytes())), Sentinel::Strange, "{strange}");
        }
    }
}
