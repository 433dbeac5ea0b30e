//! Whether a sighting of a session is a sign that it was hijacked. No store, no clock: the history, the sighting and the rules go
//! in, signals come out.
use std::net::IpAddr;

use wire::Cidr;
use wire::sightings::Client;

use super::history::{History, Used};
use super::places::distance_km;
use super::settings::{Networks, Settings};
use super::signal::Signal;

/// What a network says of its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Users keep it for a while.
    Own(Cidr),
    Mobile,
    Egress,
}

impl Standing {
    /// Most clients have an address of each family, and use both.
    fn is_other(self, network: Self) -> bool {
        match (self, network) {
            (Self::Own(one), Self::Own(other)) => one != other && one.network().is_ipv4() == other.network().is_ipv4(),
            _ => false,
        }
    }
}

/// The signals of a session that was used by `client` at this time, in Unix milliseconds. Its first sighting has none.
pub fn judge(history: &History, client: &Client, at: u64, settings: &Settings) -> Vec<Signal> {
    let all = || history.clients.iter();
    let mut signals = Vec::new();
    let standing = |client: &Client| client.network.map(|network| standing(network, &settings.networks));
    let own = |client: &Client| standing(client).filter(|standing| matches!(standing, Standing::Own(_)));
    if let Some(network) = own(client) {
        let is_other = |used: &Used| own(&used.client).is_some_and(|other| other.is_other(network));
        match all().find(|used| own(&used.client) == Some(network)) {
            None if all().any(is_other) => signals.push(Signal::Network),
            None => {}
            Some(seen) => {
                let window = u64::try_from(settings.window.as_millis()).unwrap_or(u64::MAX);
                if all().any(|used| is_other(used) && used.at > seen.at && at.abs_diff(used.at) <= window) {
                    signals.push(Signal::TwoNetworks);
                }
            }
        }
    }
    if is_new(client.agent, all().map(|used| used.client.agent)) {
        signals.push(Signal::Agent);
    }
    if is_new(client.certificate, all().map(|used| used.client.certificate)) {
        signals.push(Signal::Certificate);
    }
    // What many share says nothing of one of them.
    let country = |client: &Client| client.country.filter(|_| standing(client) != Some(Standing::Egress));
    if is_new(country(client), all().map(|used| country(&used.client))) {
        signals.push(Signal::Country);
    }
    let place = |client: &Client| {
        client.place.filter(|_| !matches!(standing(client), Some(Standing::Mobile | Standing::Egress)))
    };
    if let Some(here) = place(client) {
        let is_too_fast = |used: &Used| {
            place(&used.client).is_some_and(|there| {
                let distance = distance_km(here, there);
                // A second at least: clocks of proxies differ.
                let hours = at.abs_diff(used.at).max(1000) as f64 / 3_600_000.0;
                distance > f64::from(settings.min_distance_km) && distance / hours > f64::from(settings.max_speed_kmh)
            })
        };
        if all().any(is_too_fast) {
            signals.push(Signal::Travel);
        }
    }
    signals
}

/// A value that none of the others has, if there is another one.
fn is_new<T: PartialEq>(value: Option<T>, mut others: impl Iterator<Item = Option<T>> + Clone) -> bool {
    value.is_some() && others.clone().any(|other| other.is_some()) && !others.any(|other| other == value)
}

fn standing(network: Cidr, networks: &Networks) -> Standing {
    let is_within = |blocks: &[Cidr]| {
        let address: IpAddr = network.network();
        blocks.iter().any(|block| block.prefix() <= network.prefix() && block.contains(address))
    };
    if is_within(&networks.egress) {
        Standing::Egress
    } else if is_within(&networks.mobile) {
        Standing::Mobile
    } else {
        Standing::Own(network)
    }
}

#[cfg(test)]
mod tests;
