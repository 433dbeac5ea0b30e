//! The revocation service, as far as a filter sees it: it answers checks from a table, and polls of the feed from a log.
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire::check::{Asked, Claimed, RegionsMoment, StoreError};
use wire::feed::{self, Cursor, MAX_KEYS, Membership, News, Polled, Reply, Trouble, piece_of};
use wire::sightings::{self, Reported, Sighting};
use wire::{Answer, DerivedKeys, Retention, RevocationKey};

use super::FakeReply;

#[derive(Debug, Clone)]
pub struct FakeService {
    pub keys: DerivedKeys,
    pub revoked: BTreeMap<RevocationKey, Answer>,
    pub keeps: Retention,
    /// What it says of other regions.
    pub regions: RegionsMoment,
    /// It cannot tell.
    pub fails: Option<StoreError>,
    /// Proofs that were claimed.
    pub used_proofs: RefCell<BTreeSet<[u8; 16]>>,
    /// Every revocation, in order.
    pub log: Vec<RevocationKey>,
    /// How far the feed's picture is complete when a poll is answered, in milliseconds from then.
    pub complete_millis: i32,
    /// The pieces of a snapshot.
    pub pieces: u16,
    /// The feed has nothing for a follower.
    pub feed_trouble: Option<Trouble>,
    /// Cursors of another instance are not understood.
    pub instance: u8,
}

impl FakeService {
    pub fn new(keys: DerivedKeys) -> Self {
        Self {
            keys,
            revoked: BTreeMap::new(),
            keeps: Retention::LONGEST,
            regions: RegionsMoment::of(0),
            fails: None,
            used_proofs: RefCell::default(),
            log: Vec::new(),
            complete_millis: 0,
            pieces: 1,
            feed_trouble: None,
            instance: 1,
        }
    }

    /// A revocation is acknowledged.
    pub fn revoke(&mut self, key: RevocationKey, answer: Answer) {
        self.revoked.insert(key, answer);
        self.log.push(key);
    }

    /// The reply to a poll that was received this long ago. `None` if there is no news, and the poll may be held longer.
    pub fn poll(&self, body: &[u8], held: Duration) -> Option<FakeReply> {
        self.poll_held(body, held, true)
    }

    /// The same, for a service that does not hold it.
    pub fn poll_now(&self, body: &[u8], held: Duration) -> FakeReply {
        self.poll_held(body, held, false).unwrap_or_default()
    }

    fn poll_held(&self, body: &[u8], held: Duration, may_hold: bool) -> Option<FakeReply> {
        let Ok(polled) = Polled::read(std::slice::from_ref(&self.keys), body) else {
            return Some(FakeReply::new(400, "text/plain", "not a poll of ours"));
        };
        if let Some(trouble) = self.feed_trouble {
            return Some(FakeReply::new(503, feed::CONTENT_TYPE, polled.trouble(&self.keys, 503, trouble)));
        }
        let news = match self.place(polled.cursor()) {
            Some((None, from)) => {
                let end = self.log.len().min(from.saturating_add(MAX_KEYS));
                let keys = self.log.get(from..end).unwrap_or_default().to_vec();
                if keys.is_empty() && may_hold && held < polled.wait() {
                    return None;
                }
                let held = i32::try_from(held.as_millis()).unwrap_or(i32::MAX);
                let complete_millis = self.complete_millis.saturating_add(held);
                let news = News::Keys { complete_millis, more: end < self.log.len(), keys };
                (self.cursor(None, end), news)
            }
            Some((Some(piece), from)) => self.piece(piece, from),
            None => self.piece(0, self.log.len()),
        };
        let reply = Reply { keeps: self.keeps, regions: self.regions, cursor: news.0, news: news.1 };
        Some(FakeReply::new(200, feed::CONTENT_TYPE, polled.reply(&self.keys, &reply)))
    }

    fn piece(&self, piece: u16, from: usize) -> (Cursor, News) {
        let inside = self.log.iter().filter(|key| piece_of(key, self.pieces) == piece).copied();
        let membership = Membership::of(inside).unwrap_or_default();
        let next = (piece + 1 < self.pieces).then_some(piece + 1);
        (self.cursor(next, from), News::Piece { piece, pieces: self.pieces, membership })
    }

    fn cursor(&self, piece: Option<u16>, from: usize) -> Cursor {
        let piece = piece.map_or(u16::MAX, |piece| piece).to_be_bytes();
        let from = u64::try_from(from).unwrap_or(u64::MAX).to_be_bytes();
        Cursor::new([&[self.instance][..], &piece, &from].concat()).unwrap_or_default()
    }

    fn place(&self, cursor: &Cursor) -> Option<(Option<u16>, usize)> {
        let (instance, rest) = cursor.bytes().split_first()?;
        let (piece, from) = rest.split_first_chunk::<2>()?;
        let piece = u16::from_be_bytes(*piece);
        let from = usize::try_from(u64::from_be_bytes(from.try_into().ok()?)).ok()?;
        (*instance == self.instance).then_some(((piece != u16::MAX).then_some(piece), from))
    }

    /// The sightings of a report.
    pub fn sightings(&self, report: &[u8]) -> Vec<Sighting> {
        let read = Reported::read(std::slice::from_ref(&self.keys), report);
        read.map(|reported| reported.sightings().to_vec()).unwrap_or_default()
    }

    fn take_report(&self, report: &[u8]) -> Option<FakeReply> {
        let reported = Reported::read(std::slice::from_ref(&self.keys), report).ok()?;
        let status = if self.fails.is_some() { 503 } else { 200 };
        let reply = reported.reply(&self.keys, status, self.fails.is_none());
        Some(FakeReply::new(status, sightings::CONTENT_TYPE, reply))
    }

    pub fn answer(&self, question: &[u8]) -> FakeReply {
        if let Some(reply) = self.take_report(question) {
            return reply;
        }
        let Ok(asked) = Asked::read(std::slice::from_ref(&self.keys), question) else {
            return FakeReply::new(400, "text/plain", "not a check of ours");
        };
        let content_type = wire::check::CONTENT_TYPE;
        match self.fails {
            Some(error) => FakeReply::new(503, content_type, asked.error(&self.keys, 503, error)),
            None => {
                let answer = |key| self.revoked.get(key).copied().unwrap_or(Answer::Live);
                let answers: Vec<Answer> = asked.keys().iter().map(answer).collect();
                let mut used = self.used_proofs.borrow_mut();
                let mut claim = |digest| if used.insert(digest) { Claimed::First } else { Claimed::Again };
                let claims: Vec<Claimed> = asked.proofs().iter().map(|proof| claim(proof.digest)).collect();
                let asked = asked.with_regions(self.regions);
                FakeReply::new(200, content_type, asked.answers(&self.keys, self.keeps, &answers, &claims))
            }
        }
    }
}
