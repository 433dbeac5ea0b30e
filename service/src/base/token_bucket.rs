//! How often something may be done that strangers can cause: so many times at once, and once more after each interval.
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    burst: u32,
    interval: Duration,
    /// When it is full again. `None`: it is.
    full: Option<Instant>,
}

impl Bucket {
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { burst, interval, full: None }
    }

    /// From when on there is one to take; `now` if there is one now.
    pub fn next(&self, now: Instant) -> Instant {
        let spare = self.interval.saturating_mul(self.burst.saturating_sub(1));
        self.full.and_then(|full| full.checked_sub(spare)).map_or(now, |next| next.max(now))
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let there = self.next(now) <= now;
        if there {
            self.full = Some(self.full.map_or(now, |full| full.max(now)) + self.interval);
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_in_each_interval() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, Duration::from_secs(10));
        let mut at = |millis| bucket.take(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(0), at(1), at(2), at(9_999)], [true, true, true, false, false]);
        assert_eq!([at(10_000), at(10_001), at(20_000), at(20_000)], [true, false, true, false]);
        // Idle for long, it is full and no fuller.
        assert_eq!([at(90_000), at(90_000), at(90_000), at(90_000)], [true, true, true, false]);
        assert_eq!(bucket.next(start + Duration::from_secs(90)), start + Duration::from_secs(100));
    }
}
