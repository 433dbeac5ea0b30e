//! `POST /v1/sightings`: from where sessions are used, as a filter saw it. Both directions are authenticated over the raw bytes.
//!
//! ```text
//! report    "PCS1", or "PCS3" with names | secret id 8 | nonce 16 | future-iat tolerance u16 | now u64 | count u16 | sighting × count | mac 32
//! sighting  kind u8 | session 16 | 1 and user 16, or 17 zeros | age in milliseconds u32 | client
//! client    flags u8 | prefix u8 | network 16 | agent 8 | certificate 8 | country 2 | latitude i16 | longitude i16
//! names     issuer, session, user: each a length u8 and as many bytes, 0 if it is not there. After the client, in "PCS3"
//! reply     "PCS2" | secret id 8 | SHA-256 of the report 32 | status u16 | form u8 | mac 32
//!           form 0: taken; 1: not taken
//! ```
//! A flag says which parts are there: 2 network of IPv4 (its last 4 bytes), 4 network of IPv6, 8 agent, 16 certificate,
//! 32 country, 64 place. The others are zero.
//!
//! Without names, sessions and users are HMACs, and the network is a prefix: no identity leaves the proxy.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::check::{Needs, ReplyError};
use crate::message::{
    Form, MAC, REPLY_HEAD, REQUEST_HEAD, Reader, begin_reply, begin_request, open_reply, open_request, sign_reply,
    sign_request,
};
use crate::{Cidr, DerivedKeys, Kind, RevocationKey};

pub use crate::check::QuestionError;

pub const PATH: &str = "/v1/sightings";
pub const CONTENT_TYPE: &str = "application/vnd.portcullis.sightings";

/// The most sightings in one report.
pub const MAX_SIGHTINGS: usize = 256;
/// The most bytes of a report that a service needs to read.
pub const MAX_REPORT_BYTES: usize = REQUEST_HEAD + 2 + (SIGHTING + 3 * (1 + MAX_NAME)) * MAX_SIGHTINGS + MAC;
/// The longest name, in bytes. A session with a longer one is reported without names.
pub const MAX_NAME: usize = 255;
/// The most bytes of a reply that a filter needs to read.
pub const MAX_REPLY_BYTES: usize = REPLY_HEAD + 1 + MAC;

const REPORT: &Form = b"PCS1";
const NAMED_REPORT: &Form = b"PCS3";
const REPLY: &Form = b"PCS2";
const SIGHTING: usize = 78;

const V4: u8 = 2;
const V6: u8 = 4;
const AGENT: u8 = 8;
const CERTIFICATE: u8 = 16;
const COUNTRY: u8 = 32;
const PLACE: u8 = 64;

/// A session, used from somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// What `session` names: a session, or a token that belongs to none.
    pub kind: Kind,
    /// The key of its revocation.
    pub session: RevocationKey,
    /// The key of a revocation of its user.
    pub user: Option<RevocationKey>,
    /// How long ago it was, when the report was made.
    pub age_millis: u32,
    pub client: Client,
    /// If the filter is to send it.
    pub names: Option<Box<Names>>,
}

/// What is behind the keys of a sighting.
#[derive(Clone, PartialEq, Eq)]
pub struct Names {
    pub issuer: String,
    pub session: Option<String>,
    pub user: Option<String>,
}

/// What a filter knows of the client of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Client {
    /// The prefix of its address.
    pub network: Option<Cidr>,
    /// An HMAC of User-Agent.
    pub agent: Option<[u8; 8]>,
    /// The first characters of the SHA-256 of its certificate, in hexadecimal.
    pub certificate: Option<[u8; 8]>,
    /// ISO 3166-1, capital letters.
    pub country: Option<[u8; 2]>,
    /// Envoy's geoip filter knows none, so that the filter sends none.
    pub place: Option<Place>,
}

/// In hundredths of a degree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// -9000 to 9000.
    pub latitude: i16,
    /// -18000 to 18000.
    pub longitude: i16,
}

/// A report, as the filter sends it.
#[derive(Debug, Clone)]
pub struct Report {
    bytes: Vec<u8>,
    digest: [u8; 32],
}

/// A report, as the service received it, with a valid MAC.
#[derive(Debug, Clone)]
pub struct Reported {
    secret: usize,
    digest: [u8; 32],
    needs: Needs,
    sightings: Vec<Sighting>,
}

impl Place {
    /// `None`: there is no such place.
    pub fn new(latitude: i16, longitude: i16) -> Option<Self> {
        let is_on_earth = latitude.unsigned_abs() <= 9000 && longitude.unsigned_abs() <= 18000;
        is_on_earth.then_some(Self { latitude, longitude })
    }
}

