//! `POST /v1/check`: many keys asked, one answer each, in order; both directions authenticated over the raw bytes.
//!
//! ```text
//! question  "PCQ2" | secret id 8 | nonce 16 | retention u32 | iat lead u16 | now u64 | count u16 | key 16 × count | mac 32
//! reply     "PCR1" | secret id 8 | SHA-256 of the question 32 | status u16 | form u8 | … | mac 32
//!           form 0: count u16 | answer × count     answer: 0 live, 1 dead, 2 before + seconds u64
//!           form 1: trouble u8
//! ```
//! Integers are big-endian. The nonce is in the question that the reply's digest covers, so a reply fits one
//! question only: it cannot be replayed, moved to other keys, or given another HTTP status.
use hmac::Mac;
use sha2::{Digest, Sha256};

use crate::{Answer, Derived, RevocationKey, SecretId};

pub const PATH: &str = "/v1/check";
pub const CONTENT_TYPE: &str = "application/vnd.portcullis.check";

/// The most keys in one question.
pub const MAX_KEYS: usize = 512;
/// The most bytes of a question that a service need read.
pub const MAX_QUESTION_BYTES: usize = 44 + 16 * MAX_KEYS + MAC;
/// The most bytes of a reply that a filter need read.
pub const MAX_REPLY_BYTES: usize = 49 + 9 * MAX_KEYS + MAC;

const MAC: usize = 32;
const QUESTION: &[u8; 4] = b"PCQ2";
const REPLY: &[u8; 4] = b"PCR1";

/// Why the service cannot tell. Each has an HTTP status of its own class: 4xx blames the question, 5xx the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Redis refused or closed the connection.
    StoreRefused,
    /// Redis did not answer in time.
    StoreSlow,
    /// Redis answered with an error.
    StoreFailed,
    /// The store is not the one that we were told to use: its sentinel is missing or another's.
    StoreChanged,
    /// The store may forget revocations (its eviction policy), so its silence proves nothing.
    StoreUnsafe,
    /// The service keeps revocations for a shorter time than the filter accepts tokens.
    RetentionTooShort,
    /// The service counts on issuers' clocks to run ahead by less than the filter lets them.
    LeadTooShort,
    /// The service's clock is behind the asker's: it would count tokens as issued after a revocation that were not.
    ClockBehind,
}

/// What the asker's answers to its own clients rest on, for the service to refuse if it cannot keep up with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// How long revocations must be kept.
    pub retention_seconds: u32,
    /// How far in the asker's future a token may be issued.
    pub iat_lead_seconds: u16,
    /// The asker's wall clock, in whole seconds since 1970.
    pub now_seconds: u64,
}

/// A question, as the filter sends it.
#[derive(Debug, Clone)]
pub struct Question {
    bytes: Vec<u8>,
    digest: [u8; 32],
    count: usize,
}

/// A question, as the service received it, its MAC checked.
#[derive(Debug, Clone)]
pub struct Asked {
    secret: usize,
    digest: [u8; 32],
    needs: Needs,
    keys: Vec<RevocationKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error("the question is not of the check's form")]
    Malformed,
    #[error("the question was made with a secret that is not ours")]
    UnknownSecret,
    #[error("the question's MAC does not match")]
    Forged,
    #[error("a question takes 1 to {max} keys", max = MAX_KEYS)]
    Count,
}

/// Why a reply proves nothing. All of these are "cannot tell" for the whole batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("the reply is not of the check's form")]
    Malformed,
    #[error("the reply was made with another secret")]
    OtherSecret,
    #[error("the reply's MAC does not match")]
    Forged,
    #[error("the reply answers another question")]
    OtherQuestion,
    #[error("the reply's HTTP status is not the one it was made with")]
    OtherStatus,
    #[error("the reply's answers do not match the keys that were asked")]
    Answers,
}

impl Trouble {
    /// Its place in [`Trouble::ALL`].
    pub const fn place(self) -> usize {
        self as usize
    }

    pub const ALL: [Trouble; 8] = [
        Trouble::StoreRefused,
        Trouble::StoreSlow,
        Trouble::StoreFailed,
        Trouble::StoreChanged,
        Trouble::StoreUnsafe,
        Trouble::RetentionTooShort,
        Trouble::LeadTooShort,
        Trouble::ClockBehind,
    ];

