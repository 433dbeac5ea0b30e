//! Both clocks.
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use authn::time::{Monotonic, Now, UnixSeconds};

/// What the monotonic clock counts from: a while before the process's first look, so that no time is 0.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
const AHEAD: u64 = 1_000_000_000;

/// `None` where the wall clock stands before 1970.
pub fn now() -> Option<Now> {
    let begin = *BEGIN;
    let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Now { wall: UnixSeconds(wall.as_secs()), monotonic: Monotonic(nanos.saturating_add(AHEAD)) })
}
