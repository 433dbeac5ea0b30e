//! What the VMs of a process exchange about the feed through shared data: who follows, and the picture.
use std::sync::Arc;
use std::time::Duration;

use authn::revocation::CHUNK;
use authn::time::Monotonic;

use super::Feed;
use crate::dispatcher::TICK;
use crate::following::Change;
use crate::host::Host;
use crate::shared_feed::{FeedLease, Head};

/// Pieces read in one tick: each takes as long as its MAC.
const PIECES_A_TICK: usize = 2;
/// No lease is longer: a poll's timeout or the longest wait before the next one, and a few ticks.
const LONGEST_LEASE: Duration = Duration::from_secs(11);

impl Feed {
    /// `None`: it cannot be read.
    pub(super) fn lease(&self, host: &mut impl Host) -> Option<(FeedLease, u32)> {
        let shared = self.shared.as_ref()?;
        match host.shared_get(&shared.lease_key()) {
            Ok(Some((bytes, cas))) => Some((shared.read_lease(&bytes).unwrap_or_default(), cas)),
            Ok(None) => Some(Default::default()),
            Err(_) => None,
        }
    }

    /// Does another VM follow meanwhile? A reply that comes late must not change what that one has shared.
    pub(super) fn is_deposed(&self, host: &mut impl Host) -> bool {
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
    pub(super) fn holds_lease(&mut self, host: &mut impl Host, now: Monotonic) -> bool {
        let Some(shared) = &self.shared else { return true };
        let Some((lease, cas)) = self.lease(host) else { return false };
        let until = now.plus(self.following.timing().1.saturating_add(TICK.saturating_mul(3)));
        // A time far ahead was not written on this clock.
        let is_taken = lease.owner != self.owner && lease.until > now && lease.until <= now.plus(LONGEST_LEASE);
        let ours = shared.write_lease(FeedLease { owner: self.owner, until });
        !is_taken && host.shared_put(&shared.lease_key(), &ours, cas).is_ok()
    }

    /// While this VM waits before its next poll, its lease goes on: another VM would poll at once, and the service would
    /// get polls of each VM in turn.
    pub(super) fn keep_lease(&mut self, host: &mut impl Host) {
        let (Some(shared), Some(due)) = (&self.shared, self.following.waits_until()) else { return };
        if due == self.waits_until {
            return;
        }
        if let Some((lease, cas)) = self.lease(host)
            && lease.owner == self.owner
        {
            let until = due.plus(TICK.saturating_mul(3));
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
    pub(super) fn adopt(&mut self, host: &mut impl Host, now: Monotonic) -> bool {
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
    pub(super) fn share(&self, host: &mut impl Host, change: &Change) {
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
    pub(super) fn take_over(&mut self, host: &mut impl Host, now: Monotonic) {
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
