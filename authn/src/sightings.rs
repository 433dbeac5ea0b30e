//! Sightings: from where the session of an admitted request is used, as the service is told. What is reported again is decided
//! here; `driver` sends it.
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use wire::sightings::{Client, Place};
use wire::{Cidr, DerivedKeys, RevocationKey};

use crate::binding::{Peer, forwarded};
use crate::request::Request;
use crate::request::headers::HeaderName;
use crate::time::Monotonic;

#[derive(Debug)]
pub(crate) struct Sightings {
    pub(crate) percent: u8,
    pub(crate) again_after: Duration,
    /// Bits of IPv4 and of IPv6.
    pub(crate) prefix: (u32, u32),
    /// Which address of X-Forwarded-For, counted from the right, is the client's.
    pub(crate) forwarded_for: Option<usize>,
    pub(crate) certificate: bool,
    pub(crate) country: Option<HeaderName>,
    /// Latitude and longitude.
    pub(crate) place: Option<(HeaderName, HeaderName)>,
}

impl Sightings {
    /// What the headers of a request say of its client.
    pub(crate) fn of_headers(&self, derived: &DerivedKeys, request: &Request<'_>) -> Client {
        let agent = request.sole_value(b"user-agent").map(|agent| {
            let [a, b, c, d, e, f, g, h, ..] = derived.cache_mac(&[b"user agent", agent]);
            [a, b, c, d, e, f, g, h]
        });
        let forwarded = self.forwarded_for.and_then(|nth| forwarded::address(request, nth));
        // Two values may be the client's and the proxy's: neither counts.
        let value = |name: &HeaderName| request.sole_value(name.as_bytes());
        let country = self.country.as_ref().and_then(value).and_then(country);
        let place = self.place.as_ref().and_then(|(latitude, longitude)| {
            Place::new(hundredths(value(latitude)?, 90.0)?, hundredths(value(longitude)?, 180.0)?)
        });
        Client { network: forwarded.map(|address| self.network(address)), agent, certificate: None, country, place }
    }

    /// The same, with what only the host knows.
    pub(crate) fn complete(&self, client: &mut Client, peer: &dyn Peer) {
        if self.forwarded_for.is_none() {
            client.network = peer.address().map(|address| self.network(address));
        }
        if self.certificate {
            let digest = peer.certificate_sha256().unwrap_or_default();
            client.certificate = digest.first_chunk::<8>().copied();
        }
    }

    fn network(&self, address: std::net::IpAddr) -> Cidr {
        Cidr::around(address, self.prefix.0, self.prefix.1)
    }

    /// Is this session one of those that are reported? No client can choose the key.
    pub(crate) fn samples(&self, session: &RevocationKey) -> bool {
        let [a, b, ..] = session.0;
        let share = u32::from(u16::from_be_bytes([a, b])).saturating_mul(100) >> 16;
        share < u32::from(self.percent)
    }
}

/// A word that tells where and when a token was last reported.
pub(crate) fn mark(client: &Client, now: Monotonic) -> u64 {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    (hasher.finish() << 32) | (seconds(now) & u64::from(u32::MAX))
}

/// Must a token be reported, whose last report has this mark?
pub(crate) fn is_due(last: u64, mark: u64, again_after: Duration) -> bool {
    let (before, now) = (last & u64::from(u32::MAX), mark & u64::from(u32::MAX));
    last >> 32 != mark >> 32 || now.saturating_sub(before) >= again_after.as_secs() || now < before
}

fn seconds(time: Monotonic) -> u64 {
    time.since(Monotonic(0)).as_secs()
}

fn country(value: &[u8]) -> Option<[u8; 2]> {
    let code: [u8; 2] = value.try_into().ok()?;
    code.iter().all(u8::is_ascii_alphabetic).then(|| code.map(|letter| letter.to_ascii_uppercase()))
}

/// Degrees as text, in hundredths.
fn hundredths(value: &[u8], most: f64) -> Option<i16> {
    let degrees: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    // Not a number is not within the range either.
    (degrees.abs() <= most).then_some((degrees * 100.0) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_proxy_writes_is_a_country_or_a_place() {
        assert_eq!((country(b"DE"), country(b"de")), (Some(*b"DE"), Some(*b"DE")));
        for wrong in [&b""[..], b"D", b"DEU", b"D1", b"DE,FR", b" D", b"\xc3\x84"] {
            assert_eq!(country(wrong), None, "{wrong:?}");
        }
        assert_eq!(hundredths(b"52.52", 90.0), Some(5252));
        assert_eq!(hundredths(b"-90", 90.0), Some(-9000));
        assert_eq!(hundredths(b"180", 180.0), Some(18000));
        for wrong in [&b"90.01"[..], b"NaN", b"inf", b"", b"52,5", b"52.5 N"] {
            assert_eq!(hundredths(wrong, 90.0), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_token_is_reported_again_after_a_while_and_after_a_change() {
        let at = |seconds: u64| Monotonic(seconds * 1_000_000_000);
        let home = Client { country: Some(*b"DE"), ..Client::default() };
        let minute = Duration::from_secs(60);
        let last = mark(&home, at(1001));
        assert!(is_due(0, last, minute));
        assert!(!is_due(last, mark(&home, at(1060)), minute));
        assert!(is_due(last, mark(&home, at(1062)), minute));
        assert!(is_due(last, mark(&Client::default(), at(1001)), minute));
    }

    #[test]
    fn a_share_of_sessions_is_reported() {
        let sightings = |percent| Sightings {
            percent,
            again_after: Duration::from_secs(60),
            prefix: (24, 56),
            forwarded_for: None,
            certificate: false,
            country: None,
            place: None,
        };
        let sampled = |percent| {
            let sightings = sightings(percent);
            let keys = (0..=u16::MAX).map(|number| {
                let [a, b] = number.to_be_bytes();
                RevocationKey([a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            });
            keys.filter(|key| sightings.samples(key)).count()
        };
        assert_eq!((sampled(100), sampled(1), sampled(50)), (65536, 656, 32768));
    }
}
