//! Which server is the primary, judged from what all Sentinels say. No Sentinel is believed alone.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;

use crate::connection::{Connection, ConnectionError, failed, pipeline};
use crate::lease::{LEASE, LEAST_FAILOVER_TIMEOUT};
use crate::options::{Access, Address, Peer};

/// The most Sentinels that are asked, including discovered ones.
const MOST: usize = 16;

#[derive(Debug)]
pub struct Sentinels {
    name: String,
    contacts: BTreeMap<Address, Option<Arc<Connection>>>,
}

/// One Sentinel's view of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    /// The id of the Sentinel. One may be reached by two addresses.
    me: String,
    primary: Address,
    epoch: u64,
    /// The Sentinel sees the primary up.
    is_up: bool,
    is_failing_over: bool,
    /// How long the primary must be silent before it is replaced.
    down_after: Duration,
    /// How long the primary has owed this Sentinel an answer. If it still owes it when its down_after is over, the
    /// Sentinel considers it down.
    owes: Duration,
    others: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Primary {
    Agreed(Address),
    /// By the newest configuration. It may have failed, or other Sentinels may not know yet.
    Named(Address),
    Unknown(String),
}

impl Sentinels {
    pub fn new(access: &Access) -> Self {
        let name = access.options.sentinel_master.clone().unwrap_or_default();
        Self { name, contacts: access.seeds.iter().map(|seed| (seed.clone(), None)).collect() }
    }

    /// Asks all of them, each for at most `limit`.
    pub async fn ask(&mut self, access: &Access, limit: Duration) -> Primary {
        let name = &self.name;
        let asking = self.contacts.iter().map(async |(address, connection)| {
            let asked = ask(access, name, address, connection.clone(), limit).await;
            (address.clone(), asked)
        });
        let mut said = Vec::new();
        let mut found = BTreeSet::new();
        let mut why = "no Sentinel answers".to_owned();
        for (address, asked) in join_all(asking).await {
            let topology = match asked {
                Ok((connection, one, others)) => {
                    found.extend(others);
                    said.push(one);
                    Some(connection)
                }
                Err(failure) => {
                    why = format!("the Sentinel {address}: {}", failure.reason);
                    None
                }
            };
            self.contacts.insert(address, topology);
        }
        for address in found {
            if self.contacts.len() < MOST {
                self.contacts.entry(address).or_default();
            }
        }
        agree(&said).unwrap_or(Primary::Unknown(why))
    }
}

async fn ask(
    access: &Access,
    name: &str,
    address: &Address,
    connection: Option<Arc<Connection>>,
    limit: Duration,
) -> Result<(Arc<Connection>, Said, Vec<Address>), ConnectionError> {
    let connection = match connection.filter(|connection| connection.closed().is_none()) {
        Some(connection) => connection,
        None => Arc::new(Connection::open(access, address, Peer::Sentinel, limit).await?),
    };
    let mut asks = pipeline();
    asks.cmd("SENTINEL").arg("MYID");
    asks.cmd("SENTINEL").arg("MASTER").arg(name);
    asks.cmd("SENTINEL").arg("SENTINELS").arg(name);
    let mut replies = connection.ask(&asks, limit).await?.into_iter();
    let mut next = || replies.next().ok_or_else(|| failed(&"no reply"))?.map_err(ConnectionError::from);
    let me: String = read(next()?)?;
    let said = said(me, &read(next()?)?).ok_or_else(|| failed(&"the reply to SENTINEL MASTER cannot be parsed"))?;
    let others: Vec<HashMap<String, String>> = read(next()?)?;
    let others = others.iter().filter_map(place).collect();
    Ok((connection, said, others))
}

fn read<T: redis::FromRedisValue>(value: Value) -> Result<T, ConnectionError> {
    redis::from_redis_value(value).map_err(|error| failed(&error))
}

fn place(fields: &HashMap<String, String>) -> Option<Address> {
    Some(Address { host: fields.get("ip")?.clone(), port: fields.get("port")?.parse().ok()? })
}

fn said(me: String, fields: &HashMap<String, String>) -> Option<Said> {
    let flags = fields.get("flags")?;
    let millis = |name: &str| fields.get(name)?.parse().ok().map(Duration::from_millis);
    Some(Said {
        me,
        primary: place(fields)?,
        epoch: fields.get("config-epoch")?.parse().ok()?,
        is_up: !flags.contains("down") && !flags.contains("disconnected"),
        is_failing_over: flags.contains("failover"),
        down_after: millis("down-after-milliseconds")?,
        owes: millis("last-ping-sent")?,
        others: fields.get("num-other-sentinels")?.parse().ok()?,
    })
}

