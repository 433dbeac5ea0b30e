//! The deadlines of waiting requests, in order: all requests of one queue have the same timeout.
use std::collections::VecDeque;

use authn::time::Monotonic;

use crate::host::StreamId;

/// May contain requests that no longer wait.
#[derive(Debug, Default)]
pub struct Deadlines(VecDeque<(Monotonic, StreamId)>);

impl Deadlines {
    /// `deadline` is not before that of any request in it.
    pub fn push(&mut self, deadline: Monotonic, waiter: StreamId) {
        self.0.push_back((deadline, waiter));
    }

    /// The next request whose deadline has passed.
    pub fn pop_due(&mut self, now: Monotonic) -> Option<StreamId> {
        self.0.pop_front_if(|(deadline, _)| *deadline <= now).map(|(_, waiter)| waiter)
    }

    /// Forgets the requests that no longer wait, if there are more than `most` entries.
    pub fn shrink(&mut self, most: usize, waits: impl Fn(StreamId) -> bool) {
        if self.0.len() > most {
            self.0.retain(|(_, waiter)| waits(*waiter));
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
