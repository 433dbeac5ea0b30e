//! The envelope of a message between filter and service: what is before and after its content, in both directions.
//!
//! ```text
//! request  form 4 | secret id 8 | nonce 16 | future-iat tolerance u16 | now u64 | content | mac 32
//! reply    form 4 | secret id 8 | SHA-256 of the request 32 | status u16 | content | mac 32
//! ```
//! The highest bit of the tolerance asks how old the knowledge of other regions is. A service that does not know this bit takes
//! it for a tolerance that is too long, and refuses.
//!
//! The form says which message it is, so that one is never taken for another.
use hmac::Mac as _;
use sha2::{Digest as _, Sha256};

use crate::{DerivedKeys, SecretId};

pub(crate) type Form = [u8; 4];

pub(crate) const MAC: usize = 32;
/// The bytes before a request's content.
pub(crate) const REQUEST_HEAD: usize = 38;
/// The bytes before a reply's content.
pub(crate) const REPLY_HEAD: usize = 46;

/// The filter's assumptions. The service refuses the check if it cannot meet them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// How far in the filter's future a token may be issued.
    pub future_iat_tolerance_seconds: u16,
    /// The filter's wall clock, in whole seconds since 1970.
    pub now_seconds: u64,
}

const ASKS_ABOUT_REGIONS: u16 = 1 << 15;

impl Needs {
    /// The reply must say how old the service's knowledge of other regions is.
    #[must_use]
    pub fn asking_about_regions(self) -> Self {
        let future_iat_tolerance_seconds = self.future_iat_tolerance_seconds | ASKS_ABOUT_REGIONS;
        Self { future_iat_tolerance_seconds, ..self }
    }

    pub(crate) fn asks_about_regions(self) -> bool {
        self.future_iat_tolerance_seconds & ASKS_ABOUT_REGIONS != 0
    }
}

/// A moment as of which a service knows everything that was acknowledged in the other regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionsMoment(Option<i32>);

impl RegionsMoment {
    /// It cannot tell, or follows no region.
    pub const UNKNOWN: Self = Self(None);

    /// Milliseconds after the request was received, or before it if negative.
    pub fn of(millis: i32) -> Self {
        Self((millis != i32::MIN).then_some(millis))
    }

    pub fn millis(self) -> Option<i32> {
        self.0
    }

    /// Reads it if the request asked for it.
    pub(crate) fn read(read: &mut Reader<'_>, is_asked: bool) -> Option<Self> {
        if !is_asked {
            return Some(Self::UNKNOWN);
        }
        read.take().map(|bytes| Self::of(i32::from_be_bytes(bytes)))
    }

    pub(crate) fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0.unwrap_or(i32::MIN).to_be_bytes());
    }
}

/// A request whose MAC is valid.
pub(crate) struct Request<'b> {
    pub(crate) form: Form,
    /// Which of the live secrets made it.
    pub(crate) secret: usize,
    pub(crate) digest: [u8; 32],
    pub(crate) needs: Needs,
    pub(crate) asks_about_regions: bool,
    pub(crate) content: Reader<'b>,
}

/// Why a request proves nothing.
pub(crate) enum RequestError {
    Malformed,
    UnknownSecret,
    Forged,
}

/// Why a reply cannot be trusted. Any of these fails the whole batch closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("the reply is malformed")]
    Malformed,
    #[error("the reply was made with another secret")]
    OtherSecret,
    #[error("the reply's MAC does not match")]
    Forged,
    #[error("the reply answers another check")]
    OtherQuestion,
    #[error("the reply was made for another HTTP status")]
    OtherStatus,
    #[error("the reply's answers do not match the keys of the check")]
    Answers,
}

/// `more`: the length of the content.
pub(crate) fn begin_request(form: &Form, derived: &DerivedKeys, nonce: [u8; 16], needs: Needs, more: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(more.saturating_add(REQUEST_HEAD).saturating_add(MAC));
    bytes.extend_from_slice(form);
    bytes.extend_from_slice(&derived.id().0);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&needs.future_iat_tolerance_seconds.to_be_bytes());
    bytes.extend_from_slice(&needs.now_seconds.to_be_bytes());
    bytes
}

