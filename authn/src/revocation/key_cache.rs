//! A cache of derived revocation keys that many tokens share (issuer, signing key, client), so that they need not be
//! derived for every new token. A fixed number of slots: entries in one slot displace each other, and are derived
//! again.
use std::sync::Mutex;

use wire::{DerivedKeys, Kind, RevocationKey};

const SLOTS: usize = 256;
/// Longer ids are rare, and would displace others.
const LONGEST: usize = 128;

#[derive(Debug, Default)]
pub struct KeyCache(Mutex<Vec<Option<Known>>>);

#[derive(Debug, Clone)]
struct Known {
    kind: Kind,
    issuer: String,
    id: Vec<u8>,
    key: RevocationKey,
}

impl KeyCache {
    pub fn derive(&self, derived: &DerivedKeys, kind: Kind, issuer: &str, id: &[u8]) -> RevocationKey {
        let fresh = || derived.revocation_key(kind, issuer, id);
        if !kind.is_shared() || id.len() > LONGEST {
            return fresh();
        }
        let Ok(mut slots) = self.0.try_lock() else { return fresh() };
        if slots.is_empty() {
            slots.resize(SLOTS, None);
        }
        let Some(slot) = slots.get_mut(index(kind, id)) else { return fresh() };
        match slot {
            Some(known) if known.kind == kind && known.id == id && known.issuer == issuer => known.key,
            Some(known) => {
                (known.kind, known.key) = (kind, fresh());
                // In the memory of the entry that is displaced.
                issuer.clone_into(&mut known.issuer);
                id.clone_into(&mut known.id);
                known.key
            }
            None => {
                let key = fresh();
                *slot = Some(Known { kind, issuer: issuer.to_owned(), id: id.to_owned(), key });
                key
            }
        }
    }
}

fn index(kind: Kind, id: &[u8]) -> usize {
    // FNV-1a. An attacker who makes ids collide only causes them to be derived again.
    let hash = id.iter().fold(0x811c_9dc5 ^ u32::from(kind.code()), |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    usize::try_from(hash >> 24).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_whether_known_or_not_and_whoever_had_its_place() {
        let derived = wire::Secret::new(&[7; 32]).unwrap().derive();
        let memo = KeyCache::default();
        for _ in 0..2 {
            for number in 0..2_000u32 {
                let id = number.to_string();
                for kind in Kind::ALL {
                    for issuer in ["https://a.example", "https://b.example"] {
                        let key = memo.derive(&derived, kind, issuer, id.as_bytes());
                        assert_eq!(key, derived.revocation_key(kind, issuer, id.as_bytes()), "{kind:?} {issuer} {id}");
                    }
                }
            }
        }
        assert!(memo.0.lock().unwrap().len() <= SLOTS);
    }

    #[test]
    fn what_each_token_has_of_its_own_takes_no_place() {
        let derived = wire::Secret::new(&[7; 32]).unwrap().derive();
        let memo = KeyCache::default();
        for kind in [Kind::Token, Kind::Session, Kind::User] {
            memo.derive(&derived, kind, "https://a.example", b"id");
        }
        memo.derive(&derived, Kind::Client, "https://a.example", &[b'x'; LONGEST + 1]);
        assert!(memo.0.lock().unwrap().is_empty());
    }
}
