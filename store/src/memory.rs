//! A store in the memory of one process, for tests. It shows what the traits require, without a database.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod log;

use async_trait::async_trait;
use wire::{Answer, Kinds, RevocationKey};

use crate::clock::{unix_millis, unix_seconds};
use crate::{
    AuditBounds, AuditEntry, AuditFrom, AuditId, AuditLog, Change, Claim, Durability, Ending, Ends, InForce,
    IndexEntry, IssuerBounds, IssuerRegistry, KnownIssuer, Lifted, ListError, MergedRevocation, NewSession, Page,
    ReplayGuard, Revocation, RevocationStore, Rotated, Rotation, SessionName, SessionRecord, SessionStore,
    SightingStore, StoreError, StoreId, StoredRevocation, SubjectName, WriteError, Written,
};

/// One instance's view of a store. Clones of [`Contents`] share the store; each view answers from one [`StoreId`] only.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    id: Option<StoreId>,
    future_iat_tolerance: Duration,
    contents: Contents,
}

#[derive(Debug, Clone, Default)]
pub struct Contents(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    id: Option<StoreId>,
    losses: u64,
    revocations: BTreeMap<[u8; 16], Entry>,
    sessions: HashMap<SessionName, Session>,
    subjects: HashMap<SubjectName, BTreeMap<String, Instant>>,
    marks: HashMap<String, (Claim, Instant)>,
    audit: BTreeMap<AuditId, Vec<u8>>,
    issuers: BTreeMap<(String, u8), u64>,
    sightings: HashMap<[u8; 16], (Vec<u8>, Instant)>,
    log: log::Log,
}

#[derive(Debug, Clone)]
struct Entry {
    ending: Ending,
    sealed: Vec<u8>,
    /// `None`: never.
    expires: Option<Instant>,
}

#[derive(Debug)]
struct Session {
    sealed: Vec<u8>,
    access: Vec<u8>,
    refresh: Option<[u8; 32]>,
    previous: Option<([u8; 32], Instant)>,
    idle: Option<Duration>,
    used: (u64, Instant),
    ends: Instant,
    expires: Instant,
    ended: Option<String>,
}

impl Contents {
    /// Everything is lost, the identity included.
    pub fn lose(&self) {
        let mut state = self.state();
        let losses = state.losses + 1;
        *state = State { losses, ..State::default() };
    }

    /// Gives an empty store its identity.
    pub fn create(&self, id: StoreId) {
        self.state().id.get_or_insert(id);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryStore {
    /// Answers from the store that is in `contents` now.
    pub fn open(contents: &Contents, future_iat_tolerance: Duration) -> Self {
        let id = contents.state().id;
        Self { id, future_iat_tolerance, contents: contents.clone() }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.contents.state();
        if state.id.is_none() || state.id != self.id {
            return Err(StoreError::StoreChanged);
        }
        let now = Instant::now();
        state.revocations.retain(|_, entry| entry.expires.is_none_or(|expires| expires > now));
        state.sessions.retain(|_, session| session.expires > now);
        state.marks.retain(|_, (_, expires)| *expires > now);
        state.sightings.retain(|_, (_, expires)| *expires > now);
        state.subjects.values_mut().for_each(|sids| sids.retain(|_, expires| *expires > now));
        Ok(state)
    }

    fn write(&self) -> Result<MutexGuard<'_, State>, WriteError> {
        self.state().map_err(WriteError::NotWritten)
    }
}

fn in_force(entry: &Entry) -> InForce {
    let now = Instant::now();
    InForce { ending: entry.ending, expires_in: entry.expires.map(|expires| expires.saturating_duration_since(now)) }
}

fn stored(key: [u8; 16], entry: &Entry) -> StoredRevocation {
    let InForce { ending, expires_in } = in_force(entry);
    let answer = Some(Answer::from(ending));
    StoredRevocation { key: RevocationKey(key), answer, sealed: entry.sealed.clone(), expires_in }
}

#[async_trait]
impl RevocationStore for MemoryStore {
    fn id(&self) -> Option<StoreId> {
        self.id
    }

