//! `POST /v1/join`: the service of one region follows the revocations of another region. Both directions are authenticated
//! over the raw bytes, as a [check](crate::check) is, with a secret that no filter has.
//!
//! ```text
//! request "PCJ1" | secret id 8 | nonce 16 | future-iat tolerance u16 | now u64 | kind u8 | … | mac 32
//!         kind 0: wait u16 | length u16 | cursor        what changed since the cursor
//!         kind 1: length u16 | cursor | 0, or 1 and a key 16
//!                                                       all revocations up to the cursor at least: the page after the key
//!         kind 2: count u16 | key 16 × count            the entries of these keys
//! reply   "PJR1" | secret id 8 | SHA-256 of the request 32 | status u16 | kind u8 | … | mac 32
//!         kind 0: facts | length u16 | cursor | complete i32 | more u8 | count u16 | entry × count
//!         kind 1: facts | length u16 | cursor           the cursor is not understood: read all, then go on from this one
//!         kind 2: facts | 0, or 1 and a key 16 | count u16 | row × count      the key that the next page comes after
//!         kind 3: facts | count u16 | entry × count
//!         kind 4: reason u8
//! facts   store 16 | retention 8 | future-iat tolerance u16 | now u64 | count u8 | secret id 8 × count
//! row     key 16 | before u64 (all ones: dead) | milliseconds to live u64 (all ones: no expiry)
//! entry   row | length u16 | encrypted note
//! ```
//! Integers are big-endian. Times to live and `complete` are counted from when the service received the request, so a reply
//! that was long under way only makes them smaller. A page has its rows in the order of their keys.
use std::time::Duration;

use crate::check::{Needs, QuestionError, ReplyError};
use crate::feed::{Cursor, Trouble};
use crate::message::{
    Form, MAC, REPLY_HEAD, REQUEST_HEAD, Reader, Request as Opened, begin_reply, begin_request, open_reply,
    open_request, sign_reply, sign_request,
};
use crate::{Answer, DerivedKeys, Retention, RevocationKey, SecretId};

pub const PATH: &str = "/v1/join";
pub const CONTENT_TYPE: &str = "application/vnd.portcullis.join";

/// The most entries of one reply, and keys of one request.
pub const MAX_ENTRIES: usize = 1024;
/// The most rows of a page.
pub const MAX_ROWS: usize = 4096;
/// The longest note. The service sends a longer one as an empty one.
pub const MAX_NOTE_BYTES: usize = 2048;
/// The most secrets that one region has at the same time.
pub const MAX_SECRETS: usize = 16;
/// The most bytes of a request that a service needs to read.
pub const MAX_REQUEST_BYTES: usize = REQUEST_HEAD + 5 + MAX_ENTRIES * 16 + MAC;
/// The most bytes of a reply that a region needs to read.
pub const MAX_REPLY_BYTES: usize =
    REPLY_HEAD + FACTS + 24 + crate::feed::MAX_CURSOR_BYTES + MAX_ENTRIES * (ROW + 2 + MAX_NOTE_BYTES) + MAC;

const REQUEST: &Form = b"PCJ1";
const REPLY: &Form = b"PJR1";
const ROW: usize = 32;
const FACTS: usize = 36 + MAX_SECRETS * 8;
/// Times must be exact in every store: Redis's numbers are doubles.
const MAX_BEFORE: u64 = 1 << 53;
/// 8,900 years.
const MAX_MILLIS: u64 = 1 << 48;

/// A revocation as a store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub row: Row,
    /// The encrypted note for operators. Perhaps empty.
    pub sealed: Vec<u8>,
}

/// A revocation without its note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub key: RevocationKey,
    pub ends: Ends,
    /// `None`: it does not expire.
    pub ttl: Option<Duration>,
}

