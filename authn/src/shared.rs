//! Verdicts that all workers of a proxy share, as bytes in a fixed ring of slots. Whoever else can write there (in Istio
//! every WasmPlugin of a proxy shares one namespace) cannot forge an entry, since each carries a MAC over slot, question,
//! time and configuration.
use wire::Derived;

use crate::revocation::Verdict;
use crate::time::Monotonic;

const MAC: usize = 16;
/// `"1" | digest 16 | sent u64 | verdict u8 | mac 16`
const ENTRY: usize = 1 + 16 + 8 + 1 + MAC;

/// Names slots and authenticates what is in them.
#[derive(Debug)]
pub struct SharedVerdicts {
    prefix: String,
    slots: u32,
    derived: Derived,
    config: [u8; 32],
}

impl SharedVerdicts {
    /// `None` when `slots` is 0: nothing is shared then.
    pub fn new(derived: &Derived, config: &[u8; 32], slots: usize) -> Option<Self> {
        let slots = u32::try_from(slots).ok().filter(|slots| *slots > 0)?;
        // Nobody without the secret can guess the names, so nobody can fill them on purpose.
        let prefix = crate::b64::encode(derived.cache_mac(&[b"prefix", config]));
        Some(Self { prefix, slots, derived: derived.clone(), config: *config })
    }

    /// The slot of a question.
    pub fn slot(&self, digest: &[u8; 16]) -> u32 {
        let [a, b, c, d, ..] = *digest;
        u32::from_be_bytes([a, b, c, d]).checked_rem(self.slots).unwrap_or(0)
    }

    /// The shared-data key of a slot.
    pub fn key(&self, slot: u32) -> String {
        format!("{}.{slot}", self.prefix)
    }

    pub fn write(&self, digest: &[u8; 16], sent: Monotonic, verdict: Verdict) -> Vec<u8> {
        let mut entry = Vec::with_capacity(ENTRY);
        entry.push(1);
        entry.extend_from_slice(digest);
        entry.extend_from_slice(&sent.0.to_be_bytes());
        entry.push(match verdict {
            Verdict::Live => 0,
            Verdict::Dead => 1,
        });
        let mac = self.mac(self.slot(digest), &entry);
        entry.extend_from_slice(&mac);
        entry
    }

    /// The verdict on just this question, if the slot holds one and it is ours.
    pub fn read(&self, digest: &[u8; 16], bytes: &[u8]) -> Option<(Monotonic, Verdict)> {
        let (signed, mac) = bytes.split_last_chunk::<MAC>()?;
        let (version, rest) = signed.split_first()?;
        let (found, rest) = rest.split_first_chunk::<16>()?;
        let (sent, verdict) = rest.split_first_chunk::<8>()?;
        if *version != 1 || found != digest {
            return None;
        }
        let verdict = match verdict {
            [0] => Verdict::Live,
            [1] => Verdict::Dead,
            _ => return None,
        };
        let expected = self.mac(self.slot(digest), signed);
        bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_slice(), mac.as_slice()))
            .then_some((Monotonic(u64::from_be_bytes(*sent)), verdict))
    }

    fn mac(&self, slot: u32, entry: &[u8]) -> [u8; MAC] {
        self.derived.cache_mac(&[b"verdict", &slot.to_be_bytes(), &self.config, entry])
    }
}
