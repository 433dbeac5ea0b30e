//! The open streams that end with their sessions: which sessions must be asked about, and which streams must be ended. No
//! host call, no clock, as in `checks`.
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use authn::decide::Watched;
use authn::revocation::{Known, Picture, RevocationQuery, Verdict};
use authn::time::{Monotonic, Now, UnixSeconds};
use wire::RevocationKey;

use crate::counts::EndCause;
use crate::host::StreamId;
use crate::mac_hash::{MacMap, MacSet};

/// The streams of one dispatcher.
#[derive(Debug)]
pub struct OpenStreams {
    limit: usize,
    streams: HashMap<StreamId, Open>,
    /// By the digest of their query. Several streams may have one token.
    sessions: MacMap<[u8; 16], Session>,
    /// The number of the first key of the feed that the sessions were not compared with.
    compared: u64,
    /// May name streams that are gone.
    ending: VecDeque<StreamId>,
}

#[derive(Debug)]
struct Open {
    rule: usize,
    token: [u8; 16],
    session: Option<[u8; 16]>,
    until: Option<UnixSeconds>,
    cannot_tell_for: Option<Duration>,
    since: Monotonic,
    /// It is to be ended.
    cause: Option<EndCause>,
}

#[derive(Debug)]
struct Session {
    query: Arc<RevocationQuery>,
    streams: Vec<StreamId>,
    /// It was not revoked at this time.
    lived: Monotonic,
    /// When a key of the feed came that may be one of its keys: an answer counts if its check was sent then or later.
    came: Option<Monotonic>,
    /// When it was last to be asked about.
    asked: Monotonic,
}

/// How sessions are asked about.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A session without a newer proof is asked about again.
    pub again_after: Duration,
    /// No answer has come: it is asked about again.
    pub timeout: Duration,
    /// The feed has every revocation that was acknowledged before this time. `None`: there is no fresh proof.
    pub complete: Option<Monotonic>,
}

/// How urgent a question about a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// It may just have been revoked.
    AtOnce,
    Soon,
}

/// No more streams may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The part of all streams that one token may have.
const SHARE_OF_ONE: usize = 4;

