//! The reasons why the service cannot answer a check.

/// Why the service cannot answer. Each reason has an HTTP status of its own class: 4xx for an error of the check, 5xx
/// for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreError {
    /// Redis refused or closed the connection.
    StoreRefused,
    /// Redis did not answer in time.
    StoreSlow,
    /// Redis answered with an error.
    StoreFailed,
    /// The store is not the configured one: its sentinel is missing or has another id.
    StoreChanged,
    /// The store may lose revocations (its eviction policy), so an absent entry proves nothing.
    StoreUnsafe,
    /// The service keeps revocations for a shorter time than the filter accepts tokens. The filter detects this from
    /// the retention in the reply.
    RetentionTooShort,
    /// The service's tolerance for issuers' clocks that run ahead is smaller than the filter's.
    ToleranceTooShort,
    /// The service's clock is behind the filter's: it would treat tokens as issued after a revocation that were issued
    /// before it.
    ClockBehind,
    /// It is not known whether the service has the revocations of other regions that the filter requires. The filter detects
    /// this from the reply.
    RegionsBehind,
}

impl StoreError {
    /// Its index in [`StoreError::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    pub const ALL: [StoreError; 9] = [
        StoreError::StoreRefused,
        StoreError::StoreSlow,
        StoreError::StoreFailed,
        StoreError::StoreChanged,
        StoreError::StoreUnsafe,
        StoreError::RetentionTooShort,
        StoreError::ToleranceTooShort,
        StoreError::ClockBehind,
        StoreError::RegionsBehind,
    ];

    /// Codes are never reused.
    pub fn code(self) -> u8 {
        match self {
            StoreError::StoreRefused => 1,
            StoreError::StoreSlow => 2,
            StoreError::StoreFailed => 3,
            StoreError::StoreChanged => 4,
            StoreError::StoreUnsafe => 5,
            StoreError::RetentionTooShort => 6,
            StoreError::ToleranceTooShort => 7,
            StoreError::ClockBehind => 8,
            StoreError::RegionsBehind => 9,
        }
    }

    /// The name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            StoreError::StoreRefused => "store_refused",
            StoreError::StoreSlow => "store_slow",
            StoreError::StoreFailed => "store_failed",
            StoreError::StoreChanged => "store_changed",
            StoreError::StoreUnsafe => "store_unsafe",
            StoreError::RetentionTooShort => "retention_too_short",
            StoreError::ToleranceTooShort => "tolerance_too_short",
            StoreError::ClockBehind => "clock_behind",
            StoreError::RegionsBehind => "regions_behind",
        }
    }
}
