//! Checks a binding: the claims that it compares, and the effect of a mismatch.
use std::net::IpAddr;

use jose::json::Json;
use wire::Cidr;

use super::client;
use super::{AddressBinding, Binding, ClientHeaders};
use crate::config::Mode;
use crate::reject::{Cause, Rejection};

/// Facts about the client that only the host knows; requested if a rule binds to them.
pub trait Peer {
    /// The address of the client, as determined by the proxy.
    fn address(&self) -> Option<IpAddr>;
    /// The SHA-256 of the client's certificate in hexadecimal; `None` without a certificate.
    fn certificate_sha256(&self) -> Option<Vec<u8>>;
    /// The URI in the certificate of whoever opened the connection: the client, or a proxy before this one.
    fn certificate_uri(&self) -> Option<Vec<u8>> {
        None
    }
}

/// The claims that a rule's binding compares.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    certificate: Option<String>,
    addresses: Option<Vec<Cidr>>,
    user_agent: Option<String>,
    /// The key of `cnf.jkt`, which `dpop` compares.
    pub(crate) jkt: Option<[u8; 32]>,
}

/// Extracts what the binding compares. A required claim that is missing is a mismatch, and so is a `cnf` with a member
/// that is not checked, on every rule (RFC 7800: a bound token used as a bearer token). `jkt` is checked if the document
/// has `dpop`.
pub(crate) fn bound(binding: &Binding, has_dpop: bool, payload: &Json<'_>) -> Result<Bound, Rejection> {
    let mut bound = Bound::default();
    match payload.path(&["cnf".to_owned()]) {
        None => {}
        Some(Json::Object(cnf)) => {
            for (member, value) in cnf.iter() {
                match (member, value, &binding.certificate) {
                    ("x5t#S256", Json::String(print), Some(_)) => bound.certificate = Some(print.clone().into_owned()),
                    ("jkt", Json::String(print), _) if has_dpop => {
                        bound.jkt = Some(client::parse_thumbprint(print).ok_or(Cause::JktUnreadable)?);
                    }
                    (_, Json::Null, _) => {}
                    _ => return Err(Cause::CnfUnchecked.into()),
                }
            }
            if bound.certificate.is_none() && bound.jkt.is_none() {
                return Err(Cause::CnfEmpty.into());
            }
        }
        Some(_) => return Err(Rejection::new(Cause::CnfNotObject)),
    }
    if let Some(wanted) = &binding.certificate
        && wanted.mode == Mode::Enforce
        && wanted.required
        && bound.certificate.is_none()
    {
        return Err(Cause::NoCertificateClaim.into());
    }
    if let Some(wanted) = &binding.address {
        bound.addresses = match payload.path(&wanted.claim) {
            None => None,
            Some(Json::String(one)) => Some(parse_cidrs(wanted, [one.as_ref()])?),
            Some(Json::Array(many)) => {
                let texts: Option<Vec<&str>> = many.iter().map(Json::as_str).collect();
                match texts {
                    Some(texts) => Some(parse_cidrs(wanted, texts)?),
                    None => Some(no_block(wanted, Cause::AddressMemberNotString)?),
                }
            }
            Some(_) => Some(no_block(wanted, Cause::AddressNotStrings)?),
        };
        if bound.addresses.is_none() && wanted.mode == Mode::Enforce && wanted.required {
            return Err(Cause::NoAddressClaim.into());
        }
    }
    if let Some(wanted) = &binding.user_agent {
        bound.user_agent = match payload.path(&wanted.claim) {
            None => None,
            Some(Json::String(hash)) => Some(hash.clone().into_owned()),
            Some(_) if wanted.mode == Mode::Enforce => return Err(Rejection::new(Cause::AgentNotString)),
            // No agent has it.
            Some(_) => Some(String::new()),
        };
        if bound.user_agent.is_none() && wanted.mode == Mode::Enforce && wanted.required {
            return Err(Cause::NoAgentClaim.into());
        }
    }
    Ok(bound)
}

/// One malformed block makes the claim a mismatch: it was meant to restrict the token's use, and its meaning is
/// unknown.
fn parse_cidrs<'t>(wanted: &AddressBinding, texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<Cidr>, Rejection> {
    let parse = |text: &str| match wanted.prefix {
        Some((v4, v6)) if !text.contains('/') => Some(Cidr::around(text.parse().ok()?, v4, v6)),
        _ => Cidr::parse(text),
    };
    let parsed: Option<Vec<Cidr>> = texts.into_iter().map(parse).collect();
    parsed.map_or_else(|| no_block(wanted, Cause::AddressNotCidr), Ok)
}

/// What a claim without a meaning stands for: nothing, if mismatches are only reported.
fn no_block(wanted: &AddressBinding, cause: Cause) -> Result<Vec<Cidr>, Rejection> {
    match wanted.mode {
        Mode::Report => Ok(Vec::new()),
        Mode::Enforce => Err(Rejection::new(cause)),
    }
}

/// Mismatches that are not enforced are added to `reported`.
pub(crate) fn check(
    binding: &Binding,
    bound: &Bound,
    client: &ClientHeaders<'_>,
    peer: &dyn Peer,
    reported: &mut Vec<Rejection>,
) -> Result<(), Rejection> {
    let mut judge = |mode: Mode, compared: Result<(), Cause>| match (compared, mode) {
        (Ok(()), _) => Ok(()),
        (Err(cause), Mode::Report) => {
            reported.push(Rejection::new(cause));
            Ok(())
        }
        (Err(cause), Mode::Enforce) => Err(Rejection::new(cause)),
    };
    // A token without the claim reaches this only if the claim is not required, or in report mode.
    let unbound = |required: bool| if required { Err(Cause::NoBindingClaim) } else { Ok(()) };
    if let Some(wanted) = &binding.certificate {
        judge(
            wanted.mode,
            match &bound.certificate {
                Some(print) => {
                    let presented = match &wanted.forwarded_by {
                        None => Ok(peer.certificate_sha256().unwrap_or_default()),
                        Some(hop) if peer.certificate_uri().as_deref() == Some(hop.as_bytes()) => {
                            client.certificate.clone().unwrap_or(Err(Cause::CertificateNotForwarded))
                        }
                        Some(_) => Err(Cause::HopNotTrusted),
                    };
                    presented.and_then(|digest| client::certificate_matches(print, &digest))
                }
                None => unbound(wanted.required),
            },
        )?;
    }
    if let Some(wanted) = &binding.address {
        judge(
            wanted.mode,
            match (&bound.addresses, wanted.forwarded_for.map_or_else(|| peer.address(), |_| client.address)) {
                (Some(blocks), Some(address)) if blocks.iter().any(|block| block.contains(address)) => Ok(()),
                (Some(_), Some(_)) => Err(Cause::OtherAddress),
                (Some(_), None) => Err(Cause::AddressUnknown),
                (None, _) => unbound(wanted.required),
            },
        )?;
    }
    if let Some(wanted) = &binding.user_agent {
        judge(
            wanted.mode,
            match &bound.user_agent {
                Some(hash) => client::user_agent_matches(hash, client.user_agent.as_deref(), &wanted.fingerprint),
                None => unbound(wanted.required),
            },
        )?;
    }
    Ok(())
}
