//! `POST /v1/check`: many keys, one answer for each, in order; both directions are authenticated over the raw bytes.
//! From time to time a filter sends its issuers ([`NamedIssuer`]) instead of keys.
//!
//! ```text
//! question  "PCQ3" | secret id 8 | nonce 16 | future-iat tolerance u16 | now u64 | count u16 | key 16 × count | mac 32
//!           "PCQ4" | … | key 16 × count | count u16 | proof × count | mac 32     proof: digest 16 | seconds u16
//! issuers   "PCI1" | secret id 8 | nonce 16 | future-iat tolerance u16 | now u64 | count u16 | issuer × count | mac 32
//!           issuer: retention | kinds u8 | length u16 | iss
//! reply     "PCR2" | secret id 8 | SHA-256 of the question 32 | status u16 | form u8 | … | mac 32
//!           form 0: retention | regions | count u16 | answer × count     answer: 0 live, 1 dead, 2 before + seconds u64
//!           "PCR3", to "PCQ4": … | count u16 | claim × count     claim: 0 first, 1 again, 2 cannot tell
//!           form 1: trouble u8
//! retention token u32 | login u32
//! regions   i32, only if the question asks for it: see [`RegionsMoment`] (its least value: unknown)
//! ```
//! "PCQ4" also claims proofs of possession, each of which counts once. A service that does not know it refuses it, and the
//! filter then refuses the requests.
//! Integers are big-endian. The reply's digest covers the question with its nonce, so a reply fits only one question: it
//! cannot be replayed, moved to other keys, or given another HTTP status.
use crate::message::{
    Form, MAC, REQUEST_HEAD, Reader, Request, RequestError, begin_reply, begin_request, open_reply, open_request,
    sign_reply, sign_request,
};
use crate::{Answer, DerivedKeys, Kinds, RevocationKey};

pub use crate::message::{Needs, RegionsMoment, ReplyError};

mod store_error;

pub use store_error::StoreError;

pub const PATH: &str = "/v1/check";
pub const CONTENT_TYPE: &str = "application/vnd.portcullis.check";

/// The most keys in one check.
pub const MAX_KEYS: usize = 512;
/// The most proofs that one check claims.
pub const MAX_PROOFS: usize = 256;
/// The most bytes of a check that a service needs to read.
pub const MAX_QUESTION_BYTES: usize = MAX_BYTES_WITHOUT_PROOFS + 2 + 18 * MAX_PROOFS;
/// The most bytes of a check without proofs, and of one that names issuers.
const MAX_BYTES_WITHOUT_PROOFS: usize = HEAD + 16 * MAX_KEYS + MAC;
/// The most bytes of a reply that a filter needs to read.
pub const MAX_REPLY_BYTES: usize = 61 + 9 * MAX_KEYS + 2 + MAX_PROOFS + MAC;
/// The longest issuer that can be named.
pub const MAX_ISSUER_BYTES: usize = 2048;

/// The bytes before the keys or issuers.
const HEAD: usize = REQUEST_HEAD + 2;
const QUESTION: &Form = b"PCQ3";
const ISSUERS: &Form = b"PCI1";
const REPLY: &Form = b"PCR2";
const QUESTION_WITH_PROOFS: &Form = b"PCQ4";
const REPLY_WITH_CLAIMS: &Form = b"PCR3";

/// How long revocations are kept, or must be, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Of single tokens: the longest lifetime of a token.
    pub token: u32,
    /// Of sessions, users, clients and issuers: how long a login can give new tokens.
    pub login: u32,
}

/// An issuer whose tokens a filter checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedIssuer {
    /// The value of `iss`.
    pub issuer: String,
    /// How long revocations must be kept for its tokens.
    pub needs: Retention,
    /// The kinds that are checked and that their claims allow: a revocation of another kind has no effect.
    pub kinds: Kinds,
}

/// A proof of possession that must not have been used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UsedProof {
    /// Names the proof.
    pub digest: [u8; 16],
    /// How long its use must be remembered.
    pub seconds: u16,
}

