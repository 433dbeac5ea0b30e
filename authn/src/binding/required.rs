//! What a rule requires of the client, compiled.
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::forwarded;
use crate::config::Mode;
use crate::reject::Cause;
use crate::request::Request;

#[derive(Debug, Default)]
pub(crate) struct Binding {
    pub(crate) certificate: Option<CertificateBinding>,
    pub(crate) address: Option<AddressBinding>,
    pub(crate) user_agent: Option<AgentBinding>,
}

#[derive(Debug)]
pub(crate) struct CertificateBinding {
    pub(crate) mode: Mode,
    pub(crate) required: bool,
    /// The URI of the trusted hop that names the client's certificate.
    pub(crate) forwarded_by: Option<String>,
}

#[derive(Debug)]
pub(crate) struct AddressBinding {
    pub(crate) mode: Mode,
    pub(crate) required: bool,
    pub(crate) claim: Vec<String>,
    /// Bits of IPv4 and of IPv6.
    pub(crate) prefix: Option<(u32, u32)>,
    /// Which address of X-Forwarded-For, counted from the right, is the client's.
    pub(crate) forwarded_for: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct AgentBinding {
    pub(crate) mode: Mode,
    pub(crate) required: bool,
    pub(crate) claim: Vec<String>,
    pub(crate) fingerprint: Fingerprint,
}

/// How a claim tells which User-Agent it is about.
pub(crate) enum Fingerprint {
    Sha256,
    Hmac(Box<Hmac<Sha256>>),
}

/// What the headers of a request say of the client, as far as its rule compares it.
#[derive(Debug, Default)]
pub(crate) struct ClientHeaders<'r> {
    pub(super) user_agent: Option<Cow<'r, [u8]>>,
    pub(super) address: Option<IpAddr>,
    /// The digest of the certificate that the trusted hop names. It counts only if the request comes from that hop.
    pub(super) certificate: Option<Result<Vec<u8>, Cause>>,
}

impl Fingerprint {
    /// # Errors
    /// The secret is too short.
    pub(crate) fn keyed(secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < 32 {
            return Err("must hold at least 32 bytes");
        }
        Hmac::new_from_slice(secret).map(|hmac| Self::Hmac(Box::new(hmac))).map_err(|_| "cannot be a key of HMAC")
    }

    pub(super) fn of(&self, user_agent: &[u8]) -> [u8; 32] {
        match self {
            Self::Sha256 => Sha256::digest(user_agent).into(),
            Self::Hmac(keyed) => Hmac::clone(keyed).chain_update(user_agent).finalize().into_bytes().into(),
        }
    }
}

/// Without the key.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "Sha256",
            Self::Hmac(_) => "Hmac",
        })
    }
}

impl<'r> ClientHeaders<'r> {
    pub(crate) fn read(binding: &Binding, request: &Request<'r>) -> Self {
        let hop = binding.certificate.as_ref().and_then(|certificate| certificate.forwarded_by.as_ref());
        let forwarded_for = binding.address.as_ref().and_then(|address| address.forwarded_for);
        let agent = binding.user_agent.as_ref().and_then(|_| request.sole_value(b"user-agent"));
        Self {
            user_agent: agent.map(Cow::Borrowed),
            address: forwarded_for.and_then(|nth| forwarded::address(request, nth)),
            certificate: hop.map(|hop| forwarded::certificate(request, hop)),
        }
    }

    /// Freed from the request's headers, so that it can wait.
    pub(crate) fn into_owned(self) -> ClientHeaders<'static> {
        let user_agent = self.user_agent.map(|agent| Cow::Owned(agent.into_owned()));
        ClientHeaders { user_agent, address: self.address, certificate: self.certificate }
    }
}
