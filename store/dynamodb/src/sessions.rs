//! Sessions in the table, one item each: encrypted data in `d`, access records in `a`, MACs of refresh tokens in `f` and `w`
//! (the replaced one, at `o`), last use in `q`, end of the lifetime in `z`, idle timeout in `j`, why it was ended in `k`.
//!
//! In a global table with eventual consistency, a region does not end a session in this item: a use in another region might
//! replace it. It writes an item of its own beside it, and a session with any of them has ended.
use std::time::Duration;

use async_trait::async_trait;
use store::clock::unix_millis;
use store::{
    IndexEntry, NewSession, Rotated, Rotation, SessionName, SessionRecord, SessionStore, StoreError, SubjectName,
    WriteError,
};

use crate::dynamo_store::DynamoStore;
use crate::entry::expiry;
use crate::error::{not_written, unknown};
use crate::item::{self, Hex, Item, Name, blob, bytes, integer, number, string, text};
use crate::record::{Step, change};
use crate::table::Range;

/// For the end of a session that has not arrived here yet.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

fn name_of(name: SessionName) -> Name {
    Name::new(format!("s#{}", Hex(&name.0)), "-")
}

fn end_of(name: SessionName, region: &str) -> Name {
    Name::new(format!("s#{}", Hex(&name.0)), format!("end#{region}"))
}

fn subject(name: SubjectName) -> String {
    format!("x#{}", Hex(&name.0))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX >> 2)
}

/// Why it was ended, in its own item or beside it.
fn ended(session: &Item, beside: &[Item]) -> Option<String> {
    [session].into_iter().chain(beside).find_map(|item| text(item, "k")).map(str::to_owned)
}

fn use_now(session: &mut Item, now: u64) {
    let ends = number(session, "z").unwrap_or_default();
    let idle = number(session, "j").map(|idle| now.saturating_add(idle));
    session.insert("q".to_owned(), integer(now));
    item::set_expiry(session, Some(idle.map_or(ends, |idle| idle.min(ends))));
}

impl DynamoStore {
    fn ends(&self, name: SessionName) -> Vec<Name> {
        let mode = &self.table.mode;
        let regions = [mode.home()].into_iter().chain(mode.others().map(String::as_str));
        regions.filter(|_| mode.is_eventual()).map(|region| end_of(name, region)).collect()
    }

    async fn read_session(&self, name: SessionName) -> Result<Option<(Item, Vec<Item>)>, StoreError> {
        let (own, now) = (name_of(name), unix_millis());
        let mut found = self.table.read([own.clone()].into_iter().chain(self.ends(name)).collect()).await?;
        let at = found.iter().position(|item| Name::of(item).as_ref() == Some(&own));
        let session = at.map(|at| found.swap_remove(at)).filter(|item| !item::has_expired(item, now));
        Ok(session.map(|session| (session, found)))
    }

    async fn end_here(&self, name: SessionName, reason: &str, ends: u64) -> Result<(), WriteError> {
        let end = end_of(name, self.table.mode.home());
        change(&self.table, &end, &[], |_, _, _| {
            let mut made = Item::from([("k".to_owned(), string(reason))]);
            item::set_expiry(&mut made, Some(ends));
            (Step::Put(made), ())
        })
        .await
    }
}

#[async_trait]
impl SessionStore for DynamoStore {
    async fn create(&self, name: SessionName, session: NewSession) -> Result<bool, WriteError> {
        change(&self.table, &name_of(name), &[], |old, _, now| {
            if old.is_some() {
                return (Step::Keep, false);
            }
            let mut made = Item::from([
                ("d".to_owned(), blob(&session.sealed)),
                ("a".to_owned(), blob(&session.access)),
                ("z".to_owned(), integer(now.saturating_add(millis(session.lifetime)))),
            ]);
            if let Some(refresh) = session.refresh {
                made.insert("f".to_owned(), blob(&refresh));
            }
            if let Some(idle) = session.idle {
                made.insert("j".to_owned(), integer(millis(idle)));
            }
            use_now(&mut made, now);
            (Step::Put(made), true)
        })
        .await
    }

    async fn read(&self, name: SessionName) -> Result<Option<SessionRecord>, StoreError> {
        let Some((session, beside)) = self.read_session(name).await? else { return Ok(None) };
        Ok(Some(SessionRecord {
            sealed: bytes(&session, "d").unwrap_or_default().to_vec(),
            access: bytes(&session, "a").unwrap_or_default().to_vec(),
            used: number(&session, "q").ok_or(StoreError::StoreFailed)?,
            ended: ended(&session, &beside),
        }))
    }

