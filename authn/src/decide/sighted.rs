//! From where the session of an admitted request is used, if the service is to be told.
use wire::sightings::Sighting;

use super::{Admission, Questions};
use crate::policy::Policy;
use crate::sightings::{is_due, mark};
use crate::time::Monotonic;

impl Policy {
    /// `None` if nothing is reported of this request: also if its token was reported a moment ago with the same client.
    pub fn sighting(&self, admission: &Admission, now: Monotonic) -> Option<Sighting> {
        let (sightings, client) = (self.sightings.as_ref()?, admission.client.as_deref()?);
        // Of a session that could not be checked, nothing is known.
        let Questions::Query(query) = &admission.verified.questions else { return None };
        let (kind, session) =
            query.session.filter(|(_, session)| !admission.unchecked && sightings.samples(session))?;
        let mark = mark(client, now);
        query.sighted(|last| is_due(last, mark, sightings.again_after).then_some(mark))?;
        Some(Sighting { kind, session, user: query.user, age_millis: 0, client: *client })
    }
}
