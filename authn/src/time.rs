//! Points in time, as types: the wall clock for claims, the monotonic clock for freshness.
use std::time::Duration;

/// Whole seconds since 1970-01-01T00:00:00Z, without leap seconds (RFC 7519 NumericDate, rounded by its reader).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

/// Nanoseconds of the host's monotonic clock, which all VMs of a process share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub wall: UnixSeconds,
    pub monotonic: Monotonic,
}

impl UnixSeconds {
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl Monotonic {
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Zero if `earlier` is in fact later.
    pub fn since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
