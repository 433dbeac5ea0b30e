//! Open streams: their sessions are asked about like those of requests, and their ends are reported to the workers.
use authn::decide::Watched;
use authn::revocation::Revocation;
use authn::time::{Monotonic, Now};

use super::Dispatcher;
use super::following::Feed;
use crate::checks::Trigger;
use crate::counts::EndCause;
use crate::host::{Host, StreamId};
use crate::streams::{Full, Pace, Urgency};

impl Dispatcher {
    /// A request was admitted, and its stream must end with its session or token.
    pub(crate) fn enter_stream(
        &mut self,
        stream: StreamId,
        rule: usize,
        watched: Watched,
        now: Now,
    ) -> Result<(), Full> {
        let pace = self.pace(now.monotonic);
        let known = self.feed.as_ref().map(Feed::known);
        self.streams.enter(stream, (rule, watched), known, pace, now.monotonic)
    }

    /// The next stream to end, if there is one. [`crate::Worker::end`] ends it. It is named again until it is gone.
    pub fn poll_end(&mut self) -> Option<StreamId> {
        self.streams.poll()
    }

    /// The rule of a stream that is to be ended, and why it is.
    pub(crate) fn ending(&self, stream: StreamId) -> Option<(usize, EndCause)> {
        self.streams.ending(stream)
    }

    /// The feed's picture has changed.
    pub(super) fn compare_streams(&mut self, now: Monotonic) {
        if let Some(feed) = &self.feed {
            self.streams.compare(feed.known().picture, now);
        }
    }

    pub(super) fn judge_streams(&mut self, host: &mut impl Host, now: Now) {
        if self.streams.is_empty() {
            return;
        }
        let (pace, checking) = (self.pace(now.monotonic), &mut self.checking);
        let mut is_urgent = false;
        self.streams.judge(pace, now, |query, urgency| {
            let Some(checking) = checking else { return false };
            is_urgent |= urgency == Urgency::AtOnce;
            checking.ask_about_stream(query, urgency)
        });
        if is_urgent {
            self.send_checks(host, Trigger::Waiters, now);
        }
    }

    fn pace(&self, now: Monotonic) -> Pace {
        let revocation = self.core.policy.revocation();
        let complete = revocation.zip(self.feed.as_ref()).and_then(|(revocation, feed)| proof(revocation, feed, now));
        Pace {
            again_after: revocation.map(Revocation::ask_again_after).unwrap_or_default(),
            timeout: revocation.map(|revocation| revocation.timeout).unwrap_or_default(),
            complete,
        }
    }
}

/// Up to when the picture is complete, if it is fresh.
fn proof(revocation: &Revocation, feed: &Feed, now: Monotonic) -> Option<Monotonic> {
    let (known, settings) = (feed.known(), revocation.feed?);
    known.is_fresh(settings.lag, now).then_some(known.complete)
}
