//! Follows the service's feed: polls, takes news over, and publishes what is known. Where several VMs make a process, one
//! of them follows, and the others take the picture over from shared data.
use std::sync::Arc;

use authn::revocation::{CHUNK, FeedSettings, Known, Revocation};
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
use crate::shared_feed::{FeedLease, Head, SharedFeed};

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

/// Pieces read in one tick: each takes as long as its MAC.
const PIECES_A_TICK: usize = 2;

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

    /// `None`: it cannot be read.
    fn lease(&self, host: &mut impl Host) -> Option<(FeedLease, u32)> {
        let shared = self.shared.as_ref()?;
        match host.shared_get(&shared.lease_key()) {
            Ok(Some((bytes, cas))) => Some((shared.read_lease(&bytes).unwrap_or_default(), cas)),
            Ok(None) => Some(Default::default()),
            Err(_) => None,
        }
    }

    /// Does another VM follow meanwhile? A reply that comes late must not change what that one has shared.
    fn is_deposed(&self, host: &mut impl Host) -> bool {
        self.shared.is_some() && self.lease(host).is_none_or(|(lease, _)| lease.owner != self.owner)
    }

    /// Makes the entry that a compare-and-set needs. The host configures one VM before it makes the others.
    pub fn on_configured(&self, host: &mut impl Host) {
        if let Some(shared) = &self.shared
            && let Ok(None) = host.shared_get(&shared.lease_key())
        {
            let _ = host.shared_put(&shared.lease_key(), &shared.write_lease(FeedLease::default()), 0);
        }
    }

    /// Is this the VM that follows, now and until a poll that is sent now has its reply?
    fn holds_lease(&mut self, host: &mut impl Host, now: Monotonic) -> bool {
        let Some(shared) = &self.shared else { return true };
        let Some((lease, cas)) = self.lease(host) else { return false };
        let until = now.plus(self.following.timing().1.saturating_add(super::TICK.saturating_mul(3)));
        // A time far ahead was not written on this clock.
        let is_taken = lease.owner != self.owner && lease.until > now && lease.until <= now.plus(LONGEST_LEASE);
        let ours = shared.write_lease(FeedLease { owner: self.owner, until });
        !is_taken && host.shared_put(&shared.lease_key(), &ours, cas).is_ok()
    }

    /// While this VM waits before its next poll, its lease goes on: another VM would poll at once, and the service would
    /// get polls of each VM in turn.
    fn keep_lease(&mut self, host: &mut impl Host) {
        let (Some(shared), Some(due)) = (&self.shared, self.following.waits_until()) else { return };
        if due == self.waits_until {
            return;
        }
        if let Some((lease, cas)) = self.lease(host)
            && lease.owner == self.owner
        {
            let until = due.plus(super::TICK.saturating_mul(3));
            let _ = host.shared_put(&shared.lease_key(), &shared.write_lease(FeedLease { until, ..lease }), cas);
        }
        self.waits_until = due;
    }

    fn head(&self, host: &mut impl Host) -> Option<Head> {
        let shared = self.shared.as_ref()?;
        let (bytes, _) = host.shared_get(&shared.head_key()).ok()??;
        shared.read_head(&bytes)
    }

    /// Takes over what another VM has published. True if the picture has changed.
    fn adopt(&mut self, host: &mut impl Host, now: Monotonic) -> bool {
        let Some(head) = self.head(host) else { return false };
        // A moment in the future is not from this clock.
        if head.generation == 0 || head.complete > now {
            return false;
        }
        if head.generation != self.following.generation() {
            return self.adopt_snapshot(host, head, now);
        }
        let known = self.following.picture().later();
        match self.later_keys(host, head, known) {
            Some(keys) if keys.is_empty() => {
                self.following.adopt(head.generation, Arc::clone(self.following.picture()), head.complete);
                false
            }
            Some(keys) => {
                let picture = Arc::new(self.following.picture().with(&keys, now));
                self.following.adopt(head.generation, picture, head.complete);
                true
            }
            None => false,
        }
    }

    fn adopt_snapshot(&mut self, host: &mut impl Host, head: Head, now: Monotonic) -> bool {
        let Some(shared) = &self.shared else { return false };
        let (generation, mut pieces) = match self.adopting.take() {
            Some((generation, pieces)) if generation == head.generation => (generation, pieces),
            _ => (head.generation, Vec::new()),
        };
        for _ in 0..PIECES_A_TICK {
            if pieces.len() >= usize::from(head.pieces) {
                break;
            }
            let number = pieces.len();
            let Ok(Some((bytes, _))) = host.shared_get(&shared.piece_key(number)) else { return false };
            let Some(piece) = shared.read_piece(number, &bytes, generation) else { return false };
            pieces.push(piece);
        }
        if pieces.len() < usize::from(head.pieces) {
            self.adopting = Some((generation, pieces));
            return false;
        }
        let Some(keys) = self.later_keys(host, head, 0) else { return false };
        let picture = Arc::new(self.following.picture().replaced(pieces, now).with(&keys, now));
        self.following.adopt(head.generation, picture, head.complete);
        true
    }

    /// The keys from this number on, at least as many as the head says. `None`: they are of another picture.
    fn later_keys(&self, host: &mut impl Host, head: Head, known: usize) -> Option<Vec<wire::RevocationKey>> {
        let shared = self.shared.as_ref()?;
        let mut keys = Vec::new();
        let mut at = known;
        while at < head.later {
            let number = at.checked_div(CHUNK)?;
            let (bytes, _) = host.shared_get(&shared.chunk_key(number)).ok()??;
            let chunk = shared.read_chunk(number, &bytes, head.generation)?;
            let new = chunk.get(at.checked_rem(CHUNK)?..)?;
            if new.is_empty() {
                return None;
            }
            keys.extend_from_slice(new);
            at = at.saturating_add(new.len());
        }
        Some(keys)
    }

    /// Writes what this VM knows for the others. The head comes after the parts that it names, and the cursor last: what
    /// follows it is then in no part.
    fn share(&self, host: &mut impl Host, change: &Change) {
        let Some(shared) = &self.shared else { return };
        let following = &self.following;
        let (generation, picture) = (following.generation(), following.picture());
        let first_chunk = match change {
            Change::Snapshot => {
                for (number, piece) in picture.pieces().iter().enumerate() {
                    let _ =
                        host.shared_put(&shared.piece_key(number), &shared.write_piece(number, generation, piece), 0);
                }
                0
            }
            Change::Keys(keys) => picture.later().saturating_sub(keys.len()).checked_div(CHUNK).unwrap_or(0),
            Change::Proof | Change::Piece => usize::MAX,
            Change::TooLarge => {
                let nothing = Head { generation: 0, pieces: 0, later: 0, complete: Monotonic(0) };
                let _ = host.shared_put(&shared.head_key(), &shared.write_head(nothing), 0);
                return;
            }
        };
        let mut number = first_chunk;
        while !picture.chunk(number).is_empty() {
            let keys = picture.chunk(number);
            let _ = host.shared_put(&shared.chunk_key(number), &shared.write_chunk(number, generation, keys), 0);
            number = number.saturating_add(1);
        }
        let pieces = u16::try_from(picture.pieces().len()).unwrap_or(0);
        let head = Head { generation, pieces, later: picture.later(), complete: following.complete() };
        let _ = host.shared_put(&shared.head_key(), &shared.write_head(head), 0);
        let _ = host.shared_put(
            &shared.cursor_key(),
            &shared.write_cursor(generation, picture.later(), following.cursor()),
            0,
        );
    }

    /// This VM follows from now on, from where the last one was. Its picture gets a name of its own: a VM that still believes
    /// to follow may append other keys to the earlier one.
    fn take_over(&mut self, host: &mut impl Host, now: Monotonic) {
        let cursor = self.shared.as_ref().and_then(|shared| {
            let (bytes, _) = host.shared_get(&shared.cursor_key()).ok()??;
            shared.read_cursor(&bytes, self.following.generation(), self.following.picture().later())
        });
        let goes_on = cursor.is_some();
        self.following.take_over(cursor, now);
        if goes_on {
            self.share(host, &Change::Snapshot);
        }
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
    identity.finalize().into()
}

/// No lease is longer: a poll's timeout or the longest wait before the next one, and a few ticks.
const LONGEST_LEASE: std::time::Duration = std::time::Duration::from_secs(11);

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
        let Some(feed) = &mut self.feed else { return };
        match read {
            Err(result) => {
                self.counts.count(Counter::FeedPoll(result));
                match result {
                    FeedResult::Trouble(trouble) => feed.following.refused(trouble, now.monotonic),
                    _ => feed.following.failed(now.monotonic),
                }
            }
            Ok(reply) => {
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