    /// Codes are never reused.
    pub fn code(self) -> u8 {
        match self {
            Trouble::StoreRefused => 1,
            Trouble::StoreSlow => 2,
            Trouble::StoreFailed => 3,
            Trouble::StoreChanged => 4,
            Trouble::StoreUnsafe => 5,
            Trouble::RetentionTooShort => 6,
            Trouble::LeadTooShort => 7,
            Trouble::ClockBehind => 8,
        }
    }

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Trouble::StoreRefused => "store_refused",
            Trouble::StoreSlow => "store_slow",
            Trouble::StoreFailed => "store_failed",
            Trouble::StoreChanged => "store_changed",
            Trouble::StoreUnsafe => "store_unsafe",
            Trouble::RetentionTooShort => "retention_too_short",
            Trouble::LeadTooShort => "lead_too_short",
            Trouble::ClockBehind => "clock_behind",
        }
    }
}

impl Question {
    /// `nonce` never repeats under one secret.
    ///
    /// # Errors
    /// [`QuestionError::Count`] for no key, or more than [`MAX_KEYS`].
    pub fn new(
        derived: &Derived,
        nonce: [u8; 16],
        needs: Needs,
        keys: &[RevocationKey],
    ) -> Result<Self, QuestionError> {
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(QuestionError::Count);
        }
        let count = u16::try_from(keys.len()).map_err(|_| QuestionError::Count)?;
        let mut bytes = Vec::with_capacity(MAX_QUESTION_BYTES.min(keys.len().saturating_mul(16).saturating_add(76)));
        bytes.extend_from_slice(QUESTION);
        bytes.extend_from_slice(&derived.id().0);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&needs.retention_seconds.to_be_bytes());
        bytes.extend_from_slice(&needs.iat_lead_seconds.to_be_bytes());
        bytes.extend_from_slice(&needs.now_seconds.to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        for key in keys {
            bytes.extend_from_slice(&key.0);
        }
        let mut mac = derived.request_mac();
        mac.update(&bytes);
        bytes.extend_from_slice(&mac.finalize().into_bytes());
        let digest = Sha256::digest(&bytes).into();
        Ok(Self { bytes, digest, count: keys.len() })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the reply that came with HTTP status `status`: one answer for each key asked, in order, or the
    /// service's own trouble.
    ///
    /// # Errors
    /// Whatever does not prove that our service answered just this question.
    pub fn read_reply(
        &self,
        derived: &Derived,
        status: u16,
        body: &[u8],
    ) -> Result<Result<Vec<Answer>, Trouble>, ReplyError> {
        if body.len() > MAX_REPLY_BYTES {
            return Err(ReplyError::Malformed);
        }
        let (signed, mac) = body.split_last_chunk::<MAC>().ok_or(ReplyError::Malformed)?;
        let mut read = Reader(signed);
        if &read.take::<4>().ok_or(ReplyError::Malformed)? != REPLY {
            return Err(ReplyError::Malformed);
        }
        if SecretId(read.take().ok_or(ReplyError::Malformed)?) != derived.id() {
            return Err(ReplyError::OtherSecret);
        }
        let mut expected = derived.reply_mac();
        expected.update(signed);
        expected.verify_slice(mac).map_err(|_| ReplyError::Forged)?;
        if read.take::<32>().ok_or(ReplyError::Malformed)? != self.digest {
            return Err(ReplyError::OtherQuestion);
        }
        if u16::from_be_bytes(read.take().ok_or(ReplyError::Malformed)?) != status {
            return Err(ReplyError::OtherStatus);
        }
        match read.byte() {
            // Answers under any other status than 200 are not an answer, whoever signed them.
            Some(0) if status == 200 => read.answers(self.count).map(Ok).ok_or(ReplyError::Answers),
            Some(1) => {
                let code = read.byte().ok_or(ReplyError::Malformed)?;
                let trouble = Trouble::ALL.into_iter().find(|trouble| trouble.code() == code);
                if !read.0.is_empty() {
                    return Err(ReplyError::Malformed);
                }
                trouble.map(Err).ok_or(ReplyError::Malformed)
            }
            _ => Err(ReplyError::Malformed),
        }
    }
}

