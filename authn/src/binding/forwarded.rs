//! What trusted proxies before this one say of the client: X-Forwarded-For and X-Forwarded-Client-Cert. Each appends on the
//! right, so that only the rightmost entries are theirs.
use std::net::IpAddr;

use crate::reject::Cause;
use crate::request::Request;

/// The n-th address from the right. `None` if there are fewer, or it is no address.
pub(crate) fn address(request: &Request<'_>, nth: usize) -> Option<IpAddr> {
    let values: Vec<&[u8]> = request.header_values(b"x-forwarded-for").collect();
    // Several headers of one name are one list in this order (RFC 9110 section 5.3).
    let entries = values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    let entry = entries.map(<[u8]>::trim_ascii).nth(nth.checked_sub(1)?)?;
    let address: IpAddr = std::str::from_utf8(entry).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

/// The SHA-256 in hexadecimal of the client's certificate, by the element that the hop with this URI appended. Envoy's
/// documentation of `x-forwarded-client-cert` has the form.
///
/// # Errors
/// There is no such element, or it does not name exactly one certificate.
pub(crate) fn certificate(request: &Request<'_>, hop: &str) -> Result<Vec<u8>, Cause> {
    let header = request.header_values(b"x-forwarded-client-cert").collect::<Vec<_>>().join(&b","[..]);
    let elements = split(&header, b',').ok_or(Cause::ForwardedCertificateUnreadable)?;
    for element in elements.iter().rev() {
        let pairs = split(element, b';').ok_or(Cause::ForwardedCertificateUnreadable)?;
        if !named(&pairs, b"by").any(|by| by == hop.as_bytes()) {
            continue;
        }
        let mut hashes = named(&pairs, b"hash");
        return match (hashes.next(), hashes.next()) {
            (Some(hash), None) => Ok(hash.to_vec()),
            _ => Err(Cause::ForwardedCertificateUnreadable),
        };
    }
    Err(Cause::CertificateNotForwarded)
}

/// The values of the pairs with this name.
fn named<'p>(pairs: &'p [&'p [u8]], wanted: &'static [u8]) -> impl Iterator<Item = &'p [u8]> {
    pairs.iter().filter_map(move |pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..at)?, pair.get(at.checked_add(1)?..)?);
        name.trim_ascii().eq_ignore_ascii_case(wanted).then(|| unquoted(value.trim_ascii()))
    })
}

/// The parts between separators outside of quotes. `None` if a quote is not closed, or is not around a whole value: a client
/// that leaves a quote open would else turn the quotes of the hop's element, and what is outside of them, round.
fn split(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start) = (Vec::new(), 0usize);
    let (mut is_quoted, mut is_escaped) = (false, false);
    let mut before = None;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => {
                let next = at.checked_add(1).and_then(|next| text.get(next));
                let is_around_a_value =
                    if is_quoted { next.is_none_or(|next| b",;".contains(next)) } else { before == Some(b'=') };
                if !is_around_a_value {
                    return None;
                }
                is_quoted = !is_quoted;
            }
            byte if *byte == separator && !is_quoted => {
                parts.push(text.get(start..at)?);
                start = at.checked_add(1)?;
            }
            _ => {}
        }
        before = Some(*byte);
    }
    parts.push(text.get(start..)?);
    (!is_quoted).then_some(parts)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests;
