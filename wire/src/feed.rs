//! `POST /v1/feed`: a filter follows the revocations of a store instead of asking about each token. Both directions are
//! authenticated over the raw bytes, as a [check](crate::check) is.
//!
//! ```text
//! poll   "PCF1" | secret id 8 | nonce 16 | future-iat tolerance u16 | now u64 | wait u16 | length u16 | cursor | mac 32
//! reply  "PFR1" | secret id 8 | SHA-256 of the poll 32 | status u16 | form u8 | … | mac 32
//!        form 0: retention 8 | regions | length u16 | cursor | complete i32 | more u8 | count u16 | key 16 × count
//!        form 1: retention 8 | regions | length u16 | cursor | piece u16 | pieces u16 | membership
//!        form 2: reason u8
//! regions as in a check: i32, only if the poll asks for it
//! ```
//! Integers are big-endian.
//!
//! A follower begins with an empty cursor and gets a snapshot, piece by piece (form 1). Then it gets keys that were revoked
//! since (form 0). A cursor is opaque to the follower: it sends the one of the last reply. A service that does not
//! understand a cursor begins a new snapshot, so a follower must accept piece 0 at any time.
//!
//! Form 0 is the proof that a picture is complete. `complete` is a moment in milliseconds, counted from when the service
//! received the poll: the picture, with this reply applied, has every revocation that was acknowledged before that moment.
//! It was received after it was sent. So a filter that adds `complete` to the moment at which it sent the poll, on its own
//! monotonic clock, claims no more than the service proved. No wall clock is compared.
use std::time::Duration;

use crate::check::{Needs, QuestionError, RegionsMoment, ReplyError, StoreError};
use crate::message::{
    Form, MAC, REPLY_HEAD, REQUEST_HEAD, Reader, Request, begin_reply, begin_request, open_reply, open_request,
    sign_reply, sign_request,
};
use crate::{DerivedKeys, Retention, RevocationKey};

mod membership;

pub use membership::{Membership, MembershipError};

pub const PATH: &str = "/v1/feed";
pub const CONTENT_TYPE: &str = "application/vnd.portcullis.feed";

/// The longest cursor.
pub const MAX_CURSOR_BYTES: usize = 4096;
/// The most bytes of a poll that a service needs to read.
pub const MAX_POLL_BYTES: usize = REQUEST_HEAD + 4 + MAX_CURSOR_BYTES + MAC;
/// The most keys in one reply. If there are more, `more` is set, and the follower polls again at once.
pub const MAX_KEYS: usize = 8192;
/// The most bytes of one piece's membership: little enough that a thread which serves requests can take it at once.
pub const MAX_MEMBERSHIP_BYTES: usize = 256 * 1024;
/// The most pieces of a snapshot.
pub const MAX_PIECES: u16 = 1024;
/// The most bytes of a reply that a filter needs to read.
pub const MAX_REPLY_BYTES: usize = REPLY_HEAD + 29 + MAX_CURSOR_BYTES + MAX_MEMBERSHIP_BYTES + MAC;

const POLL: &Form = b"PCF1";
const REPLY: &Form = b"PFR1";

/// A follower's place in the feed, made by a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(Box<[u8]>);

/// A poll, as the filter sends it.
#[derive(Debug, Clone)]
pub struct Poll {
    bytes: Vec<u8>,
    digest: [u8; 32],
    asks_about_regions: bool,
}

/// A poll, as the service received it, with a valid MAC.
#[derive(Debug, Clone)]
pub struct Polled {
    secret: usize,
    digest: [u8; 32],
    needs: Needs,
    asks_about_regions: bool,
    wait: Duration,
    cursor: Cursor,
}

/// What a service has for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The service's retention.
    pub keeps: Retention,
    /// What the picture has of other regions, with this reply applied. Unknown also if the poll did not ask for it.
    pub regions: RegionsMoment,
    /// Where the follower is after this reply.
    pub cursor: Cursor,
    pub news: News,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Keys revoked since the cursor. Perhaps none.
    Keys {
        /// The picture is complete as of this moment: milliseconds after the poll was received, or before it if negative.
        complete_millis: i32,
        /// There are more keys: the picture is complete only when a later reply says that there are none.
        more: bool,
        keys: Vec<RevocationKey>,
    },
    /// A part of a snapshot: the keys that [`piece_of`] assigns to it. It replaces what the follower has only when all
    /// pieces are there.
    Piece { piece: u16, pieces: u16, membership: Membership },
}