impl OpenStreams {
    /// At most `limit` are open.
    pub fn new(limit: usize) -> Self {
        Self { limit, streams: HashMap::new(), sessions: MacMap::default(), compared: 0, ending: VecDeque::new() }
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// A request was admitted. `known` is what the feed says now: a key may have come since its admission was decided.
    ///
    /// # Errors
    /// [`Full`]: the request must be refused.
    pub fn enter(
        &mut self,
        stream: StreamId,
        (rule, watched): (usize, Watched),
        known: Option<Known<'_>>,
        pace: Pace,
        now: Monotonic,
    ) -> Result<(), Full> {
        let Watched { token, query, until, cannot_tell_for } = watched;
        let session = query.as_ref().map(|query| *query.digest());
        let of_token = match session {
            Some(digest) => self.sessions.get(&digest).map_or(0, |it| it.streams.len()),
            None => self.streams.values().filter(|open| open.token == token).count(),
        };
        if self.streams.len() >= self.limit || of_token >= self.limit.div_ceil(SHARE_OF_ONE) {
            return Err(Full);
        }
        if let Some(query) = query {
            let came = known.and_then(|known| known.came(&query));
            let session = self.sessions.entry(*query.digest()).or_insert_with(|| Session {
                query: Arc::clone(&query),
                streams: Vec::new(),
                lived: Monotonic(0),
                came,
                asked: Monotonic(0),
            });
            // The same token may have been verified anew: its last verdict is with the newer one.
            session.query = query;
            session.streams.push(stream);
            session.take_verdict(pace.complete);
        }
        self.streams.insert(stream, Open { rule, token, session, until, cannot_tell_for, since: now, cause: None });
        Ok(())
    }

    pub fn leave(&mut self, stream: StreamId) {
        let Some(open) = self.streams.remove(&stream) else { return };
        if let Some(digest) = open.session
            && let Some(session) = self.sessions.get_mut(&digest)
        {
            session.streams.retain(|other| *other != stream);
            if session.streams.is_empty() {
                self.sessions.remove(&digest);
            }
        }
        // Streams that end by themselves must not accumulate.
        if self.ending.len() > self.limit.saturating_mul(2) {
            self.ending.retain(|stream| self.streams.contains_key(stream));
        }
    }

    /// The feed's picture has changed.
    pub fn compare(&mut self, picture: &Picture, now: Monotonic) {
        let compared = std::mem::replace(&mut self.compared, picture.end());
        if compared == picture.end() || self.sessions.is_empty() {
            return;
        }
        match picture.keys_from(compared) {
            Some(new) => {
                let new: MacSet<RevocationKey> = new.copied().collect();
                let sessions = self.sessions.values_mut();
                let touched = sessions.filter(|it| it.query.keys.iter().any(|key| new.contains(key)));
                touched.for_each(|session| session.came = Some(now));
            }
            // A key that came before the snapshot may not be in it any more.
            None => {
                let known = Known { picture, complete: Monotonic(0) };
                self.sessions.values_mut().for_each(|session| session.came = known.came(&session.query));
            }
        }
    }

    /// Must the session with this query be asked about, although there is an answer to a check that was sent then?
    pub fn needs_newer(&self, digest: &[u8; 16], sent: Monotonic, again_after: Duration, now: Monotonic) -> bool {
        let Some(session) = self.sessions.get(digest) else { return false };
        now.since(sent) >= again_after || session.came.is_some_and(|came| sent < came)
    }

    /// An answer about this query came.
    pub fn learn(&mut self, digest: &[u8; 16], sent: Monotonic, verdict: Verdict) {
        let Some(session) = self.sessions.get_mut(digest) else { return };
        session.query.learn(sent, verdict);
        if session.came.is_some_and(|came| sent < came) {
            // It was on its way when the key came. The next tick asks anew.
            session.asked = Monotonic(0);
        }
        if session.take_verdict(None) {
            let ended = session.streams.clone();
            self.end(&ended, EndCause::Revoked);
        }
    }

    /// Call this at each tick. Finds the streams that are to be ended, and the sessions that must be asked about: `ask`
    /// returns false if there is no room for a question now.
    pub fn judge(&mut self, pace: Pace, now: Now, mut ask: impl FnMut(&Arc<RevocationQuery>, Urgency) -> bool) {
        let mut revoked = Vec::new();
        for session in self.sessions.values_mut() {
            if session.take_verdict(pace.complete) {
                revoked.extend_from_slice(&session.streams);
            } else if let Some(urgency) = session.is_due(pace, now.monotonic)
                && ask(&session.query, urgency)
            {
                session.asked = now.monotonic;
            }
        }
        self.end(&revoked, EndCause::Revoked);
        self.end_by_time(now);
        // Also those that were named before: the host may have failed to end them.
        self.ending.clear();
        let ending = self.streams.iter().filter(|(_, open)| open.cause.is_some());
        self.ending.extend(ending.map(|(stream, _)| *stream));
    }

    fn end_by_time(&mut self, now: Now) {
        let Self { streams, sessions, .. } = self;
        for open in streams.values_mut().filter(|open| open.cause.is_none()) {
            let lived = open.session.and_then(|digest| sessions.get(&digest)).map_or(open.since, |it| it.lived);
            let told = lived.max(open.since);
            if open.until.is_some_and(|until| now.wall >= until) {
                open.cause = Some(EndCause::Expired);
            } else if open.cannot_tell_for.is_some_and(|longest| now.monotonic.since(told) > longest) {
                open.cause = Some(EndCause::CannotTell);
            }
        }
    }

    fn end(&mut self, streams: &[StreamId], cause: EndCause) {
        for stream in streams {
            if let Some(open) = self.streams.get_mut(stream)
                && open.session.is_some()
                && open.cause.is_none()
            {
                open.cause = Some(cause);
                self.ending.push_back(*stream);
            }
        }
    }

    /// The next stream to end.
    pub fn poll(&mut self) -> Option<StreamId> {
        while let Some(stream) = self.ending.pop_front() {
            if self.ending(stream).is_some() {
                return Some(stream);
            }
        }
        None
    }

    /// The rule of a stream that is to be ended, and why it is.
    pub fn ending(&self, stream: StreamId) -> Option<(usize, EndCause)> {
        let open = self.streams.get(&stream)?;
        Some((open.rule, open.cause?))
    }
}

impl Session {
    /// Takes over what is known. True: it was revoked.
    fn take_verdict(&mut self, complete: Option<Monotonic>) -> bool {
        if let Some(complete) = complete
            && self.came.is_none()
        {
            self.lived = self.lived.max(complete);
        }
        match self.query.verdict() {
            // An older one does not count: the revocation was lifted since.
            Some((sent, Verdict::Dead { .. })) => sent > self.lived,
            Some((sent, Verdict::Live)) => {
                if self.came.is_none_or(|came| sent >= came) {
                    self.lived = self.lived.max(sent);
                }
                false
            }
            None => false,
        }
    }

    /// Must it be asked about?
    fn is_due(&self, pace: Pace, now: Monotonic) -> Option<Urgency> {
        match self.came {
            None if pace.complete.is_some() => None,
            Some(came) if self.lived < came => {
                let is_due = self.asked < came || now.since(self.asked) >= pace.timeout;
                is_due.then_some(Urgency::AtOnce)
            }
            _ => {
                let newest = self.lived.max(self.asked);
                (now.since(newest) >= pace.again_after).then_some(Urgency::Soon)
            }
        }
    }
}

#[cfg(test)]
mod tests;
