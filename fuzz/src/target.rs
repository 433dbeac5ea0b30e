//! What a target is.

/// A target, and inputs from which others are made.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs in the short run: about a second for all targets together.
    pub inputs: u32,
}

pub(crate) fn owned(seeds: &[&[u8]]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.to_vec()).collect()
}
