//! How far our clock is from DynamoDB's, by the `Date` of its replies (RFC 9110, section 6.6.1).
//!
//! A revocation of a user ends the tokens that were issued until now, and an entry has expired when its time is past: both are
//! judged by the clock of each instance.
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use store::StoreError;
use store::throttle::Throttle;

/// More than a slow reply explains.
const WARN_MILLIS: i64 = 2_000;
/// The store is closed above.
const MOST_MILLIS: i64 = 60_000;
/// `Date` has whole seconds.
const HALF_SECOND_MILLIS: i64 = 500;

#[derive(Debug)]
pub struct Clock {
    /// By the latest reply.
    ahead_millis: AtomicI64,
    lines: Throttle,
}

impl Default for Clock {
    fn default() -> Self {
        Self { ahead_millis: AtomicI64::default(), lines: Throttle::every(Duration::from_secs(60)) }
    }
}

impl Clock {
    /// A reply with this `Date` came at `now`, in Unix milliseconds.
    pub fn compare(&self, date: &str, now: u64) {
        let (Ok(date), Ok(now)) = (DateTime::from_str(date, DateTimeFormat::HttpDate), i64::try_from(now)) else {
            return;
        };
        let date = date.secs().saturating_mul(1000).saturating_add(HALF_SECOND_MILLIS);
        let ahead_millis = now.saturating_sub(date);
        self.ahead_millis.store(ahead_millis, Ordering::Relaxed);
        if ahead_millis.saturating_abs() > WARN_MILLIS
            && let Some(left_out) = self.lines.pass(Instant::now())
        {
            let is_closed = self.judge().is_err();
            tracing::warn!(
                ahead_millis,
                is_closed,
                left_out,
                "this host's clock differs from DynamoDB's: synchronise it"
            );
        }
    }

    /// # Errors
    /// Our clock is too far off.
    pub fn judge(&self) -> Result<(), StoreError> {
        match self.ahead_millis.load(Ordering::Relaxed) {
            ahead if ahead < -MOST_MILLIS => Err(StoreError::ClockBehind),
            ahead if ahead > MOST_MILLIS => Err(StoreError::StoreFailed),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_too_far_off_above_a_minute_in_either_direction() {
        // 1994-11-15T08:12:31Z.
        const DATE: &str = "Tue, 15 Nov 1994 08:12:31 GMT";
        const MIDDLE: u64 = 784_887_151_500;
        let judged = |now| {
            let clock = Clock::default();
            clock.compare(DATE, now);
            clock.judge()
        };
        assert_eq!((judged(MIDDLE + 60_000), judged(MIDDLE - 60_000)), (Ok(()), Ok(())));
        assert_eq!(judged(MIDDLE + 60_001), Err(StoreError::StoreFailed));
        assert_eq!(judged(MIDDLE - 60_001), Err(StoreError::ClockBehind));
        let clock = Clock::default();
        clock.compare(DATE, 0);
        clock.compare("today", MIDDLE);
        assert!(clock.judge().is_err(), "what cannot be read says nothing");
        clock.compare(DATE, MIDDLE);
        assert_eq!(clock.judge(), Ok(()));
    }
}