/// Which tokens with its key a revocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ends {
    /// Those issued before these Unix seconds.
    Before(u64),
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What changed since the cursor. The service may hold the request for up to `wait` (at most 65 s) if nothing did.
    Changes { cursor: Cursor, wait: Duration },
    /// Rows after the key, or the first ones. All pages together have at least everything up to the cursor.
    Page { cursor: Cursor, after: Option<RevocationKey> },
    /// Entries of these keys, as far as there are some. At most [`MAX_ENTRIES`].
    Entries(Vec<RevocationKey>),
}

/// What a region says about itself in each reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The id of its store. Zeros: it does not know it yet.
    pub store: [u8; 16],
    pub keeps: Retention,
    pub future_iat_tolerance_seconds: u16,
    /// Its wall clock, in Unix seconds.
    pub now_seconds: u64,
    /// The secrets that its revocations are written under.
    pub secrets: Vec<SecretId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Changes {
        cursor: Cursor,
        /// With these entries applied, everything that was acknowledged before this moment is there: milliseconds after the
        /// request was received, or before it if negative.
        complete_millis: i32,
        /// There are more entries, so nothing is complete yet.
        more: bool,
        entries: Vec<Entry>,
    },
    /// The cursor is not understood. After all pages were read, the changes since this one are missing.
    Anew(Cursor),
    Page {
        rows: Vec<Row>,
        /// The next page comes after this key. `None`: there is none.
        next: Option<RevocationKey>,
    },
    Entries(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub facts: Facts,
    pub content: Content,
}

/// A request, as it is sent.
#[derive(Debug, Clone)]
pub struct Asking {
    bytes: Vec<u8>,
    digest: [u8; 32],
}

/// A request, as the service received it, with a valid MAC.
#[derive(Debug, Clone)]
pub struct Asked {
    secret: usize,
    digest: [u8; 32],
    question: Question,
}

impl From<Ends> for Answer {
    fn from(ends: Ends) -> Self {
        match ends {
            Ends::All => Answer::Dead,
            Ends::Before(before) => Answer::Before(before),
        }
    }
}

impl Asking {
    /// `nonce` must never repeat under one secret.
    pub fn new(derived: &DerivedKeys, nonce: [u8; 16], needs: Needs, question: &Question) -> Self {
        let mut bytes = begin_request(REQUEST, derived, nonce, needs, 64);
        match question {
            Question::Changes { cursor, wait } => {
                bytes.push(0);
                bytes.extend_from_slice(&u16::try_from(wait.as_millis()).unwrap_or(u16::MAX).to_be_bytes());
                cursor.write(&mut bytes);
            }
            Question::Page { cursor, after } => {
                bytes.push(1);
                cursor.write(&mut bytes);
                write_key(*after, &mut bytes);
            }
            Question::Entries(keys) => {
                bytes.push(2);
                let keys = keys.get(..MAX_ENTRIES).unwrap_or(keys);
                bytes.extend_from_slice(&u16::try_from(keys.len()).unwrap_or(0).to_be_bytes());
                bytes.extend(keys.iter().flat_map(|key| key.0));
            }
        }
        let (bytes, digest) = sign_request(derived, bytes);
        Self { bytes, digest }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the reply that came with HTTP status `status`.
    ///
    /// # Errors
    /// Anything that does not prove that our peer answered this request.
    pub fn read_reply(
        &self,
        derived: &DerivedKeys,
        status: u16,
        body: &[u8],
    ) -> Result<Result<Reply, Trouble>, ReplyError> {
        if body.len() > MAX_REPLY_BYTES {
            return Err(ReplyError::Malformed);
        }
        let mut read = open_reply(REPLY, derived, &self.digest, status, body)?;
        match read.byte() {
            // Only under status 200, even with a valid MAC.
            Some(kind @ 0..=3) if status == 200 => {
                let reply = read_reply(&mut read, kind).filter(|_| read.0.is_empty());
                reply.map(Ok).ok_or(ReplyError::Malformed)
            }
            Some(4) => Trouble::read(&mut read).map(Err).ok_or(ReplyError::Malformed),
            _ => Err(ReplyError::Malformed),
        }
    }
}

impl Asked {
    /// Reads and authenticates a request against every live secret.
    ///
    /// # Errors
    /// See [`QuestionError`]; the bytes prove nothing then, and the reply cannot be authenticated either.
    pub fn read(secrets: &[DerivedKeys], body: &[u8]) -> Result<Self, QuestionError> {
        if body.len() > MAX_REQUEST_BYTES {
            return Err(QuestionError::Malformed);
        }
        let Opened { secret, digest, content: mut read, .. } = open_request(&[REQUEST], secrets, body)?;
        let question = read_question(&mut read).filter(|_| read.0.is_empty()).ok_or(QuestionError::Malformed)?;
        Ok(Self { secret, digest, question })
    }

