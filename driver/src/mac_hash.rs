//! Maps whose keys are MACs under our secret. Nobody else can choose where those fall, so eight bytes of one are its hash.
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

pub type MacMap<K, V> = HashMap<K, V, BuildHasherDefault<MacHasher>>;
pub type MacSet<K> = HashSet<K, BuildHasherDefault<MacHasher>>;

#[derive(Debug, Default)]
pub struct MacHasher(u64);

impl Hasher for MacHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    /// The length of an array, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_told_apart_even_where_their_hashes_are_equal() {
        let mut map: MacMap<[u8; 16], u8> = MacMap::default();
        for last in 0..=u8::MAX {
            let mut key = [7; 16];
            key[15] = last;
            assert_eq!(map.insert(key, last), None);
        }
        assert!(map.iter().all(|(key, last)| key[15] == *last));
        assert_eq!(map.len(), 256);
    }
}