    async fn rotate(&self, name: SessionName, rotation: Rotation) -> Result<Rotated, WriteError> {
        let is_eventual = self.table.mode.is_eventual();
        let (rotated, ends) = change(&self.table, &name_of(name), &self.ends(name), |old, beside, now| {
            let Some(session) = old else { return (Step::Keep, (Rotated::Gone, 0)) };
            let ends = number(session, "z").unwrap_or(now);
            if ended(session, beside).is_some() {
                return (Step::Keep, (Rotated::Ended, ends));
            }
            let Some(current) = bytes(session, "f") else { return (Step::Keep, (Rotated::Gone, ends)) };
            let mut new = session.clone();
            if current == rotation.presented {
                new.insert("w".to_owned(), blob(current));
                new.insert("o".to_owned(), integer(now));
                new.insert("f".to_owned(), blob(&rotation.new));
                let earlier = bytes(session, "a").unwrap_or_default();
                let mut access = [&rotation.access, earlier].concat();
                access.truncate(rotation.max_access_bytes);
                new.insert("a".to_owned(), blob(&access));
                use_now(&mut new, now);
                return (Step::Put(new), (Rotated::Done, ends));
            }
            // The clock of another instance may differ, so the distance counts and not the direction.
            let replaced = number(session, "o").map(|at| Duration::from_millis(now.abs_diff(at)));
            let is_replaced = bytes(session, "w") == Some(&rotation.presented);
            if is_replaced && replaced.is_some_and(|since| since <= rotation.grace) {
                return (Step::Keep, (Rotated::Raced, ends));
            }
            if is_eventual {
                return (Step::Keep, (Rotated::Reused, ends));
            }
            new.insert("k".to_owned(), string("reused"));
            (Step::Put(new), (Rotated::Reused, ends))
        })
        .await?;
        if is_eventual && rotated == Rotated::Reused {
            self.end_here(name, "reused", ends).await?;
        }
        Ok(rotated)
    }

    async fn touch(&self, name: SessionName, step: Duration) -> Result<(), WriteError> {
        change(&self.table, &name_of(name), &self.ends(name), |old, beside, now| {
            let Some(session) = old.filter(|session| ended(session, beside).is_none()) else { return (Step::Keep, ()) };
            let used = number(session, "q").unwrap_or_default();
            if now.saturating_sub(used) < millis(step) {
                return (Step::Keep, ());
            }
            let mut new = session.clone();
            use_now(&mut new, now);
            (Step::Put(new), ())
        })
        .await
    }

    async fn end(&self, name: SessionName, reason: &str) -> Result<(), WriteError> {
        if self.table.mode.is_eventual() {
            let found = self.read_session(name).await.map_err(not_written)?;
            let ends = found.and_then(|(session, _)| number(&session, "z"));
            let longest = expiry(unix_millis(), Some(LONGEST)).unwrap_or(u64::MAX);
            return self.end_here(name, reason, ends.unwrap_or(longest)).await;
        }
        change(&self.table, &name_of(name), &[], |old, _, _| {
            let Some(session) = old else { return (Step::Keep, ()) };
            let mut new = session.clone();
            new.insert("k".to_owned(), string(reason));
            (Step::Put(new), ())
        })
        .await
    }

    async fn delete(&self, name: SessionName) -> Result<(), WriteError> {
        change(&self.table, &name_of(name), &[], |_, _, _| (Step::Delete, ())).await
    }

    /// Of concurrent calls for one subject, each may add an entry: the bound may be exceeded by their number.
    async fn index(&self, of: SubjectName, entry: IndexEntry, max: usize) -> Result<bool, WriteError> {
        let (known, now) = (self.index_of(of).await.map_err(not_written)?, unix_millis());
        if known.iter().filter(|item| text(item, "s") != Some(&entry.sid)).count() >= max {
            return Ok(false);
        }
        let mut made = Name::new(subject(of), entry.sid).item();
        item::set_expiry(&mut made, expiry(now, Some(entry.lifetime)));
        self.table.put_always(made).await.map_err(unknown)?;
        Ok(true)
    }

    async fn unindex(&self, of: SubjectName, sids: &[String]) -> Result<(), WriteError> {
        self.table.read(Vec::new()).await.map_err(not_written)?;
        let names: Vec<_> = sids.iter().map(|sid| Name::new(subject(of), sid)).collect();
        self.table.delete_all(&names).await.map_err(unknown)
    }

    async fn sids(&self, of: SubjectName) -> Result<Vec<String>, StoreError> {
        let known = self.index_of(of).await?;
        Ok(known.iter().filter_map(|item| text(item, "s")).map(str::to_owned).collect())
    }
}

impl DynamoStore {
    async fn index_of(&self, of: SubjectName) -> Result<Vec<Item>, StoreError> {
        // Sids are printable ASCII.
        let all = Range { from: " ".to_owned(), to: "~~".to_owned(), limit: usize::MAX, newest_first: false };
        let (mut found, now) = (self.table.range(&subject(of), all).await?, unix_millis());
        found.retain(|item| !item::has_expired(item, now));
        Ok(found)
    }
}
