//! The structure of a compact JWS (RFC 7515 section 7.1), checked before any key is looked up. Nothing here is
//! verified.
use crate::alg::Algorithm;
use crate::base64url;
use crate::json::{Json, Object};

mod error;

pub use error::{Extension, JwsError, Member, ObjectError, Segment};

/// The longest `kid` that is looked up.
pub const MAX_KID_BYTES: usize = 256;

/// A well-formed token whose signature was not checked.
#[derive(Clone)]
pub struct Unverified<'t> {
    signing_input: &'t [u8],
    payload_text: &'t str,
    padding: Padding,
    header: Header,
    header_json: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// Whether the segments have the padding of RFC 4648 section 3.2. RFC 7515 section 2 omits it, but some issuers write
/// it. The signature covers the padding of header and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Absent, although a segment's length needs it.
    Without,
    /// In each segment whose length needs it.
    With,
    /// No segment needs it: all lengths are multiples of four.
    NoneDue,
}

/// The header members that are used. `jku`, `x5u`, `jwk`, `x5c` and the like are ignored, whatever their value. A token
/// must not bring its own key or say where to fetch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub alg: Algorithm,
    pub kid: Option<String>,
    pub typ: Option<String>,
}

impl<'t> Unverified<'t> {
    /// # Errors
    /// See [`JwsError`].
    pub fn parse(token: &'t [u8], max_bytes: usize) -> Result<Self, JwsError> {
        Self::read(token, max_bytes, false)
    }

    /// Like `parse`, but all segments may be padded. The caller compares [`Unverified::padding`] with the issuer's
    /// setting.
    ///
    /// # Errors
    /// See [`JwsError`].
    pub fn parse_perhaps_padded(token: &'t [u8], max_bytes: usize) -> Result<Self, JwsError> {
        Self::read(token, max_bytes, true)
    }

    fn read(token: &'t [u8], max_bytes: usize, may_be_padded: bool) -> Result<Self, JwsError> {
        if token.is_empty() {
            return Err(JwsError::Empty);
        }
        if token.len() > max_bytes {
            return Err(JwsError::TooLong);
        }
        // Dots are not base64url, so text that is not UTF-8 is not a token.
        let token = str::from_utf8(token).map_err(|_| JwsError::NotAscii)?;
        let [header, payload, signature] = segments(token)?;
        let padding = match [header, payload, signature] {
            all if all.iter().all(|segment| segment.len().is_multiple_of(4)) => match token.contains('=') {
                true => Padding::With,
                false => Padding::NoneDue,
            },
            _ => Padding::Without,
        };
        let decode = |segment: &str| match padding {
            Padding::With if may_be_padded => base64url::decode_padded(segment),
            _ => base64url::decode(segment),
        };
        // The header first: most malformed tokens fail there, before the longer segments are decoded.
        let header_json = decode(header).map_err(|_| JwsError::NotBase64Url(Segment::Header))?;
        let header = Header::parse(&header_json)?;
        Ok(Self {
            signing_input: token.rsplit_once('.').map_or(token, |(input, _)| input).as_bytes(),
            payload_text: payload,
            padding,
            header,
            header_json,
            payload: decode(payload).map_err(|_| JwsError::NotBase64Url(Segment::Payload))?,
            signature: decode(signature).map_err(|_| JwsError::NotBase64Url(Segment::Signature))?,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn padding(&self) -> Padding {
        self.padding
    }

    /// The header's bytes: a JSON object. [`Header`] has the members that every token uses.
    pub fn header_json(&self) -> &[u8] {
        &self.header_json
    }

    /// True when the header has a member of this name that is one of these strings.
    pub fn header_has(&self, name: &str, values: &[String]) -> bool {
        let header = Json::parse(&self.header_json).ok();
        let value = header.as_ref().and_then(|header| header.as_object()?.get(name)?.as_str());
        value.is_some_and(|value| values.iter().any(|wanted| wanted == value))
    }

    /// Header and payload as in the token, with the dot between them: what the signature covers.
    pub fn signing_input(&self) -> &'t [u8] {
        self.signing_input
    }

    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The payload as in the token, in base64url.
    pub fn payload_text(&self) -> &'t str {
        self.payload_text
    }

    /// The payload's bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload as a JSON object (RFC 7519 section 7.2, step 10).
    ///
    /// # Errors
    /// [`JwsError::Payload`].
    pub fn parse_payload(&self) -> Result<Json<'_>, JwsError> {
        let payload = Json::parse(&self.payload).map_err(|error| JwsError::Payload(error.into()))?;
        match payload {
            Json::Object(_) => Ok(payload),
            _ => Err(JwsError::Payload(ObjectError::NotObject)),
        }
    }
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, JwsError> {
        let header = Json::parse(text).map_err(|error| JwsError::Header(error.into()))?;
        let Json::Object(header) = header else {
            return Err(JwsError::Header(ObjectError::NotObject));
        };
        refuse_extensions(&header)?;
        let alg = string(&header, Member::Alg)?.ok_or(JwsError::AlgMissing)?;
        let kid = string(&header, Member::Kid)?;
        let typ = string(&header, Member::Typ)?;
        let cty = string(&header, Member::Cty)?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(JwsError::KidTooLong);
        }
        if cty.is_some_and(is_jwt) {
            // RFC 7519 section 5.2: the payload is another token. Its claims would be taken for those of the outer one.
            return Err(JwsError::Nested);
        }
        Ok(Self { alg: known(alg)?, kid: kid.map(str::to_owned), typ: typ.map(str::to_owned) })
    }
}

fn segments(token: &str) -> Result<[&str; 3], JwsError> {
    let mut segments = token.split('.');
    let (Some(header), Some(payload), Some(signature)) = (segments.next(), segments.next(), segments.next()) else {
        return Err(JwsError::TooFewSegments);
    };
    match segments.take(3).count() {
        0 => {}
        2 => return Err(JwsError::Encrypted),
        _ => return Err(JwsError::TooManySegments),
    }
    if header.is_empty() {
        return Err(JwsError::EmptySegment(Segment::Header));
    }
    if payload.is_empty() {
        return Err(JwsError::EmptySegment(Segment::Payload));
    }
    if signature.is_empty() {
        return Err(JwsError::EmptySegment(Segment::Signature));
    }
    Ok([header, payload, signature])
}

/// Members that change the meaning of the rest of the token. None of them is supported, so each is refused, whatever
/// its value.
fn refuse_extensions(header: &Object<'_>) -> Result<(), JwsError> {
    match Extension::ALL.into_iter().find(|extension| header.get(extension.name()).is_some()) {
        Some(extension) => Err(JwsError::Extension(extension)),
        None => Ok(()),
    }
}

fn string<'h>(header: &'h Object<'_>, member: Member) -> Result<Option<&'h str>, JwsError> {
    header.get(member.name()).map(|value| value.as_str().ok_or(JwsError::NotString(member))).transpose()
}

/// RFC 7515 section 4.1.10: a media type, case-insensitive, in which `application/` may be omitted.
fn is_jwt(cty: &str) -> bool {
    let subtype = match cty.split_once('/') {
        Some((kind, subtype)) if kind.eq_ignore_ascii_case("application") => subtype,
        _ => cty,
    };
    subtype.eq_ignore_ascii_case("jwt")
}

fn known(alg: &str) -> Result<Algorithm, JwsError> {
    Algorithm::from_name(alg).ok_or_else(|| {
        if alg.eq_ignore_ascii_case("none") {
            return JwsError::AlgNone;
        }
        JwsError::AlgUnknown
    })
}

#[cfg(test)]
mod tests;
