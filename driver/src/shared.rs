//! Data that all workers of a proxy share, as bytes in the host's shared data: verdicts in a fixed ring of slots, and
//! fetched key sets. Other writers (in Istio every WasmPlugin of a proxy shares one namespace) cannot forge an entry,
//! since each carries a MAC over its slot, its content and the configuration.
use wire::DerivedKeys;

use authn::keys::source::Failures;
use authn::revocation::{KeyPosition, Verdict};
use authn::time::Monotonic;

const MAC: usize = 16;

/// Names entries so that they cannot be guessed without the secret, and authenticates their content.
#[derive(Debug, Clone)]
pub struct Namespace {
    prefix: String,
    derived: DerivedKeys,
    config: [u8; 32],
}

/// Verdicts, each in the slot of its query.
#[derive(Debug)]
pub struct SharedVerdicts {
    space: Namespace,
    slots: u32,
}

/// Slots for key sets. Each source has the slot of its identity, in any configuration, so that an update which does not
/// change the source finds its keys. Two sources in one slot are told apart, and then each VM fetches for itself.
const KEY_SLOTS: u16 = 256;

/// One issuer's key set, and the lease of the VM that fetches it.
#[derive(Debug)]
pub struct SharedKeys {
    space: Namespace,
    slot: u16,
}

/// The holder of the lease, and since when. Times of 0 mean never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// A fetch is in flight since then; 0 once it is over.
    pub started: Monotonic,
    /// When an unknown key id last caused a fetch.
    pub unknown: Monotonic,
    /// The last fetch failed, and the next attempt is not before this.
    pub resting: Monotonic,
    /// The provider asked not to be contacted until then.
    pub not_before: Monotonic,
    /// How often in a row.
    pub failures: Failures,
}

impl Namespace {
    pub fn new(derived: &DerivedKeys, config: &[u8; 32]) -> Self {
        // Derived from the secret alone: the host keeps every entry as long as it runs, and a prefix per configuration
        // would leave a ring behind at every update. The MAC detects entries of another configuration.
        let prefix = jose::base64url::encode(derived.cache_mac(&[b"prefix"]));
        Self { prefix, derived: derived.clone(), config: *config }
    }

    pub(crate) fn key(&self, place: &str) -> String {
        format!("{}.{place}", self.prefix)
    }

    pub(crate) fn seal(&self, place: &str, mut content: Vec<u8>) -> Vec<u8> {
        let mac = self.mac(place, &content);
        content.extend_from_slice(&mac);
        content
    }

    pub(crate) fn open<'b>(&self, place: &str, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (content, mac) = bytes.split_last_chunk::<MAC>()?;
        let expected = self.mac(place, content);
        bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_slice(), mac.as_slice())).then_some(content)
    }

    fn mac(&self, place: &str, content: &[u8]) -> [u8; MAC] {
        self.derived.cache_mac(&[b"shared", place.as_bytes(), &self.config, content])
    }
}

impl SharedVerdicts {
    /// `None` if `slots` is 0: nothing is shared then.
    pub fn new(space: Namespace, slots: usize) -> Option<Self> {
        let slots = u32::try_from(slots).ok().filter(|slots| *slots > 0)?;
        Some(Self { space, slots })
    }

    /// The shared-data key of the slot for the verdict on this query.
    pub fn key(&self, digest: &[u8; 16]) -> String {
        self.space.key(&self.place(digest))
    }

    /// `digest 16 | sent u64 | verdict u8`, with a MAC. The verdict is 0 for live, else one more than the position of the
    /// key that ends the token.
    pub fn write(&self, digest: &[u8; 16], sent: Monotonic, verdict: Verdict) -> Vec<u8> {
        let mut content = Vec::with_capacity(25 + MAC);
        content.extend_from_slice(digest);
        content.extend_from_slice(&sent.0.to_be_bytes());
        content.push(match verdict {
            Verdict::Live => 0,
            Verdict::Dead { by } => by.as_byte().saturating_add(1),
        });
        self.space.seal(&self.place(digest), content)
    }