    async fn check(&self, keys: &[RevocationKey]) -> Result<Vec<Answer>, StoreError> {
        let state = self.state()?;
        let answer = |key: &RevocationKey| state.revocations.get(&key.0).map_or(Answer::Live, |e| e.ending.into());
        Ok(keys.iter().map(answer).collect())
    }

    fn health(&self) -> Result<(), StoreError> {
        self.state().map(|_| ())
    }

    fn epoch(&self) -> u64 {
        self.contents.state().losses
    }

    async fn show(&self, key: RevocationKey) -> Result<Option<StoredRevocation>, StoreError> {
        Ok(self.state()?.revocations.get(&key.0).map(|entry| stored(key.0, entry)))
    }

    async fn show_all(&self, keys: &[RevocationKey]) -> Result<Vec<StoredRevocation>, StoreError> {
        let state = self.state()?;
        let found = keys.iter().filter_map(|key| Some(stored(key.0, state.revocations.get(&key.0)?)));
        Ok(found.collect())
    }

    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Page, ListError> {
        let after = match cursor {
            None => None,
            Some(cursor) => Some(cursor.parse::<RevocationKey>().map_err(|()| ListError::InvalidCursor)?.0),
        };
        let state = self.state()?;
        let rest = state.revocations.iter().filter(|(key, _)| after.is_none_or(|after| **key > after));
        let revocations: Vec<_> = rest.take(limit).map(|(key, entry)| stored(*key, entry)).collect();
        let cursor = revocations.last().filter(|_| revocations.len() == limit).map(|last| last.key.to_string());
        Ok(Page { revocations, cursor })
    }

    async fn revoke(&self, revocations: Vec<Revocation>) -> Result<Written, WriteError> {
        let mut state = self.write()?;
        let before = |then: u64| Ending::Before(then + 1 + self.future_iat_tolerance.as_secs());
        let mut all = Vec::with_capacity(revocations.len());
        for revocation in revocations {
            let now = unix_seconds();
            let ending = match revocation.ends {
                Ends::ForGood => Ending::Dead,
                Ends::IssuedUntilNow => before(now),
                Ends::IssuedUntil(then) => before(then.min(now)),
            };
            let expires = revocation.ttl.map(|ttl| Instant::now() + ttl);
            let mut entry = Entry { ending, sealed: revocation.sealed, expires };
            if let Some(old) = state.revocations.remove(&revocation.key.0) {
                // `None` never expires, so it is the latest.
                let expires = old.expires.zip(entry.expires).map(|(one, other)| one.max(other));
                if old.ending > entry.ending {
                    entry = old;
                }
                entry.expires = expires;
            }
            let now_in_force = in_force(&entry);
            state.log.append(Change::Revoked { key: revocation.key, expires_in: now_in_force.expires_in });
            all.push(now_in_force);
            state.revocations.insert(revocation.key.0, entry);
        }
        Ok(Written { in_force: all, durability: Durability::default() })
    }

    async fn merge(&self, entries: Vec<MergedRevocation>, slack: Duration) -> Result<u64, WriteError> {
        let mut state = self.write()?;
        let mut written = 0;
        for MergedRevocation { key, ending, sealed, ttl } in entries {
            let expires = ttl.map(|ttl| Instant::now() + ttl);
            let mut entry = Entry { ending, sealed, expires };
            if let Some(old) = state.revocations.get(&key.0) {
                let lives = old.expires.zip(expires).map(|(old, new)| old + slack >= new);
                if old.ending >= ending && lives.unwrap_or(old.expires.is_none()) {
                    continue;
                }
                entry.expires = old.expires.zip(expires).map(|(one, other)| one.max(other));
                if old.ending >= ending {
                    (entry.ending, entry.sealed) = (old.ending, old.sealed.clone());
                }
            }
            state.log.append(Change::Revoked { key, expires_in: in_force(&entry).expires_in });
            state.revocations.insert(key.0, entry);
            written += 1;
        }
        Ok(written)
    }

