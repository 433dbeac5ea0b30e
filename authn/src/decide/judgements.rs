//! What rules have made of one token: remembered with it, so that a token that is seen again is not judged again.
use std::sync::{Arc, Mutex, OnceLock};

use super::Judged;

/// The first rule's judgement is read without a lock. Of further rules the last one is remembered.
#[derive(Debug, Default)]
pub(super) struct Judgements {
    first: OnceLock<Arc<Judged>>,
    other: Mutex<Option<Arc<Judged>>>,
}

impl Judgements {
    pub fn of(first: Option<Arc<Judged>>) -> Self {
        Self { first: first.map(OnceLock::from).unwrap_or_default(), other: Mutex::default() }
    }

    pub fn of_rule(&self, rule: usize) -> Option<Arc<Judged>> {
        let first = self.first.get()?;
        if first.rule == rule {
            return Some(Arc::clone(first));
        }
        // Another thread that holds it judges the same thing: judging once more is no harm.
        let other = self.other.try_lock().ok()?;
        other.as_ref().filter(|judged| judged.rule == rule).map(Arc::clone)
    }

    pub fn remember(&self, judged: &Arc<Judged>) {
        if self.first.set(Arc::clone(judged)).is_err()
            && let Ok(mut other) = self.other.try_lock()
        {
            *other = Some(Arc::clone(judged));
        }
    }
}
