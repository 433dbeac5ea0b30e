//! From where the session of an admitted request is used, if the service is to be told.
use jose::json::{Json, Object};
use wire::Kind;
use wire::sightings::{Names, Sighting};

use super::{Admission, Questions, Verified};
use crate::claims::members;
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
        let names = sightings.names.then(|| self.names(&admission.verified, kind)).flatten().map(Box::new);
        Some(Sighting { kind, session, user: query.user, age_millis: 0, client: *client, names })
    }

    /// The names behind the keys of a token that was verified. It is parsed once more, which is cheaper than to keep them with
    /// each cached token.
    fn names(&self, verified: &Verified, kind: Kind) -> Option<Names> {
        let identifiers = &self.issuers.get(verified.issuer)?.identifiers;
        let names = |issuer: &str, claims: &Object<'_>| {
            let session = (kind == Kind::Session).then(|| identifiers.sessions(claims).ok()?.next()).flatten();
            Names::new(issuer, session.as_deref(), identifiers.find(Kind::User, claims).ok()?)
        };
        if verified.introspected.is_some() {
            let response = Json::parse(&verified.payload).ok()?;
            return names(&self.issuers.get(verified.issuer)?.issuer, response.as_object()?);
        }
        let unverified = self.unverified(&verified.token).ok()?;
        let payload = unverified.parse_payload().ok()?;
        let claims = payload.as_object()?;
        names(members::unverified_issuer(claims).ok()?, claims)
    }
}