    async fn lift(&self, keys: Vec<RevocationKey>) -> Result<Lifted, WriteError> {
        let mut state = self.write()?;
        let mut removed = 0;
        for key in keys {
            if state.revocations.remove(&key.0).is_some() {
                state.log.append(Change::Lifted { key });
                removed += 1;
            }
        }
        Ok(Lifted { removed, durability: Durability::default() })
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn create(&self, name: SessionName, session: NewSession) -> Result<bool, WriteError> {
        let mut state = self.write()?;
        if state.sessions.contains_key(&name) {
            return Ok(false);
        }
        let NewSession { sealed, access, refresh, lifetime, idle } = session;
        let now = Instant::now();
        let (ends, used) = (now + lifetime, (unix_millis(), now));
        let expires = idle.map_or(ends, |idle| ends.min(now + idle));
        let previous = None;
        state
            .sessions
            .insert(name, Session { sealed, access, refresh, previous, idle, used, ends, expires, ended: None });
        Ok(true)
    }

    async fn read(&self, name: SessionName) -> Result<Option<SessionRecord>, StoreError> {
        Ok(self.state()?.sessions.get(&name).map(|session| SessionRecord {
            sealed: session.sealed.clone(),
            access: session.access.clone(),
            used: session.used.0,
            ended: session.ended.clone(),
        }))
    }

    async fn rotate(&self, name: SessionName, rotation: Rotation) -> Result<Rotated, WriteError> {
        let mut state = self.write()?;
        let Some(session) = state.sessions.get_mut(&name) else { return Ok(Rotated::Gone) };
        if session.ended.is_some() {
            return Ok(Rotated::Ended);
        }
        let Some(current) = session.refresh else { return Ok(Rotated::Gone) };
        if current == rotation.presented {
            session.previous = Some((current, Instant::now()));
            session.refresh = Some(rotation.new);
            let mut access = rotation.access;
            access.extend_from_slice(&session.access);
            access.truncate(rotation.max_access_bytes);
            session.access = access;
            session.use_now();
            return Ok(Rotated::Done);
        }
        if session.previous.is_some_and(|(mac, at)| mac == rotation.presented && at.elapsed() <= rotation.grace) {
            return Ok(Rotated::Raced);
        }
        session.ended = Some("reused".to_owned());
        Ok(Rotated::Reused)
    }

    async fn touch(&self, name: SessionName, step: Duration) -> Result<(), WriteError> {
        let mut state = self.write()?;
        let session = state.sessions.get_mut(&name);
        if let Some(session) = session.filter(|session| session.ended.is_none() && session.used.1.elapsed() >= step) {
            session.use_now();
        }
        Ok(())
    }

    async fn end(&self, name: SessionName, reason: &str) -> Result<(), WriteError> {
        if let Some(session) = self.write()?.sessions.get_mut(&name) {
            session.ended = Some(reason.to_owned());
        }
        Ok(())
    }

    async fn delete(&self, name: SessionName) -> Result<(), WriteError> {
        self.write()?.sessions.remove(&name);
        Ok(())
    }

    async fn index(&self, subject: SubjectName, entry: IndexEntry, max: usize) -> Result<bool, WriteError> {
        let mut state = self.write()?;
        let sids = state.subjects.entry(subject).or_default();
        let has_room = sids.len() < max;
        if has_room {
            sids.insert(entry.sid, Instant::now() + entry.lifetime);
        }
        Ok(has_room)
    }

    async fn unindex(&self, subject: SubjectName, sids: &[String]) -> Result<(), WriteError> {
        if let Some(known) = self.write()?.subjects.get_mut(&subject) {
            known.retain(|sid, _| !sids.contains(sid));
        }
        Ok(())
    }

    async fn sids(&self, subject: SubjectName) -> Result<Vec<String>, StoreError> {
        Ok(self.state()?.subjects.get(&subject).map(|sids| sids.keys().cloned().collect()).unwrap_or_default())
    }
}

impl Session {
    fn use_now(&mut self) {
        let now = Instant::now();
        self.used = (unix_millis(), now);
        self.expires = self.idle.map_or(self.ends, |idle| self.ends.min(now + idle));
    }
}

#[async_trait]
impl ReplayGuard for MemoryStore {
    async fn claim(&self, digest: &str, pending: Duration) -> Result<Claim, StoreError> {
        let mut state = self.state()?;
        if let Some((claim, _)) = state.marks.get(digest) {
            return Ok(*claim);
        }
        state.marks.insert(digest.to_owned(), (Claim::Pending, Instant::now() + pending));
        Ok(Claim::Claimed)
    }

