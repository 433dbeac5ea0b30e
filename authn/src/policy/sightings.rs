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
    let header = |name: &Option<String>, field: &str| match name {
        None => Ok(None),
        Some(name) => {
            let name = HeaderName::of_request(name);
            name.map(Some).ok_or_else(|| invalid(field, "is not a header name (RFC 9110 section 5.1)"))
        }
    };
    let latitude = header(&document.latitude_header, "latitude_header")?;
    let place = match (latitude, header(&document.longitude_header, "longitude_header")?) {
        (None, None) => None,
        (Some(latitude), Some(longitude)) => Some((latitude, longitude)),
        (Some(_), None) => return Err(invalid("latitude_header", "needs `longitude_header`")),
        (None, Some(_)) => return Err(invalid("longitude_header", "needs `latitude_header`")),
    };
    Ok(Sightings {
        percent: document.percent,
        again_after: document.again_after.0,
        prefix: super::binding::prefix(&document.prefix, "prefix")?,
        forwarded_for,
        certificate: document.certificate,
        country: header(&document.country_header, "country_header")?,
        place,
    })
}