    /// Which of the secrets given to [`Asked::read`] made the request: the reply must use the same.
    pub fn secret(&self) -> usize {
        self.secret
    }

    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The body to send with status 200. What is beyond the bounds of this module is not sent.
    pub fn reply(&self, derived: &DerivedKeys, reply: &Reply) -> Vec<u8> {
        let (kind, size) = match &reply.content {
            Content::Changes { entries, .. } => (0, entries.len().saturating_mul(ROW + 512)),
            Content::Anew(_) => (1, 0),
            Content::Page { rows, .. } => (2, rows.len().saturating_mul(ROW)),
            Content::Entries(entries) => (3, entries.len().saturating_mul(ROW + 512)),
        };
        let mut bytes = self.begin(derived, 200, kind, size.saturating_add(FACTS));
        reply.facts.write(&mut bytes);
        match &reply.content {
            Content::Changes { cursor, complete_millis, more, entries } => {
                cursor.write(&mut bytes);
                bytes.extend_from_slice(&complete_millis.to_be_bytes());
                bytes.push((*more).into());
                write_entries(entries, &mut bytes);
            }
            Content::Anew(cursor) => cursor.write(&mut bytes),
            Content::Page { rows, next } => {
                write_key(*next, &mut bytes);
                let rows = rows.get(..MAX_ROWS).unwrap_or(rows);
                bytes.extend_from_slice(&u16::try_from(rows.len()).unwrap_or(0).to_be_bytes());
                rows.iter().for_each(|row| row.write(&mut bytes));
            }
            Content::Entries(entries) => write_entries(entries, &mut bytes),
        }
        sign_reply(derived, bytes)
    }

    /// The body to send with `status` if there is no answer.
    pub fn trouble(&self, derived: &DerivedKeys, status: u16, trouble: Trouble) -> Vec<u8> {
        let mut reply = self.begin(derived, status, 4, 1);
        reply.push(trouble.code());
        sign_reply(derived, reply)
    }

    fn begin(&self, derived: &DerivedKeys, status: u16, kind: u8, more: usize) -> Vec<u8> {
        let mut reply = begin_reply(REPLY, derived, &self.digest, status, more.saturating_add(1));
        reply.push(kind);
        reply
    }
}

impl Facts {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.store);
        self.keeps.write(bytes);
        bytes.extend_from_slice(&self.future_iat_tolerance_seconds.to_be_bytes());
        bytes.extend_from_slice(&self.now_seconds.to_be_bytes());
        let secrets = self.secrets.get(..MAX_SECRETS).unwrap_or(&self.secrets);
        bytes.push(u8::try_from(secrets.len()).unwrap_or(0));
        bytes.extend(secrets.iter().flat_map(|id| id.0));
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let store = read.take()?;
        let keeps = Retention::read(read)?;
        let future_iat_tolerance_seconds = u16::from_be_bytes(read.take()?);
        let now_seconds = u64::from_be_bytes(read.take()?);
        let count = usize::from(read.byte()?);
        if count > MAX_SECRETS {
            return None;
        }
        let secrets = (0..count).map(|_| read.take().map(SecretId)).collect::<Option<_>>()?;
        Some(Self { store, keeps, future_iat_tolerance_seconds, now_seconds, secrets })
    }
}

