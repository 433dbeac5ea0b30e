//! Lines that strangers can cause, in the log and elsewhere: one in a while, with the number of those left out.
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For the log.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Throttle {
    pause: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    pub fn every(pause: Duration) -> Self {
        Self { pause, state: Mutex::default() }
    }

    /// `None` if this one is to be left out; else how many were, since the last that was not.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, left_out) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.pause) {
            *left_out = left_out.saturating_add(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(left_out))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::every(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_passes_and_tells_of_the_others() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |millis| throttle.pass(start + Duration::from_millis(millis));
        assert_eq!(
            [at(0), at(1), at(999), at(1000), at(1500), at(2001)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
