//! From where a session was used lately, and the signals that it had. A few entries, encrypted before they go to the store.
use serde::{Deserialize, Serialize};
use wire::Cidr;
use wire::sightings::{Client, Place};

use super::signal::Signal;

/// The clients that are remembered of one session.
pub const MAX_CLIENTS: usize = 8;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// All different, the one that was seen last first.
    pub clients: Vec<Used>,
    /// When each signal was last reported, in Unix milliseconds.
    pub signals: Vec<(Signal, u64)>,
}

/// A client of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    pub client: Client,
    /// When it was last seen, in Unix milliseconds.
    pub at: u64,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    clients: Vec<RecordedClient>,
    signals: Vec<(Signal, u64)>,
}

#[derive(Serialize, Deserialize)]
struct RecordedClient {
    at: u64,
    network: Option<String>,
    agent: Option<[u8; 8]>,
    certificate: Option<[u8; 8]>,
    country: Option<[u8; 2]>,
    place: Option<(i16, i16)>,
}

impl History {
    /// The client was seen at this time, which may be before the others.
    pub fn add(&mut self, client: Client, at: u64) {
        let earlier = self.clients.iter().position(|used| used.client == client);
        let at = earlier.map(|index| self.clients.remove(index)).map_or(at, |used| used.at.max(at));
        let index = self.clients.iter().position(|used| used.at <= at).unwrap_or(self.clients.len());
        self.clients.insert(index, Used { client, at });
        self.clients.truncate(MAX_CLIENTS);
    }

    /// Whether the signal is to be reported: it was not for `quiet_millis`.
    pub fn report(&mut self, signal: Signal, at: u64, quiet_millis: u64) -> bool {
        if self.signals.iter().any(|(other, last)| *other == signal && at.saturating_sub(*last) < quiet_millis) {
            return false;
        }
        self.signals.retain(|(other, _)| *other != signal);
        self.signals.push((signal, at));
        true
    }

    pub fn encode(&self) -> Vec<u8> {
        let clients = self.clients.iter().map(|Used { client, at }| RecordedClient {
            at: *at,
            network: client.network.map(|network| format!("{}/{}", network.network(), network.prefix())),
            agent: client.agent,
            certificate: client.certificate,
            country: client.country,
            place: client.place.map(|place| (place.latitude, place.longitude)),
        });
        let record = Record { clients: clients.collect(), signals: self.signals.clone() };
        serde_json::to_vec(&record).unwrap_or_default()
    }

    /// `None`: not ours.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let Record { clients, signals } = serde_json::from_slice(record).ok()?;
        let clients = clients.into_iter().map(|recorded| {
            let RecordedClient { at, network, agent, certificate, country, place } = recorded;
            let network = network.map(|network| Cidr::parse(&network).ok_or(())).transpose().ok()?;
            let place = place.and_then(|(latitude, longitude)| Place::new(latitude, longitude));
            Some(Used { client: Client { network, agent, certificate, country, place }, at })
        });
        Some(Self { clients: clients.collect::<Option<_>>()?, signals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Client {
        Client { agent: Some([number; 8]), network: Cidr::parse("203.0.113.0/24"), ..Client::default() }
    }

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let mut history = History::default();
        let place = Place::new(-100, 100);
        history.add(Client { place, country: Some(*b"DE"), certificate: Some([1; 8]), ..client(1) }, 5);
        history.add(Client::default(), 6);
        assert!(history.report(Signal::Travel, 6, 10));
        assert_eq!(History::decode(&history.encode()), Some(history));
        assert_eq!(History::decode(b"{}"), None);
    }

    #[test]
    fn the_clients_seen_last_are_kept_and_each_once() {
        let mut history = History::default();
        for number in 0..20 {
            history.add(client(number), number.into());
            history.add(client(0), 100);
        }
        let kept: Vec<_> = history.clients.iter().filter_map(|used| Some(used.client.agent?[0])).collect();
        assert_eq!(kept, [0, 19, 18, 17, 16, 15, 14, 13]);
        history.add(client(19), 1);
        assert_eq!(history.clients[1].at, 19, "a late sighting makes nothing older");
    }

    #[test]
    fn a_signal_is_not_repeated_for_a_while() {
        let mut history = History::default();
        let reported: Vec<_> = [0, 9, 10, 15, 20].map(|at| history.report(Signal::Network, at, 10)).into();
        assert_eq!(reported, [true, false, true, false, true]);
        assert!(history.report(Signal::Agent, 20, 10));
    }
}