impl Asked {
    /// Reads and authenticates a question against every live secret.
    ///
    /// # Errors
    /// See [`QuestionError`]; the bytes prove nothing then, and the reply cannot be authenticated either.
    pub fn read(secrets: &[Derived], body: &[u8]) -> Result<Self, QuestionError> {
        if body.len() > MAX_QUESTION_BYTES {
            return Err(QuestionError::Malformed);
        }
        let (signed, mac) = body.split_last_chunk::<MAC>().ok_or(QuestionError::Malformed)?;
        let mut read = Reader(signed);
        if &read.take::<4>().ok_or(QuestionError::Malformed)? != QUESTION {
            return Err(QuestionError::Malformed);
        }
        let id = SecretId(read.take().ok_or(QuestionError::Malformed)?);
        let (secret, derived) =
            secrets.iter().enumerate().find(|(_, derived)| derived.id() == id).ok_or(QuestionError::UnknownSecret)?;
        let mut expected = derived.request_mac();
        expected.update(signed);
        expected.verify_slice(mac).map_err(|_| QuestionError::Forged)?;
        let _nonce: [u8; 16] = read.take().ok_or(QuestionError::Malformed)?;
        let needs = Needs {
            retention_seconds: u32::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?),
            iat_lead_seconds: u16::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?),
            now_seconds: u64::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?),
        };
        let count = usize::from(u16::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?));
        if count == 0 || count > MAX_KEYS {
            return Err(QuestionError::Count);
        }
        let mut keys = Vec::with_capacity(count);
        while let Some(key) = read.take() {
            keys.push(RevocationKey(key));
        }
        if keys.len() != count || !read.0.is_empty() {
            return Err(QuestionError::Malformed);
        }
        Ok(Self { secret, digest: Sha256::digest(body).into(), needs, keys })
    }

    /// Which of the secrets given to [`Asked::read`] made the question: the reply must use the same.
    pub fn secret(&self) -> usize {
        self.secret
    }

    pub fn keys(&self) -> &[RevocationKey] {
        &self.keys
    }

    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The body to send with status 200. `answers` are in the order of [`Asked::keys`].
    pub fn answers(&self, derived: &Derived, answers: &[Answer]) -> Vec<u8> {
        let mut reply = self.begin(derived, 200, 0, answers.len().saturating_mul(9));
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
        sign(derived, reply)
    }

    /// The body to send with `status` when no answer can be given.
    pub fn trouble(&self, derived: &Derived, status: u16, trouble: Trouble) -> Vec<u8> {
        let mut reply = self.begin(derived, status, 1, 1);
        reply.push(trouble.code());
        sign(derived, reply)
    }

    fn begin(&self, derived: &Derived, status: u16, form: u8, more: usize) -> Vec<u8> {
        let mut reply = Vec::with_capacity(more.saturating_add(81));
        reply.extend_from_slice(REPLY);
        reply.extend_from_slice(&derived.id().0);
        reply.extend_from_slice(&self.digest);
        reply.extend_from_slice(&status.to_be_bytes());
        reply.push(form);
        reply
    }
}