/// Was a proof used before?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    First,
    Again,
    /// The store could not be asked.
    Unknown,
}

/// A check, as the filter sends it.
#[derive(Debug, Clone)]
pub struct Question {
    bytes: Vec<u8>,
    digest: [u8; 32],
    count: usize,
    proofs: usize,
    asks_about_regions: bool,
}

/// A check, as the service received it, with a valid MAC.
#[derive(Debug, Clone)]
pub struct Asked {
    secret: usize,
    digest: [u8; 32],
    needs: Needs,
    /// What the reply says of regions, if the question asks for it.
    regions: Option<RegionsMoment>,
    keys: Vec<RevocationKey>,
    issuers: Vec<NamedIssuer>,
    proofs: Vec<UsedProof>,
}

/// The service's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its retention.
    pub keeps: Retention,
    /// Unknown also if the question did not ask for it.
    pub regions: RegionsMoment,
    /// One for each key, in order.
    pub answers: Vec<Answer>,
    /// One for each proof, in order.
    pub claims: Vec<Claimed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error("the message is not a check")]
    Malformed,
    #[error("the check was made with another secret")]
    UnknownSecret,
    #[error("the MAC of the check does not match")]
    Forged,
    #[error("a check has 1 to {max} keys", max = MAX_KEYS)]
    Count,
    #[error("an issuer has 1 to {max} bytes, and all must fit into one message", max = MAX_ISSUER_BYTES)]
    Issuers,
}

impl From<RequestError> for QuestionError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Malformed => QuestionError::Malformed,
            RequestError::UnknownSecret => QuestionError::UnknownSecret,
            RequestError::Forged => QuestionError::Forged,
        }
    }
}

impl Retention {
    pub const LONGEST: Self = Self { token: u32::MAX, login: u32::MAX };

    /// Is this retention at least `needed`?
    pub fn covers(self, needed: Self) -> bool {
        self.token >= needed.token && self.login >= needed.login
    }

    pub(crate) fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { token: u32::from_be_bytes(read.take()?), login: u32::from_be_bytes(read.take()?) })
    }

    pub(crate) fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.token.to_be_bytes());
        bytes.extend_from_slice(&self.login.to_be_bytes());
    }
}

impl NamedIssuer {
    fn len(&self) -> usize {
        self.issuer.len().saturating_add(11)
    }
}

/// Splits `issuers` into parts that fit one message each.
pub fn pieces(issuers: &[NamedIssuer]) -> Vec<&[NamedIssuer]> {
    const ROOM: usize = MAX_BYTES_WITHOUT_PROOFS - HEAD - MAC;
    let mut pieces = Vec::new();
    let mut rest = issuers;
    while !rest.is_empty() {
        let mut room = ROOM;
        let fit = rest.iter().take(MAX_KEYS).take_while(|issuer| {
            let fits = issuer.len() <= room;
            room = room.saturating_sub(issuer.len());
            fits
        });
        // At least one, so that the loop ends; an issuer that is too long is refused later.
        let (piece, more) = rest.split_at(fit.count().max(1));
        pieces.push(piece);
        rest = more;
    }
    pieces
}

