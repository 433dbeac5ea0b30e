//! Whether the service knows enough of other regions, judged when its reply comes.
use std::time::Duration;

use authn::time::{Monotonic, Now};
use wire::check::RegionsMoment;

use super::Dispatcher;
use crate::counts::Counter;
use crate::host::{Host, Level};
use crate::metrics::Metric;

impl Dispatcher {
    /// Whether a reply counts that says this of other regions. `sent`: when its question was sent.
    pub(super) fn regions_allow(
        &mut self,
        host: &mut impl Host,
        moment: RegionsMoment,
        sent: Monotonic,
        now: Now,
    ) -> bool {
        let Some(regions) = self.core.policy.revocation().and_then(|revocation| revocation.regions) else {
            return true;
        };
        let lag = lag(moment, now.monotonic.since(sent));
        if let Some(lag) = lag {
            host.record(Metric::RegionsLagMilliseconds, &[], u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        }
        let is_exceeded = lag.is_none_or(|lag| lag > regions.max_lag);
        if is_exceeded {
            self.counts.count(Counter::RegionsExceeded);
        }
        // Once for each change.
        if std::mem::replace(&mut self.regions_exceeded, is_exceeded) != is_exceeded {
            let (level, is) = if is_exceeded { (Level::Warn, "is exceeded") } else { (Level::Info, "is kept again") };
            host.log(level, format_args!("portcullis: revocation.regions.max_lag {is}"));
        }
        !(is_exceeded && regions.closes)
    }
}

/// The service counts from when it received the question, which was not before it was sent.
fn lag(moment: RegionsMoment, since: Duration) -> Option<Duration> {
    let millis = moment.millis()?;
    let by = Duration::from_millis(millis.unsigned_abs().into());
    Some(if millis < 0 { since.saturating_add(by) } else { since.saturating_sub(by) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_counted_from_when_the_question_was_sent() {
        let of = |millis, since| lag(RegionsMoment::of(millis), Duration::from_millis(since));
        assert_eq!(of(0, 7), Some(Duration::from_millis(7)));
        assert_eq!(of(-100, 7), Some(Duration::from_millis(107)));
        assert_eq!(of(5, 7), Some(Duration::from_millis(2)));
        assert_eq!(of(9, 7), Some(Duration::ZERO), "a moment that has not come yet proves no more than now");
        assert_eq!(of(i32::MIN, 7), None);
    }
}