impl News {
    /// Whether it says as of when the picture is complete.
    pub fn is_proof(&self) -> bool {
        matches!(self, News::Keys { more: false, .. })
    }
}

/// Why a service has nothing for a follower. The follower asks about each token instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The store cannot be read.
    Store(StoreError),
    /// The service does not know every revocation at the moment: it is reading the store.
    Incomplete,
    /// The service has as many followers as it serves.
    TooManyFollowers,
    /// This service offers no feed.
    Disabled,
}

impl Cursor {
    /// # Errors
    /// It is longer than [`MAX_CURSOR_BYTES`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, QuestionError> {
        if bytes.len() > MAX_CURSOR_BYTES { Err(QuestionError::Malformed) } else { Ok(Self(bytes.into())) }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A follower without a place: it gets a snapshot.
    pub fn is_start(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn read(read: &mut Reader<'_>) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes(read.take()?));
        Self::new(read.slice(length)?.to_vec()).ok()
    }

    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        let length = u16::try_from(self.0.len()).unwrap_or(0);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.0);
    }
}

/// The piece that has this key, of a snapshot in `pieces` pieces.
pub fn piece_of(key: &RevocationKey, pieces: u16) -> u16 {
    let [first, second, ..] = key.0;
    // The first 16 bits, which are as good as random, scaled to the number of pieces.
    let scaled = u32::from(u16::from_be_bytes([first, second])).saturating_mul(u32::from(pieces)) >> 16;
    u16::try_from(scaled).unwrap_or(0)
}

impl Poll {
    /// `nonce` must never repeat under one secret. The service may hold the poll for up to `wait` (at most 65 s) if it has
    /// no news.
    pub fn new(derived: &DerivedKeys, nonce: [u8; 16], needs: Needs, wait: Duration, cursor: &Cursor) -> Self {
        let mut bytes = begin_request(POLL, derived, nonce, needs, cursor.0.len().saturating_add(4));
        bytes.extend_from_slice(&u16::try_from(wait.as_millis()).unwrap_or(u16::MAX).to_be_bytes());
        cursor.write(&mut bytes);
        let (bytes, digest) = sign_request(derived, bytes);
        Self { bytes, digest, asks_about_regions: needs.asks_about_regions() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the reply that came with HTTP status `status`.
    ///
    /// # Errors
    /// Anything that does not prove that our service answered this poll.
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
            // News counts only under status 200, even with a valid MAC.
            Some(form @ (0 | 1)) if status == 200 => {
                read_reply(&mut read, form, self.asks_about_regions).map(Ok).ok_or(ReplyError::Malformed)
            }
            Some(2) => Trouble::read(&mut read).map(Err).ok_or(ReplyError::Malformed),
            _ => Err(ReplyError::Malformed),
        }
    }
}

impl Polled {
    /// Reads and authenticates a poll against every live secret.
    ///
    /// # Errors
    /// See [`QuestionError`]; the bytes prove nothing then, and the reply cannot be authenticated either.
    pub fn read(secrets: &[DerivedKeys], body: &[u8]) -> Result<Self, QuestionError> {
        if body.len() > MAX_POLL_BYTES {
            return Err(QuestionError::Malformed);
        }
        let Request { secret, digest, needs, asks_about_regions, content: mut read, .. } =
            open_request(&[POLL], secrets, body)?;
        let wait = Duration::from_millis(u16::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?).into());
        let cursor = Cursor::read(&mut read).ok_or(QuestionError::Malformed)?;
        if !read.0.is_empty() {
            return Err(QuestionError::Malformed);
        }
        Ok(Self { secret, digest, needs, asks_about_regions, wait, cursor })
    }

    /// Which of the secrets given to [`Polled::read`] made the poll: the reply must use the same.
    pub fn secret(&self) -> usize {
        self.secret
    }

    pub fn needs(&self) -> Needs {
        self.needs
    }

    pub fn asks_about_regions(&self) -> bool {
        self.asks_about_regions
    }

    pub fn wait(&self) -> Duration {
        self.wait
    }

    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The body to send with status 200. Of keys beyond [`MAX_KEYS`] nothing is sent, and the cursor would skip them: the
    /// caller splits them.
    pub fn reply(&self, derived: &DerivedKeys, reply: &Reply) -> Vec<u8> {
        let (form, size) = match &reply.news {
            News::Keys { keys, .. } => (0, keys.len().saturating_mul(16)),
            News::Piece { membership, .. } => (1, membership.len_bytes()),
        };
        let mut bytes = self.begin(derived, 200, form, size.saturating_add(reply.cursor.0.len()).saturating_add(24));
        reply.keeps.write(&mut bytes);
        if self.asks_about_regions {
            reply.regions.write(&mut bytes);
        }
        reply.cursor.write(&mut bytes);
        match &reply.news {
            News::Keys { complete_millis, more, keys } => {
                bytes.extend_from_slice(&complete_millis.to_be_bytes());
                bytes.push((*more).into());
                let count = u16::try_from(keys.len().min(MAX_KEYS)).unwrap_or(0);
                bytes.extend_from_slice(&count.to_be_bytes());
                for key in keys.iter().take(MAX_KEYS) {
                    bytes.extend_from_slice(&key.0);
                }
            }
            News::Piece { piece, pieces, membership } => {
                bytes.extend_from_slice(&piece.to_be_bytes());
                bytes.extend_from_slice(&pieces.to_be_bytes());
                membership.write(&mut bytes);
            }
        }
        sign_reply(derived, bytes)
    }

    /// The body to send with `status` if there is no news.
    pub fn trouble(&self, derived: &DerivedKeys, status: u16, trouble: Trouble) -> Vec<u8> {
        let mut reply = self.begin(derived, status, 2, 1);
        reply.push(trouble.code());
        sign_reply(derived, reply)
    }

    fn begin(&self, derived: &DerivedKeys, status: u16, form: u8, more: usize) -> Vec<u8> {
        let mut reply = begin_reply(REPLY, derived, &self.digest, status, more.saturating_add(1));
        reply.push(form);
        reply
    }
}

