//! The wall clock, read in this one place.
use std::time::{SystemTime, UNIX_EPOCH};

/// Since 1970. A clock set before that reads as 1970.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub fn unix_seconds() -> u64 {
    unix_millis() / 1000
}
