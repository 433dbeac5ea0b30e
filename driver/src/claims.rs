//! The proofs of possession that the service must not have seen before: each request with one waits for its answer, which
//! comes with a batch of checks. No host call, no clock.
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use authn::time::Monotonic;
use wire::check::{Claimed, MAX_PROOFS, UsedProof};

use crate::checks::{BatchId, Full};
use crate::deadlines::Deadlines;
use crate::host::StreamId;

#[derive(Debug)]
pub struct Claims {
    limit: usize,
    timeout: Duration,
    waiting: HashMap<StreamId, UsedProof>,
    /// Those that are in no batch, in order of arrival. May name requests that are gone.
    queue: VecDeque<StreamId>,
    in_flight: HashMap<BatchId, Vec<StreamId>>,
    deadlines: Deadlines,
}

impl Claims {
    /// At most `limit` requests wait, each at most `timeout`.
    pub fn new(limit: usize, timeout: Duration) -> Self {
        Self {
            limit,
            timeout,
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            in_flight: HashMap::new(),
            deadlines: Deadlines::default(),
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// # Errors
    /// [`Full`]: the request must be refused.
    pub fn join(&mut self, stream: StreamId, proof: UsedProof, now: Monotonic) -> Result<(), Full> {
        if self.waiting.len() >= self.limit {
            return Err(Full);
        }
        self.waiting.insert(stream, proof);
        self.queue.push_back(stream);
        self.deadlines.push(now.plus(self.timeout), stream);
        Ok(())
    }

    pub fn are_queued(&self) -> bool {
        self.queue.iter().any(|stream| self.waiting.contains_key(stream))
    }

    /// The proofs that go with this batch.
    pub fn take(&mut self, batch: BatchId) -> Vec<UsedProof> {
        let (mut streams, mut proofs) = (Vec::new(), Vec::new());
        while proofs.len() < MAX_PROOFS
            && let Some(stream) = self.queue.pop_front()
        {
            if let Some(proof) = self.waiting.get(&stream) {
                streams.push(stream);
                proofs.push(*proof);
            }
        }
        if !streams.is_empty() {
            self.in_flight.insert(batch, streams);
        }
        proofs
    }

    /// The answer for each request that still waits. `None`: the answers do not fit the batch.
    pub fn answered(&mut self, batch: BatchId, claims: &[Claimed]) -> Vec<(StreamId, Option<Claimed>)> {
        let streams = self.in_flight.remove(&batch).unwrap_or_default();
        let fits = streams.len() == claims.len();
        let each = streams.into_iter().enumerate().map(|(at, stream)| (stream, claims.get(at).copied()));
        let answered = each.map(|(stream, claim)| (stream, claim.filter(|_| fits)));
        answered.filter(|(stream, _)| self.waiting.remove(stream).is_some()).collect()
    }

    /// The batch has no answer. These requests must be refused.
    pub fn failed(&mut self, batch: BatchId) -> Vec<StreamId> {
        let streams = self.in_flight.remove(&batch).unwrap_or_default();
        streams.into_iter().filter(|stream| self.waiting.remove(stream).is_some()).collect()
    }

    /// The request is gone. Its proof may be claimed all the same.
    pub fn leave(&mut self, stream: StreamId) {
        self.waiting.remove(&stream);
        let most = self.limit.saturating_mul(2).saturating_add(64);
        self.deadlines.shrink(most, |stream| self.waiting.contains_key(&stream));
        if self.queue.len() > most {
            self.queue.retain(|stream| self.waiting.contains_key(stream));
        }
    }

    /// The requests whose deadline has passed: they must be refused.
    pub fn expire(&mut self, now: Monotonic) -> Vec<StreamId> {
        let mut over = Vec::new();
        while let Some(stream) = self.deadlines.pop_due(now) {
            if self.waiting.remove(&stream).is_some() {
                over.push(stream);
            }
        }
        // A batch whose answer never comes.
        self.in_flight.retain(|_, streams| streams.iter().any(|stream| self.waiting.contains_key(stream)));
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_gets_its_own_answer_and_one_that_left_gets_none() {
        let proof = |byte: u8| UsedProof { digest: [byte; 16], seconds: 90 };
        let mut claims = Claims::new(3, Duration::from_secs(1));
        for stream in 1..=3 {
            claims.join(stream, proof(stream as u8), Monotonic(0)).unwrap();
        }
        assert_eq!(claims.join(4, proof(4), Monotonic(0)), Err(Full));
        claims.leave(2);
        let batch = BatchId::for_test(7);
        assert_eq!(claims.take(batch), [proof(1), proof(3)]);
        assert!(!claims.are_queued());
        claims.leave(3);
        let answers = [Claimed::First, Claimed::Again];
        assert_eq!(claims.answered(batch, &answers), [(1, Some(Claimed::First))]);
        assert!(claims.answered(batch, &answers).is_empty());

        claims.join(5, proof(5), Monotonic(0)).unwrap();
        claims.take(batch);
        assert_eq!(claims.answered(batch, &answers), [(5, None)], "a wrong number of answers");
        claims.join(6, proof(6), Monotonic(0)).unwrap();
        claims.take(batch);
        assert!(claims.expire(Monotonic(999_999_999)).is_empty());
        assert_eq!(claims.expire(Monotonic(1_000_000_000)), [6]);
        assert_eq!((claims.waiting(), claims.in_flight.len()), (0, 0));
    }
}
