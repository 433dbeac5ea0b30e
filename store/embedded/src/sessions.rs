//! Sessions in the file. Each change is one part of a transaction.
use std::time::Duration;

use async_trait::async_trait;
use redb::Error;
use store::{
    IndexEntry, NewSession, Rotated, Rotation, SessionName, SessionRecord, SessionStore, StoreError, SubjectName,
    WriteError,
};

use crate::codec::Encoder;
use crate::embedded_store::EmbeddedStore;
use crate::engine::{Reading, SHORT_READ};
use crate::revocation::expiry;
use crate::session::Session;
use crate::tables::{ENTRIES, Kind, Tables, Use, is_live, not_ours, within};

#[async_trait]
impl SessionStore for EmbeddedStore {
    async fn create(&self, name: SessionName, session: NewSession) -> Result<bool, WriteError> {
        let entry = Kind::Session.of(&name.0);
        let create = move |tables: &mut Tables<'_>| {
            let bytes = 256 + session.sealed.len() + session.access.len();
            if let Err(full) = tables.has_room(Use::Others, 1, bytes) {
                return Ok(Err(full));
            }
            if tables.get(&entry)?.is_some() {
                return Ok(Ok(false));
            }
            tables.put(&entry, &Session::new(session, tables.now).encode())?;
            Ok(Ok(true))
        };
        self.writer.write(create).await
    }

    async fn read(&self, name: SessionName) -> Result<Option<SessionRecord>, StoreError> {
        let read = move |reading: &Reading| {
            let found = reading.table(ENTRIES)?.get(&Kind::Session.of(&name.0)[..])?;
            let value = found.as_ref().map(redb::AccessGuard::value).filter(|value| is_live(value, reading.now));
            value.map(|value| Session::decode(value).map(Session::record).ok_or_else(not_ours)).transpose()
        };
        self.engine.ask(SHORT_READ, read).await
    }

    async fn rotate(&self, name: SessionName, rotation: Rotation) -> Result<Rotated, WriteError> {
        let rotate = move |session: &mut Session, now: u64| {
            let rotated = session.rotate(rotation, now);
            (rotated, matches!(rotated, Rotated::Done | Rotated::Reused))
        };
        Ok(self.change(name, rotate).await?.unwrap_or(Rotated::Gone))
    }

    async fn touch(&self, name: SessionName, step: Duration) -> Result<(), WriteError> {
        let touch = move |session: &mut Session, now: u64| ((), session.touch(step, now));
        self.change(name, touch).await.map(|_| ())
    }

    async fn end(&self, name: SessionName, reason: &str) -> Result<(), WriteError> {
        let reason = reason.to_owned();
        let end = move |session: &mut Session, _: u64| {
            session.ended = Some(reason);
            ((), true)
        };
        self.change(name, end).await.map(|_| ())
    }

    async fn delete(&self, name: SessionName) -> Result<(), WriteError> {
        self.writer.write(move |tables| tables.remove(&Kind::Session.of(&name.0)).map(|_| Ok(()))).await
    }

    async fn index(&self, subject: SubjectName, entry: IndexEntry, max: usize) -> Result<bool, WriteError> {
        let index = move |tables: &mut Tables<'_>| {
            if let Err(full) = tables.has_room(Use::Others, 1, 64 + 2 * entry.sid.len()) {
                return Ok(Err(full));
            }
            if tables.with_prefix(&Kind::Subject.of(&subject.0))?.len() >= max {
                return Ok(Ok(false));
            }
            let value = Encoder::default().number(expiry(tables.now, Some(entry.lifetime))).end();
            tables.put(&of_subject(subject, &entry.sid), &value)?;
            Ok(Ok(true))
        };
        self.writer.write(index).await
    }

    async fn unindex(&self, subject: SubjectName, sids: &[String]) -> Result<(), WriteError> {
        let entries: Vec<_> = sids.iter().map(|sid| of_subject(subject, sid)).collect();
        let unindex = move |tables: &mut Tables<'_>| {
            for entry in entries {
                tables.remove(&entry)?;
            }
            Ok(Ok(()))
        };
        self.writer.write(unindex).await
    }

    async fn sids(&self, subject: SubjectName) -> Result<Vec<String>, StoreError> {
        let sids = move |reading: &Reading| {
            let prefix = Kind::Subject.of(&subject.0);
            let found = within(&reading.table(ENTRIES)?, &prefix, reading.now)?;
            let sid = |(entry, _): (Vec<u8>, Vec<u8>)| String::from_utf8(entry.get(prefix.len()..)?.to_vec()).ok();
            found.into_iter().map(sid).collect::<Option<_>>().ok_or_else(not_ours)
        };
        self.engine.ask(SHORT_READ, sids).await
    }
}

impl EmbeddedStore {
    /// Changes a session, if there is one and `change` says that it was changed.
    async fn change<T: Send + 'static>(
        &self,
        name: SessionName,
        change: impl FnOnce(&mut Session, u64) -> (T, bool) + Send + 'static,
    ) -> Result<Option<T>, WriteError> {
        let entry = Kind::Session.of(&name.0);
        let change = move |tables: &mut Tables<'_>| {
            let Some(value) = tables.get(&entry)? else { return Ok(Ok(None)) };
            let mut session = Session::decode(&value).ok_or_else(not_ours)?;
            let (done, is_changed) = change(&mut session, tables.now);
            if is_changed {
                tables.put(&entry, &session.encode())?;
            }
            Ok::<_, Error>(Ok(Some(done)))
        };
        self.writer.write(change).await
    }
}

fn of_subject(subject: SubjectName, sid: &str) -> Vec<u8> {
    Kind::Subject.of(&[&subject.0[..], sid.as_bytes()].concat())
}