    /// The verdict on exactly this query, if the slot has one with a valid MAC.
    pub fn read(&self, digest: &[u8; 16], bytes: &[u8]) -> Option<(Monotonic, Verdict)> {
        // Compared first: most used slots hold another query's verdict, and a MAC costs more.
        if bytes.first_chunk::<16>() != Some(digest) {
            return None;
        }
        let content = self.space.open(&self.place(digest), bytes)?;
        let (sent, verdict) = content.get(16..)?.split_first_chunk::<8>()?;
        let verdict = match verdict {
            [0] => Verdict::Live,
            [after] => Verdict::Dead { by: KeyPosition::new(usize::from(after.saturating_sub(1))) },
            _ => return None,
        };
        Some((Monotonic(u64::from_be_bytes(*sent)), verdict))
    }

    fn place(&self, digest: &[u8; 16]) -> String {
        let [a, b, c, d, ..] = *digest;
        let slot = u32::from_be_bytes([a, b, c, d]).checked_rem(self.slots).unwrap_or(0);
        format!("v{slot}")
    }
}

impl SharedKeys {
    /// `source` identifies the issuer and location of the keys.
    pub fn new(derived: &DerivedKeys, source: &[u8; 32]) -> Self {
        let [a, b, ..] = *source;
        let slot = u16::from_be_bytes([a, b]).checked_rem(KEY_SLOTS).unwrap_or(0);
        Self { space: Namespace::new(derived, source), slot }
    }

    pub fn lease_key(&self) -> String {
        self.space.key(&self.lease_place())
    }

    pub fn write_lease(&self, lease: Lease) -> Vec<u8> {
        let mut content = lease.started.0.to_be_bytes().to_vec();
        content.extend_from_slice(&lease.unknown.0.to_be_bytes());
        content.extend_from_slice(&lease.resting.0.to_be_bytes());
        content.extend_from_slice(&lease.not_before.0.to_be_bytes());
        content.extend_from_slice(&lease.failures.count.to_be_bytes());
        content.push(lease.failures.while_serving.into());
        self.space.seal(&self.lease_place(), content)
    }

    pub fn read_lease(&self, bytes: &[u8]) -> Option<Lease> {
        let content = self.space.open(&self.lease_place(), bytes)?;
        let (started, rest) = content.split_first_chunk::<8>()?;
        let (unknown, rest) = rest.split_first_chunk::<8>()?;
        let (resting, rest) = rest.split_first_chunk::<8>()?;
        let (not_before, rest) = rest.split_first_chunk::<8>()?;
        let (count, while_serving) = rest.split_first_chunk::<4>()?;
        let [while_serving @ (0 | 1)] = *while_serving else { return None };
        Some(Lease {
            started: Monotonic(u64::from_be_bytes(*started)),
            unknown: Monotonic(u64::from_be_bytes(*unknown)),
            resting: Monotonic(u64::from_be_bytes(*resting)),
            not_before: Monotonic(u64::from_be_bytes(*not_before)),
            failures: Failures { count: u32::from_be_bytes(*count), while_serving: while_serving == 1 },
        })
    }

    /// When the shared set was fetched: read often; the set is read only if this has changed.
    pub fn stamp_key(&self) -> String {
        self.space.key(&self.stamp_place())
    }

    pub fn write_stamp(&self, fetched: Monotonic) -> Vec<u8> {
        self.space.seal(&self.stamp_place(), fetched.0.to_be_bytes().to_vec())
    }

    pub fn read_stamp(&self, bytes: &[u8]) -> Option<Monotonic> {
        let content: [u8; 8] = self.space.open(&self.stamp_place(), bytes)?.try_into().ok()?;
        Some(Monotonic(u64::from_be_bytes(content)))
    }

    pub fn set_key(&self) -> String {
        self.space.key(&self.set_place())
    }

