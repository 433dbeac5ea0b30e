use wire::Cidr;

use super::*;

/// A database of IPv4 (MaxMind DB file format 2.0) with records of 24 bits: of each block, its country, latitude and longitude.
fn database(blocks: &[(&str, &str, f64, f64)]) -> Vec<u8> {
    let mut data = Vec::new();
    // The children of each node: none, a node, or an offset in the data.
    let mut nodes: Vec<[Child; 2]> = vec![[Child::None; 2]];
    for (block, country, latitude, longitude) in blocks {
        let offset = data.len();
        let location = [text("latitude"), double(*latitude), text("longitude"), double(*longitude)].concat();
        let country = [map(1), text("iso_code"), text(country)].concat();
        data.extend([map(2), text("country"), country, text("location"), map(2), location].concat());
        let block = Cidr::parse(block).unwrap();
        let IpAddr::V4(address) = block.network() else { panic!("a block of IPv4") };
        let mut node = 0;
        for bit in 0..block.prefix() {
            let side = usize::try_from(address.to_bits() >> (31 - bit) & 1).unwrap();
            if bit + 1 == block.prefix() {
                nodes[node][side] = Child::Data(offset);
            } else if let Child::Node(next) = nodes[node][side] {
                node = next;
            } else {
                nodes.push([Child::None; 2]);
                nodes[node][side] = Child::Node(nodes.len() - 1);
                node = nodes.len() - 1;
            }
        }
    }
    let mut file = Vec::new();
    for child in nodes.iter().flatten() {
        let value = match child {
            Child::None => nodes.len(),
            Child::Node(node) => *node,
            Child::Data(offset) => nodes.len() + 16 + offset,
        };
        file.extend(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    let number = |kind: u8, value: u32| [&[kind << 5 | 4][..], &value.to_be_bytes()].concat();
    let short = |value: u16| [&[5 << 5 | 2][..], &value.to_be_bytes()].concat();
    file.extend(map(9));
    for (name, value) in [
        ("node_count", number(6, u32::try_from(nodes.len()).unwrap())),
        ("record_size", short(24)),
        ("ip_version", short(4)),
        ("database_type", text("Test-City")),
        ("languages", vec![0, 4]),
        ("binary_format_major_version", short(2)),
        ("binary_format_minor_version", short(0)),
        ("build_epoch", vec![8, 2, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("description", map(0)),
    ] {
        file.extend(text(name));
        file.extend(value);
    }
    file
}

#[derive(Clone, Copy)]
enum Child {
    None,
    Node(usize),
    Data(usize),
}

fn map(members: u8) -> Vec<u8> {
    vec![7 << 5 | members]
}

fn text(text: &str) -> Vec<u8> {
    [&[2 << 5 | u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

fn double(value: f64) -> Vec<u8> {
    [&[3 << 5 | 8][..], &value.to_be_bytes()].concat()
}

fn berlin_and_new_york() -> Vec<u8> {
    database(&[
        ("203.0.113.0/24", "DE", 52.52, 13.4),
        ("198.51.100.0/25", "US", 40.71, -74.01),
        ("192.0.2.0/24", "x", 200.0, 0.0),
    ])
}

fn located(places: &Places, network: &str) -> Client {
    let mut client = Client { network: Cidr::parse(network), ..Client::default() };
    places.locate(&mut client);
    client
}

#[test]
fn addresses_are_found_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), berlin_and_new_york()).unwrap();
    let places = Places::open(file.path()).unwrap();
    let berlin = located(&places, "203.0.113.0/24");
    assert_eq!((berlin.country, berlin.place), (Some(*b"DE"), Place::new(5252, 1340)));
    let new_york = located(&places, "198.51.100.0/24");
    assert_eq!((new_york.country, new_york.place), (Some(*b"US"), Place::new(4071, -7401)));
    for unknown in ["203.0.114.0/24", "2001:db8::/56", "192.0.2.0/24"] {
        assert_eq!((located(&places, unknown).country, located(&places, unknown).place), (None, None), "{unknown}");
    }
    // What the proxy says comes first.
    let mut client = Client { country: Some(*b"FR"), ..berlin };
    places.locate(&mut client);
    assert_eq!(client.country, Some(*b"FR"));
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let whole = berlin_and_new_york();
    for bytes in [&b""[..], b"no database", &whole[..whole.len() / 2]] {
        std::fs::write(file.path(), bytes).unwrap();
        assert!(matches!(Places::open(file.path()), Err(DatabaseError::Form { .. })), "{}", bytes.len());
    }
    assert!(matches!(Places::open(Path::new("/no/such/file")), Err(DatabaseError::Read { .. })));
}

#[test]
fn a_damaged_database_says_nothing_wrong_loudly() {
    let whole = berlin_and_new_york();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        // Whatever it finds, it ends.
        if let Ok(reader) = Reader::from_source(bytes) {
            let _ = find(&reader, "203.0.113.9".parse().unwrap());
        }
    }
}

#[test]
fn distances_are_those_of_a_globe() {
    let place = |latitude, longitude| Place::new(latitude, longitude).unwrap();
    let kilometres = |one, other| distance_km(one, other).round();
    assert_eq!(kilometres(place(5252, 1340), place(4071, -7401)), 6385.0);
    assert_eq!(kilometres(place(0, 17900), place(0, -17900)), 222.0);
    assert_eq!(kilometres(place(9000, 0), place(-9000, 0)), 20015.0);
    assert_eq!(kilometres(place(5252, 1340), place(5252, 1340)), 0.0);
}
