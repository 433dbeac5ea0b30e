//! Follows the service's feed: polls, takes news over, and publishes what is known. Where several VMs make a process, one
//! of them follows, and the others take the picture over from shared data.
mod sharing;

use authn::revocation::{FeedSettings, Known, Revocation};
use authn::time::{Monotonic, Now};
use sha2::{Digest as _, Sha256};
use wire::check::StoreError;
use wire::feed::{self, MAX_REPLY_BYTES, Membership, Poll, Reply, Trouble};

use super::checking::{RETRIES, RETRY_ON, needs};
use super::{Dispatcher, Owner};
use crate::counts::{Counter, FeedResult};
use crate::following::{Change, Following};
use crate::host::{Callout, CalloutReply, Host, Level};
use crate::metrics::Metric;
use crate::shared_feed::{FeedLease, SharedFeed};

/// A follower, and what it shares.
pub struct Feed {
    following: Following,
    /// `None`: there is one VM, which follows.
    shared: Option<SharedFeed>,
    /// Names this VM among those of the process.
    owner: u64,
    follows: bool,
    /// A picture of another VM of which not all pieces are read.
    adopting: Option<(u64, Vec<Membership>)>,
    /// Until when this VM waits, as its lease says already.
    waits_until: Monotonic,
    told_too_large: bool,
}

impl Feed {
    pub fn new(revocation: &Revocation, is_shared: bool, seed: u64) -> Option<Self> {
        let settings = revocation.feed?;
        let shared = is_shared.then(|| SharedFeed::new(&revocation.derived, &identity(revocation, &settings)));
        Some(Self {
            following: Following::new(settings, seed),
            follows: shared.is_none(),
            shared,
            owner: seed | 1,
            adopting: None,
            waits_until: Monotonic(0),
            told_too_large: false,
        })
    }

    /// What is known now.
    pub fn known(&self) -> Known<'_> {
        Known { picture: self.following.picture(), complete: self.following.complete() }
    }

    /// Another VM follows from now on.
    fn stop(&mut self, now: Monotonic) {
        self.follows = false;
        self.following.stop(now);
    }
}

/// Of what is followed, and of what the follower requires of the service: the others take its picture over without asking
/// themselves.
fn identity(revocation: &Revocation, settings: &FeedSettings) -> [u8; 32] {
    let mut identity = Sha256::new();
    for part in [&revocation.cluster, &revocation.authority] {
        identity.update(u64::try_from(part.len()).unwrap_or(0).to_be_bytes());
        identity.update(part.as_bytes());
    }
    let needs = revocation.longest_needs();
    for number in [needs.token.into(), needs.login.into(), revocation.future_iat_tolerance] {
        identity.update(number.to_be_bytes());
    }
    identity.update(settings.max_bytes.to_be_bytes());
    identity.update(settings.lag.as_nanos().to_be_bytes());
    if let Some(regions) = revocation.regions {
        identity.update(regions.max_lag.as_nanos().to_be_bytes());
        identity.update([u8::from(regions.closes)]);
    }
    identity.finalize().into()
}

impl Dispatcher {
    /// Polls if it is time and this VM follows; otherwise takes over what another VM knows.
    pub(super) fn tick_feed(&mut self, host: &mut impl Host, now: Now) {
        let Some(feed) = &mut self.feed else { return };
        if feed.follows {
            self.poll_feed(host, now);
        } else {
            let mut changed = feed.adopt(host, now.monotonic);
            if feed.holds_lease(host, now.monotonic) {
                // Once more: the last one may have shared something before its lease ended.
                changed |= feed.adopt(host, now.monotonic);
                feed.follows = true;
                feed.take_over(host, now.monotonic);
            }
            self.publish_feed(changed, now.monotonic);
            if self.feed.as_ref().is_some_and(|feed| feed.follows) {
                self.poll_feed(host, now);
            }
        }
        self.report_feed(host, now);
    }

    /// A request found no proof. Another VM may have a newer one.
    pub(crate) fn catch_up(&mut self, host: &mut impl Host, now: Now) {
        let Some(feed) = &mut self.feed else { return };
        if !feed.follows {
            let changed = feed.adopt(host, now.monotonic);
            self.publish_feed(changed, now.monotonic);
        }
    }

    fn poll_feed(&mut self, host: &mut impl Host, now: Now) {
        let (Some(feed), Some(revocation), Some(checking)) =
            (&mut self.feed, self.core.policy.revocation(), &mut self.checking)
        else {
            return;
        };
        if !feed.following.is_due(now.monotonic) {
            return feed.keep_lease(host);
        }
        if !feed.holds_lease(host, now.monotonic) {
            return feed.stop(now.monotonic);
        }
        let (wait, timeout) = feed.following.timing();
        let needs = needs(revocation, now.wall);
        let poll = Poll::new(&revocation.derived, checking.next_nonce(), needs, wait, feed.following.cursor());
        let headers: [(&[u8], &[u8]); 7] = [
            (b":method", b"POST"),
            (b":path", feed::PATH.as_bytes()),
            (b":authority", revocation.authority.as_bytes()),
            (b":scheme", b"http"),
            (b"content-type", feed::CONTENT_TYPE.as_bytes()),
            // As for checks: another instance is tried.
            (b"x-envoy-retry-on", RETRY_ON),
            (b"x-envoy-max-retries", RETRIES),
        ];
        let callout = Callout { cluster: &revocation.cluster, headers: &headers, body: poll.bytes(), timeout };
        match host.call(&callout) {
            Ok(call) => {
                feed.following.sent(now.monotonic);
                self.calls.insert(call, Owner::Feed { poll }, timeout, now);
            }
            Err(_) => {
                self.counts.count(Counter::FeedPoll(FeedResult::NotSent));
                feed.following.failed(now.monotonic);
            }
        }
    }

