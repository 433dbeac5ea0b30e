//! The whole contents of a file that no service uses, for `portcullis migrate`.
use std::path::Path;

use redb::{Error, ReadableTableMetadata as _};
use store::{
    AuditEntry, AuditId, Claim, Export, ExportName, Exported, ExportedSession, SessionName, StoreError, StoreId,
    SubjectName,
};
use wire::RevocationKey;

use crate::codec::Decoder;
use crate::engine::Engine;
use crate::file::{self, OpenError, Opened};
use crate::replay_guard::DONE;
use crate::revocation::{Entry, NEVER};
use crate::session::Session;
use crate::tables::{AUDIT, ENTRIES, Kind, is_live, not_ours, within};

/// The open file. No service can open it meanwhile.
#[derive(Debug)]
pub struct FileExport(Engine);

impl FileExport {
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let Opened { database, id, place } = file::open(path)?;
        Ok(Self(Engine::new(path.to_owned(), id, place, database)))
    }
}

impl Export for FileExport {
    fn id(&self) -> StoreId {
        self.0.id
    }

    fn count(&self) -> Result<u64, StoreError> {
        self.0.read(|reading| Ok(reading.table(ENTRIES)?.len()?))
    }

    fn names(&self, after: Option<&[u8]>, limit: usize) -> Result<(Vec<ExportName>, Option<Vec<u8>>), StoreError> {
        self.0.read(|reading| {
            let (mut names, mut last) = (Vec::new(), None);
            for found in reading.table(ENTRIES)?.range::<&[u8]>(after.unwrap_or_default()..)? {
                let (entry, value) = found?;
                // Where sessions were used is not copied.
                let is_left_out = entry.value().first() == Some(&Kind::Sightings.tag());
                if Some(entry.value()) == after || is_left_out || !is_live(value.value(), reading.now) {
                    continue;
                }
                let name = name(entry.value()).ok_or_else(not_ours)?;
                // The sids of a subject follow each other.
                if names.last() != Some(&name) {
                    names.push(name);
                }
                if names.len() >= limit {
                    last = Some(entry.value().to_vec());
                    break;
                }
            }
            Ok((names, last))
        })
    }

    fn get(&self, name: &ExportName) -> Result<Option<Exported>, StoreError> {
        self.0.read(|reading| {
            let entries = reading.table(ENTRIES)?;
            if let ExportName::Subject(subject) = name {
                let prefix = Kind::Subject.of(&subject.0);
                let member = |(entry, value): (Vec<u8>, Vec<u8>)| {
                    let sid = String::from_utf8(entry.get(prefix.len()..)?.to_vec()).ok()?;
                    Some((sid, Decoder(&value).number()?))
                };
                let found = within(&entries, &prefix, reading.now)?;
                let sids: Vec<_> = found.into_iter().map(member).collect::<Option<_>>().ok_or_else(not_ours)?;
                return Ok((!sids.is_empty()).then_some(Exported::Subject(sids)));
            }
            let entry = match name {
                ExportName::Revocation(key) => Kind::Revocation.of(&key.0),
                ExportName::Session(name) => Kind::Session.of(&name.0),
                ExportName::Subject(name) => Kind::Subject.of(&name.0),
                ExportName::Mark(digest) => Kind::Mark.of(digest.as_bytes()),
            };
            let found = entries.get(&entry[..])?;
            let value = found.as_ref().map(redb::AccessGuard::value).filter(|value| is_live(value, reading.now));
            value.map(|value| exported(name, value).ok_or_else(not_ours)).transpose()
        })
    }

    fn audit(&self, after: AuditId, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.0.read(|reading| {
            let mut page = Vec::new();
            for found in reading.table(AUDIT)?.range((after.millis, after.number.saturating_add(1))..)?.take(limit) {
                let (id, sealed) = found?;
                let (millis, number) = id.value();
                page.push(AuditEntry { id: AuditId { millis, number }, sealed: sealed.value().to_vec() });
            }
            Ok::<_, Error>(page)
        })
    }
}

/// `None`: not ours.
fn name(entry: &[u8]) -> Option<ExportName> {
    let (tag, name) = entry.split_first()?;
    let kinds = [Kind::Revocation, Kind::Session, Kind::Subject, Kind::Mark];
    Some(match kinds.into_iter().find(|kind| kind.tag() == *tag)? {
        Kind::Revocation => ExportName::Revocation(RevocationKey(name.try_into().ok()?)),
        Kind::Session => ExportName::Session(SessionName(name.try_into().ok()?)),
        Kind::Subject => ExportName::Subject(SubjectName(*name.first_chunk()?)),
        Kind::Mark => ExportName::Mark(String::from_utf8(name.to_vec()).ok()?),
        Kind::Sightings => return None,
    })
}

/// `None`: not ours.
fn exported(name: &ExportName, value: &[u8]) -> Option<Exported> {
    Some(match name {
        ExportName::Revocation(_) => {
            let Entry { ending, sealed, expires } = Entry::decode(value)?;
            Exported::Revocation { ending, sealed, expires: (expires != NEVER).then_some(expires) }
        }
        ExportName::Session(_) => {
            let session = Session::decode(value)?;
            Exported::Session(Box::new(ExportedSession {
                sealed: session.sealed,
                access: session.access,
                refresh: session.refresh,
                previous: session.previous,
                replaced: session.replaced,
                refreshes: session.refreshes,
                used: session.used,
                ends: session.ends,
                expires: session.expires,
                idle: session.idle,
                ended: session.ended,
            }))
        }
        ExportName::Subject(_) => return None,
        ExportName::Mark(_) => {
            let mut from = Decoder(value);
            let expires = from.number()?;
            Exported::Mark { claim: if from.byte()? == DONE { Claim::Done } else { Claim::Pending }, expires }
        }
    })
}
