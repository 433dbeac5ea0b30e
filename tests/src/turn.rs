//! Turns of tests that load the machine or measure time: one of them runs at a time.
use tokio::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::const_new(());

/// Waits until no other test of this process is under load. The test holds the guard to its end.
pub async fn under_load() -> MutexGuard<'static, ()> {
    TURN.lock().await
}
