//! Which node owns which bucket of a Cluster, judged from what all nodes say (CLUSTER NODES). No node is believed alone: one
//! that was stopped and continues, or that is partitioned, still says that it is the primary.
use std::collections::HashMap;
use std::time::Duration;

use crate::entry::Bucket;
use crate::lease::LEASE;
use crate::options::Address;

const SLOTS: u16 = 16_384;

/// One node's view of itself and of the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    pub me: String,
    nodes: HashMap<String, Told>,
}

/// A node in another's view.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    address: Address,
    is_primary: bool,
    /// The node that tells suspects it to have failed.
    is_doubtful: bool,
    /// When a ping was sent that it has not answered yet, in Unix milliseconds by the clock of the node that tells; 0: none.
    pinged: u64,
    epoch: u64,
    /// Both ends included.
    slots: Vec<(u16, u16)>,
}

/// What the nodes agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// One for each bucket.
    pub owners: Vec<Owner>,
    /// The primaries in the newest view, agreed or not.
    pub primaries: Vec<(String, Address)>,
    /// Those of them confirmed by a majority and by themselves, with buckets or without.
    pub sound: Vec<String>,
}

/// Nodes are named by their ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Owner {
    /// A majority says so, and the node itself.
    Agreed(String),
    /// By the newest view. It may have failed, or may not know yet.
    Named(String),
    #[default]
    Unknown,
}

/// The slot of a bucket's names: CRC-16/XMODEM of the hash tag.
pub fn slot_of(bucket: Bucket) -> u16 {
    let mut crc: u16 = 0;
    for byte in bucket.to_string().bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % SLOTS
}

impl View {
    /// `from` is the address that reached the node, for one that does not know its own yet. `None`: it is not a reply
    /// of CLUSTER NODES.
    pub fn parse(text: &str, from: &Address) -> Option<Self> {
        let mut view = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (id, place, flags) = (words.next()?, words.next()?, words.next()?);
            let (_primary, pinged, _ponged) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
            let (epoch, _link) = (words.next()?.parse().ok()?, words.next()?);
            let flags: Vec<_> = flags.split(',').collect();
            let has = |flag: &str| flags.contains(&flag);
            let mut slots = Vec::new();
            // In brackets: a slot that is being moved; it belongs to its old owner until it has arrived.
            for range in words.filter(|word| !word.starts_with('[')) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                slots.push((first.parse().ok()?, last.parse().ok()?));
            }
            let told = Told {
                address: address(place, from)?,
                is_primary: has("master"),
                is_doubtful: ["fail?", "fail", "handshake", "noaddr"].iter().any(|flag| has(flag)),
                pinged,
                epoch,
                slots,
            };
            if has("myself") {
                view.me = id.to_owned();
            }
            view.nodes.insert(id.to_owned(), told);
        }
        (!view.me.is_empty()).then_some(view)
    }

    /// Marks as doubtful every node that this node may consider down before our lease is over. A server may answer us
    /// and not the others. `now` is the node's clock in Unix milliseconds, `failover_timeout` its
    /// `cluster-node-timeout`.
    pub fn doubt_the_silent(&mut self, now: u64, failover_timeout: Duration) {
        for told in self.nodes.values_mut().filter(|told| told.pinged > 0) {
            let owes = Duration::from_millis(now.saturating_sub(told.pinged));
            told.is_doubtful |= owes.saturating_add(LEASE) > failover_timeout;
        }
    }

    pub fn is_primary(&self) -> bool {
        self.nodes.get(&self.me).is_some_and(|told| told.is_primary)
    }

    fn believes_in(&self, id: &str) -> bool {
        self.nodes.get(id).is_some_and(|told| told.is_primary && !told.is_doubtful)
    }

    /// The primaries that own slots, which vote.
    fn voters(&self) -> impl Iterator<Item = &String> {
        self.nodes.iter().filter(|(_, told)| told.is_primary && !told.slots.is_empty()).map(|(id, _)| id)
    }

    fn epoch(&self) -> u64 {
        self.nodes
            .values()
            .filter(|told| told.is_primary && !told.slots.is_empty())
            .map(|told| told.epoch)
            .max()
            .unwrap_or(0)
    }

    /// The owner of the slot, in doubt or not.
    fn named(&self, slot: u16) -> Option<(&str, &Told)> {
        let owns =
            |told: &Told| told.is_primary && told.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        self.nodes.iter().find(|(_, told)| owns(told)).map(|(id, told)| (id.as_str(), told))
    }

    fn owner(&self, slot: u16) -> Option<&str> {
        self.named(slot).filter(|(_, told)| !told.is_doubtful).map(|(id, _)| id)
    }
}