    async fn complete(&self, digest: &str, ttl: Duration) -> Result<(), StoreError> {
        self.state()?.marks.insert(digest.to_owned(), (Claim::Done, Instant::now() + ttl));
        Ok(())
    }

    async fn release(&self, digest: &str) -> Result<(), StoreError> {
        self.state()?.marks.remove(digest);
        Ok(())
    }
}

#[async_trait]
impl AuditLog for MemoryStore {
    async fn append(&self, sealed: Vec<u8>, bounds: AuditBounds) -> Result<(), WriteError> {
        let mut state = self.write()?;
        let millis = unix_millis();
        let next = match state.audit.last_key_value() {
            Some((last, _)) if last.millis >= millis => AuditId { number: last.number + 1, ..*last },
            _ => AuditId { millis, number: 0 },
        };
        state.audit.insert(next, sealed);
        let oldest = millis.saturating_sub(bounds.max_age.as_millis() as u64);
        state.audit.retain(|id, _| id.millis >= oldest);
        while state.audit.len() > bounds.max_entries {
            state.audit.pop_first();
        }
        Ok(())
    }

    async fn page(&self, from: AuditFrom, limit: usize, max_age: Duration) -> Result<Vec<AuditEntry>, StoreError> {
        let state = self.state()?;
        let oldest = unix_millis().saturating_sub(max_age.as_millis() as u64);
        let young = state.audit.iter().filter(|(id, _)| id.millis >= oldest);
        let entry = |(id, sealed): (&AuditId, &Vec<u8>)| AuditEntry { id: *id, sealed: sealed.clone() };
        Ok(match from {
            AuditFrom::After(after) => young.filter(|(id, _)| **id > after).take(limit).map(entry).collect(),
            AuditFrom::Last => {
                let mut last: Vec<_> = young.rev().take(limit).map(entry).collect();
                last.reverse();
                last
            }
        })
    }
}

#[async_trait]
impl IssuerRegistry for MemoryStore {
    async fn remember(&self, issuers: &[KnownIssuer], bounds: IssuerBounds) -> Result<(), WriteError> {
        let mut state = self.write()?;
        let now = unix_millis();
        for KnownIssuer { issuer, kinds } in issuers {
            state.issuers.insert((issuer.clone(), kinds.byte()), now);
        }
        let oldest = now.saturating_sub(bounds.max_age.as_millis() as u64);
        state.issuers.retain(|_, at| *at >= oldest);
        while state.issuers.len() > bounds.max_entries {
            let first = state.issuers.iter().min_by_key(|(_, at)| **at).map(|(issuer, _)| issuer.clone());
            first.map(|first| state.issuers.remove(&first));
        }
        Ok(())
    }

    async fn known(&self, max_age: Duration) -> Result<Vec<KnownIssuer>, StoreError> {
        let state = self.state()?;
        let oldest = unix_millis().saturating_sub(max_age.as_millis() as u64);
        let young = state.issuers.iter().filter(|(_, at)| **at >= oldest);
        let known =
            young.map(|((issuer, kinds), _)| KnownIssuer { issuer: issuer.clone(), kinds: Kinds::from_byte(*kinds) });
        Ok(known.collect())
    }
}

#[async_trait]
impl SightingStore for MemoryStore {
    async fn sightings(&self, session: RevocationKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state()?.sightings.get(&session.0).map(|(record, _)| record.clone()))
    }

    async fn replace_sightings(
        &self,
        session: RevocationKey,
        earlier: Option<&[u8]>,
        record: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, WriteError> {
        let mut state = self.write()?;
        let is_same = state.sightings.get(&session.0).map(|(record, _)| record.as_slice()) == earlier;
        if is_same {
            state.sightings.insert(session.0, (record, Instant::now() + ttl));
        }
        Ok(is_same)
    }
}
