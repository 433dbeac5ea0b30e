//! The revocation service, as far as a filter sees it: it answers checks from a table.
use std::collections::BTreeMap;

use wire::check::{Asked, StoreError};
use wire::{Answer, DerivedKeys, Retention, RevocationKey};

use super::FakeReply;

#[derive(Debug, Clone)]
pub struct FakeService {
    pub keys: DerivedKeys,
    pub revoked: BTreeMap<RevocationKey, Answer>,
    pub keeps: Retention,
    /// It cannot tell.
    pub fails: Option<StoreError>,
}

impl FakeService {
    pub fn new(keys: DerivedKeys) -> Self {
        Self { keys, revoked: BTreeMap::new(), keeps: Retention::LONGEST, fails: None }
    }

    pub fn answer(&self, question: &[u8]) -> FakeReply {
        let Ok(asked) = Asked::read(std::slice::from_ref(&self.keys), question) else {
            return FakeReply::new(400, "text/plain", "not a check of ours");
        };
        let content_type = wire::check::CONTENT_TYPE;
        match self.fails {
            Some(error) => FakeReply::new(503, content_type, asked.error(&self.keys, 503, error)),
            None => {
                let answer = |key| self.revoked.get(key).copied().unwrap_or(Answer::Live);
                let answers: Vec<Answer> = asked.keys().iter().map(answer).collect();
                FakeReply::new(200, content_type, asked.answers(&self.keys, self.keeps, &answers))
            }
        }
    }
}