impl Trouble {
    pub const ALL: [Trouble; 12] = [
        Trouble::Store(StoreError::StoreRefused),
        Trouble::Store(StoreError::StoreSlow),
        Trouble::Store(StoreError::StoreFailed),
        Trouble::Store(StoreError::StoreChanged),
        Trouble::Store(StoreError::StoreUnsafe),
        Trouble::Store(StoreError::RetentionTooShort),
        Trouble::Store(StoreError::ToleranceTooShort),
        Trouble::Store(StoreError::ClockBehind),
        Trouble::Store(StoreError::RegionsBehind),
        Trouble::Incomplete,
        Trouble::TooManyFollowers,
        Trouble::Disabled,
    ];

    /// Codes are never reused. Those of the store are below 128.
    pub fn code(self) -> u8 {
        match self {
            Trouble::Store(error) => error.code(),
            Trouble::Incomplete => 128,
            Trouble::TooManyFollowers => 129,
            Trouble::Disabled => 130,
        }
    }

    /// The rest of a reply, which is nothing else. `None`: it is not.
    pub(crate) fn read(read: &mut Reader<'_>) -> Option<Self> {
        let code = read.byte()?;
        Self::ALL.into_iter().find(|trouble| trouble.code() == code).filter(|_| read.0.is_empty())
    }

    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::Store(error) => error.name(),
            Trouble::Incomplete => "incomplete",
            Trouble::TooManyFollowers => "too_many_followers",
            Trouble::Disabled => "disabled",
        }
    }
}

/// Exactly one reply of this form, and nothing after it.
fn read_reply(read: &mut Reader<'_>, form: u8, asks_about_regions: bool) -> Option<Reply> {
    let keeps = Retention::read(read)?;
    let regions = RegionsMoment::read(read, asks_about_regions)?;
    let cursor = Cursor::read(read)?;
    let news = if form == 0 { read_keys(read)? } else { read_piece(read)? };
    read.0.is_empty().then_some(Reply { keeps, regions, cursor, news })
}

fn read_keys(read: &mut Reader<'_>) -> Option<News> {
    let complete_millis = i32::from_be_bytes(read.take()?);
    let more = match read.byte()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let count = usize::from(u16::from_be_bytes(read.take()?));
    let (keys, rest) = read.slice(count.checked_mul(16)?)?.as_chunks::<16>();
    (count <= MAX_KEYS && rest.is_empty()).then(|| News::Keys {
        complete_millis,
        more,
        keys: keys.iter().copied().map(RevocationKey).collect(),
    })
}

fn read_piece(read: &mut Reader<'_>) -> Option<News> {
    let piece = u16::from_be_bytes(read.take()?);
    let pieces = u16::from_be_bytes(read.take()?);
    let membership = Membership::read(std::mem::take(&mut read.0)).ok()?;
    (piece < pieces && pieces <= MAX_PIECES).then_some(News::Piece { piece, pieces, membership })
}

#[cfg(test)]
mod tests;
