//! The issuers that filters ask about. A name is the kinds that are asked about, and the issuer.
use std::time::Duration;

use async_trait::async_trait;
use redb::ReadableTable as _;
use store::{IssuerBounds, IssuerRegistry, KnownIssuer, StoreError, WriteError};
use wire::Kinds;

use crate::embedded_store::EmbeddedStore;
use crate::engine::{Reading, SHORT_READ};
use crate::session::millis;
use crate::tables::{ISSUERS, Tables, Use, not_ours};

#[async_trait]
impl IssuerRegistry for EmbeddedStore {
    async fn remember(&self, issuers: &[KnownIssuer], bounds: IssuerBounds) -> Result<(), WriteError> {
        let name = |known: &KnownIssuer| [&[known.kinds.byte()], known.issuer.as_bytes()].concat();
        let names: Vec<_> = issuers.iter().map(name).collect();
        let remember = move |tables: &mut Tables<'_>| {
            if let Err(full) = tables.has_room(Use::Others, names.len(), names.iter().map(Vec::len).sum()) {
                return Ok(Err(full));
            }
            for name in names {
                if tables.issuers.insert(&name[..], tables.now)?.is_none() {
                    tables.account(name.len(), 0);
                }
            }
            let mut all = Vec::new();
            for found in tables.issuers.iter()? {
                let (name, at) = found?;
                all.push((at.value(), name.value().to_vec()));
            }
            all.sort_unstable_by(|one, other| other.cmp(one));
            let oldest = tables.now.saturating_sub(millis(bounds.max_age));
            let too_many = all.iter().enumerate().filter(|(nth, (at, _))| *nth >= bounds.max_entries || *at < oldest);
            for (_, (_, name)) in too_many {
                tables.issuers.remove(&name[..])?;
                tables.account(0, name.len());
            }
            Ok(Ok(()))
        };
        self.writer.write(remember).await
    }

    async fn known(&self, max_age: Duration) -> Result<Vec<KnownIssuer>, StoreError> {
        let known = move |reading: &Reading| {
            let oldest = reading.now.saturating_sub(millis(max_age));
            let mut known = Vec::new();
            for found in reading.table(ISSUERS)?.iter()? {
                let (name, at) = found?;
                if at.value() >= oldest {
                    let (kinds, issuer) = name.value().split_first().ok_or_else(not_ours)?;
                    let issuer = String::from_utf8(issuer.to_vec()).map_err(|_| not_ours())?;
                    known.push(KnownIssuer { issuer, kinds: Kinds::from_byte(*kinds) });
                }
            }
            Ok(known)
        };
        self.engine.ask(SHORT_READ, known).await
    }
}
