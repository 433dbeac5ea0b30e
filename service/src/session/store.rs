//! Sessions in Redis. Every change of one is one command on its one key.
use std::time::Duration;

use redis::{Cmd, FromRedisValue};
use wire::check::StoreError;
use wire::opaque_token::OpaqueToken;

use super::keys::{KeyAt, Ring, Sid, TokenMac};
use super::record::{Data, MAX_ACCESS_TOKENS, RECORD_BYTES};
use store_redis::{Name, Store, WriteError};

/// One subject has no more sessions than this at once; one more is refused.
pub const MAX_SESSIONS_PER_SUBJECT: usize = 1000;

const CREATE: &str = include_str!("create.lua");
const ROTATE: &str = include_str!("rotate.lua");
const TOUCH: &str = include_str!("touch.lua");
const END: &str = include_str!("end.lua");
const INDEX: &str = include_str!("index.lua");

/// A session as it lies in Redis.
pub struct Kept {
    pub at: KeyAt,
    pub sid: Sid,
    pub data: Data,
    pub access: Vec<u8>,
    /// Unix milliseconds, of Redis's clock.
    pub used: u64,
    /// Why it was ended, if it was and is only waiting to be forgotten.
    pub ended: Option<String>,
}

/// What came of presenting a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotated {
    Done,
    /// There is no such session.
    Gone,
    Ended,
    /// It was replaced a moment ago, by somebody who asked at the same time.
    Raced,
    /// It was replaced before that: it has been stolen, or what replaced it has.
    Reused,
}

/// Sessions under their ring, in the store that also has the revocations.
#[derive(Clone, Copy)]
pub struct SessionStore<'a> {
    pub store: &'a Store,
    pub ring: &'a Ring,
}