    /// `due`: when the fetching VM will fetch again.
    pub fn write_set(&self, fetched: Monotonic, due: Monotonic, text: &[u8]) -> Vec<u8> {
        let mut content = fetched.0.to_be_bytes().to_vec();
        content.extend_from_slice(&due.0.to_be_bytes());
        content.extend_from_slice(text);
        self.space.seal(&self.set_place(), content)
    }

    pub fn read_set<'b>(&self, bytes: &'b [u8]) -> Option<(Monotonic, Monotonic, &'b [u8])> {
        let content = self.space.open(&self.set_place(), bytes)?;
        let (fetched, rest) = content.split_first_chunk::<8>()?;
        let (due, text) = rest.split_first_chunk::<8>()?;
        Some((Monotonic(u64::from_be_bytes(*fetched)), Monotonic(u64::from_be_bytes(*due)), text))
    }

    fn lease_place(&self) -> String {
        format!("l{}", self.slot)
    }

    fn stamp_place(&self) -> String {
        format!("t{}", self.slot)
    }

    fn set_place(&self) -> String {
        format!("k{}", self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Secret;

    fn space(secret: u8, config: u8) -> Namespace {
        Namespace::new(&Secret::new(&[secret; 32]).unwrap().derive(), &[config; 32])
    }

    #[test]
    fn a_verdict_is_read_back_only_whole_in_its_own_slot_and_for_its_own_question() {
        let shared = SharedVerdicts::new(space(1, 1), 4).unwrap();
        let (digest, other_slot) = ([0u8; 16], {
            let mut other = [0u8; 16];
            other[3] = 1;
            other
        });
        let dead = Verdict::Dead { by: KeyPosition::new(3) };
        let bytes = shared.write(&digest, Monotonic(7), dead);
        assert_eq!(shared.read(&digest, &bytes), Some((Monotonic(7), dead)));
        assert_eq!(shared.read(&other_slot, &bytes), None);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(shared.read(&digest, &bad), None, "byte {at}");
            assert_eq!(shared.read(&digest, &bytes[..at]), None, "cut at {at}");
        }
        // Moved to the slot of another query with the same beginning.
        let mut moved = bytes.clone();
        moved[..16].copy_from_slice(&other_slot);
        assert_eq!(shared.read(&other_slot, &moved), None);
    }

    #[test]
    fn another_secret_or_configuration_reads_nothing() {
        let ours = SharedVerdicts::new(space(1, 1), 4).unwrap();
        let bytes = ours.write(&[0; 16], Monotonic(7), Verdict::Live);
        for (secret, config) in [(2, 1), (1, 2)] {
            let theirs = SharedVerdicts::new(space(secret, config), 4).unwrap();
            assert_eq!(theirs.read(&[0; 16], &bytes), None);
            assert_eq!(theirs.key(&[0; 16]) == ours.key(&[0; 16]), secret == 1);
        }
    }

    #[test]
    fn a_key_set_cannot_be_moved_to_another_issuer_or_taken_for_a_lease() {
        let derived = Secret::new(&[1; 32]).unwrap().derive();
        let mut same_slot = [1; 32];
        same_slot[31] = 2;
        let (first, second) = (SharedKeys::new(&derived, &[1; 32]), SharedKeys::new(&derived, &same_slot));
        assert_eq!(first.set_key(), second.set_key());
        let bytes = first.write_set(Monotonic(9), Monotonic(10), b"{}");
        assert_eq!(first.read_set(&bytes), Some((Monotonic(9), Monotonic(10), b"{}".as_slice())));
        assert_eq!(second.read_set(&bytes), None);
        let lease = Lease {
            started: Monotonic(1),
            unknown: Monotonic(2),
            resting: Monotonic(3),
            not_before: Monotonic(4),
            failures: Failures { count: 5, while_serving: true },
        };
        assert_eq!(first.read_lease(&first.write_lease(lease)), Some(lease));
        assert_eq!(first.read_stamp(&first.write_stamp(Monotonic(3))), Some(Monotonic(3)));
        assert_eq!(first.read_lease(&first.write_set(Monotonic(1), Monotonic(2), &[0; 8])), None);
    }
}
