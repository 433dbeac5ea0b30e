use wire::sightings::Place;

use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn settings() -> Settings {
    let networks = Networks {
        mobile: vec![Cidr::parse("100.64.0.0/10").unwrap()],
        egress: vec![Cidr::parse("192.0.2.0/24").unwrap()],
    };
    Settings { networks, ..Settings::default() }
}

fn at_network(network: &str) -> Client {
    Client { network: Some(Cidr::parse(network).unwrap()), agent: Some([1; 8]), ..Client::default() }
}

fn at_place(network: &str, latitude: i16, longitude: i16, country: &[u8; 2]) -> Client {
    Client { place: Place::new(latitude, longitude), country: Some(*country), ..at_network(network) }
}

const HOME: &str = "203.0.113.0/24";
const OFFICE: &str = "198.51.100.0/24";
const PHONE: &str = "100.64.7.0/24";
const VPN: &str = "192.0.2.0/24";

/// The signals of each sighting of one session, in order.
fn signals(sightings: &[(u64, Client)]) -> Vec<Vec<Signal>> {
    let (mut history, settings) = (History::default(), settings());
    let judged = sightings.iter().map(|(at, client)| {
        let signals = judge(&history, client, *at, &settings);
        history.add(*client, *at);
        signals
    });
    judged.collect()
}

#[test]
fn the_first_sighting_and_the_same_client_are_no_signal() {
    let home = at_place(HOME, 5250, 1340, b"DE");
    assert_eq!(signals(&[(0, home), (1, home), (HOUR, home)]), [[], [], []]);
}

#[test]
fn a_network_is_a_signal_once() {
    let (home, office) = (at_network(HOME), at_network(OFFICE));
    let seen = signals(&[(0, home), (HOUR, office), (9 * HOUR, home), (20 * HOUR, office)]);
    assert_eq!(seen, [vec![], vec![Signal::Network], vec![], vec![]]);
}

#[test]
fn two_networks_in_turn_are_two_users() {
    let (home, office) = (at_network(HOME), at_network(OFFICE));
    let seen = signals(&[(0, home), (MINUTE, office), (2 * MINUTE, home), (3 * MINUTE, office), (14 * MINUTE, home)]);
    let both = vec![Signal::TwoNetworks];
    assert_eq!(seen, [vec![], vec![Signal::Network], both.clone(), both, vec![]]);
}

#[test]
fn a_client_with_two_families_is_one_user() {
    let (v4, v6) = (at_network(HOME), at_network("2001:db8:1::/56"));
    assert!(signals(&[(0, v4), (1, v6), (2, v4), (3, v6)]).concat().is_empty());
    let other = at_network("2001:db8:2::/56");
    assert_eq!(
        signals(&[(0, v4), (1, v6), (2, other), (3, v4), (4, v6)]).concat(),
        [Signal::Network, Signal::TwoNetworks]
    );
}

#[test]
fn mobile_networks_and_shared_ways_out_say_nothing() {
    let (home, phone, vpn) = (at_network(HOME), at_network(PHONE), at_network(VPN));
    let other_phone = at_network("100.64.9.0/24");
    let seen = [(0, home), (1, phone), (2, other_phone), (3, vpn), (4, home), (5, phone)];
    assert!(signals(&seen).concat().is_empty());
    // They do not hide another network.
    let seen = signals(&[(0, home), (1, phone), (2, at_network(OFFICE)), (3, home)]);
    assert_eq!(seen.concat(), [Signal::Network, Signal::TwoNetworks]);
    // A block that only overlaps a listed one is not within it.
    assert_eq!(signals(&[(0, home), (1, at_network("192.0.0.0/16"))]).concat(), [Signal::Network]);
}

#[test]
fn agent_certificate_and_country_are_compared_if_they_are_known() {
    let none = Client::default();
    let agent = |number| Client { agent: Some([number; 8]), ..none };
    let certificate = |number| Client { certificate: Some([number; 8]), ..none };
    assert_eq!(signals(&[(0, agent(1)), (1, none), (2, agent(2)), (3, agent(1))]).concat(), [Signal::Agent]);
    assert_eq!(signals(&[(0, none), (1, certificate(1)), (2, certificate(2))]).concat(), [Signal::Certificate]);
    let country = |code: &[u8; 2]| Client { country: Some(*code), ..none };
    assert_eq!(signals(&[(0, country(b"DE")), (1, country(b"FR")), (2, country(b"DE"))]).concat(), [Signal::Country]);
    let through_vpn = Client { country: Some(*b"US"), ..at_network(VPN) };
    assert!(
        signals(&[(0, Client { country: Some(*b"DE"), ..at_network(HOME) }), (1, through_vpn)]).concat().is_empty()
    );
}

#[test]
fn nobody_is_in_berlin_and_an_hour_later_in_new_york() {
    let (berlin, new_york) = (at_place(HOME, 5252, 1340, b"DE"), at_place(OFFICE, 4071, -7401, b"US"));
    let after = |time| signals(&[(0, berlin), (time, new_york)]).concat().contains(&Signal::Travel);
    // About 6,385 km, at 1,000 km/h at most.
    assert!(after(1) && after(HOUR) && after(6 * HOUR));
    assert!(!after(7 * HOUR));
    // Later than the other sighting, and reported before it.
    assert!(signals(&[(HOUR, berlin), (0, new_york)]).concat().contains(&Signal::Travel));
    // A place that is not exact is no journey.
    let potsdam = at_place(OFFICE, 5240, 1305, b"DE");
    assert!(!signals(&[(0, berlin), (1, potsdam)]).concat().contains(&Signal::Travel));
    // The place of a mobile network is that of its provider.
    let phone = at_place(PHONE, 4071, -7401, b"DE");
    assert!(signals(&[(0, berlin), (1, phone)]).concat().is_empty());
}
