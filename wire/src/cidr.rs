//! Address blocks: a session may be bound to them, and the filter checks them.
use std::net::IpAddr;

/// An address block (RFC 4632, RFC 4291 section 2.3). A single address is a block of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// Canonical: IPv4 if possible.
    network: IpAddr,
    prefix: u32,
}

impl Cidr {
    /// None if malformed. That includes bits set beyond the prefix: `10.0.0.1/8` is ambiguous, and the narrower meaning
    /// may be the intended one. IPv4 in IPv6 (`::ffff:1.2.3.4`) is IPv4.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(parse_prefix(prefix)?)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let prefix = prefix.unwrap_or(width(written));
        if prefix > width(written) || first_bits(written, prefix) != bits(written) {
            return None;
        }
        let network = written.to_canonical();
        let saved = width(written).checked_sub(width(network))?;
        Some(match prefix.checked_sub(saved) {
            Some(prefix) => Self { network, prefix },
            None => Self { network: written, prefix },
        })
    }

    /// The block around an address with so many bits of its family.
    pub fn around(address: IpAddr, v4: u32, v6: u32) -> Self {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { v4 } else { v6 }.min(width(address));
        let network = match (address, first_bits(address, prefix)) {
            (IpAddr::V4(_), bits) => IpAddr::V4(u32::try_from(bits).unwrap_or_default().into()),
            (IpAddr::V6(_), bits) => IpAddr::V6(bits.into()),
        };
        Self { network, prefix }
    }

    /// Its first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits its addresses share.
    pub fn prefix(&self) -> u32 {
        self.prefix
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && first_bits(address, self.prefix) == bits(self.network)
    }
}

fn parse_prefix(text: &str) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with every bit beyond the first `prefix` cleared.
fn first_bits(address: IpAddr, prefix: u32) -> u128 {
    let rest = width(address).saturating_sub(prefix);
    let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
    bits(address) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_holds_its_first_and_last_address_and_no_neighbour() {
        for (block, first, last, below, above) in [
            ("10.1.2.0/24", "10.1.2.0", "10.1.2.255", "10.1.1.255", "10.1.3.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.3", "10.1.2.2", "10.1.2.4"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.3", "10.1.2.2", "10.1.2.4"),
            ("128.0.0.0/1", "128.0.0.0", "255.255.255.255", "127.255.255.255", "::1"),
            ("2001:db8::/33", "2001:db8::", "2001:db8:7fff::1", "2001:db7::", "2001:db8:8000::"),
            ("::1", "::1", "::1", "::", "::2"),
        ] {
            let cidr = Cidr::parse(block).unwrap();
            for (address, inside) in [(first, true), (last, true), (below, false), (above, false)] {
                assert_eq!(cidr.contains(ip(address)), inside, "{address} in {block}");
            }
        }
    }

    #[test]
    fn everything_is_everything_of_its_family_only() {
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains(ip("203.0.113.9")));
        assert!(!Cidr::parse("0.0.0.0/0").unwrap().contains(ip("2001:db8::1")));
        assert!(Cidr::parse("::/0").unwrap().contains(ip("2001:db8::1")));
        assert!(!Cidr::parse("::/0").unwrap().contains(ip("203.0.113.9")));
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4_on_both_sides() {
        assert!(Cidr::parse("10.0.0.0/8").unwrap().contains(ip("::ffff:10.1.2.3")));
        assert!(Cidr::parse("::ffff:10.0.0.0/104").unwrap().contains(ip("10.1.2.3")));
        assert!(Cidr::parse("::ffff:10.1.2.3").unwrap().contains(ip("10.1.2.3")));
        assert!(!Cidr::parse("::ffff:10.1.2.3").unwrap().contains(ip("10.1.2.4")));
        assert_eq!(Cidr::parse("::ffff:0:0/96"), Cidr::parse("0.0.0.0/0"));
    }

    #[test]
    fn a_block_around_an_address_has_the_bits_of_its_family() {
        for (address, block) in [
            ("10.1.2.3", "10.1.2.0/24"),
            ("::ffff:10.1.2.3", "10.1.2.0/24"),
            ("2001:db8:1:2ff::1", "2001:db8:1:200::/56"),
        ] {
            assert_eq!(Some(Cidr::around(ip(address), 24, 56)), Cidr::parse(block), "{address}");
        }
        assert!(!Cidr::around(ip("10.1.2.3"), 24, 56).contains(ip("10.1.3.3")));
        assert!(!Cidr::around(ip("10.1.2.3"), 0, 0).contains(ip("::1")));
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.1/8",
            "10.0.0",
            "010.0.0.1",
            "10.0.0.1 ",
            "10.0.0.1:80",
            "::/129",
            "2001:db8::1/64",
            "::ffff:10.0.0.1/104",
            "[::1]",
            "fe80::1%eth0",
            "localhost",
            "*",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text:?}");
        }
    }
}
