//! Sessions on Redis. Each change of a session is one command on its one key.
//!
//! ```text
//! portcullis:{<bucket>}:s:<name>   a hash, with an expiry: the session's end, or sooner when it is not used
//!   d  the data, encrypted     a  access records, newest first     r, p  MAC of the current and the previous refresh token
//!   t  when p was replaced     u  when it was last used     e  its end     (Unix milliseconds by Redis's clock)
//!   i  idle timeout in milliseconds, or 0     x  why it was ended     n  how often it was refreshed
//! portcullis:{<bucket>}:u:<name>   a sorted set of the sids of a subject by their end
//! ```
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::{Cmd, FromRedisValue};
use store::{
    IndexEntry, NewSession, Rotated, Rotation, SessionName, SessionRecord, SessionStore, StoreError, SubjectName,
    WriteError,
};

use crate::RedisStore;
use crate::contents::Name;

const CREATE: &str = include_str!("lua/sessions/create.lua");
const ROTATE: &str = include_str!("lua/sessions/rotate.lua");
const TOUCH: &str = include_str!("lua/sessions/touch.lua");
const END: &str = include_str!("lua/sessions/end.lua");
const INDEX: &str = include_str!("lua/sessions/index.lua");

#[async_trait]
impl SessionStore for RedisStore {
    async fn create(&self, name: SessionName, session: NewSession) -> Result<bool, WriteError> {
        let name = of_session(name);
        let mut create = script(CREATE, &name);
        create.arg(session.sealed).arg(session.access);
        create.arg(session.refresh.as_ref().map_or(&[][..], |mac| &mac[..]));
        create.arg(millis(session.lifetime)).arg(session.idle.map_or(0, millis));
        Ok(self.change::<i64>(&name, create).await? == 1)
    }

    async fn read(&self, name: SessionName) -> Result<Option<SessionRecord>, StoreError> {
        type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, Option<u64>, Option<String>);
        let name = of_session(name);
        let mut read = redis::cmd("HMGET");
        read.arg(&name.text).arg("d").arg("a").arg("u").arg("x");
        let (sealed, access, used, ended): Fields = self.ask(&name, read).await?;
        let Some(sealed) = sealed else { return Ok(None) };
        Ok(Some(SessionRecord { sealed, access: access.unwrap_or_default(), used: used.unwrap_or(0), ended }))
    }

    async fn rotate(&self, name: SessionName, rotation: Rotation) -> Result<Rotated, WriteError> {
        let name = of_session(name);
        let mut rotate = script(ROTATE, &name);
        rotate.arg(&rotation.presented[..]).arg(&rotation.new[..]).arg(rotation.access);
        rotate.arg(millis(rotation.grace)).arg(rotation.max_access_bytes);
        let outcome = match self.change::<String>(&name, rotate).await {
            // It may not be on all disks and replicas yet. A refusal now would leave the client without any token.
            Err(error @ WriteError::Unconfirmed(_)) => {
                return self.outcome_of(&name, rotation.new).await.map_err(|_| error);
            }
            outcome => outcome?,
        };
        match outcome.as_str() {
            "rotated" => Ok(Rotated::Done),
            "gone" => Ok(Rotated::Gone),
            "ended" => Ok(Rotated::Ended),
            "raced" => Ok(Rotated::Raced),
            "reused" => Ok(Rotated::Reused),
            _ => Err(WriteError::Unknown(StoreError::StoreFailed)),
        }
    }

    async fn touch(&self, name: SessionName, step: Duration) -> Result<(), WriteError> {
        let name = of_session(name);
        let mut touch = script(TOUCH, &name);
        touch.arg(millis(step));
        self.change::<i64>(&name, touch).await.map(|_| ())
    }

    async fn end(&self, name: SessionName, reason: &str) -> Result<(), WriteError> {
        let name = of_session(name);
        let mut end = script(END, &name);
        end.arg(reason);
        self.change::<i64>(&name, end).await.map(|_| ())
    }

    async fn delete(&self, name: SessionName) -> Result<(), WriteError> {
        let name = of_session(name);
        let mut delete = redis::cmd("DEL");
        delete.arg(&name.text);
        self.remove(&name, delete).await.map(|_| ())
    }

    async fn index(&self, subject: SubjectName, entry: IndexEntry, max: usize) -> Result<bool, WriteError> {
        let name = of_subject(subject);
        let mut index = script(INDEX, &name);
        index.arg(entry.sid).arg(millis(entry.lifetime)).arg(max);
        Ok(self.change::<i64>(&name, index).await? == 1)
    }

    async fn unindex(&self, subject: SubjectName, sids: &[String]) -> Result<(), WriteError> {
        if sids.is_empty() {
            return Ok(());
        }
        let name = of_subject(subject);
        let mut remove = redis::cmd("ZREM");
        remove.arg(&name.text).arg(sids);
        self.remove(&name, remove).await.map(|_| ())
    }

    async fn sids(&self, subject: SubjectName) -> Result<Vec<String>, StoreError> {
        let name = of_subject(subject);
        let mut range = redis::cmd("ZRANGE");
        range.arg(&name.text).arg(0).arg(-1);
        self.ask(&name, range).await
    }
}

impl RedisStore {
    /// What came of a rotation to `new`, judged from what is stored now.
    async fn outcome_of(&self, name: &Name, new: [u8; 32]) -> Result<Rotated, StoreError> {
        let mut read = redis::cmd("HMGET");
        read.arg(&name.text).arg("r").arg("x");
        let (current, ended): (Option<Vec<u8>>, Option<String>) = self.ask(name, read).await?;
        Ok(match (current, ended.as_deref()) {
            (_, Some("reused")) => Rotated::Reused,
            (_, Some(_)) => Rotated::Ended,
            (None, None) => Rotated::Gone,
            (Some(current), None) if current == new => Rotated::Done,
            (Some(_), None) => Rotated::Raced,
        })
    }

    async fn ask<T: FromRedisValue>(&self, name: &Name, command: Cmd) -> Result<T, StoreError> {
        let reply = self.read(name.bucket, &[command]).await?.pop().ok_or(StoreError::StoreFailed)?;
        redis::from_redis_value(reply).map_err(|_| StoreError::StoreFailed)
    }

    async fn change<T: FromRedisValue>(&self, name: &Name, command: Cmd) -> Result<T, WriteError> {
        let reply = self.write(name, command).await?;
        redis::from_redis_value(reply).map_err(|_| WriteError::Unknown(StoreError::StoreFailed))
    }
}

fn of_session(name: SessionName) -> Name {
    Name::of_session(name.0, URL_SAFE_NO_PAD.encode(name.0))
}

fn of_subject(name: SubjectName) -> Name {
    Name::of_subject(name.0, URL_SAFE_NO_PAD.encode(name.0))
}

fn script(text: &str, name: &Name) -> Cmd {
    let mut eval = redis::cmd("EVAL");
    eval.arg(text).arg(1).arg(&name.text);
    eval
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