/// `127.0.0.1:7000@17000,host.example,shard-id=…`; before 7.0 without what follows the comma.
fn address(place: &str, from: &Address) -> Option<Address> {
    let mut parts = place.split(',');
    let (ip, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
    let named = parts.next().filter(|name| !name.is_empty() && !name.contains('='));
    let host = match named {
        // Certificates are issued for names.
        Some(name) => name,
        None if ip.is_empty() => &from.host,
        None => ip,
    };
    let port = port.parse().ok()?;
    Some(Address { host: host.trim_matches(['[', ']']).to_owned(), port })
}

/// Combines `views`, all taken after one moment. A failover raises the epoch, so the newest view names the voters and the
/// owner of each bucket. The owner counts if it says so itself and if more than half of the voters say so.
pub fn agree(views: &[View]) -> Agreement {
    let Some(newest) = views.iter().filter(|view| view.is_primary()).max_by_key(|view| view.epoch()).or(views.first())
    else {
        let owners = vec![Owner::Unknown; Bucket::all().count()];
        return Agreement { owners, primaries: Vec::new(), sound: Vec::new() };
    };
    let voters: Vec<_> = newest.voters().collect();
    let voting: Vec<_> = views.iter().filter(|view| view.is_primary() && voters.contains(&&view.me)).collect();
    let owner_of = |bucket| {
        let slot = slot_of(bucket);
        let Some((owner, _)) = newest.named(slot) else { return Owner::Unknown };
        let votes = voting.iter().filter(|view| view.owner(slot) == Some(owner)).count();
        let says_so = voting.iter().any(|view| view.me == owner && view.owner(slot) == Some(owner));
        match says_so && votes * 2 > voters.len() {
            true => Owner::Agreed(owner.to_owned()),
            false => Owner::Named(owner.to_owned()),
        }
    };
    let primaries: Vec<_> = newest.nodes.iter().filter(|(_, told)| told.is_primary).collect();
    let is_sound = |id: &String| {
        let votes = voting.iter().filter(|view| view.believes_in(id)).count();
        votes * 2 > voters.len() && views.iter().any(|view| view.me == *id && view.is_primary())
    };
    Agreement {
        owners: Bucket::all().map(owner_of).collect(),
        primaries: primaries.iter().map(|(id, told)| ((*id).clone(), told.address.clone())).collect(),
        sound: primaries.into_iter().map(|(id, _)| id.clone()).filter(is_sound).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> Address {
        Address { host: "seed".into(), port: 1 }
    }

    /// Three primaries a, b and c; d is a's replica. The view of `me`.
    fn told_by(me: &str) -> String {
        let lines = [
            ("a", "master", "- 0 0 1 connected 0-5460"),
            ("b", "master", "- 0 0 2 connected 5461-10922"),
            ("c", "master", "- 0 0 3 connected 10923-16383"),
            ("d", "slave", "a 0 0 1 connected"),
        ];
        lines.map(|(id, flags, rest)| line(me, id, flags, rest)).concat()
    }

    fn line(me: &str, id: &str, flags: &str, rest: &str) -> String {
        let myself = if me == id { "myself," } else { "" };
        format!("{id} 10.0.0.1:{}@9 {myself}{flags} {rest}\n", id.as_bytes()[0])
    }

    /// d has replaced a.
    fn told_after_failover(me: &str) -> String {
        let lines = [
            ("a", "master,fail", "- 0 0 1 disconnected"),
            ("b", "master", "- 0 0 2 connected 5461-10922"),
            ("c", "master", "- 0 0 3 connected 10923-16383"),
            ("d", "master", "- 0 0 4 connected 0-5460"),
        ];
        lines.map(|(id, flags, rest)| line(me, id, flags, rest)).concat()
    }

    fn views(texts: &[String]) -> Vec<View> {
        texts.iter().map(|text| View::parse(text, &from()).unwrap()).collect()
    }

    /// How many buckets each node owns.
    fn counts(agreement: &Agreement) -> [usize; 5] {
        let count = |id: &str| agreement.owners.iter().filter(|owner| **owner == Owner::Agreed(id.into())).count();
        let counts = ["a", "b", "c", "d"].map(count);
        let [a, b, c, d] = counts;
        [a, b, c, d, agreement.owners.len() - counts.iter().sum::<usize>()]
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As in CLUSTER KEYSLOT.
        let slots: Vec<_> = Bucket::all().map(slot_of).collect();
        assert_eq!((slots[0x00], slots[0x7f], slots[0xff]), KNOWN_SLOTS);
    }

    #[test]
    fn all_agree_on_a_cluster_that_is_well() {
        let agreement = agree(&views(&["a", "b", "c"].map(told_by)));
        let [a, b, c, d, none] = counts(&agreement);
        assert!(a > 60 && b > 60 && c > 60 && d == 0 && none == 0, "{a} {b} {c}");
        assert_eq!(agreement.primaries.len(), 3);
    }

    #[test]
    fn an_owner_needs_its_own_word_and_a_majority() {
        // c is silent: its buckets have no owner, the others do.
        let [a, b, c, _, none] = counts(&agree(&views(&["a", "b"].map(told_by))));
        assert!(a > 0 && b > 0 && c == 0 && none > 0);
        // One of three proves nothing, not even about itself.
        assert_eq!(counts(&agree(&views(&["a"].map(told_by)))), [0, 0, 0, 0, 256]);
        assert_eq!(counts(&agree(&[])), [0, 0, 0, 0, 256]);
        // A replica has no vote.
        assert_eq!(counts(&agree(&views(&["a", "d"].map(told_by)))), [0, 0, 0, 0, 256]);
    }

    #[test]
    fn an_old_primary_that_goes_on_owns_nothing() {
        let texts = [told_by("a"), told_after_failover("b"), told_after_failover("c"), told_after_failover("d")];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]] {
            let texts = order.map(|at: usize| texts[at].clone());
            let [a, b, c, d, none] = counts(&agree(&views(&texts)));
            assert!(a == 0 && b > 0 && c > 0 && d > 0 && none == 0, "{a} {b} {c} {d} {none}");
        }
        // With one of the others there is no majority either.
        let [a, ..] = counts(&agree(&views(&[told_by("a"), told_after_failover("b")])));
        assert_eq!(a, 0);
    }

    #[test]
    fn a_primary_that_others_doubt_is_not_counted_by_them() {
        let doubt = |me: &str| told_by(me).replace("a 10.0.0.1:97@9 master", "a 10.0.0.1:97@9 master,fail?");
        let [a, _, c, ..] = counts(&agree(&views(&[told_by("a"), doubt("b"), doubt("c")])));
        assert!(a == 0 && c > 0);
        let [a, ..] = counts(&agree(&views(&[told_by("a"), doubt("b"), told_by("c")])));
        assert!(a > 0, "two of three still say so");
    }

    #[test]
    fn a_primary_that_may_be_replaced_before_our_lease_is_over_is_doubted() {
        let owes = |me: &str, millis: u64| {
            let sent = 100_000 - millis;
            let text = told_by(me).replace("master - 0 0 1", &format!("master - {sent} 0 1"));
            let mut view = View::parse(&text, &from()).unwrap();
            view.doubt_the_silent(100_000, Duration::from_secs(15));
            view
        };
        let [a, b, ..] = counts(&agree(&[owes("a", 0), owes("b", 13_500), owes("c", 13_500)]));
        assert!(a > 0 && b > 0);
        let [a, b, ..] = counts(&agree(&[owes("a", 0), owes("b", 13_501), owes("c", 13_501)]));
        assert!(a == 0 && b > 0);
        // A clock that went back proves nothing, and a node that is not pinged is not late.
        let [a, ..] = counts(&agree(&["a", "b", "c"].map(|me| owes(me, 100_000))));
        assert!(a > 0);
    }

    #[test]
    fn addresses_are_read_in_every_form() {
        for (text, host, port) in [
            ("10.0.0.1:7000@17000", "10.0.0.1", 7000),
            ("10.0.0.1:7000@17000,r1.example", "r1.example", 7000),
            ("10.0.0.1:7000@17000,,shard-id=x", "10.0.0.1", 7000),
            (":7000@17000", "seed", 7000),
            ("::1:7000@17000", "::1", 7000),
        ] {
            assert_eq!(address(text, &from()), Some(Address { host: host.into(), port }), "{text}");
        }
        for bad in ["", "x", "x:y@1"] {
            assert_eq!(address(bad, &from()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_the_reply_is_no_view() {
        for bad in ["", "OK", "a b", &told_by("nobody")] {
            assert_eq!(View::parse(bad, &from()), None, "{bad}");
        }
        let moving = told_by("a").replace("0-5460", "0-5459 5460 [5460->-b]");
        assert_eq!(View::parse(&moving, &from()).unwrap().owner(5460), Some("a"));
    }

    const KNOWN_SLOTS: (u16, u16, u16) = (13254, 4194, 11756);
}