/// Combines what the Sentinels said, all after one moment. A failover raises the epoch, so the newest configuration names the
/// primary. It is agreed on if more than half of all Sentinels name it and see it up. A Sentinel that may declare it down before
/// our lease ends is not counted: the primary may answer us and not the Sentinels. `None`: no Sentinel answered.
fn agree(said: &[Said]) -> Option<Primary> {
    let newest = said.iter().max_by_key(|said| said.epoch)?;
    let all = said.iter().map(|said| said.others).max()?.saturating_add(1);
    let is_patient =
        |one: &Said| one.down_after >= LEAST_FAILOVER_TIMEOUT && one.owes.saturating_add(LEASE) <= one.down_after;
    let counts = |one: &&Said| one.is_up && one.primary == newest.primary && is_patient(one);
    let votes: BTreeSet<_> = said.iter().filter(counts).map(|said| &said.me).collect();
    // In a failover that an operator requested, the old primary stays up for a while. One Sentinel that tells of it is enough.
    let is_quiet = !said.iter().any(|one| one.is_failing_over);
    let primary = newest.primary.clone();
    Some(match is_quiet && votes.len() * 2 > all {
        true => Primary::Agreed(primary),
        false => Primary::Named(primary),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "10.0.0.1".into(), port }
    }

    fn says(me: &str, port: u16, epoch: u64) -> Said {
        Said {
            me: me.into(),
            primary: at(port),
            epoch,
            is_up: true,
            is_failing_over: false,
            down_after: Duration::from_secs(5),
            owes: Duration::ZERO,
            others: 2,
        }
    }

    #[test]
    fn a_majority_of_all_sentinels_is_needed() {
        assert_eq!(agree(&[]), None);
        assert_eq!(agree(&[says("x", 1, 0)]), Some(Primary::Named(at(1))));
        assert_eq!(agree(&[says("x", 1, 0), says("x", 1, 0)]), Some(Primary::Named(at(1))), "one, by two addresses");
        assert_eq!(agree(&[says("x", 1, 0), says("y", 1, 0)]), Some(Primary::Agreed(at(1))));
    }

    #[test]
    fn the_newest_configuration_counts() {
        let said = [says("x", 1, 0), says("y", 1, 0), says("z", 2, 1)];
        assert_eq!(
            agree(&said),
            Some(Primary::Named(at(2))),
            "a Sentinel with the old configuration does not agree with it"
        );
        assert_eq!(agree(&[says("x", 1, 0), says("y", 2, 1), says("z", 2, 1)]), Some(Primary::Agreed(at(2))));
    }

    #[test]
    fn doubt_and_haste_are_no_votes() {
        let doubts = |me| Said { is_up: false, ..says(me, 1, 0) };
        assert_eq!(agree(&[says("x", 1, 0), says("y", 1, 0), doubts("z")]), Some(Primary::Agreed(at(1))));
        assert_eq!(agree(&[says("x", 1, 0), doubts("y"), doubts("z")]), Some(Primary::Named(at(1))));
        let moves = Said { is_failing_over: true, ..says("z", 1, 0) };
        assert_eq!(agree(&[says("x", 1, 0), says("y", 1, 0), moves]), Some(Primary::Named(at(1))));
        // It answers us and not them: they may replace it before our lease is over.
        let waits = |me, millis| Said { owes: Duration::from_millis(millis), ..says(me, 1, 0) };
        assert_eq!(agree(&[waits("x", 3500), waits("y", 3500)]), Some(Primary::Agreed(at(1))));
        assert_eq!(agree(&[waits("x", 3500), waits("y", 3501)]), Some(Primary::Named(at(1))));
        let hasty = |me| Said { down_after: LEAST_FAILOVER_TIMEOUT - Duration::from_millis(1), ..says(me, 1, 0) };
        assert_eq!(agree(&[says("x", 1, 0), hasty("y"), hasty("z")]), Some(Primary::Named(at(1))));
    }

    #[test]
    fn fields_are_read_as_sentinels_send_them() {
        let fields = |flags: &str| -> HashMap<String, String> {
            [
                ("ip", "10.0.0.1"),
                ("port", "1"),
                ("flags", flags),
                ("config-epoch", "3"),
                ("down-after-milliseconds", "5000"),
                ("last-ping-sent", "0"),
                ("num-other-sentinels", "2"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
        };
        let read = |flags| said("x".into(), &fields(flags)).unwrap();
        assert_eq!(read("master"), says("x", 1, 3));
        for flags in ["s_down,master", "master,o_down", "master,disconnected"] {
            assert!(!read(flags).is_up, "{flags}");
        }
        assert!(read("master,failover_in_progress,force_failover").is_failing_over);
    }
}