impl Question {
    /// `nonce` must never repeat under one secret.
    ///
    /// # Errors
    /// [`QuestionError::Count`] for no key, or more than [`MAX_KEYS`].
    pub fn new(
        derived: &DerivedKeys,
        nonce: [u8; 16],
        needs: Needs,
        keys: &[RevocationKey],
    ) -> Result<Self, QuestionError> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(QuestionError::Count);
        }
        let mut bytes = begin(QUESTION, derived, nonce, needs, keys.len(), keys.len().saturating_mul(16))?;
        for key in keys {
            bytes.extend_from_slice(&key.0);
        }
        Ok(Self::signed(derived, bytes, needs, (keys.len(), 0)))
    }

    /// The same, and claims proofs. There may be no key.
    ///
    /// # Errors
    /// [`QuestionError::Count`] for more than [`MAX_KEYS`] keys, no proof, or more than [`MAX_PROOFS`].
    pub fn with_proofs(
        derived: &DerivedKeys,
        nonce: [u8; 16],
        needs: Needs,
        keys: &[RevocationKey],
        proofs: &[UsedProof],
    ) -> Result<Self, QuestionError> {
        if keys.len() > MAX_KEYS || proofs.is_empty() || proofs.len() > MAX_PROOFS {
            return Err(QuestionError::Count);
        }
        let size = keys.len().saturating_mul(16).saturating_add(proofs.len().saturating_mul(18)).saturating_add(2);
        let mut bytes = begin(QUESTION_WITH_PROOFS, derived, nonce, needs, keys.len(), size)?;
        for key in keys {
            bytes.extend_from_slice(&key.0);
        }
        let count = u16::try_from(proofs.len()).map_err(|_| QuestionError::Count)?;
        bytes.extend_from_slice(&count.to_be_bytes());
        for proof in proofs {
            bytes.extend_from_slice(&proof.digest);
            bytes.extend_from_slice(&proof.seconds.to_be_bytes());
        }
        Ok(Self::signed(derived, bytes, needs, (keys.len(), proofs.len())))
    }

    /// Reports the issuers that are checked, one of the [`pieces`]; `nonce` as for [`Question::new`].
    ///
    /// # Errors
    /// [`QuestionError::Issuers`] for an issuer that is empty or too long, or more than fit.
    pub fn about_issuers(
        derived: &DerivedKeys,
        nonce: [u8; 16],
        needs: Needs,
        issuers: &[NamedIssuer],
    ) -> Result<Self, QuestionError> {
        let size = issuers.iter().map(NamedIssuer::len).fold(0, usize::saturating_add);
        let mut bytes = begin(ISSUERS, derived, nonce, needs, issuers.len(), size)?;
        for named in issuers {
            let length = u16::try_from(named.issuer.len()).map_err(|_| QuestionError::Issuers)?;
            if length == 0 || named.issuer.len() > MAX_ISSUER_BYTES {
                return Err(QuestionError::Issuers);
            }
            named.needs.write(&mut bytes);
            bytes.push(named.kinds.byte());
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(named.issuer.as_bytes());
        }
        if bytes.len().saturating_add(MAC) > MAX_BYTES_WITHOUT_PROOFS {
            return Err(QuestionError::Issuers);
        }
        Ok(Self::signed(derived, bytes, needs, (0, 0)))
    }

    fn signed(derived: &DerivedKeys, bytes: Vec<u8>, needs: Needs, (count, proofs): (usize, usize)) -> Self {
        let (bytes, digest) = sign_request(derived, bytes);
        Self { bytes, digest, count, proofs, asks_about_regions: needs.asks_about_regions() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the reply that came with HTTP status `status`: one answer for each key, in order, or the reason why the
    /// service cannot answer.
    ///
    /// # Errors
    /// Anything that does not prove that our service answered this check.
    pub fn read_reply(
        &self,
        derived: &DerivedKeys,
        status: u16,
        body: &[u8],
    ) -> Result<Result<Reply, StoreError>, ReplyError> {
        if body.len() > MAX_REPLY_BYTES {
            return Err(ReplyError::Malformed);
        }
        let form = if self.proofs == 0 { REPLY } else { REPLY_WITH_CLAIMS };
        let mut read = open_reply(form, derived, &self.digest, status, body)?;
        match read.byte() {
            // Answers count only under status 200, even with a valid MAC.
            Some(0) if status == 200 => {
                let keeps = Retention::read(&mut read).ok_or(ReplyError::Malformed)?;
                let regions = RegionsMoment::read(&mut read, self.asks_about_regions).ok_or(ReplyError::Malformed)?;
                let answers = read_answers(&mut read, self.count).ok_or(ReplyError::Answers)?;
                let claims = read_claims(&mut read, self.proofs).ok_or(ReplyError::Answers)?;
                if !read.0.is_empty() {
                    return Err(ReplyError::Answers);
                }
                Ok(Ok(Reply { keeps, regions, answers, claims }))
            }
            Some(1) => {
                let code = read.byte().ok_or(ReplyError::Malformed)?;
                let error = StoreError::ALL.into_iter().find(|error| error.code() == code);
                if !read.0.is_empty() {
                    return Err(ReplyError::Malformed);
                }
                error.map(Err).ok_or(ReplyError::Malformed)
            }
            _ => Err(ReplyError::Malformed),
        }
    }
}

impl Asked {
    /// Reads and authenticates a check against every live secret.
    ///
    /// # Errors
    /// See [`QuestionError`]; the bytes prove nothing then, and the reply cannot be authenticated either.
    pub fn read(secrets: &[DerivedKeys], body: &[u8]) -> Result<Self, QuestionError> {
        if body.len() > MAX_QUESTION_BYTES {
            return Err(QuestionError::Malformed);
        }
        let Request { form, secret, digest, needs, asks_about_regions, content: mut read } =
            open_request(&[QUESTION, QUESTION_WITH_PROOFS, ISSUERS], secrets, body)?;
        let (is_about_issuers, has_proofs) = (form == *ISSUERS, form == *QUESTION_WITH_PROOFS);
        let count = usize::from(u16::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?));
        if (count == 0 && !has_proofs) || count > MAX_KEYS {
            return Err(QuestionError::Count);
        }
        let (mut keys, mut issuers) = (Vec::new(), Vec::new());
        match is_about_issuers {
            false => keys.reserve(count),
            true => issuers.reserve(count),
        }
        for _ in 0..count {
            match is_about_issuers {
                false => keys.push(RevocationKey(read.take().ok_or(QuestionError::Malformed)?)),
                true => issuers.push(read_issuer(&mut read).ok_or(QuestionError::Malformed)?),
            }
        }
        let proofs = if has_proofs { read_proofs(&mut read)? } else { Vec::new() };
        if !read.0.is_empty() {
            return Err(QuestionError::Malformed);
        }
        let regions = asks_about_regions.then_some(RegionsMoment::UNKNOWN);
        Ok(Self { secret, digest, needs, regions, keys, issuers, proofs })
    }

    /// Proofs to be claimed.
    pub fn proofs(&self) -> &[UsedProof] {
        &self.proofs
    }

    /// Which of the secrets given to [`Asked::read`] made the check: the reply must use the same.
    pub fn secret(&self) -> usize {
        self.secret
    }

    pub fn keys(&self) -> &[RevocationKey] {
        &self.keys
    }

    /// Empty for a check of keys.
    pub fn issuers(&self) -> &[NamedIssuer] {
        &self.issuers
    }

    pub fn needs(&self) -> Needs {
        self.needs
    }

    pub fn asks_about_regions(&self) -> bool {
        self.regions.is_some()
    }

    /// What the reply says of regions. Without it, or if it was not asked for: unknown, or nothing.
    #[must_use]
    pub fn with_regions(self, moment: RegionsMoment) -> Self {
        Self { regions: self.regions.map(|_| moment), ..self }
    }

    /// The body to send with status 200. `answers` are in the order of [`Asked::keys`], `claims` in that of
    /// [`Asked::proofs`].
    pub fn answers(&self, derived: &DerivedKeys, keeps: Retention, answers: &[Answer], claims: &[Claimed]) -> Vec<u8> {
        let size = answers.len().saturating_mul(9).saturating_add(claims.len()).saturating_add(16);
        let mut reply = self.begin(derived, 200, 0, size);
        keeps.write(&mut reply);
        if let Some(regions) = self.regions {
            regions.write(&mut reply);
        }
        let count = u16::try_from(answers.len()).unwrap_or(u16::MAX);
        reply.extend_from_slice(&count.to_be_bytes());
        for answer in answers {
            match answer {
                Answer::Live => reply.push(0),
                Answer::Dead => reply.push(1),
                Answer::Before(before) => {
                    reply.push(2);
                    reply.extend_from_slice(&before.to_be_bytes());
                }
            }
        }
        if !self.proofs.is_empty() {
            reply.extend_from_slice(&u16::try_from(claims.len()).unwrap_or(u16::MAX).to_be_bytes());
            reply.extend(claims.iter().map(|claim| match claim {
                Claimed::First => 0,
                Claimed::Again => 1,
                Claimed::Unknown => 2,
            }));
        }
        sign_reply(derived, reply)
    }

    /// The body to send with `status` if there are no answers.
    pub fn error(&self, derived: &DerivedKeys, status: u16, error: StoreError) -> Vec<u8> {
        let mut reply = self.begin(derived, status, 1, 1);
        reply.push(error.code());
        sign_reply(derived, reply)
    }

    fn begin(&self, derived: &DerivedKeys, status: u16, form: u8, more: usize) -> Vec<u8> {
        let kind = if self.proofs.is_empty() { REPLY } else { REPLY_WITH_CLAIMS };
        let mut reply = begin_reply(kind, derived, &self.digest, status, more.saturating_add(1));
        reply.push(form);
        reply
    }
}

