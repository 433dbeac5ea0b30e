//! Both clocks.
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use authn::time::{Monotonic, Now, UnixSeconds};

use crate::injection;

/// The start of the monotonic clock, some time before the process's first reading, so that no time is 0.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
const AHEAD: u64 = 1_000_000_000;

/// `None` if the wall clock is before 1970.
pub fn now() -> Option<Now> {
    if let Some(chosen) = injection::now() {
        return Some(chosen);
    }
    let begin = *BEGIN;
    let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Now { wall: UnixSeconds(wall.as_secs()), monotonic: Monotonic(nanos.saturating_add(AHEAD)) })
}
