//! The short run: inputs made from seeds by a generator that gives the same ones each time.
use std::panic::{self, AssertUnwindSafe};

use crate::target::Target;

/// Runs `inputs` inputs of a target.
///
/// # Panics
/// A property does not hold: with the input, which belongs among the seeds then.
pub fn run(target: &Target, inputs: u32) {
    let seeds = (target.seeds)();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        judge(target, seed);
    }
    for _ in 0..inputs {
        judge(target, &random.input(&seeds));
    }
}

fn judge(target: &Target, input: &[u8]) {
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        eprintln!("{} fails for b\"{}\"", target.name, input.escape_ascii());
        panic::resume_unwind(panic);
    }
}

/// SplitMix64: small, and good enough to choose bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = match self.below(8) {
            0 => (0..self.below(64)).map(|_| self.next() as u8).collect(),
            _ => seeds[self.below(seeds.len())].clone(),
        };
        for _ in 0..=self.below(4) {
            self.change(&mut input, seeds);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(7) {
            0 if at < input.len() => input[at] = self.next() as u8,
            1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => drop(input.remove(at)),
            3 => input.insert(at, self.next() as u8),
            4 => input.truncate(at),
            // A part of a seed, or of the input itself, in the middle: what a grammar repeats and nests.
            5 => {
                let seed = &seeds[self.below(seeds.len())];
                let from = self.below(seed.len() + 1);
                let to = from + self.below(seed.len() - from + 1);
                input.splice(at..at, seed[from..to].iter().copied());
            }
            _ => {
                let to = at + self.below((input.len() - at).min(16) + 1);
                let part = input[at..to].to_vec();
                input.splice(at..at, part);
            }
        }
    }
}