impl Row {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.key.0);
        let before = match self.ends {
            Ends::All => u64::MAX,
            Ends::Before(before) => before,
        };
        bytes.extend_from_slice(&before.to_be_bytes());
        let millis =
            self.ttl.map_or(u64::MAX, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(MAX_MILLIS).min(MAX_MILLIS));
        bytes.extend_from_slice(&millis.to_be_bytes());
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let key = RevocationKey(read.take()?);
        let ends = match u64::from_be_bytes(read.take()?) {
            u64::MAX => Ends::All,
            before if before <= MAX_BEFORE => Ends::Before(before),
            _ => return None,
        };
        let ttl = match u64::from_be_bytes(read.take()?) {
            u64::MAX => None,
            millis if millis <= MAX_MILLIS => Some(Duration::from_millis(millis)),
            _ => return None,
        };
        Some(Self { key, ends, ttl })
    }
}

fn write_entries(entries: &[Entry], bytes: &mut Vec<u8>) {
    let entries = entries.get(..MAX_ENTRIES).unwrap_or(entries);
    bytes.extend_from_slice(&u16::try_from(entries.len()).unwrap_or(0).to_be_bytes());
    for entry in entries {
        entry.row.write(bytes);
        let sealed = if entry.sealed.len() > MAX_NOTE_BYTES { &[][..] } else { &entry.sealed };
        bytes.extend_from_slice(&u16::try_from(sealed.len()).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(sealed);
    }
}

fn read_entries(read: &mut Reader<'_>) -> Option<Vec<Entry>> {
    let count = usize::from(u16::from_be_bytes(read.take()?));
    let entry = |_| {
        let row = Row::read(read)?;
        let length = usize::from(u16::from_be_bytes(read.take()?));
        let sealed = read.slice(length).filter(|sealed| sealed.len() <= MAX_NOTE_BYTES)?.to_vec();
        Some(Entry { row, sealed })
    };
    (count <= MAX_ENTRIES).then_some(0..count)?.map(entry).collect()
}

/// The rest must be empty after it.
fn read_reply(read: &mut Reader<'_>, kind: u8) -> Option<Reply> {
    let facts = Facts::read(read)?;
    let content = match kind {
        0 => {
            let cursor = Cursor::read(read)?;
            let complete_millis = i32::from_be_bytes(read.take()?);
            let more = read_flag(read)?;
            Content::Changes { cursor, complete_millis, more, entries: read_entries(read)? }
        }
        1 => Content::Anew(Cursor::read(read)?),
        2 => {
            let next = read_key(read)?;
            let count = usize::from(u16::from_be_bytes(read.take()?));
            let rows = (count <= MAX_ROWS).then_some(0..count)?.map(|_| Row::read(read)).collect::<Option<_>>()?;
            Content::Page { rows, next }
        }
        3 => Content::Entries(read_entries(read)?),
        _ => return None,
    };
    Some(Reply { facts, content })
}

fn read_question(read: &mut Reader<'_>) -> Option<Question> {
    Some(match read.byte()? {
        0 => {
            let wait = Duration::from_millis(u16::from_be_bytes(read.take()?).into());
            Question::Changes { wait, cursor: Cursor::read(read)? }
        }
        1 => {
            let cursor = Cursor::read(read)?;
            Question::Page { cursor, after: read_key(read)? }
        }
        2 => {
            let count = usize::from(u16::from_be_bytes(read.take()?));
            let (keys, rest) = read.slice(count.checked_mul(16)?)?.as_chunks::<16>();
            if count > MAX_ENTRIES || !rest.is_empty() {
                return None;
            }
            Question::Entries(keys.iter().copied().map(RevocationKey).collect())
        }
        _ => return None,
    })
}

/// `None`: there is no key.
fn write_key(key: Option<RevocationKey>, bytes: &mut Vec<u8>) {
    bytes.push(key.is_some().into());
    bytes.extend(key.iter().flat_map(|key| key.0));
}

fn read_key(read: &mut Reader<'_>) -> Option<Option<RevocationKey>> {
    Some(if read_flag(read)? { Some(RevocationKey(read.take()?)) } else { None })
}

fn read_flag(read: &mut Reader<'_>) -> Option<bool> {
    match read.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
