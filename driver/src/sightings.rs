//! Sightings that wait for the next report to the service. No host call, no clock, as in `checks`.
use std::time::Duration;

use authn::time::Monotonic;
use wire::sightings::{MAX_SIGHTINGS, Sighting};

/// How often a report is sent that is not full.
const EVERY: Duration = Duration::from_secs(1);
/// A client must not fill the report by itself: of one session, and of one user.
const MAX_OF_SESSION: usize = 4;
const MAX_OF_USER: usize = 16;

/// Of one dispatcher. They fit into one report.
#[derive(Debug, Default)]
pub struct Sightings {
    waiting: Vec<(Sighting, Monotonic)>,
    blocked_until: Monotonic,
}

/// There is no room for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Sightings {
    /// # Errors
    /// [`Full`]: it is not reported.
    pub fn add(&mut self, sighting: Sighting, now: Monotonic) -> Result<(), Full> {
        let waiting = || self.waiting.iter().map(|(sighting, _)| sighting);
        let of_session = waiting().filter(|other| other.session == sighting.session).count();
        let of_user = waiting().filter(|other| sighting.user.is_some() && other.user == sighting.user).count();
        if self.waiting.len() >= MAX_SIGHTINGS || of_session >= MAX_OF_SESSION || of_user >= MAX_OF_USER {
            return Err(Full);
        }
        self.waiting.push((sighting, now));
        Ok(())
    }

    /// The next report, if it is time for one. `timeout` is that of a report: another one that is not full follows later.
    pub fn take(&mut self, timeout: Duration, now: Monotonic) -> Option<Vec<Sighting>> {
        if self.waiting.is_empty() || (now < self.blocked_until && self.waiting.len() < MAX_SIGHTINGS) {
            return None;
        }
        self.blocked_until = now.plus(EVERY.max(timeout));
        let aged = self.waiting.drain(..).map(|(sighting, seen)| {
            let age_millis = u32::try_from(now.since(seen).as_millis()).unwrap_or(u32::MAX);
            Sighting { age_millis, ..sighting }
        });
        Some(aged.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Kind, RevocationKey};

    fn sighting(session: u16, user: u16) -> Sighting {
        let key = |number: u16| {
            let [a, b] = number.to_be_bytes();
            RevocationKey([a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        };
        let (session, user) = (key(session), Some(key(user)));
        Sighting { kind: Kind::Session, session, user, age_millis: 0, client: Default::default(), names: None }
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic(millis * 1_000_000)
    }

    #[test]
    fn neither_a_session_nor_a_user_nor_all_of_them_wait_without_bound() {
        let mut sightings = Sightings::default();
        let mut added = |session, user| sightings.add(sighting(session, user), at(0)).is_ok();
        assert_eq!((0..10).filter(|_| added(1, 1)).count(), MAX_OF_SESSION);
        assert_eq!((10..40).filter(|session| added(*session, 2)).count(), MAX_OF_USER);
        assert_eq!((100..1000).filter(|number| added(*number, *number)).count(), MAX_SIGHTINGS - 20);
    }

    #[test]
    fn reports_are_paced_and_tell_ages() {
        let (mut sightings, timeout) = (Sightings::default(), Duration::from_millis(500));
        assert_eq!(sightings.take(timeout, at(5000)), None);
        sightings.add(sighting(1, 1), at(5000)).unwrap();
        assert_eq!(sightings.take(timeout, at(5100)).unwrap()[0].age_millis, 100);
        sightings.add(sighting(2, 2), at(5200)).unwrap();
        assert_eq!(sightings.take(timeout, at(6099)), None);
        assert_eq!(sightings.take(timeout, at(6100)).unwrap()[0].age_millis, 900);
    }
}
