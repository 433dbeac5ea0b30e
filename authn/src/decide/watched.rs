//! What ends the stream of an admitted request, if its rule says that something does.
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{Admission, Questions};
use crate::policy::Policy;
use crate::revocation::RevocationQuery;
use crate::time::UnixSeconds;

#[derive(Debug, Clone)]
pub struct Watched {
    /// Names its token among others.
    pub token: [u8; 16],
    /// It ends when this is revoked.
    pub query: Option<Arc<RevocationQuery>>,
    /// It ends at this time.
    pub until: Option<UnixSeconds>,
    /// It ends when nobody could tell for this long whether `query` is revoked.
    pub cannot_tell_for: Option<Duration>,
}

impl Policy {
    /// `None` if the request's stream ends only by itself.
    pub fn watched(&self, admission: &Admission) -> Option<Watched> {
        let streams = self.rules.get(admission.rule)?.streams?;
        let verified = &admission.verified;
        let query = match &verified.questions {
            Questions::Query(query) if streams.on_revoked => Some(Arc::clone(query)),
            // The request would not have been admitted by a rule that checks revocations.
            Questions::Query(_) | Questions::None | Questions::Unaskable(_) => None,
        };
        // An introspection may have shortened the time of a JWT.
        let windows = [Some(verified.window), verified.confirmation().map(|confirmation| confirmation.window)];
        let ends = windows.into_iter().flatten().map(|window| window.until.min(window.login_until)).min();
        let until = ends.filter(|until| streams.on_expired && until.0 != u64::MAX);
        let cannot_tell_for = streams.cannot_tell_for.filter(|_| query.is_some());
        if query.is_none() && until.is_none() {
            return None;
        }
        let token = query.as_ref().map_or_else(|| digest(verified.token()), |query| *query.digest());
        Some(Watched { token, query, until, cannot_tell_for })
    }
}

fn digest(token: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(token).into();
    digest.first_chunk().copied().unwrap_or_default()
}