    pub(super) fn on_feed_answered(
        &mut self,
        host: &mut impl Host,
        poll: &Poll,
        sent: Monotonic,
        reply: &impl CalloutReply,
        now: Now,
    ) {
        let Some(feed) = &mut self.feed else { return };
        if !feed.follows {
            return;
        }
        if feed.is_deposed(host) {
            return feed.stop(now.monotonic);
        }
        let read = self.read_feed(poll, reply);
        let proof = read.as_ref().ok().filter(|reply| reply.news.is_proof()).map(|reply| reply.regions);
        let may_count = proof.is_none_or(|regions| self.regions_allow(host, regions, sent, now));
        let Some(feed) = &mut self.feed else { return };
        match read {
            Ok(reply) if may_count => {
                let change = feed.following.on_reply(reply, sent, now.monotonic);
                self.counts.count(Counter::FeedPoll(match &change {
                    Change::Proof => FeedResult::Proof,
                    Change::Keys(_) | Change::Snapshot => FeedResult::News,
                    Change::Piece => FeedResult::Piece,
                    Change::TooLarge => FeedResult::TooLarge,
                }));
                self.take_news(host, &change, now.monotonic);
                if matches!(change, Change::Keys(_) | Change::Snapshot) {
                    self.judge_streams(host, now);
                }
            }
            read => {
                let behind = FeedResult::Trouble(Trouble::Store(StoreError::RegionsBehind));
                let result = read.err().unwrap_or(behind);
                self.counts.count(Counter::FeedPoll(result));
                match result {
                    FeedResult::Trouble(trouble) => feed.following.refused(trouble, now.monotonic),
                    _ => feed.following.failed(now.monotonic),
                }
            }
        }
        self.poll_feed(host, now);
    }

    fn take_news(&mut self, host: &mut impl Host, change: &Change, now: Monotonic) {
        let Some(feed) = &mut self.feed else { return };
        if *change == Change::TooLarge && !std::mem::replace(&mut feed.told_too_large, true) {
            host.log(
                Level::Warn,
                format_args!(
                    "portcullis: the feed of revocations needs more memory than limits.feed_bytes allows; each token is asked \
                     about"
                ),
            );
        }
        if *change == Change::Snapshot {
            feed.told_too_large = false;
        }
        if *change != Change::Piece {
            feed.share(host, change);
        }
        let changed = matches!(change, Change::Keys(_) | Change::Snapshot | Change::TooLarge);
        self.publish_feed(changed, now);
    }

    fn publish_feed(&mut self, changed: bool, now: Monotonic) {
        let Some(feed) = &self.feed else { return };
        match changed {
            true => {
                if let Some(checking) = &mut self.checking {
                    checking.forget_answers(now);
                }
                self.core.feed.publish(feed.following.picture(), feed.following.complete());
                self.compare_streams(now);
            }
            false => self.core.feed.prove(feed.following.complete()),
        }
    }

    /// A poll's reply will never come.
    pub(super) fn on_feed_lost(&mut self, now: Monotonic) {
        if let Some(feed) = &mut self.feed {
            feed.following.failed(now);
        }
    }

    fn read_feed(&self, poll: &Poll, reply: &impl CalloutReply) -> Result<Reply, FeedResult> {
        let revocation = self.core.policy.revocation().ok_or(FeedResult::NoProof)?;
        let status = reply.status().ok_or(FeedResult::NoAnswer)?;
        let body = reply.body(MAX_REPLY_BYTES.saturating_add(1)).map_err(|_| FeedResult::NoProof)?;
        let reply = match poll.read_reply(&revocation.derived, status, &body) {
            Ok(reply) => reply.map_err(FeedResult::Trouble)?,
            // Envoy's own reply for an upstream that is down or too slow.
            Err(_) if matches!(status, 503 | 504) => return Err(FeedResult::NoAnswer),
            Err(_) => return Err(FeedResult::NoProof),
        };
        if !reply.keeps.covers(revocation.longest_needs()) {
            return Err(FeedResult::Trouble(Trouble::Store(StoreError::RetentionTooShort)));
        }
        Ok(reply)
    }

    fn report_feed(&mut self, host: &mut impl Host, now: Now) {
        let Some(feed) = &self.feed else { return };
        let complete = feed.following.complete();
        // A gauge that is set by every VM: the last one counts.
        if complete.0 != 0 {
            let age = now.monotonic.since(complete).as_millis();
            host.record(Metric::FeedAgeMilliseconds, &[], u64::try_from(age).unwrap_or(u64::MAX));
        }
        if feed.follows {
            let bytes = feed.following.picture().bytes();
            host.record(Metric::FeedBytes, &[], u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    /// Another VM may follow at once.
    pub(super) fn end_feed(&mut self, host: &mut impl Host) {
        let Some(feed) = &mut self.feed else { return };
        if let Some(shared) = &feed.shared
            && let Some((lease, cas)) = feed.lease(host)
            && lease.owner == feed.owner
        {
            let _ = host.shared_put(&shared.lease_key(), &shared.write_lease(FeedLease::default()), cas);
        }
    }
}
