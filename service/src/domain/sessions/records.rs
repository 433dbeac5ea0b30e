//! Sessions in the store: named by MACs, with data encrypted under a key of the ring.
use std::time::Duration;

use store::{
    IndexEntry, NewSession, Rotated, Rotation, SessionName, SessionStore, StoreError, SubjectName, WriteError,
};
use wire::opaque_token::OpaqueToken;

use crate::model::session::{Data, MAX_ACCESS_TOKENS, RECORD_BYTES};
use crate::model::session_keys::{KeyAt, Ring, Sid, TokenMac};

/// The most sessions of one subject at once; a further one is refused.
pub const MAX_SESSIONS_PER_SUBJECT: usize = 1000;

/// A session, decrypted.
pub struct StoredSession {
    pub at: KeyAt,
    pub sid: Sid,
    pub data: Data,
    pub access: Vec<u8>,
    /// When it was last used, in Unix milliseconds of the store's clock.
    pub used: u64,
    /// Why it was ended, if it was ended and waits to be deleted.
    pub ended: Option<String>,
}

#[derive(Clone, Copy)]
pub struct SessionRecords<'a> {
    pub store: &'a dyn SessionStore,
    pub ring: &'a Ring,
}

impl SessionRecords<'_> {
    pub async fn create(
        &self,
        at: KeyAt,
        sid: Sid,
        data: &Data,
        access: &[u8],
        refresh: Option<TokenMac>,
        lifetime: Duration,
    ) -> Result<(), WriteError> {
        let failed = WriteError::NotWritten(StoreError::StoreFailed);
        let name = self.session(at, sid);
        let text = serde_json::to_vec(data).map_err(|_| failed.clone())?;
        let sealed = self.ring.seal(at, &context(name), text).map_err(|_| failed.clone())?;
        let idle = data.idle.map(Duration::from_secs).map(|idle| idle + step(idle));
        let refresh = refresh.map(|mac| mac.0);
        let session = NewSession { sealed, access: access.to_vec(), refresh, lifetime, idle };
        match self.store.create(name, session).await? {
            true => Ok(()),
            // The same 128 random bits twice: the random source is broken.
            false => Err(failed),
        }
    }

    /// Adds it to its subject's list. False: the subject has too many.
    pub async fn index(&self, at: KeyAt, data: &Data, lifetime: Duration) -> Result<bool, WriteError> {
        let entry = IndexEntry { sid: data.sid.clone(), lifetime };
        self.store.index(self.subject(at, &data.iss, &data.sub), entry, MAX_SESSIONS_PER_SUBJECT).await
    }

    /// Looks under each key of the ring.
    pub async fn find(&self, sid: Sid) -> Result<Option<StoredSession>, StoreError> {
        for at in self.ring.all() {
            if let Some(session) = self.read(at, sid).await? {
                return Ok(Some(session));
            }
        }
        Ok(None)
    }

    pub async fn read(&self, at: KeyAt, sid: Sid) -> Result<Option<StoredSession>, StoreError> {
        let name = self.session(at, sid);
        let Some(record) = self.store.read(name).await? else { return Ok(None) };
        // Written without our key. This is neither a session nor the absence of one.
        let text = self.ring.open(at, &context(name), &record.sealed).ok_or(StoreError::StoreFailed)?;
        let data: Data = serde_json::from_slice(&text).map_err(|_| StoreError::StoreFailed)?;
        Ok(Some(StoredSession { at, sid, data, access: record.access, used: record.used, ended: record.ended }))
    }

    pub async fn rotate(
        &self,
        at: KeyAt,
        presented: &OpaqueToken,
        new: TokenMac,
        access: &[u8],
        grace: Duration,
    ) -> Result<Rotated, WriteError> {
        let rotation = Rotation {
            presented: self.ring.token_mac(at, presented).0,
            new: new.0,
            access: access.to_vec(),
            // A token that is bound to a key by itself has two records.
            max_access_bytes: MAX_ACCESS_TOKENS * access.len().max(RECORD_BYTES),
            grace,
        };
        self.store.rotate(self.session(at, Sid(presented.sid)), rotation).await
    }

    /// Records the use of a session with an idle timeout, unless it was recorded less than a [`step`] ago.
    pub async fn touch(&self, at: KeyAt, sid: Sid, step: Duration) -> Result<(), WriteError> {
        self.store.touch(self.session(at, sid), step).await
    }

    /// From here on it cannot be used or refreshed.
    pub async fn mark_ended(&self, session: &StoredSession, reason: &str) -> Result<(), WriteError> {
        self.store.end(self.session(session.at, session.sid), reason).await
    }

    /// Deletes a session whose end is known everywhere, or whose tokens were never delivered.
    pub async fn forget(&self, at: KeyAt, sid: Sid, data: &Data) -> Result<(), WriteError> {
        self.store.delete(self.session(at, sid)).await?;
        self.unindex(at, &data.iss, &data.sub, &[sid]).await
    }

    pub async fn unindex(&self, at: KeyAt, issuer: &str, subject: &str, sids: &[Sid]) -> Result<(), WriteError> {
        let sids: Vec<String> = sids.iter().map(Sid::to_string).collect();
        self.store.unindex(self.subject(at, issuer, subject), &sids).await
    }

    /// The sids in the subject's index, in order; some may be gone. At most [`MAX_SESSIONS_PER_SUBJECT`] for each key of
    /// the ring.
    pub async fn sids_of(&self, issuer: &str, subject: &str) -> Result<Vec<(Sid, KeyAt)>, StoreError> {
        let mut sids = Vec::new();
        for at in self.ring.all() {
            let texts = self.store.sids(self.subject(at, issuer, subject)).await?;
            sids.extend(texts.iter().filter_map(|text| Some((text.parse::<Sid>().ok()?, at))));
        }
        sids.sort_unstable_by_key(|(sid, _)| *sid);
        sids.dedup_by_key(|(sid, _)| *sid);
        Ok(sids)
    }

    fn session(&self, at: KeyAt, sid: Sid) -> SessionName {
        SessionName(self.ring.session_name(at, sid).0)
    }

    fn subject(&self, at: KeyAt, issuer: &str, subject: &str) -> SubjectName {
        SubjectName(self.ring.subject_name(at, issuer, subject).0)
    }
}

/// A sixteenth of the idle timeout, from a second to a minute. A session lives for its idle timeout and up to one step
/// longer: a use is recorded at most once in half of a step, and a filter may keep an answer for the other half.
pub fn step(idle: Duration) -> Duration {
    (idle / 16).clamp(Duration::from_secs(1), Duration::from_secs(60))
}

/// The associated data of the encryption: data does not decrypt under another name. It is part of the stored format and
/// must not change.
fn context(name: SessionName) -> String {
    let [first, ..] = name.0;
    format!("portcullis:{{{first:02x}}}:s:{}", crate::model::session_keys::Name(name.0))
}
