//! A day of 10,000 users who were made up: what they do, which of their sessions are stolen, and which signals that gives. The
//! same numbers each time. `make hijack` prints the table, and docs/hijack.md has it.
use std::collections::BTreeSet;

use wire::Cidr;
use wire::sightings::{Client, Place};

use super::history::History;
use super::judge::judge;
use super::settings::{Networks, Settings};
use super::signal::Signal;

const USERS: u32 = 10_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Country, latitude and longitude. Most users live in the first five.
const CITIES: [(&[u8; 2], f64, f64); 12] = [
    (b"DE", 52.52, 13.40),
    (b"DE", 48.14, 11.58),
    (b"DE", 53.55, 9.99),
    (b"DE", 50.94, 6.96),
    (b"FR", 48.86, 2.35),
    (b"GB", 51.51, -0.13),
    (b"ES", 40.42, -3.70),
    (b"PL", 52.23, 21.01),
    (b"US", 40.71, -74.01),
    (b"US", 37.77, -122.42),
    (b"JP", 35.68, 139.65),
    (b"BR", -23.55, -46.63),
];

/// Blocks that the operator may list.
const MOBILE: &str = "100.64.0.0/10";
const EGRESS: &str = "192.0.2.0/24";

const HABITS: [(Habit, &str); 9] = [
    (Habit::Home, "at home, one network"),
    (Habit::BothFamilies, "at home, IPv4 and IPv6 in turn"),
    (Habit::NewAddress, "at home, the provider assigns another network"),
    (Habit::Commuter, "home, mobile, office"),
    (Habit::MobileOnly, "mobile only"),
    (Habit::CompanyVpn, "a company's VPN now and then"),
    (Habit::PrivateVpn, "a private VPN now and then"),
    (Habit::Traveller, "a flight between two sessions"),
    (Habit::Update, "an update of the browser"),
];

struct Random(u64);

/// What a user does in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Habit {
    /// One place, one network.
    Home,
    /// One place, both families of addresses.
    BothFamilies,
    /// The provider assigns another network once.
    NewAddress,
    /// Home, the way, the office, the way back.
    Commuter,
    /// A phone without anything else.
    MobileOnly,
    /// A company's way out, now and then.
    CompanyVpn,
    /// A private VPN with exits in other countries, now and then. No operator lists it.
    PrivateVpn,
    /// A flight, longer than a session.
    Traveller,
    /// The browser is updated while the session goes on.
    Update,
}

struct User {
    habit: Habit,
    city: usize,
    home: u32,
    agent: u8,
}

/// One session: what is seen of it, in order.
struct Session {
    habit: Habit,
    is_stolen: bool,
    sightings: Vec<(u64, Client)>,
}

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A network as the database has it: near its city, and of one in thirty in another city of the same country.
fn client(block: u32, city: usize, agent: u8) -> Client {
    let mut random = Random(u64::from(block));
    let seat = if random.chance(3) { [0, 0, 1, 2, 4, 5, 6, 7, 9, 8, 10, 11][city] } else { city };
    let (country, latitude, longitude) = CITIES[seat];
    let mut near = |degrees: f64| ((degrees + random.below(60) as f64 / 100.0 - 0.3) * 100.0) as i16;
    let network = Cidr::around(std::net::Ipv4Addr::from(block).into(), 24, 56);
    Client {
        network: Some(network),
        agent: Some([agent; 8]),
        certificate: None,
        country: Some(*country),
        place: Place::new(near(latitude), near(longitude)),
    }
}

fn v6(user: u32, of_v4: Client) -> Client {
    let address = std::net::Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(user) << 72);
    Client { network: Some(Cidr::around(address.into(), 24, 56)), ..of_v4 }
}

fn mobile(random: &mut Random, user: &User) -> Client {
    // The gateway may be in another city of the country.
    let city = if user.city < 4 { random.below(4) as usize } else { user.city };
    client(0x6440_0000 + (random.below(2000) as u32) * 256, city, user.agent)
}

fn user(number: u32, random: &mut Random) -> User {
    let habit = match random.below(100) {
        0..=27 => Habit::Home,
        28..=37 => Habit::BothFamilies,
        38..=45 => Habit::NewAddress,
        46..=69 => Habit::Commuter,
        70..=85 => Habit::MobileOnly,
        86..=92 => Habit::CompanyVpn,
        93..=95 => Habit::PrivateVpn,
        96..=97 => Habit::Traveller,
        _ => Habit::Update,
    };
    let city = if random.chance(80) { random.below(5) } else { random.below(12) } as usize;
    User { habit, city, home: 0x0a00_0000 + number * 256, agent: random.below(40) as u8 }
}

/// What is seen of a user at this time of the day. `begin`: of the session.
fn seen(number: u32, user: &User, at: u64, begin: u64, random: &mut Random) -> Client {
    let home = client(user.home, user.city, user.agent);
    match user.habit {
        Habit::Home => home,
        Habit::BothFamilies if random.chance(50) => v6(number, home),
        Habit::NewAddress if at > begin + 2 * HOUR => client(user.home + 0x0080_0000, user.city, user.agent),
        Habit::Commuter => match at / MINUTE {
            480..=524 | 1050..=1094 => mobile(random, user),
            525..=1049 => client(0xac10_0000 + (number % 200) * 256, user.city, user.agent),
            _ => home,
        },
        Habit::MobileOnly => mobile(random, user),
        // The company's way out is in the first city.
        Habit::CompanyVpn if at / HOUR % 3 == 1 => client(0xc000_0200, 0, user.agent),
        Habit::PrivateVpn if at / HOUR % 4 == 2 => {
            let exit = number % 20;
            client(0xc612_0000 + exit * 256, (exit as usize + 5) % 12, user.agent)
        }
        Habit::Traveller if at > 18 * HOUR => client(0xb000_0000 + number * 256, (user.city + 4) % 12, user.agent),
        // In flight from 9 to 18 h.
        Habit::Traveller => home,
        Habit::Update if at > begin + HOUR => client(user.home, user.city, user.agent + 100),
        Habit::BothFamilies | Habit::NewAddress | Habit::CompanyVpn | Habit::PrivateVpn | Habit::Update => home,
    }
}

