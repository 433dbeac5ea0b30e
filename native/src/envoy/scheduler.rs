//! What brings an event from any thread to a stream's worker, or to a configuration on the main thread.
use crate::abi::{self, SchedulerPtr};

/// Wakes one stream on its worker. Does nothing once the stream is gone.
pub struct StreamScheduler(SchedulerPtr);

/// Wakes one configuration on the main thread. Does nothing once the configuration is gone.
pub struct ConfigScheduler(SchedulerPtr);

// SAFETY: Envoy's schedulers hold a weak pointer to what they wake and post to its dispatcher, which any thread may do
// (abi.h: "safe to call from any thread"). Nothing in them belongs to the thread that made them.
unsafe impl Send for StreamScheduler {}
// SAFETY: as above; to wake changes nothing in the scheduler itself.
unsafe impl Sync for StreamScheduler {}
// SAFETY: as above.
unsafe impl Send for ConfigScheduler {}
// SAFETY: as above.
unsafe impl Sync for ConfigScheduler {}

impl StreamScheduler {
    pub(super) fn own(scheduler: SchedulerPtr) -> Self {
        Self(scheduler)
    }

    /// [`crate::hooks`] hears `event` on the stream's worker.
    pub fn wake(&self, event: u64) {
        // SAFETY: the scheduler is ours until it is dropped.
        unsafe { abi::scheduler_commit(self.0, event) }
    }
}

impl Drop for StreamScheduler {
    fn drop(&mut self) {
        // SAFETY: it was made by the callback that this one belongs to, and is deleted once.
        unsafe { abi::scheduler_delete(self.0) }
    }
}

impl ConfigScheduler {
    pub(super) fn own(scheduler: SchedulerPtr) -> Self {
        Self(scheduler)
    }

    /// [`crate::hooks`] hears `event` on the main thread.
    pub fn wake(&self, event: u64) {
        // SAFETY: the scheduler is ours until it is dropped.
        unsafe { abi::config_scheduler_commit(self.0, event) }
    }
}

impl Drop for ConfigScheduler {
    fn drop(&mut self) {
        // SAFETY: it was made by the callback that this one belongs to, and is deleted once.
        unsafe { abi::config_scheduler_delete(self.0) }
    }
}
