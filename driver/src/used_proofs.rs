//! The used proofs of possession, remembered for all workers of the process: MACs in slots of the host's shared data. A slot
//! changes only by compare-and-set, so of two requests with one proof, on any workers, one is the first.
use authn::dpop::{Dpop, Proven};
use authn::reject::Cause;
use authn::time::UnixSeconds;
use wire::DerivedKeys;

use crate::host::{Cas, Host, HostError, PutError};
use crate::shared::Namespace;

/// The proofs that a slot holds if the memory is as full as configured. Proofs spread unevenly, so a slot has room for
/// [`MAX_IN_SLOT`].
const MEAN_IN_SLOT: usize = 8;
const MAX_IN_SLOT: usize = 24;
/// `mac 16 | until u64`.
const ENTRY: usize = 24;
/// A proof is remembered so much longer than it counts: a request that was judged in time may wait before it is admitted,
/// and the clocks of VMs are read at different moments.
const KEPT_LONGER: u64 = 30;
/// How often other workers may change a slot between our read and our write.
const CAS_TRIES: u32 = 64;
/// The memory outlasts a configuration: a proof must not pass again after an update.
const FOR_ALL_CONFIGURATIONS: [u8; 32] = *b"used dpop proofs, in any config.";

pub struct UsedProofs {
    space: Namespace,
    derived: DerivedKeys,
    slots: u64,
}

impl UsedProofs {
    pub fn new(dpop: &Dpop) -> Self {
        let derived = dpop.derived().clone();
        let slots = dpop.remembered_proofs().div_ceil(MEAN_IN_SLOT).max(1);
        let space = Namespace::new(&derived, &FOR_ALL_CONFIGURATIONS);
        Self { space, derived, slots: u64::try_from(slots).unwrap_or(1) }
    }

    /// Makes all slots. An absent slot could only be written without a comparison, and then two workers could both be the
    /// first. In Wasm, Envoy configures a VM on the main thread before any worker, so no request comes meanwhile.
    ///
    /// # Errors
    /// The host has no shared data.
    pub fn prepare(&self, host: &mut impl Host) -> Result<(), HostError> {
        // They are made in order.
        if host.shared_get(&self.space.key(&self.place(self.slots.saturating_sub(1))))?.is_some() {
            return Ok(());
        }
        for slot in 0..self.slots {
            let place = self.place(slot);
            let key = self.space.key(&place);
            if host.shared_get(&key)?.is_none() {
                match host.shared_put(&key, &self.space.seal(&place, Vec::new()), 0) {
                    Ok(()) | Err(PutError::Changed) => {}
                    Err(PutError::Host(error)) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Uses a proof up.
    ///
    /// # Errors
    /// It was used before, or nobody can tell: the request must be refused.
    pub fn use_up(&self, host: &mut impl Host, proven: &Proven, now: UnixSeconds) -> Result<(), Cause> {
        let (mac, place) = self.mac_and_place(proven);
        let key = self.space.key(&place);
        for _ in 0..CAS_TRIES {
            let (mut kept, cas) = self.others(host, &mac, &place, now)?;
            kept.extend_from_slice(&mac);
            kept.extend_from_slice(&proven.until.0.to_be_bytes());
            match host.shared_put(&key, &self.space.seal(&place, kept), cas) {
                Ok(()) => return Ok(()),
                Err(PutError::Changed) => {}
                Err(PutError::Host(_)) => return Err(Cause::ProofsUnreachable),
            }
        }
        Err(Cause::ProofsUnreachable)
    }

    /// Could it be used up now? Another request may still be the first.
    ///
    /// # Errors
    /// As for [`UsedProofs::use_up`].
    pub fn may_be_used(&self, host: &mut impl Host, proven: &Proven, now: UnixSeconds) -> Result<(), Cause> {
        let (mac, place) = self.mac_and_place(proven);
        self.others(host, &mac, &place, now).map(drop)
    }

    /// Keyed, so that no client can choose the slot.
    fn mac_and_place(&self, proven: &Proven) -> ([u8; 16], String) {
        let mac = self.derived.cache_mac(&[b"used proof", &proven.digest]);
        let [a, b, c, d, e, f, g, h, ..] = mac;
        let slot = u64::from_be_bytes([a, b, c, d, e, f, g, h]).checked_rem(self.slots).unwrap_or(0);
        (mac, self.place(slot))
    }

    /// The other proofs in a slot that has room for this one.
    fn others(
        &self,
        host: &mut impl Host,
        mac: &[u8; 16],
        place: &str,
        now: UnixSeconds,
    ) -> Result<(Vec<u8>, Cas), Cause> {
        let Ok(Some((bytes, cas))) = host.shared_get(&self.space.key(place)) else {
            return Err(Cause::ProofsUnreachable);
        };
        let entries = self.space.open(place, &bytes).ok_or(Cause::ProofsUnreachable)?;
        let mut kept = Vec::with_capacity(entries.len().saturating_add(ENTRY));
        for entry in entries.chunks_exact(ENTRY) {
            let Some((own, until)) = entry.split_first_chunk::<16>() else { continue };
            let until = until.try_into().map_or(u64::MAX, u64::from_be_bytes);
            if now.0 > until.saturating_add(KEPT_LONGER) {
                continue;
            }
            if own == mac {
                return Err(Cause::ProofReplayed);
            }
            kept.extend_from_slice(entry);
        }
        if kept.len() >= MAX_IN_SLOT.saturating_mul(ENTRY) {
            return Err(Cause::ProofsFull);
        }
        Ok((kept, cas))
    }

    /// For how long a service must remember it.
    pub fn remembered_seconds(proven: &Proven, now: UnixSeconds) -> u16 {
        let seconds = proven.until.0.saturating_sub(now.0).saturating_add(KEPT_LONGER);
        u16::try_from(seconds).unwrap_or(u16::MAX)
    }

    /// With their number: the slot of a proof depends on it.
    fn place(&self, slot: u64) -> String {
        format!("p{}.{slot}", self.slots)
    }
}