/// What is seen of a thief. Some know the user agent, and some are near.
fn thief(number: u32, user: &User, random: &mut Random) -> Client {
    let agent = if random.chance(60) { user.agent } else { 200 };
    match random.below(100) {
        // A machine in another country.
        0..=54 => client(0x2d00_0000 + number * 256, (user.city + 1 + number as usize % 11) % 12, agent),
        // Another line in the same city.
        55..=79 => client(0x2e00_0000 + number * 256, user.city, agent),
        // A mobile network of the same country.
        80..=92 => Client { agent: Some([agent; 8]), ..mobile(random, user) },
        // The same line: nothing but the agent can tell.
        _ => client(user.home, user.city, agent),
    }
}

fn sessions() -> Vec<Session> {
    let mut random = Random(1);
    let mut sessions = Vec::new();
    for number in 0..USERS {
        let user = user(number, &mut random);
        for nth in 0..=random.below(2) {
            let begin = 6 * HOUR + nth * 6 * HOUR + random.below(3 * HOUR);
            let end = (begin + HOUR + random.below(8 * HOUR)).min(24 * HOUR);
            let stolen = random.chance(1).then(|| begin + 20 * MINUTE + random.below(HOUR));
            let (mut at, mut sightings) = (begin, Vec::new());
            while at < end {
                let flies = matches!(user.habit, Habit::Traveller) && (9 * HOUR..18 * HOUR).contains(&at);
                if !flies {
                    sightings.push((at, seen(number, &user, at, begin, &mut random)));
                }
                at += 2 * MINUTE + random.below(12 * MINUTE);
            }
            if let Some(from) = stolen {
                let client = thief(number, &user, &mut random);
                sightings.extend((0..10).map(|nth| (from + nth * 3 * MINUTE, client)));
                sightings.sort_by_key(|(at, _)| *at);
            }
            sessions.push(Session { habit: user.habit, is_stolen: stolen.is_some(), sightings });
        }
    }
    sessions
}

fn signals(session: &Session, settings: &Settings) -> BTreeSet<Signal> {
    let (mut history, mut found) = (History::default(), BTreeSet::new());
    for (at, client) in &session.sightings {
        found.extend(judge(&history, client, *at, settings));
        history.add(*client, *at);
    }
    found
}

/// Rows of the table: true and false alarms of each signal, without and with listed networks.
fn table() -> String {
    let listed = Networks { mobile: vec![Cidr::parse(MOBILE).unwrap()], egress: vec![Cidr::parse(EGRESS).unwrap()] };
    let (sessions, settings) = (sessions(), [Networks::default(), listed]);
    let settings = settings.map(|networks| Settings { networks, ..Settings::default() });
    let found = settings.map(|settings| {
        let of_session = |session: &Session| (session.is_stolen, signals(session, &settings));
        sessions.iter().map(of_session).collect::<Vec<_>>()
    });
    let stolen = sessions.iter().filter(|session| session.is_stolen).count();
    let sightings: usize = sessions.iter().map(|session| session.sightings.len()).sum();
    let mut table = format!(
        "{USERS} users, {} sessions, {stolen} of them stolen, {sightings} sightings.\n\n\
         | signal | true | false | true, networks listed | false, networks listed |\n|---|---|---|---|---|\n",
        sessions.len()
    );
    let mut row = |name: &str, has: &dyn Fn(&BTreeSet<Signal>) -> bool| {
        let counts = found.each_ref().map(|found| {
            let count =
                |stolen| found.iter().filter(|(is_stolen, signals)| *is_stolen == stolen && has(signals)).count();
            format!("{} | {}", count(true), count(false))
        });
        table.push_str(&format!("| {name} | {} |\n", counts.join(" | ")));
    };
    for signal in Signal::ALL.into_iter().filter(|signal| *signal != Signal::Certificate) {
        row(&format!("`{}`", signal.name()), &|signals| signals.contains(&signal));
    }
    row("any of these", &|signals| !signals.is_empty());
    row("`two_networks` and `country` or `agent`", &|signals| {
        signals.contains(&Signal::TwoNetworks)
            && (signals.contains(&Signal::Country) || signals.contains(&Signal::Agent))
    });
    table.push_str(
        "\n| habit | sessions, not stolen | with `travel`, networks listed | with any |\n|---|---|---|---|\n",
    );
    let [_, listed] = &found;
    for (habit, words) in HABITS {
        let of_habit = || sessions.iter().zip(listed).filter(|(it, _)| it.habit == habit && !it.is_stolen);
        let has_travel = of_habit().filter(|(_, (_, signals))| signals.contains(&Signal::Travel)).count();
        let has_any = of_habit().filter(|(_, (_, signals))| !signals.is_empty()).count();
        table.push_str(&format!("| {words} | {} | {has_travel} | {has_any} |\n", of_habit().count()));
    }
    table
}

#[test]
fn the_table_of_the_documentation_is_what_a_day_gives() {
    let table = table();
    println!("{table}");
    assert!(
        include_str!("../../../../docs/hijack.md").contains(&table),
        "docs/hijack.md has another table than:\n{table}"
    );
}
