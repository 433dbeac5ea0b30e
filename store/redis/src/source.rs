//! The store that names are copied from: another Redis, or the contents of a store of another kind, which do not change
//! meanwhile.
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use store::clock::unix_millis;
use store::{
    AuditId, Claim, Ending, Export, ExportName, Exported, ExportedSession, SessionName, StoreError, SubjectName,
};

use crate::contents::{Kind, Name, State};
use crate::reader::Reader;
use crate::states::{self, AUDIT_PAGE, AUDIT_RANGE, AuditEntry, AuditRange};

#[derive(Debug, Clone)]
pub enum Source {
    Redis(Arc<Reader>),
    Export(Arc<dyn Export>),
}

impl Source {
    /// As [`states::states`].
    pub async fn states(&self, names: &[Name]) -> Result<Vec<Option<State>>, StoreError> {
        match self {
            Self::Redis(reader) => states::states(reader, names).await,
            Self::Export(export) => names.iter().map(|name| state(export.as_ref(), name).map(Some)).collect(),
        }
    }

    /// As [`states::audit_page`].
    pub async fn audit_page(&self, range: AuditRange<'_>) -> Result<Vec<AuditEntry>, StoreError> {
        let export = match self {
            Self::Redis(reader) => return states::audit_page(reader, range).await,
            Self::Export(export) => export,
        };
        let id = |text: &str| text.parse::<AuditId>().map_err(|_| StoreError::StoreFailed);
        let (after, last, limit) = match range {
            AuditRange::After(after) => (id(after)?, None, AUDIT_PAGE),
            AuditRange::Only(only) => (before(id(only)?), Some(id(only)?), 1),
            AuditRange::Between(first, last) => (before(id(first)?), Some(id(last)?), AUDIT_RANGE),
            // Nothing is copied to it.
            AuditRange::Last => return Err(StoreError::StoreFailed),
        };
        let entries = export.audit(after, limit)?.into_iter();
        let wanted = entries.take_while(|entry| last.is_none_or(|last| entry.id <= last));
        Ok(wanted.map(|entry| (entry.id.to_string(), entry.sealed)).collect())
    }
}

/// The name in Redis.
pub fn name(of: &ExportName) -> Name {
    match of {
        ExportName::Revocation(key) => Name::of_revocation(*key),
        ExportName::Session(name) => Name::of_session(name.0, URL_SAFE_NO_PAD.encode(name.0)),
        ExportName::Subject(name) => Name::of_subject(name.0, URL_SAFE_NO_PAD.encode(name.0)),
        ExportName::Mark(digest) => Name::of_mark(digest),
    }
}

/// The id right before.
fn before(id: AuditId) -> AuditId {
    match id.number.checked_sub(1) {
        Some(number) => AuditId { number, ..id },
        None => AuditId { millis: id.millis.saturating_sub(1), number: u64::MAX },
    }
}

fn state(export: &dyn Export, name: &Name) -> Result<State, StoreError> {
    // A name of Redis that no other store has.
    let Some(known) = export_name(name) else { return Ok(State::Absent) };
    Ok(export.get(&known)?.map_or(State::Absent, |found| in_redis(found, unix_millis())))
}

fn export_name(name: &Name) -> Option<ExportName> {
    let (_, rest) = name.text.split_once("}:")?;
    let (_, rest) = rest.split_once(':')?;
    let digest = || -> Option<[u8; 16]> { URL_SAFE_NO_PAD.decode(rest).ok()?.try_into().ok() };
    Some(match name.kind {
        Kind::Revocation => ExportName::Revocation(rest.parse().ok()?),
        Kind::Session => ExportName::Session(SessionName(digest()?)),
        Kind::Subject => ExportName::Subject(SubjectName(digest()?)),
        Kind::Mark => ExportName::Mark(rest.to_owned()),
        Kind::Audit => return None,
    })
}

/// As Redis has it.
fn in_redis(found: Exported, now: u64) -> State {
    // What is about to expire has a millisecond left; 0 and less would be another thing.
    let left = |expires: u64| i64::try_from(expires.saturating_sub(now).max(1)).unwrap_or(i64::MAX);
    match found {
        Exported::Revocation { ending, sealed, expires } => {
            let head = match ending {
                Ending::Dead => "D;".to_owned(),
                Ending::Before(before) => format!("B{before};"),
            };
            State::Text { value: [head.as_bytes(), &sealed].concat(), ttl: expires.map_or(-1, left) }
        }
        Exported::Mark { claim, expires } => {
            let value = if claim == Claim::Done { b"d".to_vec() } else { b"p".to_vec() };
            State::Text { value, ttl: left(expires) }
        }
        Exported::Subject(sids) => {
            let ttl = sids.iter().map(|(_, expires)| left(*expires)).max().unwrap_or(1);
            #[allow(clippy::cast_precision_loss, reason = "Unix milliseconds are exact in a double")]
            let members = sids.into_iter().map(|(sid, expires)| (sid.into_bytes(), expires as f64)).collect();
            State::Subject { members, ttl }
        }
        Exported::Session(session) => {
            let ExportedSession { sealed, access, refresh, previous, .. } = &*session;
            let number = |number: u64| Some(number.to_string().into_bytes());
            let was_refreshed = session.refreshes > 0;
            // In the order of `SESSION_FIELDS`.
            let fields = vec![
                Some(sealed.clone()),
                Some(access.clone()),
                refresh.map(|mac| mac.to_vec()),
                previous.map(|mac| mac.to_vec()),
                was_refreshed.then(|| number(session.replaced)).flatten(),
                number(session.used),
                number(session.ends),
                number(session.idle),
                session.ended.as_ref().map(|reason| reason.clone().into_bytes()),
                was_refreshed.then(|| number(session.refreshes)).flatten(),
            ];
            State::Session { fields, ttl: left(session.expires) }
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::RevocationKey;

    use super::*;

    #[test]
    fn a_name_leads_to_redis_and_back() {
        for known in [
            ExportName::Revocation(RevocationKey([7; 16])),
            ExportName::Session(SessionName([8; 16])),
            ExportName::Subject(SubjectName([9; 16])),
            ExportName::Mark("a-digest".to_owned()),
        ] {
            assert_eq!(export_name(&name(&known)), Some(known));
        }
    }

    #[test]
    fn a_revocation_has_the_form_that_redis_has() {
        let revocation = |ending, expires| Exported::Revocation { ending, sealed: b"note".to_vec(), expires };
        let text = |value: &[u8], ttl| State::Text { value: value.to_vec(), ttl };
        assert_eq!(in_redis(revocation(Ending::Dead, None), 5), text(b"D;note", -1));
        assert_eq!(in_redis(revocation(Ending::Before(9), Some(25)), 5), text(b"B9;note", 20));
        assert_eq!(in_redis(revocation(Ending::Dead, Some(5)), 5), text(b"D;note", 1));
    }

    #[test]
    fn the_id_before_another_has_none_in_between() {
        let id = |millis, number| AuditId { millis, number };
        assert_eq!(
            (before(id(5, 3)), before(id(5, 0)), before(id(0, 0))),
            (id(5, 2), id(4, u64::MAX), id(0, u64::MAX))
        );
    }
}