fn begin(
    form: &Form,
    derived: &DerivedKeys,
    nonce: [u8; 16],
    needs: Needs,
    count: usize,
    size: usize,
) -> Result<Vec<u8>, QuestionError> {
    let count = u16::try_from(count).map_err(|_| QuestionError::Count)?;
    let most = MAX_QUESTION_BYTES.saturating_sub(HEAD).saturating_sub(MAC);
    let mut bytes = begin_request(form, derived, nonce, needs, size.min(most).saturating_add(2));
    bytes.extend_from_slice(&count.to_be_bytes());
    Ok(bytes)
}

/// An issuer as [`NamedIssuer`] has it.
fn read_issuer(read: &mut Reader<'_>) -> Option<NamedIssuer> {
    let needs = Retention::read(read)?;
    let kinds = Kinds::from_byte(read.byte()?);
    let length = usize::from(u16::from_be_bytes(read.take()?));
    let issuer = read.slice(length)?;
    if issuer.is_empty() || length > MAX_ISSUER_BYTES {
        return None;
    }
    Some(NamedIssuer { issuer: std::str::from_utf8(issuer).ok()?.to_owned(), needs, kinds })
}

fn read_proofs(read: &mut Reader<'_>) -> Result<Vec<UsedProof>, QuestionError> {
    let count = usize::from(u16::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?));
    if count == 0 || count > MAX_PROOFS {
        return Err(QuestionError::Count);
    }
    let mut proofs = Vec::with_capacity(count);
    for _ in 0..count {
        let digest = read.take().ok_or(QuestionError::Malformed)?;
        let seconds = u16::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?);
        proofs.push(UsedProof { digest, seconds });
    }
    Ok(proofs)
}

/// Exactly `count` claims; of none, not even their number.
fn read_claims(read: &mut Reader<'_>, count: usize) -> Option<Vec<Claimed>> {
    if count == 0 {
        return Some(Vec::new());
    }
    if usize::from(u16::from_be_bytes(read.take()?)) != count {
        return None;
    }
    let mut claims = Vec::with_capacity(count);
    for _ in 0..count {
        claims.push(match read.byte()? {
            0 => Claimed::First,
            1 => Claimed::Again,
            2 => Claimed::Unknown,
            _ => return None,
        });
    }
    Some(claims)
}

/// Exactly `count` answers.
fn read_answers(read: &mut Reader<'_>, count: usize) -> Option<Vec<Answer>> {
    if usize::from(u16::from_be_bytes(read.take()?)) != count {
        return None;
    }
    let mut answers = Vec::with_capacity(count);
    for _ in 0..count {
        answers.push(match read.byte()? {
            0 => Answer::Live,
            1 => Answer::Dead,
            2 => Answer::Before(u64::from_be_bytes(read.take()?)),
            _ => return None,
        });
    }
    Some(answers)
}

#[cfg(test)]
mod tests;
