//! One refusal: its reason, its cause and the detail that varies.
use std::borrow::Cow;
use std::fmt;

use jose::{Extension, JwsError, Member, NoCandidate, ObjectError, Segment};

use super::{Cause, RejectReason};

/// The reason is for the client. The cause is for logs and `explain` only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: RejectReason,
    pub cause: Cause,
    /// What of it varies: names of fields, never a token, claim value, key or nonce.
    pub detail: Option<Cow<'static, str>>,
}

impl Rejection {
    pub const fn new(cause: Cause) -> Self {
        Self { reason: cause.reason(), cause, detail: None }
    }

    /// `detail` is from the configuration or from us: it is written to logs.
    pub fn with_detail(cause: Cause, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(cause) }
    }
}

impl From<Cause> for Rejection {
    fn from(cause: Cause) -> Self {
        Self::new(cause)
    }
}

/// The cause and its detail, for people.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            None => write!(f, "{}", self.cause),
            Some(detail) => write!(f, "{}: {detail}", self.cause),
        }
    }
}

impl From<JwsError> for Rejection {
    fn from(error: JwsError) -> Self {
        let cause = match error {
            JwsError::Empty => Cause::TokenEmpty,
            JwsError::TooLong => Cause::TokenTooLong,
            JwsError::NotAscii => Cause::TokenNotAscii,
            JwsError::TooFewSegments => Cause::TooFewSegments,
            JwsError::TooManySegments => Cause::TooManySegments,
            JwsError::Encrypted => Cause::TokenEncrypted,
            JwsError::EmptySegment(Segment::Header) => Cause::HeaderEmpty,
            JwsError::EmptySegment(Segment::Payload) => Cause::PayloadEmpty,
            JwsError::EmptySegment(Segment::Signature) => Cause::SignatureEmpty,
            JwsError::NotBase64Url(Segment::Header) => Cause::HeaderNotBase64,
            JwsError::NotBase64Url(Segment::Payload) => Cause::PayloadNotBase64,
            JwsError::NotBase64Url(Segment::Signature) => Cause::SignatureNotBase64,
            JwsError::Header(ObjectError::NotJson) => Cause::HeaderNotJson,
            JwsError::Header(ObjectError::Duplicate) => Cause::HeaderDuplicate,
            JwsError::Header(ObjectError::TooDeep) => Cause::HeaderTooDeep,
            JwsError::Header(ObjectError::TooManyMembers) => Cause::HeaderTooManyMembers,
            JwsError::Header(ObjectError::NotObject) => Cause::HeaderNotObject,
            JwsError::Payload(ObjectError::NotJson) => Cause::PayloadNotJson,
            JwsError::Payload(ObjectError::Duplicate) => Cause::PayloadDuplicate,
            JwsError::Payload(ObjectError::TooDeep) => Cause::PayloadTooDeep,
            JwsError::Payload(ObjectError::TooManyMembers) => Cause::PayloadTooManyMembers,
            JwsError::Payload(ObjectError::NotObject) => Cause::PayloadNotObject,
            JwsError::AlgMissing => Cause::AlgMissing,
            JwsError::AlgNone => Cause::AlgNone,
            JwsError::AlgUnknown => Cause::AlgUnknown,
            JwsError::NotString(Member::Alg) => Cause::AlgNotString,
            JwsError::NotString(Member::Kid) => Cause::KidNotString,
            JwsError::NotString(Member::Typ) => Cause::TypNotString,
            JwsError::NotString(Member::Cty) => Cause::CtyNotString,
            JwsError::KidTooLong => Cause::KidTooLong,
            JwsError::Nested => Cause::TokenNested,
            JwsError::Extension(Extension::Crit) => Cause::HeaderCrit,
            JwsError::Extension(Extension::B64) => Cause::HeaderB64,
            JwsError::Extension(Extension::Zip) => Cause::HeaderZip,
            JwsError::Extension(Extension::Enc) => Cause::HeaderEnc,
        };
        cause.into()
    }
}

impl From<NoCandidate> for Rejection {
    fn from(none: NoCandidate) -> Self {
        let cause = match none {
            NoCandidate::UnknownKid => Cause::KidUnknown,
            NoCandidate::NoKey => Cause::NoKey,
            NoCandidate::OtherAlgorithm => Cause::AlgNotOfKey,
        };
        cause.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/faults.md has the causes' texts.
    #[test]
    fn each_error_of_a_token_is_named_as_jose_names_it() {
        let objects = [
            ObjectError::NotJson,
            ObjectError::Duplicate,
            ObjectError::TooDeep,
            ObjectError::TooManyMembers,
            ObjectError::NotObject,
        ];
        let segments = [Segment::Header, Segment::Payload, Segment::Signature];
        let errors = [JwsError::Empty, JwsError::NotAscii, JwsError::TooFewSegments, JwsError::TooManySegments]
            .into_iter()
            .chain([JwsError::Encrypted, JwsError::AlgMissing, JwsError::AlgNone, JwsError::AlgUnknown])
            .chain([JwsError::KidTooLong, JwsError::Nested])
            .chain(segments.map(JwsError::EmptySegment))
            .chain(segments.map(JwsError::NotBase64Url))
            .chain(objects.map(JwsError::Header))
            .chain(objects.map(JwsError::Payload))
            .chain([Member::Alg, Member::Kid, Member::Typ, Member::Cty].map(JwsError::NotString))
            .chain(Extension::ALL.map(JwsError::Extension));
        for error in errors {
            assert_eq!(Rejection::from(error).cause.text(), error.to_string());
        }
        assert_eq!(Rejection::from(JwsError::TooLong).cause.text(), "the token is longer than limits.token_bytes");
    }

    /// docs/faults.md is made of these words.
    #[test]
    fn the_reasons_say_the_bounds() {
        assert!(RejectReason::TokenTooDeep.when().contains(&jose::json::MAX_DEPTH.to_string()));
        assert!(RejectReason::TokenTooManyMembers.when().contains(&jose::json::MAX_MEMBERS.to_string()));
        for (error, reason) in [
            (JwsError::TooLong, RejectReason::TokenTooLong),
            (JwsError::Header(ObjectError::TooDeep), RejectReason::TokenTooDeep),
            (JwsError::Payload(ObjectError::TooManyMembers), RejectReason::TokenTooManyMembers),
            (JwsError::AlgNone, RejectReason::AlgNotAllowed),
            (JwsError::AlgUnknown, RejectReason::AlgNotAllowed),
            (JwsError::Nested, RejectReason::TokenMalformed),
        ] {
            assert_eq!(Rejection::from(error).reason, reason);
        }
        for (none, reason) in [
            (NoCandidate::UnknownKid, RejectReason::KeyUnknown),
            (NoCandidate::NoKey, RejectReason::KeyUnknown),
            (NoCandidate::OtherAlgorithm, RejectReason::AlgNotAllowed),
        ] {
            assert_eq!(Rejection::from(none).reason, reason);
        }
    }
}