/// The whole request, and its digest.
pub(crate) fn sign_request(derived: &DerivedKeys, mut request: Vec<u8>) -> (Vec<u8>, [u8; 32]) {
    let mut mac = derived.request_mac();
    mac.update(&request);
    request.extend_from_slice(&mac.finalize().into_bytes());
    let digest = Sha256::digest(&request).into();
    (request, digest)
}

/// Authenticates a request of one of these forms against every live secret.
pub(crate) fn open_request<'b>(
    forms: &[&Form],
    secrets: &[DerivedKeys],
    body: &'b [u8],
) -> Result<Request<'b>, RequestError> {
    let (signed, mac) = body.split_last_chunk::<MAC>().ok_or(RequestError::Malformed)?;
    let mut content = Reader(signed);
    let form = content.take().filter(|form| forms.contains(&form)).ok_or(RequestError::Malformed)?;
    let id = SecretId(content.take().ok_or(RequestError::Malformed)?);
    let (secret, derived) =
        secrets.iter().enumerate().find(|(_, derived)| derived.id() == id).ok_or(RequestError::UnknownSecret)?;
    let mut expected = derived.request_mac();
    expected.update(signed);
    expected.verify_slice(mac).map_err(|_| RequestError::Forged)?;
    let _nonce: [u8; 16] = content.take().ok_or(RequestError::Malformed)?;
    let mut needs = Needs {
        future_iat_tolerance_seconds: u16::from_be_bytes(content.take().ok_or(RequestError::Malformed)?),
        now_seconds: u64::from_be_bytes(content.take().ok_or(RequestError::Malformed)?),
    };
    let asks_about_regions = needs.asks_about_regions();
    needs.future_iat_tolerance_seconds &= !ASKS_ABOUT_REGIONS;
    Ok(Request { form, secret, digest: Sha256::digest(body).into(), needs, asks_about_regions, content })
}

/// `digest`: of the request that it answers. `more`: the length of the content.
pub(crate) fn begin_reply(form: &Form, derived: &DerivedKeys, digest: &[u8; 32], status: u16, more: usize) -> Vec<u8> {
    let mut reply = Vec::with_capacity(more.saturating_add(REPLY_HEAD).saturating_add(MAC));
    reply.extend_from_slice(form);
    reply.extend_from_slice(&derived.id().0);
    reply.extend_from_slice(digest);
    reply.extend_from_slice(&status.to_be_bytes());
    reply
}

pub(crate) fn sign_reply(derived: &DerivedKeys, mut reply: Vec<u8>) -> Vec<u8> {
    let mut mac = derived.reply_mac();
    mac.update(&reply);
    reply.extend_from_slice(&mac.finalize().into_bytes());
    reply
}

/// The content of a reply to the request with this digest, which came with this HTTP status.
pub(crate) fn open_reply<'b>(
    form: &Form,
    derived: &DerivedKeys,
    digest: &[u8; 32],
    status: u16,
    body: &'b [u8],
) -> Result<Reader<'b>, ReplyError> {
    let (signed, mac) = body.split_last_chunk::<MAC>().ok_or(ReplyError::Malformed)?;
    let mut content = Reader(signed);
    if &content.take::<4>().ok_or(ReplyError::Malformed)? != form {
        return Err(ReplyError::Malformed);
    }
    if SecretId(content.take().ok_or(ReplyError::Malformed)?) != derived.id() {
        return Err(ReplyError::OtherSecret);
    }
    let mut expected = derived.reply_mac();
    expected.update(signed);
    expected.verify_slice(mac).map_err(|_| ReplyError::Forged)?;
    if &content.take::<32>().ok_or(ReplyError::Malformed)? != digest {
        return Err(ReplyError::OtherQuestion);
    }
    if u16::from_be_bytes(content.take().ok_or(ReplyError::Malformed)?) != status {
        return Err(ReplyError::OtherStatus);
    }
    Ok(content)
}

/// What is left to read. Nothing is read out of bounds.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}
