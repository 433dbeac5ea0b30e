//! How many calls each caller of the admin listener may make.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Callers that are told apart; more share one allowance. Only authenticated callers count.
const MAX_CALLERS: usize = 1024;
/// Refused calls in a second, from all addresses together. More are not even told why.
const MAX_REFUSED: u32 = 50;

/// Each caller may make so many calls at once, and as many more in each second.
#[derive(Debug)]
pub struct Rates {
    per_second: u32,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
    refused: Mutex<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub fn new(per_second: u32, now: Instant) -> Self {
        let refused = Bucket { left: f64::from(MAX_REFUSED), at: now };
        Self { per_second, buckets: Mutex::default(), refused: Mutex::new(refused) }
    }

    pub fn take(&self, caller: &Arc<str>, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = match buckets.len() >= MAX_CALLERS && !buckets.contains_key(caller) {
            true => Arc::from(""),
            false => Arc::clone(caller),
        };
        let full = Bucket { left: f64::from(self.per_second), at: now };
        buckets.entry(caller).or_insert(full).take(self.per_second, now)
    }

    pub fn take_refused(&self, now: Instant) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take(MAX_REFUSED, now)
    }
}

impl Bucket {
    fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let most = f64::from(per_second);
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * most).min(most);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_caller_has_so_many_calls_at_once_and_in_each_second() {
        let start = Instant::now();
        let rates = Rates::new(2, start);
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let at = |millis| start + Duration::from_millis(millis);
        let taken = [at(0), at(0), at(0), at(499), at(500), at(999), at(1000)].map(|now| rates.take(&one, now));
        assert_eq!(taken, [true, true, false, false, true, false, true]);
        assert!(rates.take(&other, at(0)));
        assert_eq!([at(9000), at(9000), at(9000)].map(|now| rates.take(&one, now)), [true, true, false]);
    }

    #[test]
    fn callers_beyond_the_bound_share_one_allowance() {
        let start = Instant::now();
        let rates = Rates::new(1, start);
        for n in 0..MAX_CALLERS {
            assert!(rates.take(&n.to_string().into(), start));
        }
        assert!(rates.take(&"late".into(), start));
        assert!(!rates.take(&"later".into(), start));
        assert_eq!(rates.buckets.lock().unwrap().len(), MAX_CALLERS + 1);
    }
}