impl Names {
    /// `None`: one of them is too long, or empty.
    pub fn new(issuer: &str, session: Option<&str>, user: Option<&str>) -> Option<Self> {
        let fits = |name: &str| (1..=MAX_NAME).contains(&name.len());
        let all = [Some(issuer), session, user].into_iter().flatten().all(fits);
        all.then(|| Self { issuer: issuer.into(), session: session.map(str::to_owned), user: user.map(str::to_owned) })
    }

    /// Are these the names of what the sighting's keys name?
    pub fn are_of(&self, sighting: &Sighting, derived: &DerivedKeys) -> bool {
        let is = |kind, name: &str, key| derived.revocation_key(kind, &self.issuer, name.as_bytes()) == key;
        let session = self.session.as_ref();
        session.is_none_or(|name| sighting.kind == Kind::Session && is(Kind::Session, name, sighting.session))
            && self.user.as_ref().is_none_or(|name| sighting.user.is_some_and(|key| is(Kind::User, name, key)))
    }

    fn write(names: Option<&Self>, bytes: &mut Vec<u8>) {
        let names = names.map(|Self { issuer, session, user }| [Some(issuer), session.as_ref(), user.as_ref()]);
        for name in names.unwrap_or_default() {
            let name = name.map(String::as_bytes).unwrap_or_default();
            bytes.push(u8::try_from(name.len()).unwrap_or_default());
            bytes.extend_from_slice(name.get(..MAX_NAME).unwrap_or(name));
        }
    }

    /// The outer `None`: malformed.
    fn read(read: &mut Reader<'_>) -> Option<Option<Self>> {
        let mut name = || {
            let length = usize::from(read.byte()?);
            let (name, rest) = read.0.split_at_checked(length)?;
            read.0 = rest;
            let name = std::str::from_utf8(name).ok()?;
            Some((!name.is_empty()).then(|| name.to_owned()))
        };
        match (name()?, name()?, name()?) {
            (Some(issuer), session, user) => Some(Some(Self { issuer, session, user })),
            (None, None, None) => Some(None),
            (None, _, _) => None,
        }
    }
}

/// Names stay out of logs.
impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Report {
    /// `nonce` must never repeat under one secret. Only the first [`MAX_SIGHTINGS`] are sent.
    pub fn new(derived: &DerivedKeys, nonce: [u8; 16], needs: Needs, sightings: &[Sighting]) -> Self {
        let sightings = sightings.get(..MAX_SIGHTINGS).unwrap_or(sightings);
        let size = sightings.len().saturating_mul(SIGHTING).saturating_add(2);
        let is_named = sightings.iter().any(|sighting| sighting.names.is_some());
        let form = if is_named { NAMED_REPORT } else { REPORT };
        let mut bytes = begin_request(form, derived, nonce, needs, size);
        bytes.extend_from_slice(&u16::try_from(sightings.len()).unwrap_or_default().to_be_bytes());
        for sighting in sightings {
            sighting.write(&mut bytes);
            if is_named {
                Names::write(sighting.names.as_deref(), &mut bytes);
            }
        }
        let (bytes, digest) = sign_request(derived, bytes);
        Self { bytes, digest }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Did our service take the report? The reply came with this HTTP status.
    ///
    /// # Errors
    /// Anything that does not prove that our service answered this report.
    pub fn is_taken(&self, derived: &DerivedKeys, status: u16, body: &[u8]) -> Result<bool, ReplyError> {
        let mut read = open_reply(REPLY, derived, &self.digest, status, body)?;
        match (read.byte(), read.0) {
            (Some(form @ (0 | 1)), []) => Ok(form == 0),
            _ => Err(ReplyError::Malformed),
        }
    }
}

impl Reported {
    /// Reads and authenticates a report against every live secret.
    ///
    /// # Errors
    /// See [`QuestionError`]; the bytes prove nothing then, and the reply cannot be authenticated either.
    pub fn read(secrets: &[DerivedKeys], body: &[u8]) -> Result<Self, QuestionError> {
        if body.len() > MAX_REPORT_BYTES {
            return Err(QuestionError::Malformed);
        }
        let request = open_request(&[REPORT, NAMED_REPORT], secrets, body)?;
        let is_named = request.form == *NAMED_REPORT;
        let mut read = request.content;
        let count = usize::from(u16::from_be_bytes(read.take().ok_or(QuestionError::Malformed)?));
        if count == 0 || count > MAX_SIGHTINGS {
            return Err(QuestionError::Count);
        }
        let sightings = (0..count).map(|_| Sighting::read(&mut read, is_named)).collect::<Option<Vec<_>>>();
        let sightings = sightings.filter(|_| read.0.is_empty()).ok_or(QuestionError::Malformed)?;
        Ok(Self { secret: request.secret, digest: request.digest, needs: request.needs, sightings })
    }

    /// Which of the secrets given to [`Reported::read`] made the report: the reply must use the same.
    pub fn secret(&self) -> usize {
        self.secret
    }

    /// Names exactly this report.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn needs(&self) -> Needs {
        self.needs
    }

    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// The body to send with `status`.
    pub fn reply(&self, derived: &DerivedKeys, status: u16, is_taken: bool) -> Vec<u8> {
        let mut reply = begin_reply(REPLY, derived, &self.digest, status, 1);
        reply.push(u8::from(!is_taken));
        sign_reply(derived, reply)
    }
}

