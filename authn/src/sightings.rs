//! Sightings: from where the session of an admitted request is used, as the service is told. What is reported again is decided
//! here; `driver` sends it.
use std::time::Duration;

use wire::sightings::Client;
use wire::{DerivedKeys, RevocationKey};

use crate::binding::{Peer, forwarded};
use crate::request::Request;
use crate::request::headers::HeaderName;
use crate::time::Monotonic;

#[derive(Debug)]
pub(crate) struct Sightings {
    pub(crate) percent: u8,
    pub(crate) again_after: Duration,
    /// Which address of X-Forwarded-For, counted from the right, is the client's.
    pub(crate) forwarded_for: Option<usize>,
    pub(crate) certificate: bool,
    pub(crate) country: Option<HeaderName>,
    /// Reports have names beside the keys.
    pub(crate) names: bool,
}

impl Sightings {
    /// What the headers of a request say of its client.
    pub(crate) fn of_headers(&self, derived: &DerivedKeys, request: &Request<'_>) -> Client {
        let agent = request.sole_value(b"user-agent").map(|agent| Client::agent_of(derived, agent));
        let forwarded = self.forwarded_for.and_then(|nth| forwarded::address(request, nth));
        // Two values may be the client's and the proxy's: neither counts.
        let country = self.country.as_ref().and_then(|name| request.sole_value(name.as_bytes())).and_then(country);
        Client { network: forwarded.map(Client::network_of), agent, country, ..Client::default() }
    }

    /// The same, with what only the host knows.
    pub(crate) fn complete(&self, client: &mut Client, peer: &dyn Peer) {
        if self.forwarded_for.is_none() {
            client.network = peer.address().map(Client::network_of);
        }
        if self.certificate {
            let digest = peer.certificate_sha256().unwrap_or_default();
            client.certificate = digest.first_chunk::<8>().copied();
        }
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
    (u64::from(client.hash()) << 32) | (seconds(now) & u64::from(u32::MAX))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_proxy_writes_is_a_country() {
        assert_eq!((country(b"DE"), country(b"de")), (Some(*b"DE"), Some(*b"DE")));
        for wrong in [&b""[..], b"D", b"DEU", b"D1", b"DE,FR", b" D", b"\xc3\x84"] {
            assert_eq!(country(wrong), None, "{wrong:?}");
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
            forwarded_for: None,
            certificate: false,
            country: None,
            names: false,
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
