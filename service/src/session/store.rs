//! Sessions in Redis. Every change of one is one command on its one key.
use std::time::Duration;

use redis::Cmd;
use wire::check::Trouble;
use wire::opaque_token::OpaqueToken;

use super::keys::{KeyAt, Ring, Sid, TokenMac};
use super::record::{Data, MAX_ACCESS_TOKENS, RECORD_BYTES};
use crate::store::Store;

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
pub struct Sessions<'a> {
    pub store: &'a Store,
    pub ring: &'a Ring,
}

impl Sessions<'_> {
    pub async fn create(
        &self,
        at: KeyAt,
        sid: Sid,
        data: &Data,
        access: &[u8],
        refresh: Option<TokenMac>,
        life: Duration,
    ) -> Result<(), Trouble> {
        let name = self.name(at, sid);
        let text = serde_json::to_vec(data).map_err(|_| Trouble::StoreFailed)?;
        let sealed = self.ring.seal(at, &name, text).map_err(|_| Trouble::StoreFailed)?;
        let refresh = refresh.map_or(Vec::new(), |mac| mac.0.to_vec());
        let idle = data.idle.map_or(0, |idle| millis(Duration::from_secs(idle) + step(Duration::from_secs(idle))));
        let mut create = script(CREATE, &name);
        create.arg(sealed).arg(access).arg(refresh).arg(millis(life)).arg(idle);
        match self.store.run::<i64>(create).await? {
            1 => Ok(()),
            // 128 random bits that are there already: something is very wrong.
            _ => Err(Trouble::StoreFailed),
        }
    }

    /// Adds it to its subject's. False: the subject has too many.
    pub async fn index(&self, at: KeyAt, data: &Data, life: Duration) -> Result<bool, Trouble> {
        let mut index = script(INDEX, &self.subject(at, &data.iss, &data.sub));
        index.arg(&data.sid).arg(millis(life)).arg(MAX_SESSIONS_PER_SUBJECT);
        Ok(self.store.run::<i64>(index).await? == 1)
    }

    /// Under whichever key of the ring it was made.
    pub async fn find(&self, sid: Sid) -> Result<Option<Kept>, Trouble> {
        for at in self.ring.all() {
            if let Some(kept) = self.read(at, sid).await? {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    pub async fn read(&self, at: KeyAt, sid: Sid) -> Result<Option<Kept>, Trouble> {
        type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, Option<u64>, Option<String>);
        let name = self.name(at, sid);
        let mut read = redis::cmd("HMGET");
        read.arg(&name).arg("d").arg("a").arg("u").arg("x");
        let (data, access, used, ended): Fields = self.store.run(read).await?;
        let Some(sealed) = data else { return Ok(None) };
        // Somebody wrote there who has not our key: that is neither a session nor the absence of one.
        let text = self.ring.open(at, &name, &sealed).ok_or(Trouble::StoreFailed)?;
        let data: Data = serde_json::from_slice(&text).map_err(|_| Trouble::StoreFailed)?;
        Ok(Some(Kept { at, sid, data, access: access.unwrap_or_default(), used: used.unwrap_or(0), ended }))
    }

    pub async fn rotate(
        &self,
        at: KeyAt,
        presented: &OpaqueToken,
        new: TokenMac,
        access: &[u8],
        grace: Duration,
    ) -> Result<Rotated, Trouble> {
        let mut rotate = script(ROTATE, &self.name(at, Sid(presented.sid)));
        rotate.arg(&self.ring.token_mac(at, presented).0).arg(&new.0).arg(access).arg(millis(grace));
        rotate.arg(MAX_ACCESS_TOKENS * RECORD_BYTES);
        match self.store.run::<String>(rotate).await?.as_str() {
            "rotated" => Ok(Rotated::Done),
            "gone" => Ok(Rotated::Gone),
            "ended" => Ok(Rotated::Ended),
            "raced" => Ok(Rotated::Raced),
            "reused" => Ok(Rotated::Reused),
            _ => Err(Trouble::StoreFailed),
        }
    }

    /// Notes that a session with an idle timeout is used. Redis is asked once in a [`step`] at the most.
    pub async fn touch(&self, kept: &Kept, now_millis: u64) -> Result<(), Trouble> {
        let Some(idle) = kept.data.idle else { return Ok(()) };
        let step = millis(step(Duration::from_secs(idle)));
        if now_millis.abs_diff(kept.used) < step {
            return Ok(());
        }
        let mut touch = script(TOUCH, &self.name(kept.at, kept.sid));
        touch.arg(step);
        self.store.run::<i64>(touch).await.map(|_| ())
    }

    /// From here on it gives nothing any more.
    pub async fn mark_ended(&self, kept: &Kept, why: &str) -> Result<(), Trouble> {
        let mut end = script(END, &self.name(kept.at, kept.sid));
        end.arg(why);
        self.store.run::<i64>(end).await.map(|_| ())
    }

    /// Forgets a session whose end is known everywhere.
    pub async fn forget(&self, kept: &Kept) -> Result<(), Trouble> {
        let mut delete = redis::cmd("DEL");
        delete.arg(self.name(kept.at, kept.sid));
        self.store.run::<i64>(delete).await?;
        self.unindex(kept.at, &kept.data.iss, &kept.data.sub, &[kept.sid]).await
    }

    pub async fn unindex(&self, at: KeyAt, issuer: &str, subject: &str, sids: &[Sid]) -> Result<(), Trouble> {
        if sids.is_empty() {
            return Ok(());
        }
        let mut remove = redis::cmd("ZREM");
        remove.arg(self.subject(at, issuer, subject));
        for sid in sids {
            remove.arg(sid.to_string());
        }
        self.store.run::<i64>(remove).await.map(|_| ())
    }

    /// Every sid that the subject's list has, in their order; some may be gone. At most
    /// [`MAX_SESSIONS_PER_SUBJECT`] for each key of the ring.
    pub async fn sids_of(&self, issuer: &str, subject: &str) -> Result<Vec<(Sid, KeyAt)>, Trouble> {
        let mut sids = Vec::new();
        for at in self.ring.all() {
            let mut range = redis::cmd("ZRANGE");
            range.arg(self.subject(at, issuer, subject)).arg(0).arg(-1);
            let texts: Vec<String> = self.store.run(range).await?;
            sids.extend(texts.iter().filter_map(|text| Some((text.parse::<Sid>().ok()?, at))));
        }
        sids.sort_unstable_by_key(|(sid, _)| *sid);
        sids.dedup_by_key(|(sid, _)| *sid);
        Ok(sids)
    }

    fn name(&self, at: KeyAt, sid: Sid) -> String {
        format!("portcullis:s:{{{}}}", self.ring.session_name(at, sid))
    }

    fn subject(&self, at: KeyAt, issuer: &str, subject: &str) -> String {
        format!("portcullis:u:{{{}}}", self.ring.subject_name(at, issuer, subject))
    }
}

/// Use is noted so often at the most: a sixteenth of the idle timeout, from a second to a minute. A session lives for
/// its idle timeout and up to one step longer.
pub fn step(idle: Duration) -> Duration {
    (idle / 16).clamp(Duration::from_secs(1), Duration::from_secs(60))
}

fn script(text: &str, key: &str) -> Cmd {
    let mut eval = redis::cmd("EVAL");
    eval.arg(text).arg(1).arg(key);
    eval
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