impl SessionStore<'_> {
    pub async fn create(
        &self,
        at: KeyAt,
        sid: Sid,
        data: &Data,
        access: &[u8],
        refresh: Option<TokenMac>,
        life: Duration,
    ) -> Result<(), WriteError> {
        let failed = WriteError::NotWritten(StoreError::StoreFailed);
        let place = self.session(at, sid);
        let text = serde_json::to_vec(data).map_err(|_| failed.clone())?;
        let sealed = self.ring.seal(at, &place.text, text).map_err(|_| failed.clone())?;
        let refresh = refresh.map_or(Vec::new(), |mac| mac.0.to_vec());
        let idle = data.idle.map_or(0, |idle| millis(Duration::from_secs(idle) + step(Duration::from_secs(idle))));
        let mut create = script(CREATE, &place);
        create.arg(sealed).arg(access).arg(refresh).arg(millis(life)).arg(idle);
        match self.write::<i64>(&place, create).await? {
            1 => Ok(()),
            // 128 random bits that are there already: something is very wrong.
            _ => Err(failed),
        }
    }

    /// Adds it to its subject's. False: the subject has too many.
    pub async fn index(&self, at: KeyAt, data: &Data, life: Duration) -> Result<bool, WriteError> {
        let place = self.subject(at, &data.iss, &data.sub);
        let mut index = script(INDEX, &place);
        index.arg(&data.sid).arg(millis(life)).arg(MAX_SESSIONS_PER_SUBJECT);
        Ok(self.write::<i64>(&place, index).await? == 1)
    }

    /// Under whichever key of the ring it was made.
    pub async fn find(&self, sid: Sid) -> Result<Option<Kept>, StoreError> {
        for at in self.ring.all() {
            if let Some(kept) = self.read(at, sid).await? {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    pub async fn read(&self, at: KeyAt, sid: Sid) -> Result<Option<Kept>, StoreError> {
        type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, Option<u64>, Option<String>);
        let place = self.session(at, sid);
        let mut read = redis::cmd("HMGET");
        read.arg(&place.text).arg("d").arg("a").arg("u").arg("x");
        let (data, access, used, ended): Fields = self.ask(&place, read).await?;
        let Some(sealed) = data else { return Ok(None) };
        // Somebody wrote there who has not our key: that is neither a session nor the absence of one.
        let text = self.ring.open(at, &place.text, &sealed).ok_or(StoreError::StoreFailed)?;
        let data: Data = serde_json::from_slice(&text).map_err(|_| StoreError::StoreFailed)?;
        Ok(Some(Kept { at, sid, data, access: access.unwrap_or_default(), used: used.unwrap_or(0), ended }))
    }

    pub async fn rotate(
        &self,
        at: KeyAt,
        presented: &OpaqueToken,
        new: TokenMac,
        access: &[u8],
        grace: Duration,
    ) -> Result<Rotated, WriteError> {
        let place = self.session(at, Sid(presented.sid));
        let mut rotate = script(ROTATE, &place);
        rotate.arg(&self.ring.token_mac(at, presented).0).arg(&new.0).arg(access).arg(millis(grace));
        rotate.arg(MAX_ACCESS_TOKENS * RECORD_BYTES);
        let said = match self.write::<String>(&place, rotate).await {
            // Not on all disks or replicas yet. Refusing now would leave its client without any token; but it may as well
            // have been refused, and a JWT is good without Redis.
            Err(error @ WriteError::Unconfirmed(_)) => return self.became(&place, new).await.map_err(|_| error),
            said => said?,
        };
        match said.as_str() {
            "rotated" => Ok(Rotated::Done),
            "gone" => Ok(Rotated::Gone),
            "ended" => Ok(Rotated::Ended),
            "raced" => Ok(Rotated::Raced),
            "reused" => Ok(Rotated::Reused),
            _ => Err(WriteError::Unknown(StoreError::StoreFailed)),
        }
    }

    /// What came of an exchange for `new`, by what lies there now.
    async fn became(&self, place: &Name, new: TokenMac) -> Result<Rotated, StoreError> {
        let mut read = redis::cmd("HMGET");
        read.arg(&place.text).arg("r").arg("x");
        let (current, ended): (Option<Vec<u8>>, Option<String>) = self.ask(place, read).await?;
        Ok(match (current, ended.as_deref()) {
            (_, Some("reused")) => Rotated::Reused,
            (_, Some(_)) => Rotated::Ended,
            (None, None) => Rotated::Gone,
            (Some(current), None) if current == new.0 => Rotated::Done,
            (Some(_), None) => Rotated::Raced,
        })
    }

    /// Notes that a session with an idle timeout is used, unless that was noted less than a [`step`] ago.
    pub async fn touch(&self, at: KeyAt, sid: Sid, step: Duration) -> Result<(), WriteError> {
        let place = self.session(at, sid);
        let mut touch = script(TOUCH, &place);
        touch.arg(millis(step));
        self.write::<i64>(&place, touch).await.map(|_| ())
    }

    /// From here on it gives nothing any more.
    pub async fn mark_ended(&self, kept: &Kept, why: &str) -> Result<(), WriteError> {
        let place = self.session(kept.at, kept.sid);
        let mut end = script(END, &place);
        end.arg(why);
        self.write::<i64>(&place, end).await.map(|_| ())
    }

    /// Forgets a session whose end is known everywhere, or whose tokens nobody has.
    pub async fn forget(&self, at: KeyAt, sid: Sid, data: &Data) -> Result<(), WriteError> {
        let place = self.session(at, sid);
        let mut delete = redis::cmd("DEL");
        delete.arg(&place.text);
        self.remove(&place, delete).await?;
        self.unindex(at, &data.iss, &data.sub, &[sid]).await
    }

    pub async fn unindex(&self, at: KeyAt, issuer: &str, subject: &str, sids: &[Sid]) -> Result<(), WriteError> {
        if sids.is_empty() {
            return Ok(());
        }
        let place = self.subject(at, issuer, subject);
        let mut remove = redis::cmd("ZREM");
        remove.arg(&place.text);
        for sid in sids {
            remove.arg(sid.to_string());
        }
        self.remove(&place, remove).await
    }

    /// Every sid that the subject's list has, in order; some may be gone. At most [`MAX_SESSIONS_PER_SUBJECT`] for each
    /// key of the ring.
    pub async fn sids_of(&self, issuer: &str, subject: &str) -> Result<Vec<(Sid, KeyAt)>, StoreError> {
        let mut sids = Vec::new();
        for at in self.ring.all() {
            let place = self.subject(at, issuer, subject);
            let mut range = redis::cmd("ZRANGE");
            range.arg(&place.text).arg(0).arg(-1);
            let texts: Vec<String> = self.ask(&place, range).await?;
            sids.extend(texts.iter().filter_map(|text| Some((text.parse::<Sid>().ok()?, at))));
        }
        sids.sort_unstable_by_key(|(sid, _)| *sid);
        sids.dedup_by_key(|(sid, _)| *sid);
        Ok(sids)
    }

    async fn ask<T: FromRedisValue>(&self, place: &Name, command: Cmd) -> Result<T, StoreError> {
        let reply =
            self.store.read(place.bucket, &[command]).await?.into_iter().next().ok_or(StoreError::StoreFailed)?;
        redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)
    }

    async fn write<T: FromRedisValue>(&self, place: &Name, command: Cmd) -> Result<T, WriteError> {
        let reply = self.store.write(place, command).await?;
        redis::from_redis_value(reply).map_err(|_| WriteError::Unknown(StoreError::StoreFailed))
    }

    async fn remove(&self, place: &Name, command: Cmd) -> Result<(), WriteError> {
        self.store.remove(place, command).await.map(|_| ())
    }

    fn session(&self, at: KeyAt, sid: Sid) -> Name {
        let name = self.ring.session_name(at, sid);
        Name::of_session(name.0, name)
    }

    fn subject(&self, at: KeyAt, issuer: &str, subject: &str) -> Name {
        let name = self.ring.subject_name(at, issuer, subject);
        Name::of_subject(name.0, name)
    }
}

/// Use is noted so often at the most: a sixteenth of the idle timeout, from a second to a minute. A session lives for
/// its idle timeout and up to one step longer.
pub fn step(idle: Duration) -> Duration {
    (idle / 16).clamp(Duration::from_secs(1), Duration::from_secs(60))
}

fn script(text: &str, place: &Name) -> Cmd {
    let mut eval = redis::cmd("EVAL");
    eval.arg(text).arg(1).arg(&place.text);
    eval
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
