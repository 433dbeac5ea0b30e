//! What is reported of sessions, compiled.
use wire::Kind;

use crate::config::{self, ConfigDuration, Invalid, check_range};
use crate::request::headers::HeaderName;
use crate::revocation::Revocation;
use crate::sightings::Sightings;

pub(super) fn compile_sightings(
    document: &config::Sightings,
    revocation: Option<&Revocation>,
    forwarded_for: Option<usize>,
) -> Result<Sightings, Invalid> {
    let invalid = |field: &str, message: &str| Invalid::new(field, message);
    let Some(revocation) = revocation else {
        return Err(invalid("", "needs `revocation`: reports go to its service"));
    };
    if !revocation.kinds.iter().any(|kind| matches!(kind, Kind::Session | Kind::Token)) {
        return Err(invalid("", "needs `session` or `token` in `revocation.kinds`: nothing else names a session"));
    }
    if !(1..=100).contains(&document.percent) {
        return Err(invalid("percent", "must be within 1 to 100"));
    }
    check_range(document.again_after, ConfigDuration::from_secs(1), ConfigDuration::from_secs(3600), "again_after")?;
    let country = match &document.country_header {
        None => None,
        Some(name) => match HeaderName::of_request(name) {
            None => return Err(invalid("country_header", "is not a header name (RFC 9110 section 5.1)")),
            name => name,
        },
    };
    Ok(Sightings {
        percent: document.percent,
        again_after: document.again_after.0,
        forwarded_for,
        certificate: document.certificate,
        country,
        names: document.names,
    })
}
