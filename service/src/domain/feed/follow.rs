//! The task that follows the store's log, in rounds.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use store::StoreError;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Feed;
use super::picture::Changed;

/// Rounds end when nobody has polled for so long. The next poll begins anew.
const IDLE: Duration = Duration::from_secs(120);
/// Between the beginnings of two rounds, however much is written.
const LEAST_PAUSE: Duration = Duration::from_millis(5);
/// Between two rounds that failed.
const RETRY: Duration = Duration::from_millis(200);
/// After a shard was read anew, none is for so many times as long as that took, and at most [`LONGEST_REST`]: a log that is
/// lost again and again must not cost Redis more.
const RESTS: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(5);
/// Replies to all followers in a second, while there is always something new. More of it is sent at once then, up to
/// [`MOST_HELD`] later.
const REPLIES: u32 = 12_500;
const MOST_HELD: Duration = Duration::from_millis(250);

impl Feed {
    pub async fn run(self: Arc<Self>, mut on_end: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = on_end.wait_for(|end| *end) => {}
        }
    }

    async fn follow(&self) {
        let (mut announced, mut is_news) = (Instant::now(), false);
        let mut rests_until = Instant::now();
        loop {
            if !self.is_polled() {
                self.forget().await;
                self.wake.notified().await;
                continue;
            }
            let reads_anew = self.state().picture.here().is_none();
            if reads_anew {
                sleep(rests_until.saturating_duration_since(Instant::now())).await;
            }
            let began = Instant::now();
            let pause = match self.round(began).await {
                Ok(changed) => {
                    if reads_anew {
                        rests_until = Instant::now() + (began.elapsed() * RESTS).min(LONGEST_REST);
                    }
                    is_news |= changed.entries > 0;
                    let is_due = began.saturating_duration_since(announced) >= self.held();
                    if changed.gaps > 0 || (is_news && is_due) {
                        self.announce();
                        (announced, is_news) = (began, false);
                    }
                    // A gap is read anew at once, if there was none a moment ago.
                    if changed.gaps > 0 { Duration::ZERO } else { self.config.round }
                }
                Err(_) => self.config.round.max(RETRY),
            };
            let next = began + pause;
            sleep(LEAST_PAUSE.saturating_sub(began.elapsed())).await;
            // The end of the time is the usual case.
            let _ = timeout(next.saturating_duration_since(Instant::now()), self.wake.notified()).await;
        }
    }

    /// One round. What it learned is in the picture when it returns.
    ///
    /// # Errors
    /// Nothing was learned.
    pub(super) async fn round(&self, began: Instant) -> Result<Changed, StoreError> {
        let places = self.state().picture.places();
        let news = self.log.follow(&places).await;
        let now = Instant::now();
        let mut state = self.state();
        let error = news.as_ref().err().copied();
        let was = (state.error, state.picture.complete().is_some());
        let changed = news.map(|news| state.picture.apply(news, began, now));
        state.error = error;
        state.picture.purge(now);
        let picture = &state.picture;
        let is_complete = picture.complete().is_some();
        self.metrics.round(changed.as_ref().map(|changed| changed.gaps), picture.complete(), picture.keys());
        self.metrics.bytes(picture.bytes());
        drop(state);
        // Whether there can be an answer is told at once.
        if was != (error, is_complete) {
            self.announce();
        }
        if let Some(error) = error.filter(|_| was.0 != error) {
            tracing::warn!(error = error.name(), "the feed does not follow the store");
        } else if was.0.is_some() && error.is_none() {
            tracing::info!("the feed follows the store again");
        }
        changed
    }

    fn is_polled(&self) -> bool {
        let is_polled = self.state().last_poll.is_some_and(|last| last.elapsed() < IDLE);
        let is_waiting = self.followers.available_permits() < self.config.max_followers;
        self.is_followed.store(is_polled || is_waiting, Ordering::Relaxed);
        is_polled || is_waiting
    }

    async fn forget(&self) {
        {
            let mut state = self.state();
            state.picture.forget(Instant::now());
            state.error = None;
        }
        self.metrics.forgotten();
        self.snapshots.lock().await.clear();
    }

    /// How long news waits for more, so that many followers do not cost more than they can.
    fn held(&self) -> Duration {
        let followers = self.config.max_followers.saturating_sub(self.followers.available_permits());
        let followers = u32::try_from(followers).unwrap_or(u32::MAX);
        (Duration::from_secs(1) * followers.min(REPLIES) / REPLIES).min(MOST_HELD)
    }
}
