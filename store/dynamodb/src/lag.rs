//! The lag of a revocation: from its commit to the first answer that tells of it, each measured once.
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wire::{Answer, RevocationKey};

/// Twice the longest freshness. After that no client was waiting: the session was not used.
const MAX_LAG: Duration = Duration::from_secs(10);
/// Revocations that wait for their first answer. Further ones are not measured.
const MAX_WAITING: usize = 4096;

#[derive(Debug, Default)]
pub struct Lag(Mutex<HashMap<RevocationKey, Instant>>);

impl Lag {
    pub fn revoked(&self, keys: impl Iterator<Item = RevocationKey>) {
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|_, at| now.duration_since(*at) < MAX_LAG);
        }
        for key in keys {
            if waiting.len() < MAX_WAITING {
                waiting.entry(key).or_insert(now);
            }
        }
    }

    /// The lags that `answers` end.
    pub fn answered(&self, keys: &[RevocationKey], answers: &[Answer]) -> Vec<Duration> {
        match answers.iter().all(|answer| *answer == Answer::Live) {
            true => Vec::new(),
            false => {
                let ended = keys.iter().zip(answers).filter(|(_, answer)| **answer != Answer::Live);
                self.told(ended.map(|(key, _)| key))
            }
        }
    }

    /// As [`Lag::answered`], for keys that are known to be revoked.
    pub fn told<'a>(&self, keys: impl Iterator<Item = &'a RevocationKey>) -> Vec<Duration> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lags = keys.filter_map(|key| waiting.remove(key)).map(|at| at.elapsed());
        lags.filter(|lag| *lag < MAX_LAG).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revocation_is_measured_once_and_only_by_an_answer_that_tells_of_it() {
        let (lag, key, other) = (Lag::default(), RevocationKey([1; 16]), RevocationKey([2; 16]));
        lag.revoked([key, other].into_iter());
        assert!(lag.answered(&[key], &[Answer::Live]).is_empty());
        assert_eq!(lag.answered(&[key], &[Answer::Dead]).len(), 1);
        assert!(lag.answered(&[key], &[Answer::Dead]).is_empty());
        assert_eq!(lag.told([other].iter()).len(), 1);
    }
}