fn sign(derived: &Derived, mut reply: Vec<u8>) -> Vec<u8> {
    let mut mac = derived.reply_mac();
    mac.update(&reply);
    reply.extend_from_slice(&mac.finalize().into_bytes());
    reply
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// Exactly `count` answers and nothing after them.
    fn answers(&mut self, count: usize) -> Option<Vec<Answer>> {
        if usize::from(u16::from_be_bytes(self.take()?)) != count {
            return None;
        }
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(match self.byte()? {
                0 => Answer::Live,
                1 => Answer::Dead,
                2 => Answer::Before(u64::from_be_bytes(self.take()?)),
                _ => return None,
            });
        }
        self.0.is_empty().then_some(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn derived(byte: u8) -> Derived {
        Secret::new(&[byte; 32]).unwrap().derive()
    }

    fn keys(n: u8) -> Vec<RevocationKey> {
        (0..n).map(|i| RevocationKey([i; 16])).collect()
    }

    const NEEDS: Needs = Needs { retention_seconds: 86_400, iat_lead_seconds: 7, now_seconds: 1_700_000_000 };

    fn exchange(answers: &[Answer]) -> (Derived, Question, Vec<u8>) {
        let ours = derived(1);
        let question = Question::new(&ours, [9; 16], NEEDS, &keys(answers.len() as u8)).unwrap();
        let secrets = [derived(2), ours.clone()];
        let asked = Asked::read(&secrets, question.bytes()).unwrap();
        assert_eq!((asked.secret(), asked.needs()), (1, NEEDS));
        assert_eq!(asked.keys(), keys(answers.len() as u8));
        let reply = asked.answers(&secrets[1], answers);
        (ours, question, reply)
    }

    const MIXED: [Answer; 3] = [Answer::Live, Answer::Before(1_700_000_000), Answer::Dead];

    #[test]
    fn answers_come_back_in_order() {
        let (ours, question, reply) = exchange(&MIXED);
        assert_eq!(question.read_reply(&ours, 200, &reply), Ok(Ok(MIXED.to_vec())));
    }

    #[test]
    fn trouble_comes_back_with_its_own_status() {
        let ours = derived(1);
        let question = Question::new(&ours, [9; 16], NEEDS, &keys(1)).unwrap();
        let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
        for trouble in Trouble::ALL {
            let reply = asked.trouble(&ours, 503, trouble);
            assert_eq!(question.read_reply(&ours, 503, &reply), Ok(Err(trouble)));
            assert_eq!(question.read_reply(&ours, 200, &reply), Err(ReplyError::OtherStatus));
        }
    }

    #[test]
    fn every_changed_byte_of_a_reply_is_noticed() {
        let (ours, question, reply) = exchange(&MIXED);
        for at in 0..reply.len() {
            let mut bad = reply.clone();
            bad[at] ^= 1;
            assert!(question.read_reply(&ours, 200, &bad).is_err(), "byte {at}");
            assert!(question.read_reply(&ours, 200, &reply[..at]).is_err(), "cut at {at}");
        }
        let mut longer = reply.clone();
        longer.push(0);
        assert!(question.read_reply(&ours, 200, &longer).is_err());
        assert_eq!(question.read_reply(&ours, 200, b""), Err(ReplyError::Malformed));
    }

    #[test]
    fn every_changed_byte_of_a_question_is_noticed() {
        let ours = derived(1);
        let question = Question::new(&ours, [9; 16], NEEDS, &keys(2)).unwrap();
        for at in 0..question.bytes().len() {
            let mut bad = question.bytes().to_vec();
            bad[at] ^= 1;
            assert!(Asked::read(std::slice::from_ref(&ours), &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_reply_to_an_earlier_question_is_refused_even_for_the_same_keys() {
        let (ours, _, reply) = exchange(&MIXED);
        let again = Question::new(&ours, [8; 16], NEEDS, &keys(3)).unwrap();
        assert_eq!(again.read_reply(&ours, 200, &reply), Err(ReplyError::OtherQuestion));
    }

    #[test]
    fn a_question_cannot_be_reflected_as_its_own_reply() {
        let (ours, question, _) = exchange(&MIXED);
        assert_eq!(question.read_reply(&ours, 200, question.bytes()), Err(ReplyError::Malformed));
    }

    #[test]
    fn a_wrong_count_or_an_unknown_answer_is_refused_though_signed() {
        let ours = derived(1);
        let question = Question::new(&ours, [9; 16], NEEDS, &keys(2)).unwrap();
        let asked = Asked::read(std::slice::from_ref(&ours), question.bytes()).unwrap();
        let short = asked.answers(&ours, &[Answer::Live]);
        assert_eq!(question.read_reply(&ours, 200, &short), Err(ReplyError::Answers));
        let mut odd = asked.begin(&ours, 200, 0, 0);
        odd.extend_from_slice(&[0, 2, 0, 3]);
        let odd = sign(&ours, odd);
        assert_eq!(question.read_reply(&ours, 200, &odd), Err(ReplyError::Answers));
    }

    #[test]
    fn a_question_takes_one_key_to_the_most_and_no_more() {
        let ours = derived(1);
        assert_eq!(Question::new(&ours, [0; 16], NEEDS, &[]).unwrap_err(), QuestionError::Count);
        let most = vec![RevocationKey([0; 16]); MAX_KEYS + 1];
        assert_eq!(Question::new(&ours, [0; 16], NEEDS, &most).unwrap_err(), QuestionError::Count);
        let question = Question::new(&ours, [0; 16], NEEDS, &most[..MAX_KEYS]).unwrap();
        assert_eq!(question.bytes().len(), MAX_QUESTION_BYTES);
        assert!(Asked::read(&[ours], question.bytes()).is_ok());
    }

    #[test]
    fn another_secret_is_told_apart_from_a_forgery() {
        let (_, question, reply) = exchange(&MIXED);
        assert_eq!(question.read_reply(&derived(3), 200, &reply), Err(ReplyError::OtherSecret));
        assert_eq!(Asked::read(&[derived(3)], question.bytes()).unwrap_err(), QuestionError::UnknownSecret);
    }
}
