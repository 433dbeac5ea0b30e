//! A session as it is stored, and what each change does to it. All times are Unix milliseconds.
use std::time::Duration;

use store::{NewSession, Rotated, Rotation, SessionRecord};

use crate::codec::{Decoder, Encoder};
use crate::revocation::expiry;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Gone after this time.
    pub ends: u64,
    /// Gone after this time if it is not used before; at most `ends`.
    pub expires: u64,
    /// In milliseconds. 0: none.
    pub idle: u64,
    pub used: u64,
    /// How often it was refreshed, and when last.
    pub refreshes: u64,
    pub replaced: u64,
    /// The MACs of the current and the previous refresh token.
    pub refresh: Option<[u8; 32]>,
    pub previous: Option<[u8; 32]>,
    /// Why it was ended.
    pub ended: Option<String>,
    pub access: Vec<u8>,
    pub sealed: Vec<u8>,
}

impl Session {
    pub fn new(session: NewSession, now: u64) -> Self {
        let NewSession { sealed, access, refresh, lifetime, idle } = session;
        let idle = idle.map_or(0, millis);
        let ends = expiry(now, Some(lifetime));
        let mut new = Self {
            ends,
            expires: ends,
            idle,
            used: now,
            refreshes: 0,
            replaced: 0,
            refresh,
            previous: None,
            ended: None,
            access,
            sealed,
        };
        new.use_at(now);
        new
    }

    pub fn encode(&self) -> Vec<u8> {
        Encoder::default()
            .number(self.expires)
            .number(self.ends)
            .number(self.idle)
            .number(self.used)
            .number(self.refreshes)
            .number(self.replaced)
            .optional(self.refresh.as_ref().map(|mac| &mac[..]))
            .optional(self.previous.as_ref().map(|mac| &mac[..]))
            .optional(self.ended.as_ref().map(String::as_bytes))
            .bytes(&self.access)
            .rest(&self.sealed)
            .end()
    }

    /// `None`: not ours.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut from = Decoder(value);
        let mac =
            |bytes: Option<&[u8]>| bytes.map(|bytes| bytes.try_into().ok()).map_or(Some(None), |mac| mac.map(Some));
        let text = |bytes: Option<&[u8]>| match bytes {
            None => Some(None),
            Some(bytes) => String::from_utf8(bytes.to_vec()).ok().map(Some),
        };
        Some(Self {
            expires: from.number()?,
            ends: from.number()?,
            idle: from.number()?,
            used: from.number()?,
            refreshes: from.number()?,
            replaced: from.number()?,
            refresh: mac(from.optional()?)?,
            previous: mac(from.optional()?)?,
            ended: text(from.optional()?)?,
            access: from.bytes()?.to_vec(),
            sealed: from.rest().to_vec(),
        })
    }

    pub fn record(self) -> SessionRecord {
        SessionRecord { sealed: self.sealed, access: self.access, used: self.used, ended: self.ended }
    }

    /// Changes it only if the outcome is [`Rotated::Done`] or [`Rotated::Reused`].
    pub fn rotate(&mut self, rotation: Rotation, now: u64) -> Rotated {
        if self.ended.is_some() {
            return Rotated::Ended;
        }
        let Some(current) = self.refresh else { return Rotated::Gone };
        if current == rotation.presented {
            self.previous = Some(current);
            self.refresh = Some(rotation.new);
            self.replaced = now;
            self.refreshes = self.refreshes.saturating_add(1);
            if !rotation.access.is_empty() {
                let mut access = rotation.access;
                access.extend_from_slice(&self.access);
                access.truncate(rotation.max_access_bytes);
                self.access = access;
            }
            self.use_at(now);
            return Rotated::Done;
        }
        // The clock may have been set back, so the distance counts and not the direction.
        if self.previous == Some(rotation.presented) && now.abs_diff(self.replaced) <= millis(rotation.grace) {
            return Rotated::Raced;
        }
        self.ended = Some("reused".to_owned());
        Rotated::Reused
    }

    /// Whether the use was recorded.
    pub fn touch(&mut self, step: Duration, now: u64) -> bool {
        let is_noted = self.ended.is_none() && now.abs_diff(self.used) >= millis(step);
        if is_noted {
            self.use_at(now);
        }
        is_noted
    }

    fn use_at(&mut self, now: u64) {
        self.used = now;
        self.expires = match self.idle {
            0 => self.ends,
            idle => self.ends.min(now.saturating_add(idle)),
        };
    }
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written_and_a_part_is_refused() {
        let session = Session {
            ends: 9,
            expires: 8,
            idle: 7,
            used: 6,
            refreshes: 5,
            replaced: 4,
            refresh: Some([1; 32]),
            previous: None,
            ended: Some("logout".to_owned()),
            access: b"access".to_vec(),
            sealed: b"sealed".to_vec(),
        };
        let value = session.encode();
        assert_eq!(Session::decode(&value), Some(session));
        let fixed = value.len() - b"sealed".len();
        assert!((0..fixed).all(|length| Session::decode(&value[..length]).is_none()));
    }
}