impl Client {
    /// What stands for a User-Agent.
    pub fn agent_of(derived: &DerivedKeys, user_agent: &[u8]) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = derived.cache_mac(&[b"user agent", user_agent]);
        [a, b, c, d, e, f, g, h]
    }

    /// What stands for an address: providers give their customers a /56 or a /64 of IPv6.
    pub fn network_of(address: IpAddr) -> Cidr {
        Cidr::around(address, 24, 56)
    }

    /// FNV-1a. The agent's HMAC is part of it, so a client cannot choose it.
    pub fn hash(&self) -> u32 {
        let mut bytes = Vec::with_capacity(SIGHTING);
        self.write(&mut bytes);
        bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let Client { network, agent, certificate, country, place } = *self;
        let (family, prefix, address) = match network.map(|network| (network.network(), network.prefix())) {
            None => (0, 0, 0),
            Some((IpAddr::V4(address), prefix)) => (V4, prefix, u128::from(address.to_bits())),
            Some((IpAddr::V6(address), prefix)) => (V6, prefix, address.to_bits()),
        };
        let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
        bytes.push(
            family
                | flag(agent.is_some(), AGENT)
                | flag(certificate.is_some(), CERTIFICATE)
                | flag(country.is_some(), COUNTRY)
                | flag(place.is_some(), PLACE),
        );
        bytes.push(u8::try_from(prefix).unwrap_or_default());
        bytes.extend_from_slice(&address.to_be_bytes());
        bytes.extend_from_slice(&agent.unwrap_or_default());
        bytes.extend_from_slice(&certificate.unwrap_or_default());
        bytes.extend_from_slice(&country.unwrap_or_default());
        let (latitude, longitude) = place.map(|place| (place.latitude, place.longitude)).unwrap_or_default();
        bytes.extend_from_slice(&latitude.to_be_bytes());
        bytes.extend_from_slice(&longitude.to_be_bytes());
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let flags = read.byte()?;
        let prefix = u32::from(read.byte()?);
        let address = u128::from_be_bytes(read.take()?);
        let block = |address: IpAddr| Cidr::parse(&format!("{address}/{prefix}"));
        let network = match flags & (V4 | V6) {
            0 => None,
            V4 => Some(block(Ipv4Addr::from(u32::try_from(address).ok()?).into())?),
            V6 => Some(block(Ipv6Addr::from(address).into())?),
            _ => return None,
        };
        let (agent, certificate, country) = (read.take()?, read.take()?, read.take::<2>()?);
        let place = (i16::from_be_bytes(read.take()?), i16::from_be_bytes(read.take()?));
        let place = if flags & PLACE == 0 { None } else { Some(Place::new(place.0, place.1)?) };
        if flags & COUNTRY != 0 && !country.iter().all(u8::is_ascii_uppercase) {
            return None;
        }
        Some(Self {
            network,
            agent: (flags & AGENT != 0).then_some(agent),
            certificate: (flags & CERTIFICATE != 0).then_some(certificate),
            country: (flags & COUNTRY != 0).then_some(country),
            place,
        })
    }
}

impl Sighting {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.kind.code());
        bytes.extend_from_slice(&self.session.0);
        bytes.push(u8::from(self.user.is_some()));
        bytes.extend_from_slice(&self.user.map(|user| user.0).unwrap_or_default());
        bytes.extend_from_slice(&self.age_millis.to_be_bytes());
        self.client.write(bytes);
    }

    fn read(read: &mut Reader<'_>, is_named: bool) -> Option<Self> {
        let kind = read.byte()?;
        let kind = [Kind::Session, Kind::Token].into_iter().find(|known| known.code() == kind)?;
        let session = RevocationKey(read.take()?);
        let (has_user, user) = (read.byte()?, RevocationKey(read.take()?));
        let user = match has_user {
            0 => None,
            1 => Some(user),
            _ => return None,
        };
        let age_millis = u32::from_be_bytes(read.take()?);
        let client = Client::read(read)?;
        let names = if is_named { Names::read(read)?.map(Box::new) } else { None };
        Some(Self { kind, session, user, age_millis, client, names })
    }
}

#[cfg(test)]
mod tests;
